"""A Ray cluster of several nodes on this machine, each with eight GPUs on paper, and a fleet on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util import list_named_actors

from heavy.config import Settings
from heavy.core.fleet import ReplicaInfo
from heavy.profiles.loader import load_profiles
from heavy.profiles.schema import Profile
from heavy.runner.ray_adapter import NAMESPACE
from heavy.store.redis import RedisStore, connect
from workers.fleet import placement
from workers.fleet.served import ServedProfiles

from tests_support.ray_head import TRIES
from tests_support.servers import StoreServer
from tests_support.up import PROFILES, Up, alive, processes_below
from tests_support.waiting import until

WITHIN_S = 60.0
RAY_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "120",
}
HEAD: Final = {
    "num_cpus": 2,
    "num_gpus": 0,
    "include_dashboard": False,
    "object_store_memory": 100 << 20,
    "wait": False,
}

T = TypeVar("T")


def patiently(start: Callable[[], T]) -> T:
    """What `start` gives, tried again: Ray gives its daemons 30 s, which a busy machine can exceed.

    The daemons of a try that failed are ended.
    """
    for left in reversed(range(TRIES)):
        before = processes_below(os.getpid())
        try:
            return start()
        except Exception:  # Ray's word for it has no class of its own
            for pid in processes_below(os.getpid()) - before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                raise
    raise AssertionError("no try was made")


@dataclass
class Nodes:
    """The cluster's nodes beside its head, to be added and lost."""

    cluster: Cluster
    present: list[Any] = field(default_factory=list)

    def add(self, gpus: int = 8, **resources: float) -> Any:
        """One more node."""
        add = partial(self.cluster.add_node, wait=False)
        node = patiently(lambda: add(num_cpus=2, num_gpus=gpus, resources=resources or None))
        self.present.append(node)
        return node

    def lose(self, node: Any) -> None:
        """A node dies, with everything on it, at once."""
        self.present.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def of(self, pid: int) -> Any:
        """The node below whose raylet a process runs."""
        for node in self.present:
            raylet = node.all_processes["raylet"][0].process.pid
            if pid in processes_below(raylet):
                return node
        raise AssertionError(f"no node runs {pid}")

    async def number(self, count: int) -> None:
        """As many nodes of eight GPUs as that, known to the cluster and free."""
        while len(self.present) > count:
            self.lose(self.present[-1])
        while len(self.present) < count:
            self.add()

        async def free() -> int:
            return sum(node.free.get("GPU", 0.0) == 8 for node in placement.nodes())

        await until(free, lambda known: known == count, within_s=WITHIN_S)


@pytest.fixture(scope="package")
def nodes() -> Iterator[Nodes]:
    """The cluster, for all tests of this folder: a head without GPUs."""
    patch = pytest.MonkeyPatch()
    for name, value in RAY_ENVIRONMENT.items():
        patch.setenv(name, value)
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=HEAD))
    ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    yield Nodes(cluster)
    ray.shutdown()
    cluster.shutdown()
    patch.undo()


@dataclass
class Fleet:
    """One fleet: its store, and what serves its profiles."""

    store: RedisStore
    settings: Settings
    said: list[tuple[str, str, str]] = field(default_factory=list)

    def served(self) -> ServedProfiles:
        """A controller and a view, not yet started."""
        return ServedProfiles(self.store, self.settings.environment(), lambda *what: self.said.append(what))

    async def replicas(self, state: str = "") -> list[ReplicaInfo]:
        """What is announced, in that state."""
        return [i for i in await self.store.directory.replicas() if not state or i.state == state]

    async def until_ready(self, count: int, suits: Callable[[ReplicaInfo], bool] = bool) -> list[ReplicaInfo]:
        """Wait until exactly so many of those that suit are ready."""

        async def ready() -> list[ReplicaInfo]:
            return [info for info in await self.replicas("ready") if suits(info)]

        return await until(ready, lambda infos: len(infos) == count, within_s=WITHIN_S)


@pytest.fixture
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A fleet over an empty store of its own; nothing of it is left on the cluster afterwards."""
    server = StoreServer("valkey", tmp_path_factory.mktemp("s", numbered=True))
    server.start()
    settings = Settings(store_url=server.url, store_timeout_s=5.0)
    store = await connect(server.url, settings)
    one = Fleet(store, settings)
    try:
        yield one
    finally:
        await store.close()
        server.stop()


def up_on(nodes: Nodes, fleet: Fleet, *profiles: str) -> Up:
    """`heavy up` of these profiles on the cluster and the fleet's store."""
    env = {"RAY_ADDRESS": nodes.cluster.address, "HEAVY_STORE_URL": fleet.settings.store_url}
    return Up(profiles, "--runners", "1", env=env)


@contextlib.asynccontextmanager
async def stopped_by_ctrl_c(up: Up, fleet: Fleet) -> AsyncIterator[None]:
    """Ctrl-C after the block, and then nothing of it is left: no group, no actor, no engine process."""
    try:
        yield
        shown = await until(fleet.replicas, lambda infos: any(info.pid for info in infos), WITHIN_S)
        engines = set[int]().union(*(processes_below(info.pid) for info in shown if info.pid))
    finally:
        status = await asyncio.to_thread(up.stop, signal.SIGINT)
    said = "".join(up.output)
    assert status == 0, said
    assert "Traceback" not in said
    assert placement.groups("heavy-") == {}
    assert list_named_actors(all_namespaces=True) == []
    assert alive(engines) == set()
    assert await fleet.store.fleet.members() == ()
    assert await fleet.store.fleet.wanted() == ()


def profile(name: str, **serve: object) -> Profile:
    """A profile of the fixtures with another serve section."""
    found = load_profiles([Path(PROFILES)]).get(name)
    return found.model_copy(update={"serve": found.serve.model_copy(update=serve)})


@pytest.fixture(name="profile")
def profile_fixture() -> Callable[..., Profile]:
    """Builds profiles with another serve section."""
    return profile
