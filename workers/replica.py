"""The replica actor: owns one engine, on one node or a gang of them, and shows it in the directory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from heavy.config import Settings
from heavy.core import clock
from heavy.core.errors import EngineUnavailable, HeavyError
from heavy.core.fleet import ReplicaInfo, ReplicaState
from heavy.profiles.schema import Profile
from heavy.replicas.client import HttpReplica
from heavy.replicas.health import NO_LOAD, Health, HealthCheck, HealthLimits, HealthReport
from heavy.replicas.http import Endpoint, HttpPool
from heavy.store.api import Store
from heavy.store.redis import connect
from workers.engines.sglang.startup import classify
from workers.fleet import placement
from workers.fleet.gang import Gang, RankLink
from workers.fleet.rank import RayRank
from workers.remote_endpoint import RemoteEndpoint

ANNOUNCE_EVERY_S = 0.5
ANNOUNCE_TTL_S = 2.0
LOG_EVERY_S = 1.0
RESTARTS_MAX = 5
"""Restarts in a row in place; an engine that stays up for `STEADY_S` starts counting anew."""
STEADY_S = 60.0
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
KILL_GRACE_S = 1.0

HEALTH = HealthLimits()
PROBES_AT_ONCE = 2

logger = logging.getLogger(__name__)


class Replica:
    """One replica of a profile, from its start to its end; see `ReplicaState`.

    The class of the Ray actor. Ungrouped, for profiles that reserve nothing, it needs no Ray at all.
    """

    def __init__(
        self,
        replica: str,
        profile: Profile,
        environment: Mapping[str, str],
        revision: str = "",
        group: str = "",
    ) -> None:
        """`group`: the name of the placement group whose first bundle it is in, one bundle a node."""
        self._replica = replica
        self._profile = profile
        self._revision = revision
        self._group = group
        self._settings = Settings.of(environment)
        self._state, self._since_ms, self._detail = ReplicaState.STARTING, clock.now_ms(), ""
        self._given_up = False
        self._mend = ""
        """What the engine's log says one should do about its failure to start."""
        self._engine: Gang | RemoteEndpoint | None = None
        self._ranks: list[RankLink] = []
        self._store: Store | None = None
        self._load = NO_LOAD
        self._pool = HttpPool(PROBES_AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to bring the engine up and to keep it up; what comes of it is announced. Once is enough."""
        if self._store is not None:
            return
        self._store = await connect(self._settings.store_url, self._settings)
        lives = (self._live(), self._announce_forever(), self._keep_log())
        self._tasks = [asyncio.create_task(life) for life in lives]

    async def status(self) -> ReplicaInfo:
        """What it announces."""
        return self._info()

    async def drain(self) -> None:
        """Accept nothing new. What is in flight goes on until `stop`. Safe to call twice."""
        if self._state is not ReplicaState.DRAINING:
            await self._become(ReplicaState.DRAINING, "finishing what is in flight")

    async def ping(self) -> None:
        """Answers while the process is alive."""

    async def stop(self) -> None:
        """End the engine and disappear from the directory. Safe to call twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._engine is not None:
            await self._engine.stop()
        await self._pool.close()
        store, self._store = self._store, None
        if store is not None:
            with contextlib.suppress(HeavyError):
                await self._log_to(store)
                await store.directory.withdraw(self._replica)
            await store.close()

    # -- the engine's life

    async def _live(self) -> None:
        """Bring the engine up, watch it, restart it in place when it ends; give up when that is no use."""
        restarts = 0
        try:
            while restarts <= RESTARTS_MAX:
                await self._bring_up()
                up_since_s = clock.monotonic_s()
                end = await self._watch_to_its_end()
                restarts = 1 if clock.monotonic_s() - up_since_s > STEADY_S else restarts + 1
                await self._become(ReplicaState.FAILED, f"the engine {end}; restarting")
                await asyncio.sleep(min(BACKOFF_S * 2 ** (restarts - 1), BACKOFF_MAX_S))
            await self._give_up(f"the engine ended {RESTARTS_MAX} times in a row")
        except HeavyError as error:
            await self._give_up(f"{self._mend} {error}".strip())
        except (
            Exception
        ) as error:  # a defect of ours: without a word the replica would seem to start for ever
            logger.exception("the replica %s failed", self._replica)
            await self._give_up(f"{type(error).__name__}: {error}")

    async def _bring_up(self) -> None:
        """A fresh engine that answers. Raises `EngineUnavailable`, `ConfigError`."""
        self._mend, self._load = "", NO_LOAD
        await self._become(ReplicaState.STARTING, "")
        self._engine = await self._new_engine()
        await self._engine.start(self._profile.serve.start_timeout_s)
        await self._become(ReplicaState.READY, "")

    async def _watch_to_its_end(self) -> str:
        """Mind its health until it ends by itself, or is ended for being hung; how it ended."""
        engine = self._engine
        assert engine is not None
        health = asyncio.create_task(self._mind_health(engine.base_url))
        end = asyncio.create_task(engine.exited())
        try:
            await asyncio.wait({health, end}, return_when=asyncio.FIRST_COMPLETED)
            how = f"ended with status {end.result()}" if end.done() else health.result()
            logger.warning("%s", engine.failure(how))
        finally:
            for task in (health, end):
                task.cancel()
            await asyncio.gather(health, end, return_exceptions=True)
        await engine.stop(KILL_GRACE_S)
        if engine.lost_a_rank:
            raise EngineUnavailable(f"{self._replica} lost a node of its gang; all ranks were ended.")
        return how

    async def _mind_health(self, base_url: str) -> str:
        """Show the engine's own load, and a hung engine as failed; ends when it has been hung too long."""
        if self._profile.engine == "remote":
            await asyncio.Event().wait()
        endpoint = Endpoint.of(self._replica, base_url, self._profile)
        server = HttpReplica(endpoint, self._pool, silence_s=HEALTH.timeout_s)
        ill_since_s: float | None = None
        async with contextlib.aclosing(HealthCheck(server, HEALTH).reports()) as reports:
            async for report in reports:
                self._load = report.load
                await self._judge(report)
                if report.health is not Health.ILL:
                    ill_since_s = None
                    continue
                ill_since_s = clock.monotonic_s() if ill_since_s is None else ill_since_s
                if clock.monotonic_s() - ill_since_s >= self._profile.serve.hung_restart_s:
                    break
        return f"was hung ({report.problem}) and was ended"

    async def _judge(self, report: HealthReport) -> None:
        ill = report.health is Health.ILL
        if ill and self._state is ReplicaState.READY:
            await self._become(ReplicaState.FAILED, f"it does not answer: {report.problem}")
        elif not ill and self._state is ReplicaState.FAILED:
            await self._become(ReplicaState.READY, "")

    async def _new_engine(self) -> Gang | RemoteEndpoint:
        if self._profile.engine == "remote":
            return RemoteEndpoint(self._replica, self._profile)
        if self._group:
            await self._join_ranks()
        return Gang(
            self._replica,
            self._profile,
            await asyncio.to_thread(placement.serving_host),
            self._ranks,
            heard=self._hear,
            traces=self._settings.otlp_endpoint,
            log_dir=self._settings.engine_log_dir,
        )

    async def _join_ranks(self) -> None:
        """The actors of the other nodes, made once: they outlive the processes they own."""
        if self._ranks or self._profile.serve.nodes == 1:
            return
        group = await asyncio.to_thread(placement.group_of, self._group)
        if group is None:
            raise EngineUnavailable(f"The placement group {self._group} is gone.", self._replica)
        gpus = self._profile.serve.gpus / self._profile.serve.nodes
        joins = [
            RayRank.create(self._replica, self._profile, group, index, gpus, self._settings.engine_log_dir)
            for index in range(1, self._profile.serve.nodes)
        ]
        self._ranks = list(await asyncio.gather(*joins))

    def _hear(self, line: str) -> None:
        """How far the start is, or why it fails, as SGLang's log tells."""
        if self._state is not ReplicaState.STARTING or (sign := classify(line)) is None:
            return
        if sign.state == "failed":
            self._mend = self._mend or sign.detail
        else:
            self._detail = sign.detail

    async def _give_up(self, reason: str) -> None:
        logger.error("%s is given up: %s", self._replica, reason)
        self._given_up = True
        await self._become(ReplicaState.FAILED, reason)

    # -- what others see

    async def _become(self, state: ReplicaState, detail: str) -> None:
        """Change state and show it. What drains goes on draining while its engine comes and goes."""
        if self._state is ReplicaState.DRAINING and not self._given_up:
            return
        if state is not self._state:
            self._since_ms = clock.now_ms()
        self._state, self._detail = state, detail
        await self._announce()

    async def _announce_forever(self) -> None:
        while True:
            await self._announce()
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    async def _announce(self) -> None:
        if self._store is None:
            return
        try:
            await self._store.directory.announce_replica(self._info(), ttl_s=ANNOUNCE_TTL_S)
        except HeavyError as error:
            logger.warning("%s could not be announced: %s", self._replica, error)

    async def _keep_log(self) -> None:
        """Keep the engine's last lines in the store, where they outlive it; hear of logs without room."""
        kept: tuple[str, ...] = ()
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            if self._engine is not None:
                await self._engine.ask_about_logs()
            if self._store is not None and self._engine is not None and self._engine.log != kept:
                kept = self._engine.log
                try:
                    await self._log_to(self._store)
                except HeavyError as error:
                    logger.warning("the log of %s could not be kept: %s", self._replica, error)

    async def _log_to(self, store: Store) -> None:
        if self._engine is not None and self._engine.log:
            await store.fleet.keep_log(self._replica, self._engine.log)

    def _info(self) -> ReplicaInfo:
        profile, load_now, engine = self._profile, self._load, self._engine
        return ReplicaInfo(
            replica=self._replica,
            profile=profile.name,
            base_url=engine.base_url if engine else "",
            engine=profile.engine,
            model=profile.model,
            state=self._state,
            running=load_now.running,
            waiting=load_now.waiting,
            kv_tokens_used=load_now.kv_tokens_used,
            kv_tokens_max=load_now.kv_tokens_max,
            in_flight_max=profile.serve.in_flight_max,
            detail="; ".join(filter(None, (self._detail, engine.log_problem if engine else ""))),
            pid=engine.pid if engine else 0,
            nodes=engine.nodes if engine else (),
            revision=self._revision,
            since_ms=self._since_ms,
            given_up=self._given_up,
        )
