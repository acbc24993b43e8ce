"""A site that serves callers with tools of their own: all of it real, but for a model that plays a script."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from heavy.agent.limits import AgentLimits
from heavy.aggregation.equivalence import Equivalence
from heavy.caller import ClientTool, tool
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.draft import PolicyDraft
from heavy.core.ids import RunId
from heavy.core.messages import Role, ToolCall
from heavy.core.records import Record, ToolIntentRecord, ToolResultRecord
from heavy.core.runs import Run
from heavy.profiles.loader import load_profiles
from heavy.replicas.api import GenerationRequest
from heavy.rpc.server import RpcServer
from heavy.runner.build import Bench
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.store.redis import RedisStore
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.cache import ToolCache
from heavy.tools.cache_breaker import BreakerLimits
from heavy.tools.cache_server import CacheLimits
from heavy.tools.registry import ToolBox

from tests_support.domain import PROFILE
from tests_support.waiting import until

QUESTION = "Where is order 17?"
EIGHT = PolicyDraft(width=8, early_stop=False, deadline_s=60.0)
ONE = PolicyDraft(width=1, deadline_s=60.0)


def calls_lookup(request: GenerationRequest) -> Scripted:
    """A model that looks one order up, each arm another, and says what it was told."""
    told = [m.content for m in request.messages if m.role is Role.TOOL]
    if told or not any(spec.name == "lookup" for spec in request.tools):
        return Scripted(f"Answer: {told[-1] if told else 'nothing'}")
    call = ToolCall("functions.lookup:0", "lookup", json.dumps({"order_id": request.request_id[25:26]}))
    return Scripted(reasoning="Let me see.", tool_calls=(call,))


def all_ask_alike(request: GenerationRequest) -> Scripted:
    """A model whose arms all look the same order up."""
    scripted = calls_lookup(request)
    alike = tuple(ToolCall(c.id, c.name, '{"order_id": "17"}') for c in scripted.tool_calls)
    return Scripted(scripted.content, scripted.reasoning, alike)


@dataclass
class Site:
    """Two coordinators over one store, and a runner."""

    servers: list[RpcServer]
    store: RedisStore
    replica: ScriptedReplica
    script: Callable[[GenerationRequest], Scripted] = field(default=calls_lookup)

    @property
    def address(self) -> str:
        return self.servers[0].address

    async def records(self, run: RunId) -> list[Record]:
        return list(await self.store.log.read(run, after=0, limit=1_000))

    async def results(self, run: RunId) -> list[ToolResultRecord]:
        return [r.body for r in await self.records(run) if isinstance(r.body, ToolResultRecord)]

    async def runs(self) -> tuple[Run, ...]:
        page = await self.store.log.list("default", states=frozenset(), page_size=10, page_token="")
        return page.runs

    async def calling(self) -> RunId:
        """Wait until a trajectory waits for a caller; its run."""
        runs = await until(self.runs, lambda runs: bool(runs))
        run = runs[0].spec.run

        async def intents() -> int:
            return sum(isinstance(r.body, ToolIntentRecord) for r in await self.records(run))

        await until(intents, lambda count: count > 0)
        return run

    async def keys(self, run: RunId) -> list[bytes]:
        async def read(client: Any) -> list[bytes]:
            found: list[bytes] = await client.keys(f"*{run}*")
            return found

        return await self.store._link.call("list keys", read)


@pytest.fixture
async def site(store: RedisStore, store_url: str) -> AsyncIterator[Site]:
    book, tracing = load_profiles(), Tracing("", "test")
    settings = Settings(host="127.0.0.1", port=0, lease_s=5.0, attach_grace_s=1.0)
    async with AsyncExitStack() as stack:
        made: list[Site] = []
        replica = ScriptedReplica(lambda request: made[0].script(request))
        patient = CacheLimits(command_s=5.0, breaker=BreakerLimits(slow_s=5.0))
        cache = await ToolCache.connect(store_url, b"secret", patient)
        stack.push_async_callback(cache.close)
        box = ToolBox([ScriptedTool(tool_spec("python"))], {}, cache)
        deltas = Deltas(store.log, 0.02)
        deltas.start()
        stack.push_async_callback(deltas.stop)
        bench = Bench(book, replica, box, store, tracing, AgentLimits(backoff_s=0.0))
        host = TrajectoryHost(store, deltas, bench, tracing, in_flight_max=32, lease_s=5.0)
        stack.push_async_callback(host.stop)
        servers = []
        for name in ("one", "two"):
            equivalence = Equivalence()
            stack.push_async_callback(equivalence.close)
            service = CoordinatorService(
                Parts(store, host, book, equivalence, settings.lease_s),
                PolicyDefaults(book.by_name, (PROFILE,), settings, ("python",)),
                settings,
                RunMetrics(CollectorRegistry(), ()),
                tracing,
                name,
            )
            await service.start()
            stack.push_async_callback(service.stop)
            servers.append(RpcServer(service, settings, tracing))
            await servers[-1].start()
            stack.push_async_callback(servers[-1].stop)
        made.append(Site(servers, store, replica))
        yield made[0]


@pytest.fixture
async def client(site: Site) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(site.address) as connected:
        yield connected


class Desk:
    """A tool of the caller's that a test watches: it can be held up and made to fail."""

    def __init__(self, **declared: Any) -> None:
        self.calls: Counter[str] = Counter()
        self.cancelled = 0
        self.held = asyncio.Event()
        self.held.set()
        self.answer: Callable[[str], Any] = lambda order_id: "17"
        self.tool: ClientTool = tool(**{"name": "lookup", "effects": "read", **declared})(self._lookup)

    async def _lookup(self, order_id: str) -> Any:
        """Finds an order."""
        self.calls[order_id] += 1
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer(order_id)

    async def called(self, times: int = 1) -> None:
        async def count() -> int:
            return self.calls.total()

        await until(count, lambda total: total >= times)


@pytest.fixture
def desk() -> Desk:
    return Desk()
