from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from heavy.core.errors import LeaseLost
from heavy.core.ids import RunId, new_run_id
from heavy.core.runs import RunState
from heavy.store.keys import LIVE, RunKeys
from heavy.store.redis import RedisStore

from tests_support.domain import run_spec
from tests_support.entries import failure, note, state_entry


async def fresh(store: RedisStore, lease_s: float = 30) -> RunId:
    return (await store.log.create(run_spec(), owner="test", lease_s=lease_s)).run.spec.run


async def until_ownerless(store: RedisStore, run: RunId) -> None:
    async with asyncio.timeout(5):
        while run not in [found.spec.run for found in await store.leases.expired(100)]:
            await asyncio.sleep(0.01)


async def test_a_lease_lasts_as_long_as_it_is_renewed(store: RedisStore) -> None:
    run = await fresh(store, lease_s=0.2)
    await store.leases.renew(run, epoch=1, lease_s=30)
    await asyncio.sleep(0.25)
    assert await store.leases.held(run, epoch=1)
    assert not await store.leases.held(run, epoch=2)
    await store.leases.renew(run, epoch=1, lease_s=0.05)
    await until_ownerless(store, run)
    with pytest.raises(LeaseLost):
        await store.leases.renew(run, epoch=1, lease_s=30)
    with pytest.raises(LeaseLost):
        await store.log.append(run, epoch=1, entries=[note()])


async def test_an_ownerless_run_is_taken_by_one_under_an_epoch_never_used_before(store: RedisStore) -> None:
    run = await fresh(store)
    with pytest.raises(LeaseLost):
        await store.leases.take(run, owner="thief", lease_s=30)
    for epoch in range(2, 6):
        await store.leases.release(run, epoch=epoch - 1)
        takes = await asyncio.gather(
            *(store.leases.take(run, owner=f"o{i}", lease_s=30) for i in range(5)), return_exceptions=True
        )
        assert sorted(take for take in takes if isinstance(take, int)) == [epoch]
        assert sum(isinstance(take, LeaseLost) for take in takes) == 4
    assert (await store.log.get(run)).epoch == 5
    await store.leases.release(run, epoch=1)
    assert await store.leases.held(run, epoch=5), "releasing an old lease leaves the new one alone"


async def test_only_runs_that_have_not_ended_and_have_no_owner_are_found(
    store: RedisStore, store_url: str
) -> None:
    owned, dead, ended, gone = [await fresh(store) for _ in range(4)]
    await store.log.finish(ended, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
    await store.leases.release(dead, epoch=1)
    async with redis.asyncio.Redis.from_url(store_url) as client:
        await client.delete(*RunKeys(gone).all)
        await client.zadd(LIVE, {ended: 1})  # as if its coordinator had died between the two steps
        assert [run.spec.run for run in await store.leases.expired(10)] == [dead]
        assert {run.decode() for run in await client.zrange(LIVE, 0, -1)} == {owned, dead}
    with pytest.raises(LeaseLost):
        await store.leases.take(ended, owner="other", lease_s=30)
    with pytest.raises(LeaseLost):
        await store.leases.take(new_run_id(), owner="other", lease_s=30)


async def test_the_search_for_ownerless_runs_is_bounded_and_reaches_them_all(store: RedisStore) -> None:
    runs = [await fresh(store) for _ in range(300)]
    for run in (runs[0], runs[150], runs[299]):
        await store.leases.release(run, epoch=1)
    assert len(await store.leases.expired(2)) == 2
    found = {run.spec.run for run in await store.leases.expired(10)}
    assert found == {runs[0], runs[150], runs[299]}
