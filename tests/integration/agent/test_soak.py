"""Eight trajectories of 300 steps over contexts of 256k that overflow again and again, on a real host.

Time is compressed and the engine is simulated; HTTP, store, runner host, tool calls and contexts are real.
"""

from __future__ import annotations

import re

import pytest

from heavy.agent.limits import AgentLimits, StuckLimits
from heavy.core import codec
from heavy.core.policy import ContextPolicy
from heavy.core.records import GenerationRecord
from heavy.core.runs import OutcomeKind
from heavy.profiles.schema import LimitsSection, Profile
from heavy.store.redis import RedisStore

from tests_support.engines import server
from tests_support.soak import checked, notes, soaking

STEPS = 300
CONTEXT_TOKENS = 262_144
PAGE_CHARS = 16_000
MISTAKES = {
    "malformed_tool_call": 0.02,
    "wrong_schema": 0.02,
    "unknown_tool": 0.02,
    "markers_in_reasoning": 0.03,
    "disconnect": 0.004,
    "truncated_sse": 0.004,
    "error_500": 0.004,
}
POLICIES = [policy for policy in ContextPolicy if policy is not ContextPolicy.FAIL] * 2
PROFILE = Profile(
    name="soak",
    title="Simulated",
    engine="simulated",
    model="soak",
    context_tokens=CONTEXT_TOKENS,
    tool_call_dialect="kimi_k2",
    limits=LimitsSection(steps_max=STEPS, output_tokens_per_step_max=4_000),
)
LIMITS = AgentLimits(backoff_s=0.01, stuck=StuckLimits(same_error_stop_at=20))
ENGINE = (
    *("--profile", "instant", "--context-length", str(CONTEXT_TOKENS), "--max-total-tokens", "4000000"),
    *("--served-model-name", "soak", "--steps-min", "100000", "--steps-max", "100000"),
    *(flag for name, rate in MISTAKES.items() for flag in ("--mistake", f"{name}={rate}")),
)


@pytest.mark.timeout(900)
async def test_eight_times_300_steps_end_with_memory_flat_and_no_step_lost(store: RedisStore) -> None:
    with server("workers.engines.simulated", *ENGINE) as url:
        async with soaking(store, url, PROFILE, page_chars=PAGE_CHARS, limits=LIMITS) as soak:
            specs = await soak.specs(POLICIES)
            outcomes = await soak.run(specs)
            by_trajectory = await soak.records(specs[0].run)

    for spec, outcome in zip(specs, outcomes, strict=True):
        records = by_trajectory[spec.trajectory]
        relieved = [note for note in notes(records) if note.startswith("context:")]
        summaries = sum("summarised" in note for note in relieved)
        assert (outcome.kind, outcome.reason) == (OutcomeKind.COMPLETED, "steps_max"), outcome
        assert len(relieved) >= 3
        assert bool(summaries) == (spec.context_policy is ContextPolicy.SUMMARISE)
        # 300 steps, the forced answer, and the summaries, each of them recorded once.
        assert checked(records)["generations"] == STEPS + 1 + summaries == outcome.steps
        largest = max(len(codec.dump(record.body)) for record in records)
        assert largest < 2 * PAGE_CHARS
        repairs = {name for r in records if isinstance(r.body, GenerationRecord) for name in r.body.repairs}
        assert {"salvaged_from_reasoning", "schema_mismatch", "unknown_tool", "invalid_json"} <= repairs
        assert re.search(r"tool calls repaired: .*schema_mismatch \d", "\n".join(notes(records)))
    assert 0.8 * CONTEXT_TOKENS < soak.replica.largest_prompt <= CONTEXT_TOKENS
    # Flat: what stays of a step is its own turn with a marker in place of the page, a digest, an error line.
    bytes_gained, blocks_gained = soak.growth(after=800)
    assert bytes_gained < 64 * 2**20, [(s.generations, s.rss_bytes >> 20) for s in soak.samples]
    assert blocks_gained < 10 * (soak.replica.generations - 800), soak.samples[-1]
    # Counting is bounded: increments near the limit, the whole only after something gave way.
    assert soak.replica.counts < 0.15 * soak.replica.generations
