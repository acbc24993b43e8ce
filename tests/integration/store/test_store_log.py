from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from heavy.config import Settings
from heavy.core.errors import HeavyError, LeaseLost, NotFound
from heavy.core.ids import RunId
from heavy.core.runs import RunState
from heavy.store.redis import RedisStore, connect

from tests_support.domain import run_spec
from tests_support.entries import detail, failure, generation, note, state_entry
from tests_support.proxy import LossyProxy

WRITER = """
import asyncio, sys
from heavy.config import Settings
from heavy.store.redis import connect
from tests_support.entries import note

async def main(url, run, name):
    store = await connect(url, Settings(store_timeout_s=10))
    async def write(i):
        await store.log.append(run, epoch=1, entries=[note(f"{name} {i} a"), note(f"{name} {i} b")])
    await asyncio.gather(*(write(i) for i in range(40)))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def fresh(store: RedisStore) -> RunId:
    return (await store.log.create(run_spec(), owner="test", lease_s=30)).run.spec.run


async def test_entries_come_back_as_they_went_in_numbered_from_one(store: RedisStore) -> None:
    run = await fresh(store)
    entries = [note("first"), generation(0, 'quotes " and \\ and ünï \x00 code')]
    assert await store.log.append(run, epoch=1, entries=entries) == (1, 2)
    assert await store.log.append(run, epoch=1, entries=[note("third")]) == (3,)
    records = await store.log.read(run, after=0, limit=10)
    assert [record.number for record in records] == [1, 2, 3]
    assert [record.body for record in records[:2]] == [entry.body for entry in entries]
    assert [record.number for record in await store.log.read(run, after=1, limit=1)] == [2]
    assert (await store.log.get(run)).records == 3


async def test_several_processes_append_without_gaps_and_each_append_stays_together(
    store: RedisStore, store_url: str
) -> None:
    run = await fresh(store)
    support = str(Path(__file__).parents[2] / "support")
    writers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, store_url, run, name), env={"PYTHONPATH": support}
        )
        for name in ("one", "two")
    ]
    assert [await writer.wait() for writer in writers] == [0, 0]
    records = await store.log.read(run, after=0, limit=1000)
    assert [record.number for record in records] == list(range(1, 161))
    texts = [detail(record) for record in records]
    assert len(set(texts)) == 160
    assert all(first[:-1] == second[:-1] for first, second in zip(texts[::2], texts[1::2], strict=True)), (
        "the two entries of one append are neighbours"
    )


async def test_a_writer_without_the_lease_writes_nothing(store: RedisStore) -> None:
    run = await fresh(store)
    await store.leases.release(run, epoch=1)
    with pytest.raises(LeaseLost):
        await store.log.append(run, epoch=1, entries=[note()])
    assert await store.leases.take(run, owner="other", lease_s=30) == 2
    for write in (
        store.log.append(run, epoch=1, entries=[note()]),
        store.log.transition(run, epoch=1, state=RunState.RUNNING, entry=state_entry(RunState.RUNNING)),
        store.log.finish(run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED)),
    ):
        with pytest.raises(LeaseLost):
            await write
    assert await store.log.read(run, after=0, limit=10) == ()
    assert (await store.log.get(run)).state is RunState.ACCEPTED


async def test_a_state_follows_only_where_the_state_machine_lets_it(store: RedisStore) -> None:
    run = await fresh(store)
    with pytest.raises(HeavyError, match="accepted to aggregating"):
        await store.log.transition(
            run, epoch=1, state=RunState.AGGREGATING, entry=state_entry(RunState.AGGREGATING)
        )
    assert await store.log.read(run, after=0, limit=10) == ()
    for state in (RunState.RUNNING, RunState.AGGREGATING):
        await store.log.transition(run, epoch=1, state=state, entry=state_entry(state))
        assert (await store.log.get(run)).state is state
    with pytest.raises(ValueError, match="final"):
        await store.log.transition(run, epoch=1, state=RunState.FAILED, entry=state_entry(RunState.FAILED))


async def test_finish_ends_a_run_once_with_everything_that_goes_with_it(store: RedisStore) -> None:
    run = await fresh(store)
    ending = failure()
    assert await store.log.finish(run, epoch=1, ending=ending, entry=state_entry(RunState.FAILED))
    ended = await store.log.get(run)
    assert (ended.state, ended.failure, ended.ledger, ended.ended_ms, ended.records) == (
        *(RunState.FAILED, ending.failure, ending.ledger, ending.ended_ms),
        1,
    )
    assert not await store.log.finish(run, epoch=1, ending=ending, entry=state_entry(RunState.FAILED))
    assert not await store.leases.held(run, epoch=1)
    with pytest.raises(LeaseLost):
        await store.log.append(run, epoch=1, entries=[note()])
    assert (await store.log.get(run)).records == 1


@pytest.mark.parametrize(
    "run", [RunId("run-0123456789abcdef01234567"), RunId("run-1"), RunId("*"), RunId("")]
)
async def test_what_is_not_there_is_not_found(store: RedisStore, run: RunId) -> None:
    for read in (
        store.log.get(run),
        store.log.read(run, after=0, limit=1),
        store.log.append(run, epoch=1, entries=[note()]),
        store.budgets.spent(run),
    ):
        with pytest.raises(NotFound):
            await read
    with pytest.raises(NotFound):
        await anext(store.log.follow(run, after=0, deltas=True))


async def test_a_write_whose_reply_was_lost_happens_once(
    store_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    async with LossyProxy(store_url, tmp_path) as proxy:
        store = await connect(proxy.url, store_settings)
        run = await fresh(store)
        await store.log.append(run, epoch=1, entries=[note("the script is known")])
        proxy.to_lose = 1
        assert await store.log.append(run, epoch=1, entries=[note("a"), note("b")]) == (2, 3)
        await store.budgets.count_tool_calls(run, calls=1)
        proxy.to_lose = 1
        assert await store.budgets.count_tool_calls(run, calls=2) == 3
        await store.log.transition(run, epoch=1, state=RunState.RUNNING, entry=state_entry(RunState.RUNNING))
        proxy.to_lose = 1
        await store.log.transition(
            run, epoch=1, state=RunState.AGGREGATING, entry=state_entry(RunState.AGGREGATING)
        )
        other = await fresh(store)
        await store.log.finish(other, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
        proxy.to_lose = 1
        assert await store.log.finish(run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
        assert proxy.lost == 4
        assert (await store.log.get(run)).records == 6
        await store.close()


async def test_a_takeover_whose_reply_was_lost_is_one_takeover(
    store_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    async with LossyProxy(store_url, tmp_path) as proxy:
        store = await connect(proxy.url, store_settings)
        run = await fresh(store)
        for epoch in (2, 3):
            await store.leases.release(run, epoch=epoch - 1)
            proxy.to_lose = int(epoch == 3)
            assert await store.leases.take(run, owner="other", lease_s=30) == epoch
        assert proxy.lost == 1
        await store.close()


async def test_an_append_is_bounded(store: RedisStore) -> None:
    run = await fresh(store)
    for entries in ([], [note()] * 1001):
        with pytest.raises(ValueError, match="entries at once"):
            await store.log.append(run, epoch=1, entries=entries)
