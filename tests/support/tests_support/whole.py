"""A whole Heavy in one process: real store, gRPC, coordinator and agent loop; the model plays a script."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry

from heavy.agent.limits import AgentLimits
from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.fleet import FleetAdmin
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.messages import ToolCall
from heavy.profiles.loader import ProfileBook
from heavy.profiles.schema import PricesSection, Profile
from heavy.replicas.api import GenerationRequest, Replica
from heavy.rpc.server import RpcServer
from heavy.runner.build import Bench
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.store.redis import connect
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.config import ToolsConfig
from heavy.tools.registry import ToolBox, open_tools

PROFILE: Final = Profile(
    name="scripted",
    title="Scripted model (simulated)",
    engine="simulated",
    model="scripted",
    context_tokens=32_768,
    prices=PricesSection(usd_per_million_prompt_tokens=100.0, usd_per_million_output_tokens=1000.0),
)


@dataclass
class Whole:
    """Where it serves, and the model that answers. `script` may be changed at any time."""

    address: str = ""
    replica: ScriptedReplica = field(init=False)
    script: Callable[[GenerationRequest], Scripted] = field(default=lambda request: Scripted("Answer: 42"))
    service: CoordinatorService = field(init=False)

    def asked(self) -> list[str]:
        """The question of every generation so far, in order."""
        return [request.messages[-1].content for request in self.replica.requests]


@asynccontextmanager
async def whole(
    store_url: str,
    *,
    profile: Profile = PROFILE,
    replica: Replica | None = None,
    tools: ToolsConfig | None = None,
    **changes: Any,
) -> AsyncIterator[Whole]:
    """A whole Heavy around a block; `changes` are settings. A `replica` of one's own answers in place of the
    scripted one, under a `profile` of its own; real `tools` stand in place of the scripted `probe`."""
    settings = Settings(**{"host": "127.0.0.1", "port": 0, "lease_s": 5.0, **changes})
    heavy = Whole()
    heavy.replica = ScriptedReplica(lambda request: heavy.script(request))
    book, tracing = ProfileBook([profile]), Tracing("", "test")
    async with AsyncExitStack() as stack:
        store = await connect(store_url, settings)
        stack.push_async_callback(store.close)
        equivalence = Equivalence()
        stack.push_async_callback(equivalence.close)
        probe = ToolBox([ScriptedTool(tool_spec("probe"))], {}, None)
        box = probe if tools is None else await open_tools(tools, files=store.files)
        stack.push_async_callback(box.close)
        deltas = Deltas(store.log, 0.02)
        deltas.start()
        stack.push_async_callback(deltas.stop)
        bench = Bench(book, replica or heavy.replica, box, store, tracing, AgentLimits(backoff_s=0.0))
        host = TrajectoryHost(store, deltas, bench, tracing, in_flight_max=256, lease_s=settings.lease_s)
        stack.push_async_callback(host.stop)
        heavy.service = CoordinatorService(
            Parts(store, host, book, equivalence, settings.lease_s),
            PolicyDefaults(
                book.by_name,
                (profile.name,),
                settings,
                ("probe",) if tools is None else tools.names,
                () if tools is None else tools.file_tools,
            ),
            settings,
            RunMetrics(CollectorRegistry(), ("probe",)),
            tracing,
            "tester",
        )
        await heavy.service.start()
        stack.push_async_callback(heavy.service.stop)
        server = RpcServer(heavy.service, settings, tracing, fleet=FleetAdmin(store))
        await server.start()
        stack.push_async_callback(server.stop)
        heavy.address = server.address
        yield heavy


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


async def started(address: str, *words: object) -> asyncio.subprocess.Process:
    """`heavy` with some words, in a process of its own, with the server it asks."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heavy.cli.main", *map(str, words)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HEAVY_SERVER": address, "COLUMNS": "120"},
    )


async def said(address: str, *words: object) -> Said:
    """What it says, once it has ended."""
    process = await started(address, *words)
    out, err = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


def calls(*arguments: str, name: str = "probe") -> Scripted:
    """A generation that asks for tool calls."""
    asked = tuple(ToolCall(f"functions.{name}:{i}", name, text) for i, text in enumerate(arguments))
    return Scripted(reasoning="Let me see.", tool_calls=asked)
