"""The replica actor: owns one engine process and shows it in the store's directory while it answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from heavy.config import Settings
from heavy.core import clock
from heavy.core.errors import EngineUnavailable, HeavyError
from heavy.profiles.schema import Profile
from heavy.replicas.client import HttpReplica
from heavy.replicas.health import NO_LOAD, Health, HealthCheck, HealthLimits
from heavy.replicas.http import Endpoint, HttpPool
from heavy.store.api import ReplicaInfo, Store
from heavy.store.redis import connect
from workers.engine_process import EngineProcess
from workers.launch import engine_command, free_port
from workers.remote_endpoint import RemoteEndpoint

ANNOUNCE_EVERY_S = 0.5
ANNOUNCE_TTL_S = 2.0
RESTARTS_MAX = 5
"""Restarts in a row; an engine that stays up for `STEADY_S` starts counting anew."""
STEADY_S = 60.0
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0

HEALTH = HealthLimits(interval_s=0.5, timeout_s=2.0, failures_max=3)
PROBES_AT_ONCE = 2

logger = logging.getLogger(__name__)


class Replica:
    """One replica of a profile: pending, starting, ready, draining, stopped or failed.

    The class of the Ray actor, without Ray: `workers.local` and the controller wrap it.
    """

    def __init__(self, replica: str, profile: Profile, environment: Mapping[str, str]) -> None:
        self._replica = replica
        self._profile = profile
        self._settings = Settings.of(environment)
        self._state = "pending"
        self._detail = ""
        self._engine: EngineProcess | RemoteEndpoint | None = None
        self._store: Store | None = None
        self._load = NO_LOAD
        self._health: asyncio.Task[None] | None = None
        self._pool = HttpPool(PROBES_AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Bring the engine up and keep it up. Returns when it is ready; raises `EngineUnavailable`."""
        self._store = await connect(self._settings.store_url, self._settings)
        self._tasks.append(asyncio.create_task(self._announce_forever()))
        await self._start_engine()
        self._tasks.append(asyncio.create_task(self._keep_up()))

    async def status(self) -> ReplicaInfo:
        """What it announces."""
        return self._info()

    async def log(self) -> tuple[str, ...]:
        """The last lines of its engine."""
        return self._engine.log if self._engine else ()

    async def drain(self) -> None:
        """Accept nothing new. What is in flight goes on until `stop`."""
        self._state = "draining"
        await self._announce()

    async def ping(self) -> None:
        """Answers while the process is alive."""

    async def stop(self) -> None:
        """End the engine and disappear from the directory. Safe to call twice."""
        self._state = "stopped"
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._forget_health()
        if self._engine is not None:
            await self._engine.stop()
        await self._pool.close()
        if self._store is not None:
            with contextlib.suppress(HeavyError):
                await self._store.directory.withdraw(self._replica)
            await self._store.close()
            self._store = None

    async def _start_engine(self) -> None:
        self._state, self._detail = "starting", ""
        profile = self._profile
        try:
            self._engine = engine_of(self._replica, profile)
            await self._engine.start(profile.serve.start_timeout_s)
        except HeavyError as error:
            self._state, self._detail = "failed", str(error)
            await self._announce()
            raise
        self._state = "ready"
        self._health = asyncio.create_task(self._mind_health(self._engine.base_url))
        await self._announce()

    async def _mind_health(self, base_url: str) -> None:
        """Show the engine's own load, and a hung engine as failed until it answers again."""
        if self._profile.engine == "remote":
            return
        endpoint = Endpoint.of(self._replica, base_url, self._profile)
        server = HttpReplica(endpoint, self._pool, silence_s=HEALTH.timeout_s)
        async with contextlib.aclosing(HealthCheck(server, HEALTH).reports()) as reports:
            async for report in reports:
                self._load = report.load
                if self._state in ("ready", "failed"):
                    ill = report.health is Health.ILL
                    self._state = "failed" if ill else "ready"
                    self._detail = f"it does not answer: {report.problem}" if ill else ""

    async def _forget_health(self) -> None:
        if self._health is not None:
            self._health.cancel()
            await asyncio.gather(self._health, return_exceptions=True)
            self._health = None

    async def _keep_up(self) -> None:
        """Restart the engine whenever it ends by itself; give up after so many times in a row."""
        restarts = 0
        while restarts <= RESTARTS_MAX:
            assert self._engine is not None
            up_since_s = clock.monotonic_s()
            status = await self._engine.exited()
            await self._forget_health()
            restarts = 1 if clock.monotonic_s() - up_since_s > STEADY_S else restarts + 1
            logger.warning("%s", self._engine.failure(f"ended with status {status}"))
            self._state, self._detail = "failed", f"the engine ended with status {status}; restarting"
            await self._announce()
            await self._engine.stop()
            await asyncio.sleep(min(BACKOFF_S * 2 ** (restarts - 1), BACKOFF_MAX_S))
            try:
                await self._start_engine()
            except EngineUnavailable as error:
                logger.error("%s", error)
        self._state = "failed"
        self._detail = f"the engine ended {RESTARTS_MAX} times in a row and is not started again"

    async def _announce_forever(self) -> None:
        while True:
            await self._announce()
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    @property
    def _base_url(self) -> str:
        return self._engine.base_url if self._engine else ""

    async def _announce(self) -> None:
        if self._store is None:
            return
        try:
            await self._store.directory.announce_replica(self._info(), ttl_s=ANNOUNCE_TTL_S)
        except HeavyError as error:
            logger.warning("%s could not be announced: %s", self._replica, error)

    def _info(self) -> ReplicaInfo:
        profile, load_now = self._profile, self._load
        return ReplicaInfo(
            replica=self._replica,
            profile=profile.name,
            base_url=self._base_url,
            engine=profile.engine,
            model=profile.model,
            state=self._state,
            running=load_now.running,
            waiting=load_now.waiting,
            kv_tokens_used=load_now.kv_tokens_used,
            kv_tokens_max=load_now.kv_tokens_max,
            in_flight_max=profile.serve.in_flight_max,
            detail=self._detail,
            pid=self._engine.pid if self._engine else 0,
        )


def engine_of(replica: str, profile: Profile) -> EngineProcess | RemoteEndpoint:
    """What serves a replica: a process of ours, or an endpoint of somebody else's. Raises `ConfigError`."""
    if profile.engine == "remote":
        return RemoteEndpoint(replica, profile)
    return EngineProcess(replica, engine_command(profile, port=free_port()))
