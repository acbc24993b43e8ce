"""Files of runs, on both servers: given with the run, made by its tools, bounded, gone when it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis.asyncio

from heavy.config import Settings
from heavy.core.errors import NotFound
from heavy.core.files import File, FileRef, ref_of
from heavy.core.ids import new_run_id
from heavy.core.runs import RunState
from heavy.store.keys import RunKeys
from heavy.store.redis import RedisStore, connect

from tests_support.domain import run_spec
from tests_support.entries import failure, state_entry
from tests_support.proxy import LossyProxy

DATA = File("data.csv", b"n\n\xff\x00\n")
PLOT = File("plot.png", b"\x89PNG" + bytes(range(256)))


async def test_what_was_given_and_what_was_made_is_read_by_its_content(store: RedisStore) -> None:
    spec = run_spec(files=(ref_of(DATA),))
    created = await store.log.create(spec, owner="me", lease_s=30.0, files=[DATA, File("again", DATA.data)])
    assert created.run.spec.files == (ref_of(DATA),)
    assert await store.files.keep(spec.run, [PLOT, DATA]) == (ref_of(PLOT), ref_of(DATA))
    assert await store.files.read(spec.run, ref_of(DATA).digest) == DATA.data
    assert await store.files.read(spec.run, ref_of(PLOT).digest) == PLOT.data


async def test_no_file_is_found_in_another_run_nor_kept_for_one_that_is_not_there(store: RedisStore) -> None:
    one, other = run_spec(), run_spec()
    await store.log.create(one, owner="me", lease_s=30.0, files=[DATA])
    await store.log.create(other, owner="me", lease_s=30.0)
    with pytest.raises(NotFound):
        await store.files.read(other.run, ref_of(DATA).digest)
    with pytest.raises(NotFound):
        await store.files.keep(new_run_id(), [PLOT])


async def test_beyond_a_runs_bound_nothing_is_kept_and_what_is_there_counts_once(store_url: str) -> None:
    small = await connect(store_url, Settings(run_files_bytes_max=300))
    spec = run_spec()
    await small.log.create(spec, owner="me", lease_s=30.0, files=[DATA])
    more = File("more.bin", b"x" * 100)
    kept = await small.files.keep(spec.run, [PLOT, DATA, PLOT, more])
    assert kept == (ref_of(PLOT), ref_of(DATA), ref_of(PLOT), FileRef("more.bin", "", 100))
    with pytest.raises(NotFound):
        await small.files.read(spec.run, ref_of(more).digest)
    await small.close()


async def test_a_lost_reply_counts_a_file_once(
    store_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    async with LossyProxy(store_url, tmp_path) as proxy:
        settings = store_settings.model_copy(update={"run_files_bytes_max": len(PLOT.data)})
        lossy = await connect(proxy.url, settings)
        spec = run_spec()
        await lossy.log.create(spec, owner="me", lease_s=30.0)
        proxy.to_lose = 1
        assert await lossy.files.keep(spec.run, [PLOT]) == (ref_of(PLOT),)
        assert await lossy.files.keep(spec.run, [PLOT]) == (ref_of(PLOT),)
        await lossy.close()


async def test_files_live_as_long_as_their_run_is_readable(store: RedisStore, store_url: str) -> None:
    spec = run_spec()
    await store.log.create(spec, owner="me", lease_s=30.0, files=[DATA])
    await store.log.finish(spec.run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
    keys = RunKeys(spec.run)
    async with redis.asyncio.Redis.from_url(store_url) as client:
        run_ms, files_ms = await client.pexpiretime(keys.run), await client.pexpiretime(keys.files)
    assert abs(run_ms - files_ms) < 1_000
    assert await store.files.read(spec.run, ref_of(DATA).digest) == DATA.data
