"""Heavy on one machine: the parts that are not given are started here, watched, and ended with us.

Store, Ray cluster, replicas, runners and coordinator are processes of their own. Ray's daemons and every
actor belong to this process and end with it, in order or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import ray

from heavy.config import Settings
from heavy.coordinator.tenants import load_tenants
from heavy.core.errors import ConfigError, HeavyError, NotFound
from heavy.profiles.loader import fault_in, load_profiles
from heavy.profiles.schema import Profile
from heavy.runner.ray_adapter import NAMESPACE
from heavy.store.api import Store
from heavy.store.embedded import EmbeddedValkey
from heavy.store.redis import connect
from heavy.tools.config import read_tools
from workers import actors
from workers.coordinator_process import CoordinatorProcess
from workers.fleet import placement
from workers.fleet.served import Progress, ServedProfiles
from workers.launch import free_port, require_startable

RUNNER_START_S = 90.0
REVIVALS_MAX = 20
"""How often a dead runner or coordinator is replaced in the life of a cluster."""
WATCH_EVERY_S = 0.5
PING_TIMEOUT_S = 10.0
OBJECT_STORE_BYTES = 100 << 20
ROLES: Final[tuple[Literal["store", "cache"], ...]] = ("store", "cache")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What to bring up: which profiles, how many runners; `replicas` overrides the profiles' own number.

    `keep_replicas`: on a cluster that was given, replicas stay when the rest is taken down.
    """

    profiles: tuple[str, ...]
    runners: int = 2
    replicas: int | None = None
    keep_replicas: bool = False


class LocalCluster:
    """Brings a whole Heavy up, keeps it up, takes it down. `stop` is idempotent and always safe to call."""

    def __init__(self, plan: LocalPlan, settings: Settings, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._given = settings
        self._stores: dict[str, EmbeddedValkey] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="heavy-", ignore_cleanup_errors=True)
        self._ray_address = ""
        self._revivals = 0
        self._runner_prefix = "runner-"
        self._runner_numbers = itertools.count()
        self.settings = settings
        self.runners: dict[str, Any] = {}
        self._store: Store | None = None
        self._served: ServedProfiles | None = None
        self.coordinator: CoordinatorProcess | None = None

    async def start(self) -> None:
        """Stores, Ray, runners and coordinator; then wait for the replicas, which may take long.

        The coordinator shows how they come up. On any error everything is taken down again.
        """
        try:
            profiles = self._profiles()
            await self._start_stores()
            await self._start_ray()
            await self._ask_for_replicas(profiles)
            await self._start_runners_and_coordinator()
            await self._mind_until_served()
        except BaseException:
            await self.stop()
            raise

    async def watch(self) -> None:
        """Replace stores, runners and coordinator when they die; `HeavyError` when that happens too often."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            for role, store in self._stores.items():
                if not store.alive:
                    self._revive(role)
                    store.start()
                    self._progress(role, "ready", "Valkey, embedded")
            if self._served is not None:
                self._served.check()
            for name, handle in tuple(self.runners.items()):
                if await self._gone(handle):
                    self._revive(name)
                    del self.runners[name]
                    await self._replace_runner()
            if self.coordinator is not None and not self.coordinator.pid:
                self._revive("coordinator")
                await self._start_coordinator()

    async def stop(self) -> None:
        """Coordinator first, so that runs end as cancelled; then actors, Ray, stores. Leaves nothing."""
        if self.coordinator is not None:
            await self.coordinator.stop()
            self.coordinator = None
        handles, self.runners = list(self.runners.values()), {}
        await asyncio.gather(
            *(actors.stop_actor(handle) for handle in handles), self._stop_replicas(), return_exceptions=True
        )
        if self._ray_address:
            await asyncio.to_thread(ray.shutdown)
            self._ray_address = ""
        for store in self._stores.values():
            store.stop()
        self._stores.clear()
        self._directory.cleanup()

    def _profiles(self) -> list[Profile]:
        """What to serve. Every file the operator wrote is read here, before anything is started."""
        read_tools(self._given.tools_file)
        load_tenants(self._given.tokens_file).require_safe(self._given.host, "HEAVY_HOST")
        book = load_profiles(self._given.profile_directories)
        try:
            profiles = [book.get(name) for name in self._plan.profiles]
        except NotFound as error:
            raise ConfigError(f"{error} Profiles of your own are found with --profiles-dir.") from error
        if not os.environ.get("RAY_ADDRESS"):  # else the nodes are to have what it takes, not this machine
            for profile in profiles:
                require_startable(profile)
        return profiles

    async def _start_stores(self) -> None:
        changes: dict[str, str] = {}
        if not self._given.cache_secret.get_secret_value():
            changes["HEAVY_CACHE_SECRET"] = secrets.token_hex(32)
        for role in ROLES:
            if getattr(self._given, f"{role}_url"):
                self._progress(role, "ready", "given")
                continue
            embedded = self._stores[role] = EmbeddedValkey(Path(self._directory.name) / role, role=role)
            changes[f"HEAVY_{role.upper()}_URL"] = embedded.start()
            self._progress(role, "ready", "Valkey, embedded")
        self._settle(changes)
        await (await connect(self.settings.store_url, self.settings)).close()

    async def _start_ray(self) -> None:
        self._progress("ray", "starting", "")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray's workers are of low priority (15) unless told: engines and runners wait for nobody else.
        os.environ.setdefault("RAY_worker_niceness", "0")
        given = os.environ.get("RAY_ADDRESS")
        own: Mapping[str, Any] = {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
        arguments = {"address": given or "local", **({} if given else own)}
        try:
            await _init_ray(arguments)
        except HeavyError:
            self._progress("ray", "lost", "it did not come up; trying once more")
            await _init_ray(arguments)
        self._ray_address = given or str(ray.get_runtime_context().gcs_address)
        if given:  # others may have runners there
            self._runner_prefix = f"runner-{secrets.token_hex(3)}-"
        self._progress("ray", "ready", "given" if given else "local cluster")

    async def _start_runners_and_coordinator(self) -> None:
        starts = [self._start_runner() for _ in range(self._plan.runners)]
        try:
            async with asyncio.TaskGroup() as group:
                for start in (*starts, self._start_coordinator()):
                    group.create_task(start)
        except* HeavyError as failures:
            raise failures.exceptions[0] from None

    async def _mind_until_served(self) -> None:
        """Wait for the replicas, while what dies meanwhile is replaced."""
        assert self._served is not None
        minding = asyncio.ensure_future(self.watch())
        ready = asyncio.ensure_future(self._served.until_ready(patient=self._plan.keep_replicas))
        try:
            await asyncio.wait({minding, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (minding, ready):
                task.cancel()
            await asyncio.gather(minding, ready, return_exceptions=True)
        await (ready if ready.done() and not ready.cancelled() else minding)

    async def _start_runner(self) -> None:
        """One more runner, under a name of its own: Ray keeps the name of a dead actor for a while."""
        name = f"{self._runner_prefix}{next(self._runner_numbers)}"
        self._progress(name, "starting", "")
        handle = actors.runner_actor(name, self.settings.environment(), self.settings.runner_in_flight_max)
        self.runners[name] = handle
        pid = await actors.call(handle, "start", RUNNER_START_S)
        self._progress(name, "ready", f"pid {pid}")

    async def _replace_runner(self) -> None:
        """One that does not start in time costs no other: it is ended, and replaced as one that died."""
        try:
            await self._start_runner()
        except HeavyError as error:
            name = next(reversed(self.runners))
            ray.kill(self.runners[name])
            self._progress(name, "lost", str(error))

    async def _ask_for_replicas(self, profiles: list[Profile]) -> None:
        if not os.environ.get("RAY_ADDRESS"):
            await asyncio.to_thread(require_room, profiles)
        self._store = await connect(self.settings.store_url, self.settings)
        self._served = ServedProfiles(self._store, self.settings.environment(), self._progress)
        await self._served.ask(profiles, self._plan.replicas, keep=self._plan.keep_replicas)

    async def _stop_replicas(self) -> None:
        served, self._served = self._served, None
        store, self._store = self._store, None
        if served is not None:
            await served.stop(keep=self._plan.keep_replicas)
        if store is not None:
            await store.close()

    async def _start_coordinator(self) -> None:
        self._progress("coordinator", "starting", "")
        self.coordinator = CoordinatorProcess(self.settings, self._ray_address)
        await self.coordinator.start()
        self._progress("coordinator", "ready", f"grpc {self.settings.host}:{self.settings.port}")

    def _settle(self, changes: dict[str, str]) -> None:
        """The settings every part shares, with what was left open filled in."""
        if not self._given.port:
            changes["HEAVY_PORT"] = str(free_port())
        if not self._given.http_port:
            changes["HEAVY_HTTP_PORT"] = str(free_port())
        if not self._given.profile:
            changes["HEAVY_PROFILE"] = self._plan.profiles[0]
        changes["HEAVY_SERVED"] = ",".join(self._plan.profiles)
        self.settings = Settings.of({**self._given.environment(), **changes})

    def _revive(self, name: str) -> None:
        self._revivals += 1
        if self._revivals > REVIVALS_MAX:
            raise HeavyError(f"{name} died, and {REVIVALS_MAX} parts had to be replaced before: giving up.")
        logger.warning("%s died and is replaced", name)
        self._progress(name, "lost", "replacing it")

    async def _gone(self, handle: Any) -> bool:
        with contextlib.suppress(TimeoutError):
            return not await actors.alive(handle, PING_TIMEOUT_S)
        return False


def require_room(profiles: list[Profile]) -> None:
    """A cluster of our own never grows: raises `ConfigError` for a replica that it can never hold."""
    cluster = placement.nodes()
    for profile in profiles:
        if lacking := placement.missing(placement.bundles_of(profile), cluster):
            raise fault_in(
                profile,
                ("serve", "gpus"),
                f"a replica of {profile.name} {lacking}; or set RAY_ADDRESS to a cluster that has them",
            )


async def _init_ray(arguments: Mapping[str, Any]) -> None:
    """`ray.init` in a thread, seen through when cancelled: half a cluster would be left behind.

    Raises `HeavyError`; Ray gives its daemons 30 s, which a machine under load can exceed.
    """

    def init() -> None:
        ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **arguments)

    starting = asyncio.ensure_future(asyncio.to_thread(init))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})
        await asyncio.to_thread(ray.shutdown)
        raise
    except Exception as error:  # Ray raises bare exceptions when its daemons do not come up
        await asyncio.to_thread(ray.shutdown)
        raise HeavyError(_no_ray(arguments["address"], error)) from error


def _no_ray(address: str, error: Exception) -> str:
    """What to say when there is no cluster to work on; why a given one refused, Ray keeps to itself."""
    if address == "local":
        return f"Ray did not start: {error} See /tmp/ray/session_latest/logs."
    return (
        f"The Ray cluster at RAY_ADDRESS={address} cannot be joined: {error} Is its head up? Where it wants "
        "a token (every head does on a machine that has one), set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH to what the head was started with."
    )
