"""A router over servers that a test scripts, and the directory that announces them."""

from __future__ import annotations

from contextlib import AsyncExitStack

from heavy.core import clock
from heavy.core.fleet import ReplicaInfo
from heavy.core.ids import arm, new_run_id, request_id
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.profiles.loader import load_profiles
from heavy.profiles.schema import RoutingSection
from heavy.replicas.api import Finished, GenerationRequest, TextDelta
from heavy.replicas.breaker import BreakerState
from heavy.replicas.cost import Chooser, cheapest
from heavy.replicas.holds import KvHolds
from heavy.replicas.http import HttpPool
from heavy.replicas.registry import ReplicaRegistry
from heavy.replicas.router import RoutedReplica, RoutingLimits
from heavy.testing.scripted_server import CHAT, Reply, ScriptedServer

PROFILE = "simulated"
MESSAGES = (Message(Role.USER, "2+2?"),)
QUICK = RoutingLimits(absence_s=0.8, look_again_s=0.02, look_after_s=0.1)


class ListedDirectory:
    """A directory that holds what a test puts into it."""

    def __init__(self) -> None:
        self.infos: dict[str, ReplicaInfo] = {}

    def put(self, name: str, base_url: str, state: str = "ready", **more: int) -> None:
        self.infos[name] = ReplicaInfo(name, PROFILE, base_url, "simulated", "m", state, **more)  # type: ignore[arg-type]

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        return tuple(self.infos.values())


class Fleet:
    """Servers, the directory that announces them, and a router over them."""

    def __init__(
        self,
        pool: HttpPool,
        stack: AsyncExitStack,
        *,
        limits: RoutingLimits = QUICK,
        holds: KvHolds | None = None,
        routing: RoutingSection | None = None,
        directory: ListedDirectory | None = None,
        chooser: Chooser = cheapest,
    ) -> None:
        self.directory = directory or ListedDirectory()
        self.registry = ReplicaRegistry.over_http(self.directory, load_profiles(), pool, silence_s=10.0)
        says = routing or RoutingSection()
        self.router = RoutedReplica(self.registry, limits, holds, lambda _: says, chooser)
        self._stack = stack

    async def server(self, name: str, *replies: Reply, **more: int) -> ScriptedServer:
        server = await self._stack.enter_async_context(ScriptedServer(replies))
        self.directory.put(name, server.base_url, **more)
        return server

    async def ask(self, **changes: object) -> Finished:
        events = [event async for event in self.router.generate(request(**changes))]
        last = events[-1]
        assert isinstance(last, Finished)
        # What is cut before its end knows from its first word how long it had waited.
        waited_s = [event.queue_s for event in events if isinstance(event, TextDelta) and event.queue_s]
        assert waited_s[-1:] in ([], [last.timing.queue_s])
        assert waited_s or not any(isinstance(event, TextDelta) for event in events)
        return last

    async def breaker(self, name: str) -> BreakerState:
        [known] = [one for one in await self.registry.of(PROFILE) if one.info.replica == name]
        return known.breaker.state


def request(**changes: object) -> GenerationRequest:
    values = {
        "request_id": request_id(new_run_id(), arm(0), 0, 1),
        "profile": PROFILE,
        "messages": MESSAGES,
        "tools": (),
        "sampling": Sampling(),
        "tokens_max": 64,
        "deadline_ms": clock.now_ms() + 30_000,
    }
    return GenerationRequest(**{**values, **changes})  # type: ignore[arg-type]


def rids(*servers: ScriptedServer) -> list[str]:
    return [one.json()["rid"] for server in servers for one in server.of(CHAT)]
