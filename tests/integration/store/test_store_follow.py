from __future__ import annotations

import asyncio
import contextlib

import pytest
import redis.asyncio

from heavy.config import Settings
from heavy.core.errors import NotFound, Overloaded
from heavy.core.ids import RunId
from heavy.core.records import Record
from heavy.core.runs import RunState
from heavy.store.keys import RunKeys
from heavy.store.redis import RedisStore, connect

from tests_support.domain import run_spec
from tests_support.entries import delta, detail, failure, generation, note, state_entry


async def fresh(store: RedisStore) -> RunId:
    return (await store.log.create(run_spec(), owner="test", lease_s=30)).run.spec.run


async def end(store: RedisStore, run: RunId) -> None:
    await store.log.finish(run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))


async def numbers(store: RedisStore, run: RunId, after: int) -> list[int]:
    items = [item async for item in store.log.follow(run, after=after, deltas=False)]
    return [item.number for item in items if isinstance(item, Record)]


async def test_a_watcher_sees_every_record_from_any_number_on_and_ends_with_the_run(
    store: RedisStore,
) -> None:
    run = await fresh(store)
    await store.log.append(run, epoch=1, entries=[note(str(i)) for i in range(250)])
    watching = [asyncio.create_task(numbers(store, run, after)) for after in (0, 100, 250)]
    await store.log.append(run, epoch=1, entries=[note("late")])
    await end(store, run)
    async with asyncio.timeout(10):
        assert [await task for task in watching] == [list(range(after + 1, 253)) for after in (0, 100, 250)]
        assert await numbers(store, run, 251) == [252], "the final record alone"
        assert await numbers(store, run, 252) == [], "nothing is left"
        assert await numbers(store, run, 9999) == []


async def test_fresh_text_comes_before_the_record_that_has_it_all_and_never_after(store: RedisStore) -> None:
    run = await fresh(store)
    await store.log.publish(run, [delta(0, "from before anyone watched")])
    async with contextlib.aclosing(store.log.follow(run, after=0, deltas=True)) as items:
        first = asyncio.create_task(anext(items))
        async with asyncio.timeout(10):
            while not first.done():  # until the watcher has begun, text may fall past it
                await store.log.publish(run, [delta(0, "It")])
                await asyncio.sleep(0.01)
        assert first.result() == (delta(0, "It"),)
        await store.log.append(run, epoch=1, entries=[generation(0)])
        async with asyncio.timeout(10):
            while not isinstance(item := await anext(items), Record):
                assert item[0].content == "It"
            await store.log.publish(run, [delta(0, "late"), delta(1, "next")])
            await store.log.publish(run, [delta(0, "other arm", index=1)])
            await end(store, run)
            rest = [item async for item in items]
    shown = [one for item in rest if not isinstance(item, Record) for one in item]
    assert shown == [delta(1, "next"), delta(0, "other arm", index=1)]
    assert isinstance(rest[-1], Record)


async def test_text_is_not_shown_to_those_who_did_not_ask_nor_kept_without_bound(
    store: RedisStore, store_url: str
) -> None:
    run = await fresh(store)
    for i in range(1500):
        await store.log.publish(run, [delta(i)])
    async with redis.asyncio.Redis.from_url(store_url) as client:
        assert await client.xlen(RunKeys(run).deltas) <= 700
    await end(store, run)
    await store.log.publish(run, [delta(0)])
    items = [item async for item in store.log.follow(run, after=0, deltas=False)]
    assert all(isinstance(item, Record) for item in items)


async def test_a_watcher_of_a_run_that_vanishes_is_told(store: RedisStore, store_url: str) -> None:
    run = await fresh(store)
    watching = asyncio.create_task(numbers(store, run, 0))
    await asyncio.sleep(0)
    async with redis.asyncio.Redis.from_url(store_url) as client:
        await client.delete(*RunKeys(run).all)
    async with asyncio.timeout(10):
        with pytest.raises(NotFound):
            await watching


async def test_watchers_beyond_the_limit_are_refused_and_leaving_makes_room(store_url: str) -> None:
    store = await connect(store_url, Settings(), watchers_max=2)
    run = await fresh(store)
    await store.log.append(run, epoch=1, entries=[note("here")])
    watchers = [store.log.follow(run, after=0, deltas=True) for _ in range(3)]
    for watcher in watchers[:2]:
        assert detail(await anext(watcher)) == "here"
    with pytest.raises(Overloaded) as refusal:
        await anext(watchers[2])
    assert refusal.value.retry_after_s > 0
    await watchers[0].aclose()
    assert detail(await anext(store.log.follow(run, after=0, deltas=True))) == "here"
    await watchers[1].aclose()
    await store.close()


async def test_a_watcher_cancelled_at_any_moment_gives_its_place_and_connection_back(store_url: str) -> None:
    store = await connect(store_url, Settings(), watchers_max=1)
    run = await fresh(store)
    for pause_s in (0.0, 0.0, 0.001, 0.002, 0.005, 0.01, 0.02):
        watching = asyncio.create_task(numbers(store, run, 0))
        await asyncio.sleep(pause_s)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
    await store.log.append(run, epoch=1, entries=[note("still there")])
    await end(store, run)
    async with asyncio.timeout(10):
        assert await numbers(store, run, 0) == [1, 2]
    await store.close()
    async with redis.asyncio.Redis.from_url(store_url) as client, asyncio.timeout(10):
        while len(await client.client_list()) > 1:
            await asyncio.sleep(0.01)
