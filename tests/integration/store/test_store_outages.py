from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from heavy.config import Settings
from heavy.core.errors import ConfigError, LeaseLost, StoreUnavailable
from heavy.core.ids import RUN_LEVEL, RunId
from heavy.store.api import Control, ControlKind
from heavy.store.redis import RedisStore, connect

from tests_support.domain import run_spec
from tests_support.entries import note
from tests_support.servers import BINARIES, StoreServer

BOUND_S = 1.0
SLACK_S = 0.5
PASSWORD = "p@ss:w/rd?#%&=\"' \\x"


@pytest.fixture
def store_settings() -> Settings:
    return Settings(store_timeout_s=BOUND_S)


async def fresh(store: RedisStore) -> RunId:
    return (await store.log.create(run_spec(), owner="test", lease_s=60)).run.spec.run


async def bounded_failure(operation: Awaitable[object]) -> StoreUnavailable:
    """The error of an operation on a store that is away, which must come within the bound."""
    started_s = time.monotonic()
    with pytest.raises(StoreUnavailable) as failure:
        await operation
    assert time.monotonic() - started_s < BOUND_S + SLACK_S
    return failure.value


async def appended_until_it_fails(store: RedisStore, run: RunId) -> int:
    """How many appends were acknowledged before one was not."""
    count = 0
    with contextlib.suppress(StoreUnavailable):
        while True:
            count = (await store.log.append(run, epoch=1, entries=[note()]))[0]
    return count


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
async def test_everything_under_way_fails_within_the_bound_when_the_server_goes(
    own_server: StoreServer, own_store: RedisStore, trouble: str
) -> None:
    run = await fresh(own_store)
    watcher = own_store.log.follow(run, after=0, deltas=True)
    appending = asyncio.create_task(appended_until_it_fails(own_store, run))
    await anext(watcher)

    async def follow() -> None:
        async for _ in watcher:
            pass

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    (own_server.kill if trouble == "kill" else own_server.freeze)()
    started_s = time.monotonic()
    acknowledged = await appending
    with pytest.raises(StoreUnavailable):
        await following
    assert time.monotonic() - started_s < BOUND_S + SLACK_S
    for operation in (
        own_store.ping(),
        own_store.log.get(run),
        own_store.leases.renew(run, epoch=1, lease_s=1),
        own_store.directory.replicas(),
    ):
        assert own_server.url.partition("?")[0] in str(await bounded_failure(operation))
    if trouble == "freeze":
        own_server.thaw()
    else:
        own_server.start()
    records = await own_store.log.read(run, after=0, limit=100_000)
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert acknowledged <= len(records) <= acknowledged + 1, (
        "nothing acknowledged was lost, nothing came twice"
    )


async def test_a_listener_outlives_an_outage(own_server: StoreServer, own_store: RedisStore) -> None:
    run = await fresh(own_store)
    async with own_store.control.listen(run) as controls:
        hearing = asyncio.create_task(anext(controls))
        await asyncio.sleep(0.05)
        own_server.kill()
        await bounded_failure(own_store.ping())
        own_server.start()
        cancel = Control(ControlKind.CANCEL, RUN_LEVEL, "enough")
        await own_store.control.send(run, cancel)
        async with asyncio.timeout(15):
            assert await hearing == cancel


async def test_a_short_outage_is_ridden_out(own_server: StoreServer, own_store: RedisStore) -> None:
    run = await fresh(own_store)
    own_server.kill()
    appending = asyncio.create_task(own_store.log.append(run, epoch=1, entries=[note()]))
    await asyncio.sleep(0)
    await asyncio.to_thread(own_server.start)
    try:
        assert await appending == (1,)
    except LeaseLost:  # the server was away before the lease had reached its disk
        assert (await own_store.log.get(run)).records == 0


async def test_operations_cancelled_at_any_moment_leave_the_store_usable(store: RedisStore) -> None:
    run = await fresh(store)
    for i in range(60):
        tasks = [asyncio.create_task(store.log.append(run, epoch=1, entries=[note()])) for _ in range(20)]
        for _ in range(i):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    numbers = await asyncio.gather(*(store.log.append(run, epoch=1, entries=[note()]) for _ in range(40)))
    records = await store.log.read(run, after=0, limit=5000)
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert max(numbers) == (len(records),)


@pytest.mark.parametrize("kind", sorted(BINARIES))
async def test_a_password_of_any_characters_works_and_never_shows(
    kind: str, tmp_path: Path, store_settings: Settings
) -> None:
    server = StoreServer(kind, tmp_path, password=PASSWORD)
    server.start()
    try:
        store = await connect(server.url, store_settings)
        await store.ping()
        with pytest.raises(ConfigError) as refusal:
            await connect(server.url.replace("p%40ss", "wrong"), store_settings)
        server.kill()
        failure = await bounded_failure(store.ping())
        await store.close()
        for error in (refusal.value, failure):
            text = f"{error!r} {error} {error.__cause__!r}"
            assert "127.0.0.1" in text
            assert not any(part in text for part in (PASSWORD, "p%40ss", "w/rd", "wrong%3A"))
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:1", ConfigError),
        ("", ConfigError),
        ("redis://127.0.0.1:notaport", ConfigError),
        ("redis://:secret/with-a-slash@127.0.0.1:1/0", ConfigError),
        ("redis://:1/secret@127.0.0.1:1/0", ConfigError),
        ("unix:///nowhere?db=secret", ConfigError),
        ("redis://:secret@127.0.0.1:1/0", StoreUnavailable),
        ("unix:///nowhere/at/all", StoreUnavailable),
    ],
)
async def test_a_store_that_cannot_be_reached_is_named_without_its_password(
    url: str, error: type[Exception], store_settings: Settings
) -> None:
    started_s = time.monotonic()
    with pytest.raises(error) as failure:
        await connect(url, store_settings)
    assert time.monotonic() - started_s < BOUND_S + SLACK_S
    assert "secret" not in f"{failure.value} {failure.value.__cause__!r}"


@pytest.mark.parametrize("kind", sorted(BINARIES))
@pytest.mark.parametrize(
    ("options", "word"),
    [(("maxmemory-policy allkeys-lru",), "noeviction"), (("rename-command CONFIG none",), "")],
)
async def test_a_server_that_may_evict_runs_is_refused(
    kind: str, options: tuple[str, ...], word: str, tmp_path: Path, store_settings: Settings
) -> None:
    server = StoreServer(kind, tmp_path, options=options)
    server.start()
    try:
        if word:
            with pytest.raises(ConfigError, match=word):
                await connect(server.url, store_settings)
        else:  # a server that does not permit the question is trusted
            await (await connect(server.url, store_settings)).close()
    finally:
        server.stop()


@pytest.mark.parametrize("kind", sorted(BINARIES))
async def test_a_full_server_says_so(kind: str, tmp_path: Path, store_settings: Settings) -> None:
    server = StoreServer(kind, tmp_path, options=("maxmemory 4mb",))
    server.start()
    try:
        store = await connect(server.url, store_settings)
        run = await fresh(store)
        appends = [store.log.append(run, epoch=1, entries=[note("x" * 100_000)]) for _ in range(60)]
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await asyncio.gather(*appends)
        await store.close()
    finally:
        server.stop()
