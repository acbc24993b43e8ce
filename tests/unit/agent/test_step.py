"""One generation and the calls it asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from heavy.agent.progress import Progress
from heavy.core.errors import EngineUnavailable, LeaseLost, MalformedStream, StoreUnavailable
from heavy.core.messages import FinishReason, ToolCall
from heavy.core.records import GenerationRecord, ToolIntentRecord, ToolResultRecord
from heavy.core.tools import CacheState, Effects, ToolOutput
from heavy.testing.replicas import Scripted

Asks = Callable[..., Scripted]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def test_text_is_streamed_as_deltas_and_recorded_once_it_ends(bench: Any) -> None:
    bench.plays(Scripted(reasoning="thinking", content="42", pieces=2))

    result = await bench.step()

    assert "".join(d.reasoning for _, d in bench.journal.deltas) == "thinking"
    assert "".join(d.content for _, d in bench.journal.deltas) == "42"
    (record,) = bench.journal.generations
    assert (record.message.content, record.finish_reason) == ("42", FinishReason.STOP)
    assert record.spend.cost_usd > 0
    assert (record.request_id, record.replica) == ("request", "scripted")
    assert result.message is record.message
    assert not bench.journal.partials


async def test_the_generation_is_recorded_before_its_tools_and_each_call_between_intent_and_result(
    bench: Any, asks: Asks
) -> None:
    bench.plays(asks('{"q": 1}'))

    await bench.step()

    kinds = [type(body) for _, body in bench.journal.records]
    assert kinds == [GenerationRecord, ToolIntentRecord, ToolResultRecord]


async def test_results_answer_the_calls_in_their_order_whatever_finishes_first(
    bench: Any, asks: Asks
) -> None:
    second_done = asyncio.Event()

    async def answer(arguments: Mapping[str, Any]) -> ToolOutput:
        if arguments["q"] == 1:
            await second_done.wait()
        else:
            second_done.set()
        return ToolOutput(f"answer {arguments['q']}")

    bench.probe.answer = answer
    bench.plays(asks('{"q": 1}', '{"q": 2}'))

    result = await bench.step()

    assert [r.content for r in result.results] == ["answer 1", "answer 2"]
    assert [r.content for r in bench.journal.results] == ["answer 2", "answer 1"]


async def test_identical_calls_of_one_step_run_once_and_each_id_gets_the_result(
    bench: Any, asks: Asks
) -> None:
    bench.plays(asks('{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 3}'))

    result = await bench.step()

    assert len(bench.probe.calls) == 2
    assert [r.call_id for r in result.results] == [f"functions.probe:{i}" for i in range(3)]
    assert result.results[0].content == result.results[1].content
    assert result.results[1].cache is CacheState.COALESCED
    assert (bench.journal.tool_calls, result.calls_made) == (2, 2)
    assert len(bench.journal.intents) == 2


async def test_calls_run_at_once_but_not_more_than_allowed(bench: Any, asks: Asks) -> None:
    bench.limit(calls_at_once_max=3)
    bench.plays(asks(*(f'{{"q": {i}}}' for i in range(10))))

    await bench.step()

    assert bench.probe.peak == 3


async def test_an_intent_says_what_the_tool_does_to_the_world(bench: Any, asks: Asks) -> None:
    bench.probe.effects = Effects.WRITE
    bench.plays(asks("{}"))

    await bench.step()

    assert bench.journal.intents[0].effects is Effects.WRITE


async def test_unknown_tools_and_broken_arguments_come_back_as_results(bench: Any) -> None:
    calls = (ToolCall("", "nothing", "{}"), ToolCall("", "probe", '{"a": "'))
    bench.plays(Scripted(tool_calls=calls))

    result = await bench.step()

    assert all(r.is_error for r in result.results)
    assert not bench.probe.calls


async def test_calls_past_the_trajectorys_cap_are_refused_as_results(bench: Any, asks: Asks) -> None:
    bench.plays(asks('{"q": 1}', '{"q": 2}'))

    result = await bench.step(tool_calls_left=1)

    assert [r.is_error for r in result.results] == [False, True]
    assert (result.tools_refused, result.calls_made, len(bench.probe.calls)) == (True, 1, 1)


async def test_a_run_without_calls_left_refuses_all_of_them(bench: Any, asks: Asks) -> None:
    bench.journal.tool_calls_max = 1
    bench.plays(asks('{"q": 1}', '{"q": 2}'))

    result = await bench.step()

    assert [r.is_error for r in result.results] == [True, True]
    assert (result.tools_refused, bench.probe.calls, bench.journal.intents) == (True, [], [])


async def test_more_calls_than_one_step_may_make_are_refused_without_ending_the_tools(
    bench: Any, asks: Asks
) -> None:
    bench.limit(calls_per_step_max=2)
    bench.plays(asks(*(f'{{"q": {i}}}' for i in range(4))))

    result = await bench.step()

    assert [r.is_error for r in result.results] == [False, False, True, True]
    assert not result.tools_refused


async def test_a_long_generation_is_checkpointed_every_so_many_tokens(bench: Any) -> None:
    bench.limit(checkpoint_tokens=10)
    bench.plays(Scripted(content="x" * 35, pieces=35))

    await bench.step()

    assert [(p.reason, p.tokens_output) for p in bench.journal.partials] == [
        ("checkpoint", 10),
        ("checkpoint", 20),
        ("checkpoint", 30),
    ]
    assert bench.journal.partials[1].message.content == "x" * 20


async def test_fresh_text_is_checkpointed_when_the_time_has_come(bench: Any) -> None:
    bench.limit(checkpoint_s=0.0)
    bench.plays(Scripted(content="abc", pieces=3))

    await bench.step()

    assert [p.message.content for p in bench.journal.partials] == ["a", "ab", "abc"]


async def test_what_an_engine_streamed_before_it_failed_is_recorded(bench: Any) -> None:
    bench.plays(Scripted(content="half", error=EngineUnavailable("gone", "r")))

    with pytest.raises(EngineUnavailable):
        await bench.step()

    assert [(p.reason, p.message.content) for p in bench.journal.partials] == [("engine_failed", "half")]


async def test_an_engine_that_failed_before_its_first_token_leaves_no_record(bench: Any) -> None:
    bench.plays(Scripted(error=EngineUnavailable("gone", "r")))

    with pytest.raises(EngineUnavailable):
        await bench.step()

    assert bench.journal.records == []


async def test_a_generation_that_the_engine_aborted_is_an_engine_failure(bench: Any) -> None:
    bench.plays(Scripted(content="half", finish_reason=FinishReason.ABORT))

    with pytest.raises(EngineUnavailable, match="aborted"):
        await bench.step()

    assert bench.journal.partials[0].reason == "engine_failed"


async def test_a_stream_that_just_stops_is_malformed(bench: Any) -> None:
    class Silent:
        async def generate(self, request: object) -> Any:
            for _ in ():
                yield

    bench.replica = Silent()

    with pytest.raises(MalformedStream):
        await bench.step()


async def test_a_cut_flushes_what_was_streamed_and_aborts_the_generation(bench: Any, until: Until) -> None:
    replica = bench.plays(Scripted(content="half", hold=asyncio.Event()))
    progress = Progress()
    running = asyncio.create_task(bench.step(progress))
    await until(lambda: progress.content == "half")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [(p.reason, p.message.content) for p in bench.journal.partials] == [("cut", "half")]
    assert replica.aborted == ["request"]


async def test_a_cut_while_the_store_is_down_is_still_a_cut(bench: Any, until: Until) -> None:
    bench.plays(Scripted(content="half", hold=asyncio.Event()))
    bench.journal.failing = lambda operation: StoreUnavailable("down")
    progress = Progress()
    running = asyncio.create_task(bench.step(progress))
    await until(lambda: progress.content == "half")

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("error", [StoreUnavailable("down"), LeaseLost("moved on")])
async def test_a_journal_that_fails_among_concurrent_tools_raises_its_own_error(
    bench: Any, asks: Asks, error: Exception
) -> None:
    bench.plays(asks('{"q": 1}', '{"q": 2}'))
    bench.journal.failing = lambda operation: error if bench.journal.intents else None

    with pytest.raises(type(error)):
        await bench.step()


async def test_a_checkpoint_that_fails_ends_the_generation_in_the_engine(bench: Any) -> None:
    bench.limit(checkpoint_tokens=1)
    replica = bench.plays(Scripted(content="abc", pieces=3))
    bench.journal.failing = lambda operation: StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await bench.step()

    assert replica.aborted == ["request"]


async def test_a_tool_never_gets_more_time_than_is_left(bench: Any, asks: Asks) -> None:
    bench.plays(asks("{}"))

    await bench.step()

    assert 0 < bench.probe.contexts[0].timeout_s <= 30.0


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancel_between_the_last_token_and_the_record_loses_neither(bench: Any, turns: int) -> None:
    bench.plays(Scripted(content="42", pieces=1))
    running = asyncio.create_task(bench.step())
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})

    kept = [*bench.journal.generations, *bench.journal.partials]
    assert [record.message.content for record in kept] == ["42"] * bool(bench.journal.deltas)
