"""Looks at the directory every so often, so that metrics show who is there and how the store does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from heavy.coordinator.fleet import with_reserved
from heavy.core import clock
from heavy.core.errors import HeavyError
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.profiles.loader import ProfileBook
from heavy.store.api import Store
from heavy.telemetry.fleet import FleetMetrics, FleetSight, ReplicaSight

logger = logging.getLogger(__name__)


class Lookout:
    """Shows the fleet to its metrics, once every `interval_s`. `start` and `stop` are idempotent."""

    def __init__(self, store: Store, profiles: ProfileBook, metrics: FleetMetrics, interval_s: float) -> None:
        self._store = store
        self._profiles = profiles
        self._metrics = metrics
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then go on looking."""
        if self._task is None:
            await self._look()
            self._task = asyncio.create_task(self._look_forever())

    async def stop(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._look()

    async def _look(self) -> None:
        asked_s = clock.monotonic_s()
        try:
            found = await self._store.directory.replicas()
            took_s = clock.monotonic_s() - asked_s
            replicas = await with_reserved(self._store.reservations, found)
            runners = await self._store.directory.runners()
        except HeavyError as error:
            logger.warning("could not look who is there: %s", error)
            self._metrics.saw_nothing()
            return
        sight = FleetSight(
            replicas=tuple(map(self._sight, replicas)),
            runners=len(runners),
            trajectories=sum(runner.in_flight for runner in runners),
            slots=sum(runner.in_flight_max for runner in runners),
            queue_wait_s=_longest(runners),
        )
        self._metrics.saw(sight, took_s)

    def _sight(self, info: ReplicaInfo) -> ReplicaSight:
        profile = self._profiles.by_name.get(info.profile)  # another coordinator may serve more than we know
        gpus = profile.serve.gpus if profile else 0
        return ReplicaSight(
            replica=info.replica,
            profile=info.profile,
            state=info.state,
            running=info.running,
            waiting=info.waiting,
            slots=info.in_flight_max,
            kv_tokens_used=info.kv_tokens_used,
            kv_tokens_max=info.kv_tokens_max,
            kv_tokens_reserved=info.kv_tokens_reserved,
            gpus=gpus,
            usd_per_hour=gpus * profile.prices.usd_per_gpu_hour if profile else 0.0,
        )


def _longest(runners: Iterable[RunnerInfo]) -> dict[str, float]:
    """Per profile, the longest wait of any runner's first in line."""
    longest: dict[str, float] = {}
    for runner in runners:
        for profile, wait_s in runner.queue_wait_s.items():
            longest[profile] = max(wait_s, longest.get(profile, 0.0))
    return longest
