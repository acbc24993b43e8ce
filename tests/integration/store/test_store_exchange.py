"""Calls of the caller's tools and their results, on both servers: each once, whoever asks when."""

from __future__ import annotations

import asyncio

import pytest

from heavy.core.calling import CallerCall, CallerResult, Receipt, Withdrawn
from heavy.core.errors import LeaseLost, NotFound
from heavy.core.ids import RunId, arm, new_run_id
from heavy.core.runs import RunState
from heavy.core.tools import Effects
from heavy.store.redis import RedisStore

from tests_support.domain import run_spec
from tests_support.entries import failure, state_entry


def call(call_id: str) -> CallerCall:
    return CallerCall(call_id, arm(0), 0, "look", "{}", Effects.WRITE, 0)


async def accepted(store: RedisStore) -> RunId:
    spec = run_spec()
    await store.log.create(spec, owner="me", lease_s=30.0)
    return spec.run


async def test_a_call_reaches_who_listens_before_and_after_and_its_result_who_waits(
    store: RedisStore,
) -> None:
    run = await accepted(store)
    await store.exchange.ask(run, epoch=1, call=call("early"))
    waiting = asyncio.create_task(store.exchange.result(run, "late"))
    async with asyncio.timeout(10), store.exchange.calls(run) as calls:
        assert await anext(calls) == call("early")
        await store.exchange.ask(run, epoch=1, call=call("late"))
        await store.exchange.ask(run, epoch=1, call=call("late"))
        assert await anext(calls) == call("late")
        assert await store.exchange.answer(run, CallerResult("late", "42")) is Receipt.TAKEN
        assert await waiting == CallerResult("late", "42")
        await store.exchange.end(run, "early")
        found = {(await anext(calls)), (await anext(calls))}
        assert found == {Withdrawn("late"), Withdrawn("early")}


async def test_a_result_counts_once_and_only_for_a_call_that_is_waited_for(store: RedisStore) -> None:
    run = await accepted(store)
    await store.exchange.ask(run, epoch=1, call=call("one"))
    results = [CallerResult("one", "first"), CallerResult("one", "second"), CallerResult("never", "x")]
    receipts = [await store.exchange.answer(run, result) for result in results]
    assert receipts == [Receipt.TAKEN, Receipt.DUPLICATE, Receipt.NO_SUCH_CALL]
    assert (await store.exchange.result(run, "one")).content == "first"
    await store.exchange.end(run, "one")
    assert await store.exchange.answer(run, CallerResult("one", "third")) is Receipt.OVER
    await store.exchange.ask(run, epoch=1, call=call("one"))
    assert await store.exchange.answer(run, CallerResult("one", "fourth")) is Receipt.OVER


async def test_a_call_that_must_go_out_once_goes_to_one_sender(store: RedisStore) -> None:
    run = await accepted(store)
    await store.exchange.ask(run, epoch=1, call=call("one"))
    said = [await store.exchange.send_once(run, "one", token) for token in ("a", "b", "a")]
    assert said == [True, False, True]


async def test_nobody_asks_without_the_lease_and_nobody_answers_a_run_that_ended(store: RedisStore) -> None:
    run = await accepted(store)
    with pytest.raises(LeaseLost):
        await store.exchange.ask(run, epoch=2, call=call("one"))
    with pytest.raises(NotFound):
        await store.exchange.ask(new_run_id(), epoch=1, call=call("one"))
    await store.exchange.ask(run, epoch=1, call=call("one"))
    await store.log.finish(run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
    assert await store.exchange.answer(run, CallerResult("one", "42")) is Receipt.OVER
    with pytest.raises(LeaseLost):
        await store.exchange.ask(run, epoch=1, call=call("two"))


async def test_a_caller_is_attached_for_as_long_as_somebody_says_so(store: RedisStore) -> None:
    run = await accepted(store)
    assert not await store.exchange.is_attached(run)
    await store.exchange.attached(run, ttl_s=0.2)
    assert await store.exchange.is_attached(run)
    async with asyncio.timeout(10):
        while await store.exchange.is_attached(run):
            await asyncio.sleep(0.02)
