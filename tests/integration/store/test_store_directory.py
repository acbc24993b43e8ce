from __future__ import annotations

import asyncio

import redis.asyncio

from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.store.keys import REPLICAS
from heavy.store.redis import RedisStore


def replica(name: str, **changes: object) -> ReplicaInfo:
    return ReplicaInfo(name, "profile", "http://127.0.0.1:1", "simulated", "m", "ready", **changes)  # type: ignore[arg-type]


async def test_what_is_announced_is_seen_sorted_and_as_it_was_last_announced(store: RedisStore) -> None:
    for info in (replica("b"), replica("a"), replica("b", running=3, detail='a "word" \\ ü')):
        await store.directory.announce_replica(info, ttl_s=30)
    await store.directory.announce_runner(RunnerInfo("r", 1, 64), ttl_s=30)
    assert await store.directory.replicas() == (
        replica("a"),
        replica("b", running=3, detail='a "word" \\ ü'),
    )
    assert await store.directory.runners() == (RunnerInfo("r", 1, 64),)


async def test_what_is_not_announced_again_disappears_by_itself(store: RedisStore, store_url: str) -> None:
    await store.directory.announce_replica(replica("dead"), ttl_s=0.05)
    await store.directory.announce_replica(replica("alive"), ttl_s=30)
    async with asyncio.timeout(5):
        while len(await store.directory.replicas()) > 1:
            await asyncio.sleep(0.01)
    assert [info.replica for info in await store.directory.replicas()] == ["alive"]
    async with redis.asyncio.Redis.from_url(store_url) as client:
        assert await client.hlen(REPLICAS) == 1, "nothing is left of it"


async def test_what_is_withdrawn_is_gone_at_once(store: RedisStore) -> None:
    await store.directory.announce_replica(replica("a"), ttl_s=30)
    await store.directory.announce_runner(RunnerInfo("r", 0, 1), ttl_s=30)
    await store.directory.withdraw("a")
    await store.directory.withdraw("r")
    await store.directory.withdraw("nobody")
    assert await store.directory.replicas() == ()
    assert await store.directory.runners() == ()
