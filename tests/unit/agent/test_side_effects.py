"""A write whose end nobody saw is unknown: recorded so, said to the model, and never done again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from heavy.core import clock
from heavy.core.errors import StoreUnavailable
from heavy.core.ids import RunId, arm
from heavy.core.messages import Role, ToolCall
from heavy.core.tools import Effects, ToolContext, ToolOutput
from heavy.testing.replicas import Scripted
from heavy.testing.tools import FailingTool, ScriptedTool, SlowTool, tool_spec
from heavy.tools.toolset import Toolset

Asks = Callable[..., Scripted]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def hangs(arguments: Mapping[str, Any]) -> ToolOutput:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


@pytest.mark.parametrize(("effects", "unknown"), [(Effects.WRITE, 1), (Effects.READ, 0), (Effects.PURE, 0)])
async def test_a_write_that_is_cut_while_under_way_is_recorded_as_unknown(
    bench: Any, asks: Asks, until: Until, effects: Effects, unknown: int
) -> None:
    bench.probe.effects, bench.probe.answer = effects, hangs
    bench.plays(asks('{"q": 1}'))
    running = asyncio.create_task(bench.step())
    await until(lambda: bench.probe.under_way == 1)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [r.unknown for r in bench.journal.results] == [True] * unknown
    assert len(bench.probe.calls) == 1


async def test_a_write_that_is_cut_while_the_store_is_down_is_still_a_cut(
    bench: Any, asks: Asks, until: Until
) -> None:
    bench.probe.effects, bench.probe.answer = Effects.WRITE, hangs
    bench.plays(asks('{"q": 1}'))
    running = asyncio.create_task(bench.step())
    await until(lambda: bench.probe.under_way == 1)

    bench.journal.failing = lambda operation: StoreUnavailable("down")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_model_that_must_answer_at_once_is_told_which_write_is_unknown(
    bench: Any, asks: Asks
) -> None:
    bench.probe.effects, bench.probe.answer = Effects.WRITE, hangs
    bench.sets(deadline_ms=clock.now_ms() + 1_000)
    replica = bench.plays(asks('{"q": 1}'), Scripted("Answer: I do not know."))

    outcome = await bench.trajectory().run()

    assert outcome.reason == "deadline"
    said = [m.content for m in replica.requests[-1].messages if m.role is Role.TOOL]
    assert len(said) == 1
    assert "UNKNOWN" in said[0]


@pytest.mark.parametrize("kind", ["time-out", "exception"])
async def test_a_write_that_did_not_come_to_its_own_end_is_unknown_to_the_model(kind: str) -> None:
    spec = tool_spec("send", effects=Effects.WRITE, timeout_s=0.05)
    tool = SlowTool(spec) if kind == "time-out" else FailingTool(spec, RuntimeError("connection lost"))
    context = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "functions.send:0", 5.0)

    output = await Toolset([tool]).call(ToolCall("functions.send:0", "send", "{}"), context)

    assert output.unknown
    assert output.is_error
    assert "UNKNOWN" in output.content
    assert len(tool.calls) == 1


async def test_a_write_that_fails_by_its_own_word_is_no_unknown_one() -> None:
    failed = ToolOutput("no such address", is_error=True)
    tool = ScriptedTool(tool_spec("send", effects=Effects.WRITE), [failed])
    context = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "functions.send:0", 5.0)
    assert not (await Toolset([tool]).call(ToolCall("functions.send:0", "send", "{}"), context)).unknown


def test_every_call_has_an_idempotency_key_of_its_own_and_keeps_it() -> None:
    def key(**changes: Any) -> str:
        values: dict[str, Any] = {
            "run": RunId("run-1"),
            "trajectory": arm(0),
            "step": 0,
            "tenant": "t",
            "call_id": "c",
            "timeout_s": 1.0,
        }
        return ToolContext(**{**values, **changes}).idempotency_key

    assert key() == key(timeout_s=2.0)
    others = [key(run=RunId("run-2")), key(trajectory=arm(1)), key(step=1), key(call_id="d")]
    assert len({key(), *others}) == 5
