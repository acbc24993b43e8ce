"""A runner's host over a real store: real toolset, journal, deltas and meter; the replica plays a script."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heavy.agent.limits import AgentLimits
from heavy.config import Settings
from heavy.core import clock
from heavy.core.ids import RunId, arm
from heavy.core.messages import ToolCall
from heavy.core.policy import ContextPolicy, Sampling
from heavy.core.records import Record, RecordBody
from heavy.core.runs import TrajectoryRole, TrajectorySpec
from heavy.profiles.loader import load_profiles
from heavy.replicas.api import GenerationRequest
from heavy.runner.build import Bench
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.store.redis import RedisStore, connect
from heavy.telemetry.tracing import Tracing
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.registry import ToolBox

from tests_support.domain import PROFILE, policy, run_spec
from tests_support.servers import StoreServer

LEASE_S = 1.0


@dataclass
class Desk:
    """A host and what a test looks at. `script` says what each generation of each arm is."""

    store: RedisStore
    host: TrajectoryHost
    replica: ScriptedReplica
    script: Callable[[GenerationRequest], Scripted] = field(default=lambda request: Scripted("Answer: 42"))

    async def accept(self, *, lease_s: float = 30.0, width: int = 1, **changes: Any) -> TrajectorySpec:
        """A run accepted in the store, and its first arm's specification."""
        spec = run_spec(policy=policy(width=width))
        created = await self.store.log.create(spec, owner="test", lease_s=lease_s)
        values: dict[str, Any] = {
            "run": spec.run,
            "trajectory": arm(0),
            "role": TrajectoryRole.ARM,
            "tenant": "default",
            "profile": PROFILE,
            "messages": spec.messages,
            "tools": ("probe",),
            "sampling": Sampling(seed=1),
            "context_policy": ContextPolicy.HIDE_TOOL_OUTPUTS,
            "steps_max": 8,
            "tool_calls_max": None,
            "reasoning_tokens_per_step_max": 1_000,
            "deadline_ms": clock.now_ms() + 60_000,
            "epoch": created.run.epoch,
        }
        return TrajectorySpec(**{**values, **changes})

    async def records(self, run: RunId) -> list[Record]:
        """The run's log."""
        return list(await self.store.log.read(run, after=0, limit=1_000))

    async def bodies(self, run: RunId) -> list[RecordBody]:
        """What the log's records say."""
        return [record.body for record in await self.records(run)]

    async def generating(self, count: int = 1) -> None:
        """Wait until so many generations are under way."""
        async with asyncio.timeout(10):
            while self.replica.in_flight != count:
                await asyncio.sleep(0.005)


MakeDesk = Callable[..., Desk]


@pytest.fixture
async def make_desk(store: RedisStore) -> AsyncIterator[MakeDesk]:
    """Builds desks; afterwards no generation is under way and no task is left behind."""
    async with AsyncExitStack() as stack:
        desks: list[Desk] = []

        def make(
            over: RedisStore = store,
            *,
            tools: Mapping[str, Any] | None = None,
            in_flight_max: int = 8,
            lease_s: float = LEASE_S,
        ) -> Desk:
            made: list[Desk] = []
            replica = ScriptedReplica(lambda request: made[0].script(request))
            tracing = Tracing("", "test")
            box = ToolBox([ScriptedTool(tool_spec("probe"))], {}, None) if tools is None else tools["box"]
            bench = Bench(load_profiles(), replica, box, over, tracing, AgentLimits(backoff_s=0.0))
            deltas = Deltas(over.log, 0.02)
            deltas.start()
            stack.push_async_callback(deltas.stop)
            host = TrajectoryHost(over, deltas, bench, tracing, in_flight_max=in_flight_max, lease_s=lease_s)
            stack.push_async_callback(host.stop)
            desk = Desk(over, host, replica)
            made.append(desk)
            desks.append(desk)
            return desk

        yield make
    for desk in desks:
        assert desk.replica.in_flight == 0
        assert desk.host.in_flight == 0


@pytest.fixture(autouse=True)
async def no_task_is_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What a trajectory starts has ended when the test has; only the store's connections may still close."""
    yield
    left = [t for t in asyncio.all_tasks() if "heavy.runner" in repr(t) or "heavy.agent" in repr(t)]
    assert not left


@pytest.fixture
def own_server() -> Iterator[StoreServer]:
    """A server for a test that mistreats it."""
    with tempfile.TemporaryDirectory(prefix="heavy-test-") as directory:
        server = StoreServer("valkey", Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def own_store(own_server: StoreServer) -> AsyncIterator[RedisStore]:
    """A store on it, which gives an operation up after half a second."""
    connected = await connect(own_server.url, Settings(store_timeout_s=0.5, retention_s=600.0))
    yield connected
    await connected.close()


def calls(*arguments: str, name: str = "probe") -> Scripted:
    """A generation that asks for tool calls."""
    asked = tuple(ToolCall(f"functions.{name}:{i}", name, text) for i, text in enumerate(arguments))
    return Scripted(reasoning="Let me see.", tool_calls=asked)


@pytest.fixture(name="calls")
def calls_fixture() -> Callable[..., Scripted]:
    """Builds generations that ask for tool calls."""
    return calls
