"""A real model on a CPU whose context overflows again and again, counted by its own tokenizer.

The model is untrained: it calls because it is asked to under a grammar, and its summaries mean nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from heavy.agent.limits import AgentLimits, StuckLimits
from heavy.core.ids import arm
from heavy.core.messages import Message, ToolCall
from heavy.core.policy import ContextPolicy
from heavy.core.records import GenerationRecord
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import LimitsSection, Profile
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, Replica
from heavy.store.redis import RedisStore

from tests_support.engines import ROOT, server
from tests_support.soak import checked, notes, soaking

CONTEXT_TOKENS = 4_096
STEPS = 16
PROFILE = Profile(
    name="tiny",
    title="Untrained, INT4",
    engine="openvino",
    model="tiny",
    context_tokens=CONTEXT_TOKENS,
    tool_call_dialect="kimi_k2",
    context_keep_last=3,
    limits=LimitsSection(output_tokens_per_step_max=400, answer_tokens_reserved=96),
)
LIMITS = AgentLimits(
    stuck=StuckLimits((), same_call_stop_at=99, same_error_stop_at=99), completion_tokens_min=64
)
SPOILED = '{"pages": 1}'
HIDING = {"steps_max", "context_overflow"}
"""Turns stay where only outputs are hidden: in a context this small they may fill it, and that is said."""
ENDS = {
    ContextPolicy.HIDE_TOOL_OUTPUTS: HIDING,
    ContextPolicy.KEEP_LAST: HIDING,
    ContextPolicy.DISCARD_ALL: {"steps_max"},
    ContextPolicy.SUMMARISE: {"steps_max"},
}
POLICIES = [policy for policy in ContextPolicy if policy is not ContextPolicy.FAIL]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The engine with an untrained model of K2's format."""
    model = ROOT / "tests" / "fixtures" / "models" / "tiny-k2-int4"
    flags = (
        "--model-path",
        str(model),
        "--served-model-name",
        "tiny",
        "--threads",
        "1",
        "--context-length",
        str(CONTEXT_TOKENS),
    )
    with server("workers.engines.openvino", *flags) as base:
        yield base


@pytest.mark.timeout(600)
async def test_a_real_context_overflows_several_times_under_every_policy(store: RedisStore, url: str) -> None:
    async with soaking(store, url, PROFILE, page_chars=864, shelf=60, limits=LIMITS, compel=True) as soak:
        specs = await soak.specs(
            POLICIES, steps_max=STEPS, temperature=2.0, context_keep_last=PROFILE.context_keep_last
        )
        outcomes = await soak.run(specs)
        by_trajectory = await soak.records(specs[0].run)

    for spec, outcome in zip(specs, outcomes, strict=True):
        records = by_trajectory[spec.trajectory]
        relieved = [note for note in notes(records) if note.startswith("context:")]
        assert len(relieved) >= 3, relieved
        # Its last words may be none: it is untrained.
        assert outcome.reason in ENDS[spec.context_policy] | {"no_answer"}
        assert checked(records)["generations"] == outcome.steps
        spent = [r.body.spend for r in records if isinstance(r.body, GenerationRecord)]
        assert max(s.tokens_prompt + s.tokens_output for s in spent) <= CONTEXT_TOKENS


@dataclass
class Spoiling:
    """A real replica whose calls come out wrong unless they are asked for under a grammar."""

    inner: Replica
    choices: list[str] = field(default_factory=list)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The inner one's events, with a call that no schema takes where choice is free."""
        self.choices.append(request.tool_choice)
        async with aclosing(self.inner.generate(request)) as events:
            async for event in events:
                free = isinstance(event, Finished) and request.tool_choice == "auto"
                yield replace(event, tool_calls=(ToolCall("", "page", SPOILED),)) if free else event  # type: ignore[arg-type, type-var]

    continues = False

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """The inner one's count."""
        return await self.inner.count_tokens(profile, messages, tools)


@pytest.mark.timeout(300)
async def test_the_last_rung_is_a_real_grammar_whose_call_can_be_carried_out(
    store: RedisStore, url: str
) -> None:
    async with soaking(store, url, PROFILE, page_chars=216, shelf=60, limits=LIMITS) as soak:
        spoiling = Spoiling(soak.replica.inner)
        soak.replica.inner = spoiling
        specs = await soak.specs([ContextPolicy.DISCARD_ALL], steps_max=5, temperature=2.0)
        await soak.run(specs)
        by_trajectory = await soak.records(specs[0].run)

    generations = [r.body for r in by_trajectory[arm(0)] if isinstance(r.body, GenerationRecord)]
    assert spoiling.choices == ["auto", "auto", "required", "auto", "required", "none"]
    assert soak.library.calls == 2
    assert [tuple(g.repairs) for g in generations[2:5:2]] == [("constrained",), ("constrained",)]
