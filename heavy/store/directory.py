"""Which replicas and runners are there, on Redis: `heavy.store.api.Directory`."""

from __future__ import annotations

from typing import Any, TypeVar

from heavy.core.codec import dump, load
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.store import scripts
from heavy.store.keys import REPLICAS, RUNNERS
from heavy.store.link import Argument, Link

T = TypeVar("T")


class RedisDirectory:
    """Two hashes whose entries carry their own expiry, by the server's clock."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def announce_replica(self, info: ReplicaInfo, *, ttl_s: float) -> None:
        """Show a replica until `ttl_s` has passed or it is announced again."""
        await self._announce(REPLICAS, info.replica, dump(info), ttl_s)

    async def announce_runner(self, info: RunnerInfo, *, ttl_s: float) -> None:
        """Show a runner until `ttl_s` has passed or it is announced again."""
        await self._announce(RUNNERS, info.runner, dump(info), ttl_s)

    async def withdraw(self, name: str) -> None:
        """Take a replica or runner off at once."""

        async def write(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            pipeline.hdel(REPLICAS, name)
            pipeline.hdel(RUNNERS, name)
            await pipeline.execute()

        await self._link.call(f"withdraw {name}", write)

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        """Everything announced, sorted by id."""
        found = await self._announced(REPLICAS, ReplicaInfo)
        return tuple(sorted(found, key=lambda info: info.replica))

    async def runners(self) -> tuple[RunnerInfo, ...]:
        """Everything announced, sorted by name."""
        found = await self._announced(RUNNERS, RunnerInfo)
        return tuple(sorted(found, key=lambda info: info.runner))

    async def _announce(self, key: str, name: str, entry: bytes, ttl_s: float) -> None:
        arguments: list[Argument] = [name, int(ttl_s * 1000), entry]
        await self._link.script(f"announce {name}", scripts.ANNOUNCE, [key], arguments)

    async def _announced(self, key: str, of: type[T]) -> list[T]:
        _, *entries = await self._link.script("list who is there", scripts.ANNOUNCED, [key], [])
        return [load(of, entry) for entry in entries]
