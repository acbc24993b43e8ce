"""The shipped fakes keep the protocol's promises."""

from __future__ import annotations

import asyncio

import pytest

from heavy.core.errors import EngineUnavailable
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Sampling
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, Replica, TextDelta
from heavy.testing.replicas import Chaos, ChaosReplica, Scripted, ScriptedReplica

CALL = ToolCall("functions.python:0", "python", "{}")


def request(request_id: str = "r-00") -> GenerationRequest:
    return GenerationRequest(request_id, "p", (Message(Role.USER, "q"),), (), Sampling(), 64, 0)


async def events_of(replica: Replica, request_id: str = "r-00") -> list[GenerationEvent]:
    return [event async for event in replica.generate(request(request_id))]


async def test_a_script_is_played_in_order_and_ends_in_finished() -> None:
    replica = ScriptedReplica([Scripted("", "abcd", (CALL,)), Scripted("Answer: 4")])
    first, second = await events_of(replica), await events_of(replica)
    assert first[:-1] == [TextDelta(reasoning="ab"), TextDelta(reasoning="cd")]
    assert isinstance(first[-1], Finished)
    assert (first[-1].tool_calls, first[-1].finish_reason) == ((CALL,), FinishReason.TOOL_CALLS)
    assert isinstance(second[-1], Finished)
    assert (second[-1].content, second[-1].finish_reason) == ("Answer: 4", FinishReason.STOP)
    assert replica.aborted == []
    with pytest.raises(AssertionError, match="no generation"):
        await events_of(replica)


async def test_a_script_may_choose_by_the_request() -> None:
    replica = ScriptedReplica(lambda asked: Scripted(asked.request_id))
    finished = (await events_of(replica, "x-01"))[-1]
    assert isinstance(finished, Finished)
    assert finished.content == finished.request_id == "x-01"


async def test_leaving_early_is_noted_as_an_abort() -> None:
    replica = ScriptedReplica([Scripted("abcd", hold=asyncio.Event())])
    events = replica.generate(request())
    await anext(events)
    assert replica.in_flight == 1
    await events.aclose()
    assert (replica.aborted, replica.in_flight) == (["r-00"], 0)


async def test_a_scripted_error_comes_after_the_text() -> None:
    replica = ScriptedReplica([Scripted("ab", error=EngineUnavailable("gone", "scripted"))])
    events = replica.generate(request())
    assert await anext(events) == TextDelta(content="a")
    assert await anext(events) == TextDelta(content="b")
    with pytest.raises(EngineUnavailable):
        await anext(events)


@pytest.mark.parametrize("after", [0, 1, 2, 99])
async def test_chaos_strikes_after_so_many_deltas_and_never_lets_the_end_through(after: int) -> None:
    inner = ScriptedReplica(lambda asked: Scripted("abcd"))
    replica = ChaosReplica(inner, {1: Chaos(EngineUnavailable("struck", "chaos"), after)})
    assert len(await events_of(replica)) == 3
    seen = []
    with pytest.raises(EngineUnavailable, match="struck"):  # noqa: PT012
        async for event in replica.generate(request("r-01")):
            seen.append(event)  # noqa: PERF401
    assert len(seen) == min(after, 2)
    assert replica.struck == ["r-01"]
    assert len(await events_of(replica)) == 3


async def test_chaos_without_an_error_is_silence_until_it_is_cancelled() -> None:
    inner = ScriptedReplica(lambda asked: Scripted("abcd"))
    replica = ChaosReplica(inner, {0: Chaos(None, 1)})
    events = replica.generate(request())
    await anext(events)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(events)
    assert inner.aborted == ["r-00"]
