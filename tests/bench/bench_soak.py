"""Eight trajectories of 300 steps over contexts of 256k: what a step costs our process, and what stays.

The engine is simulated, without any pace, in a process of its own; HTTP, store, runner host, tool calls,
contexts and broken calls are real. All is CPU time of the runner: a busy machine does not show in it.

Prediction, written before the first run: 6 ms of CPU a step over all, of which nearly all grows with what is
sent (half a megabyte a step on average) and nothing with the number of steps: full contexts late in the run
cost within 1.3 times of full contexts early on. Memory: 5 MB a trajectory, and 1 kB a step of it for the turn
that stays. What came of it: docs/measurements/long-loops.md.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from heavy.agent.limits import AgentLimits, StuckLimits
from heavy.config import Settings
from heavy.core.policy import ContextPolicy
from heavy.profiles.schema import LimitsSection, Profile
from heavy.store.redis import connect

from tests_support.engines import server
from tests_support.servers import StoreServer
from tests_support.soak import Sample, Soak, soaking

STEPS = 300
ARMS = 8
CONTEXT_TOKENS = 262_144
PAGE_CHARS = 16_000
CYCLE = 60
"""Steps after which a context of such pages is full for the first time."""
PROFILE = Profile(
    name="soak",
    title="Simulated",
    engine="simulated",
    model="soak",
    context_tokens=CONTEXT_TOKENS,
    tool_call_dialect="kimi_k2",
    limits=LimitsSection(steps_max=STEPS, output_tokens_per_step_max=4_000),
)
ENGINE = (
    *("--profile", "instant", "--context-length", str(CONTEXT_TOKENS), "--max-total-tokens", "4000000"),
    *("--served-model-name", "soak", "--steps-min", "100000", "--steps-max", "100000"),
    *("--mistake", "wrong_schema=0.03", "--mistake", "markers_in_reasoning=0.03"),
)


def main() -> None:
    """Print CPU a step early and late, and memory a trajectory."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory:
        store = StoreServer("valkey", Path(directory))
        store.start()
        try:
            with server("workers.engines.simulated", *ENGINE) as url:
                asyncio.run(_main(store.url, url))
        finally:
            store.stop()


async def _main(store_url: str, url: str) -> None:
    store = await connect(store_url, Settings(store_timeout_s=20.0, retention_s=600.0))
    limits = AgentLimits(backoff_s=0.01, stuck=StuckLimits(same_error_stop_at=50))
    policies = [policy for policy in ContextPolicy if policy is not ContextPolicy.FAIL] * (ARMS // 4)
    try:
        async with soaking(store, url, PROFILE, page_chars=PAGE_CHARS, limits=limits) as soak:
            specs = await soak.specs(policies, steps_max=STEPS)
            outcomes = await soak.run(specs)
            _report(soak, [outcome.steps for outcome in outcomes])
    finally:
        await store.close()


def _report(soak: Soak, steps: list[int]) -> None:
    samples, total = soak.samples, soak.replica.generations
    first_cycle, last_cycle = (
        _window(samples, 0, ARMS * CYCLE),
        _window(samples, total - 2 * ARMS * CYCLE, total),
    )
    later = _window(samples, ARMS * CYCLE, 3 * ARMS * CYCLE)
    print(f"steps of each trajectory: {steps}; counts by the tokenizer: {soak.replica.counts} of {total}")
    ten = _window(samples, 0, ARMS * 10)
    print(f"CPU a step: {_ms(samples):.2f} ms over all")
    print(f"  {_ms(ten):.2f} ms in the first ten steps, {_ms(first_cycle):.2f} in the first cycle")
    print(f"  {_ms(later):.2f} ms in the two cycles after it, {_ms(last_cycle):.2f} in the last two")
    print(f"  late over early: {_ms(last_cycle) / _ms(later):.2f}")
    grown = max(sample.rss_bytes for sample in samples) - samples[0].rss_bytes
    bytes_gained, blocks_gained = soak.growth(after=ARMS * 2 * CYCLE)
    print(f"memory: {grown / ARMS / 2**20:.1f} MB a trajectory at most")
    print(
        f"  after two cycles {bytes_gained / 2**20:+.1f} MB and {blocks_gained:+d} blocks of Python's in all"
    )


def _window(samples: list[Sample], low: int, high: int) -> list[Sample]:
    """The samples taken between two numbers of generations, and the first one after."""
    inside = [sample for sample in samples if low <= sample.generations <= high]
    after = [sample for sample in samples if sample.generations > high][:1]
    return inside + after


def _ms(samples: list[Sample]) -> float:
    """CPU milliseconds a generation over a window."""
    generations = samples[-1].generations - samples[0].generations
    return 1_000 * (samples[-1].cpu_s - samples[0].cpu_s) / max(1, generations)


if __name__ == "__main__":
    main()
