"""The replicas that are there: what the store's directory announces, with this process's own view of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from heavy.core import clock
from heavy.core.errors import StoreUnavailable
from heavy.core.fleet import ReplicaInfo
from heavy.profiles.schema import Profile
from heavy.replicas.api import Replica
from heavy.replicas.breaker import Breaker, BreakerState
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import Endpoint, HttpPool

logger = logging.getLogger(__name__)

READY: Final = "ready"
STARTING: Final = "starting"
GONE_STATES: Final = ("failed", "stopped")
STALENESS_S: Final = 0.5
"""How old the list may be when a replica is chosen from it."""
OUTAGE_S: Final = 10.0
"""How long the last list is used while the store does not answer."""


class ProfileSource(Protocol):
    """Where profiles are looked up by name."""

    def get(self, name: str) -> Profile:
        """The profile. Raises `NotFound`."""
        ...


class ReplicaList(Protocol):
    """Where replicas are announced: the part of the store's `Directory` that routing reads."""

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        """Everything announced. Raises `StoreUnavailable`."""
        ...


@dataclass(slots=True)
class Known:
    """One announced replica: its client, how many of our generations it has, and whether it works."""

    info: ReplicaInfo
    client: Replica
    breaker: Breaker
    in_flight: int = 0

    @property
    def works(self) -> bool:
        """Whether it may be expected to answer, with or without room."""
        return self.info.state == READY and self.breaker.state is not BreakerState.OPEN

    @property
    def admits(self) -> bool:
        """Whether it may be given a generation now, if it has room."""
        return self.info.state == READY and self.breaker.admits

    @property
    def process(self) -> tuple[object, ...]:
        """What tells it from another process under the same name, which holds nothing of what it does."""
        return self.info.replica, *_process(self.info)


class ReplicaRegistry:
    """Refreshed when it is used and older than `STALENESS_S`; owns no task."""

    def __init__(
        self,
        directory: ReplicaList,
        connect: Callable[[ReplicaInfo], Replica],
        *,
        staleness_s: float = STALENESS_S,
    ) -> None:
        self._directory = directory
        self._connect = connect
        self._staleness_s = staleness_s
        self._infos: tuple[ReplicaInfo, ...] = ()
        self._known: dict[str, Known] = {}
        self._read_s: float | None = None
        self._reading = asyncio.Lock()
        self._changed = asyncio.Event()

    @classmethod
    def over_http(
        cls, directory: ReplicaList, profiles: ProfileSource, pool: HttpPool, *, silence_s: float
    ) -> ReplicaRegistry:
        """A registry whose replicas are HTTP servers, spoken to as their profiles say."""

        def connect(info: ReplicaInfo) -> Replica:
            endpoint = Endpoint.of(info.replica, info.base_url, profiles.get(info.profile), info.model)
            return HttpReplica(endpoint, pool, silence_s=silence_s)

        return cls(directory, connect)

    async def of(self, profile: str) -> tuple[Known, ...]:
        """The announced replicas of a profile, in any state. Raises `StoreUnavailable`.

        Only these are connected to: another profile, unknown to this process, is none of its business.
        """
        await self._refresh()
        return tuple(self._kept(info) for info in self._infos if info.profile == profile)

    async def lost(self, known: Known) -> str:
        """Why a replica cannot answer any more, as far as is announced; empty while it may.

        While the store does not answer nobody is taken for lost.
        """
        with suppress(StoreUnavailable):
            await self._refresh()
        now = next((info for info in self._infos if info.replica == known.info.replica), None)
        if now is None:
            return "is no longer announced"
        if _process(now) != _process(known.info):
            return "was started anew"
        return f"is {now.state}: {now.detail}".rstrip(": ") if now.state in GONE_STATES else ""

    def tell(self) -> None:
        """Room was made: whoever waits in `change` looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, longest_s: float) -> None:
        """Wait until room is made, or so long: other processes make room, too, and replicas come and go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._changed.wait()

    async def _refresh(self) -> None:
        async with self._reading:
            age_s = float("inf") if self._read_s is None else clock.monotonic_s() - self._read_s
            if age_s < self._staleness_s:
                return
            try:
                infos = await self._directory.replicas()
            except StoreUnavailable as error:
                if age_s > OUTAGE_S:
                    raise
                logger.warning("the list of replicas is %.1f s old: %s", age_s, error)
                return
            self._infos = infos
            there = {info.replica for info in infos}
            self._known = {name: known for name, known in self._known.items() if name in there}
            self._read_s = clock.monotonic_s()

    def _kept(self, info: ReplicaInfo) -> Known:
        """What is known of a replica, brought up to date; a new process under an old name starts afresh."""
        known = self._known.get(info.replica)
        if known is None or _process(known.info) != _process(info):
            known = self._known[info.replica] = Known(info, self._connect(info), Breaker())
        known.info = info
        return known


def _process(info: ReplicaInfo) -> tuple[object, ...]:
    return info.profile, info.base_url, info.model, info.pid
