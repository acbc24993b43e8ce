"""Hundreds of steps: nothing grows that should not."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Mapping
from typing import Any

from heavy.agent.relief import HIDDEN
from heavy.core.messages import Role, ToolCall
from heavy.core.runs import OutcomeKind
from heavy.core.tools import ToolOutput
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

STEPS = 300
OUTPUT = "x" * 4_000


async def test_300_steps_with_tools_stay_in_context_with_memory_flat_and_ids_in_order(bench: Any) -> None:
    """The context overflows many times on the way; every request obeys K2's numbering and fits."""
    held: list[int] = []
    seen = {"hidden": 0, "requests": 0}

    def choose(request: GenerationRequest) -> Scripted:
        seen["requests"] += 1
        calls = [call.id for message in request.messages for call in message.tool_calls]
        assert calls == [f"functions.probe:{i}" for i in range(len(calls))]
        answered = [m.tool_call_id for m in request.messages if m.role is Role.TOOL]
        assert answered == calls
        seen["hidden"] = sum(m.content == HIDDEN for m in request.messages)
        if seen["requests"] % 50 == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        if len(calls) >= STEPS:
            return Scripted(content="done")
        return Scripted(
            reasoning="Next.", tool_calls=(ToolCall("whatever", "probe", f'{{"n": {len(calls)}}}'),)
        )

    async def answer(arguments: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(f"{arguments['n']}: {OUTPUT}")

    bench.profile = bench.profile.model_copy(update={"context_tokens": 40_000})
    bench.sets(steps_max=STEPS + 1)
    bench.probe.answer = answer
    replica = bench.chooses(choose)
    replica.requests = Forgetful()
    bench.journal.records = Forgetful()
    tracemalloc.start()
    try:
        outcome = await bench.trajectory().run()
    finally:
        tracemalloc.stop()

    assert (outcome.kind, outcome.answer, outcome.reason) == (OutcomeKind.COMPLETED, "done", "")
    assert (outcome.steps, outcome.spend.tool_calls) == (STEPS + 1, STEPS)
    assert seen["hidden"] > STEPS / 2
    # What is kept a step: its turn, its result's marker, a digest. Outputs come and go with the context.
    assert held[-1] - held[0] < STEPS * 2_000 + 40_000 * 4


class Forgetful(list[Any]):
    """A list that keeps nothing, so that only the trajectory's own memory is seen."""

    def append(self, item: object) -> None:
        """Let it go."""
