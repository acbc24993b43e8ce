"""Every limit of a trajectory, hit on a real host over HTTP: it ends within it, and says which one it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from heavy.agent.limits import AgentLimits, LadderLimits, StuckLimits
from heavy.core.policy import Budget, ContextPolicy
from heavy.core.records import GenerationRecord, ToolResultRecord
from heavy.core.runs import OutcomeKind
from heavy.profiles.schema import LimitsSection, Profile
from heavy.store.redis import RedisStore
from workers.engines.api.server import serving
from workers.engines.simulated.engine import SimulatedEngine
from workers.engines.simulated.mistakes import Mistake
from workers.engines.simulated.profile import PROFILES
from workers.engines.simulated.script import parse_script

from tests_support.soak import checked, notes, soaking

PROFILE = Profile(
    name="limits",
    title="Simulated",
    engine="simulated",
    model="limits",
    context_tokens=16_384,
    tool_call_dialect="kimi_k2",
    limits=LimitsSection(output_tokens_per_step_max=2_000, answer_tokens_reserved=200),
)
ANSWER = {"answer": "[simulated] Answer: 42"}
NEVER = StuckLimits(
    (), same_call_stop_at=999, same_action_stop_at=999, same_error_stop_at=999, alternating_stop_at=999
)


def calls(*pages: int, repeat: int = 1) -> dict[str, Any]:
    """A step that asks for these pages."""
    return {"calls": [{"tool": "page", "arguments": {"page": page}} for page in pages], "repeat": repeat}


def reads(count: int, start: int = 1) -> list[dict[str, Any]]:
    """So many steps of one page each, never the same, none of them missing."""
    return [calls(10 * (start + number) + 1) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to hit a limit, and how the trajectory says so."""

    name: str
    steps: Sequence[dict[str, Any]]
    reason: str
    kind: OutcomeKind = OutcomeKind.COMPLETED
    noted: str = ""
    results: int | None = None
    page_chars: int = 400
    limits: AgentLimits = field(default_factory=lambda: AgentLimits(backoff_s=0.01, stuck=NEVER))
    spec: dict[str, Any] = field(default_factory=dict)
    mistakes: dict[Mistake, float] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)


def limits(**changes: Any) -> AgentLimits:
    return replace(AgentLimits(backoff_s=0.01, stuck=NEVER), **changes)


STUCK = limits(stuck=StuckLimits())
FULL = {"page_chars": 6_000}
VARIANTS = (
    Variant("steps", reads(20), "steps_max", spec={"steps_max": 4}, results=4),
    Variant(
        "tool calls of the trajectory", reads(20), "tool_calls_max", spec={"tool_calls_max": 3}, results=3
    ),
    Variant(
        "tool calls of the run",
        reads(20),
        "tool_calls_max",
        spec={"budget": Budget(tool_calls_max=3)},
        results=4,
    ),
    Variant("tokens of the run", reads(99), "budget", spec={"budget": Budget(tokens_max=40_000)}),
    Variant(
        "time",
        reads(99),
        "deadline",
        spec={"deadline_s": 3.0, "steps_max": 99},
        engine={"ttft_s": 0.3},
    ),
    Variant(
        "the same call",
        [calls(11, repeat=20), ANSWER],
        "stuck",
        limits=limits(stuck=replace(NEVER, same_call_stop_at=12)),
        results=12,
    ),
    Variant(
        "the same action",
        [calls(11, repeat=20), ANSWER],
        "stuck",
        limits=STUCK,
        noted="the same action",
        results=4,
    ),
    Variant(
        "the same error",
        [calls(10), calls(10), calls(10), ANSWER],
        "stuck",
        limits=STUCK,
        noted="the same error",
        results=3,
    ),
    Variant(
        "two actions in turn",
        [calls(11), calls(21)] * 6 + [ANSWER],
        "stuck",
        limits=limits(stuck=StuckLimits(())),  # a reminder is a user turn: the script would begin anew
        noted="alternated",
        results=6,
    ),
    Variant("calls of one step", [calls(*range(11, 411, 10)), ANSWER], "", results=40, noted=""),
    Variant(
        "length of a generation",
        [{"answer": "[simulated] " + "word " * 300}],
        "length",
        spec={"reasoning_tokens_per_step_max": 64},
    ),
    Variant(
        "broken calls",
        reads(20),
        "broken_calls",
        mistakes={Mistake.MALFORMED_TOOL_CALL: 1.0},
        limits=limits(ladder=LadderLimits(constrained_per_trajectory_max=0)),
        results=3,
    ),
    Variant(
        "grammars of a trajectory",
        reads(20),
        "broken_calls",
        mistakes={Mistake.UNKNOWN_TOOL: 1.0},
        limits=limits(ladder=LadderLimits(constrained_per_trajectory_max=2)),
    ),
    Variant(
        "a context without a way out",
        reads(99),
        "context_overflow",
        OutcomeKind.FAILED,
        spec={"context_policy": ContextPolicy.FAIL},
        **FULL,
    ),
    Variant(
        "outputs hidden",
        [*reads(20), ANSWER],
        "",
        noted="tool outputs hidden",
        spec={"context_policy": ContextPolicy.HIDE_TOOL_OUTPUTS},
        **FULL,
    ),
    Variant(
        "outputs but the last",
        [*reads(20), ANSWER],
        "",
        noted="tool outputs hidden",
        spec={"context_policy": ContextPolicy.KEEP_LAST, "context_keep_last": 2},
        **FULL,
    ),
    Variant(
        "attempts at one generation",
        reads(9),
        "engine_unavailable",
        OutcomeKind.FAILED,
        mistakes={Mistake.DISCONNECT: 1.0},
        noted="engine failure, attempt 2",
    ),
)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
async def test_a_limit_ends_the_trajectory_or_makes_room_and_says_which(
    store: RedisStore, variant: Variant
) -> None:
    profile = PROFILES["instant"].with_overrides({"context_tokens": PROFILE.context_tokens, **variant.engine})
    script = parse_script(json.dumps({"steps": [*variant.steps, ANSWER]}))
    engine = SimulatedEngine(profile, name="limits", script=script, mistakes=variant.mistakes)
    async with (
        serving(engine) as url,
        soaking(
            store, url, PROFILE, page_chars=variant.page_chars, limits=variant.limits, absence_s=0.2
        ) as soak,
    ):
        changes = {"context_policy": ContextPolicy.HIDE_TOOL_OUTPUTS, **variant.spec}
        specs = await soak.specs([changes.pop("context_policy")], **changes)
        (outcome,) = await soak.run(specs)
        records = (await soak.records(specs[0].run))[specs[0].trajectory]

    said = "\n".join(notes(records))
    assert (outcome.kind, outcome.reason) == (variant.kind, variant.reason), (outcome, said)
    assert variant.noted in said
    if outcome.kind is OutcomeKind.COMPLETED:
        assert outcome.answer.startswith("[simulated]")
    if variant.results is not None:
        assert sum(isinstance(r.body, ToolResultRecord) for r in records) == variant.results
    if outcome.reason not in ("deadline", "budget"):
        checked(records)
    prompts = [r.body.spend.tokens_prompt for r in records if isinstance(r.body, GenerationRecord)]
    assert all(tokens <= PROFILE.context_tokens for tokens in prompts)


async def test_of_many_calls_in_one_step_some_are_refused_and_copies_run_once(store: RedisStore) -> None:
    pages = [11, 11, *range(11, 411, 10)]
    script = parse_script(json.dumps({"steps": [calls(*pages), ANSWER]}))
    engine = SimulatedEngine(PROFILES["instant"], name="limits", script=script)
    async with (
        serving(engine) as url,
        soaking(store, url, PROFILE, page_chars=400, limits=AgentLimits()) as soak,
    ):
        specs = await soak.specs([ContextPolicy.HIDE_TOOL_OUTPUTS])
        await soak.run(specs)
        records = (await soak.records(specs[0].run))[specs[0].trajectory]

    results = [r.body for r in records if isinstance(r.body, ToolResultRecord)]
    assert len(results) == len(pages)
    assert soak.library.calls == AgentLimits().calls_per_step_max == 32
    assert sum("at most 32 run in one step" in result.content for result in results) == 8
