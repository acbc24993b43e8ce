"""Replicas hosted as the product hosts them, without Ray around them, and a store that knows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from heavy.config import Settings
from heavy.core.fleet import ReplicaInfo
from heavy.profiles.schema import Profile
from heavy.store.api import Store
from heavy.store.embedded import EmbeddedValkey
from heavy.store.redis import connect
from workers.replica import Replica

from tests_support.up import processes_below
from tests_support.waiting import until

READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Hosted:
    """A profile's replicas, each with an engine process of its own, and the store that they announce to."""

    profile: Profile
    store: Store
    url: str

    async def infos(self) -> dict[str, ReplicaInfo]:
        """What is announced, by name."""
        return {info.replica: info for info in await self.store.directory.replicas()}

    async def ready(self, count: int) -> dict[str, ReplicaInfo]:
        """The same, once so many of them are ready."""
        return await until(
            self.infos,
            lambda infos: sum(info.state == "ready" for info in infos.values()) >= count,
            READY_S,
        )


def server_of(info: ReplicaInfo) -> int:
    """The process id of the engine server behind a replica's guard."""
    (server,) = processes_below(info.pid) - {info.pid}
    return server


@asynccontextmanager
async def hosted(directory: Path, profile: Profile, count: int) -> AsyncIterator[Hosted]:
    """So many replicas for a block, ready at its beginning and gone at its end."""
    server = EmbeddedValkey(directory)
    url = server.start()
    settings = Settings(store_url=url)
    async with AsyncExitStack() as stack:
        stack.callback(server.stop)
        store = await connect(url, settings)
        stack.push_async_callback(store.close)
        replicas = [Replica(f"{profile.name}-{n}", profile, settings.environment()) for n in range(count)]
        for replica in replicas:
            stack.push_async_callback(replica.stop)
        await asyncio.gather(*(replica.start() for replica in replicas))
        fleet = Hosted(profile, store, url)
        await fleet.ready(count)
        yield fleet
