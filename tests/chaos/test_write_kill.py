"""`kill -9` of a runner in the middle of a write: it is unknown, everywhere, and nobody does it again.

Real processes, a real store and the real coordinator; only Ray is left out, and the model plays a script.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.api import CreateRequest
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.codec import dump, load
from heavy.core.errors import RunnerLost
from heavy.core.ids import arm
from heavy.core.messages import Message, Role
from heavy.core.records import ToolIntentRecord, ToolResultRecord
from heavy.core.runs import Outcome, OutcomeKind, RunState, TrajectorySpec
from heavy.profiles.loader import load_profiles
from heavy.store.redis import RedisStore
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing

from tests_support.domain import PROFILE, policy
from tests_support.waiting import until

pytestmark = pytest.mark.timeout(300)

RUNNER = """
import asyncio, sys
from pathlib import Path
from heavy.agent.limits import AgentLimits
from heavy.config import Settings
from heavy.core.codec import dump, load
from heavy.core.messages import Role, ToolCall
from heavy.core.runs import TrajectorySpec
from heavy.core.tools import Effects, ToolOutput
from heavy.profiles.loader import load_profiles
from heavy.runner.build import Bench
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.store.redis import connect
from heavy.telemetry.tracing import Tracing
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.testing.tools import tool_spec
from heavy.tools.registry import ToolBox

url, folder = sys.argv[1], Path(sys.argv[2])

class Send:
    spec = tool_spec("send", effects=Effects.WRITE)
    async def call(self, arguments, context):
        with (folder / f"sent-{context.trajectory}").open("a") as log:
            log.write("x")
        while not (folder / "release").exists():
            await asyncio.sleep(0.01)
        return ToolOutput("sent")

def script(request):
    if any(m.role is Role.TOOL for m in request.messages):
        return Scripted("Answer: 42")
    return Scripted(tool_calls=(ToolCall("functions.send:0", "send", "{}"),))

async def main():
    spec = load(TrajectorySpec, sys.stdin.read())
    store, tracing = await connect(url, Settings()), Tracing("", "test")
    deltas = Deltas(store.log, 0.05)
    box = ToolBox([Send()], {}, None)
    bench = Bench(load_profiles(), ScriptedReplica(script), box, store, tracing, AgentLimits())
    host = TrajectoryHost(store, deltas, bench, tracing, in_flight_max=1, lease_s=30.0)
    outcome = await host.run(spec)
    sys.stdout.write(dump(outcome).decode())
    await store.close()

asyncio.run(main())
"""


class ProcessRunner:
    """Implements `heavy.runner.api.Runner` with a process for each trajectory."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Roll out one trajectory in a process of its own; a dead one is lost."""
        process = self.processes[spec.trajectory] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUNNER, self._url, str(self._folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            said, _ = await process.communicate(dump(spec))
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise RunnerLost(f"The runner of {spec.trajectory} died.")
        return load(Outcome, said)


@pytest.fixture
async def service(store: RedisStore, runner: ProcessRunner) -> AsyncIterator[CoordinatorService]:
    book, settings, equivalence = load_profiles(), Settings(lease_s=30.0), Equivalence()
    running = CoordinatorService(
        Parts(store, runner, book, equivalence, settings.lease_s),
        PolicyDefaults(book.by_name, (PROFILE,), settings, ("send",)),
        settings,
        RunMetrics(CollectorRegistry(), ()),
        Tracing("", "test"),
        "tester",
    )
    await running.start()
    yield running
    await running.stop()
    await equivalence.close()


@pytest.fixture
def runner(store_url: str, tmp_path: Path) -> ProcessRunner:
    return ProcessRunner(store_url, tmp_path)


async def test_a_write_under_way_in_a_runner_that_is_killed_is_unknown_and_not_repeated(
    service: CoordinatorService, runner: ProcessRunner, tmp_path: Path
) -> None:
    sent, release = [tmp_path / f"sent-arm-{n}" for n in range(2)], tmp_path / "release"
    contract = policy(width=2, quorum=2, early_stop=False, tools=("send",), deadline_s=280.0)
    request = CreateRequest("default", "", (Message(Role.USER, "Send it."),), contract, False, "")
    run = (await service.create(request)).run.spec.run

    async def begun() -> int:
        return sum(file.exists() and file.read_text() != "" for file in sent)

    await until(begun, lambda count: count == 2, within_s=200.0)
    victim = runner.processes[arm(0)]
    victim.send_signal(signal.SIGKILL)
    await victim.wait()

    async def outcome() -> Outcome | None:
        return (await service.trajectory("default", run, arm(0), after=0, limit=50)).outcome

    await until(
        outcome, lambda ended: ended is not None, within_s=100.0
    )  # at once: its sibling is still at work
    release.touch()
    async for _ in service.watch("default", run, after=0, deltas=False):
        pass
    page = await service.trajectory("default", run, arm(0), after=0, limit=50)

    assert page.outcome is not None
    assert (page.outcome.kind, page.outcome.reason) == (OutcomeKind.FAILED, "runner_lost")
    assert "send (arm-0, functions.send:0)" in page.outcome.detail
    bodies = [record.body for record in page.records]
    assert [body.unknown for body in bodies if isinstance(body, ToolResultRecord)] == [True]
    assert sum(isinstance(body, ToolIntentRecord) for body in bodies) == 1
    assert (await service.get("default", run)).state is RunState.COMPLETED
    assert [file.read_text() for file in sent] == ["x", "x"]
