"""A real server on loopback over a coordinator that does what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.coordinator.api import CreateRequest, TrajectoryPage
from heavy.coordinator.defaults import PolicyDefaults
from heavy.core.clock import now_ms
from heavy.core.errors import HeavyError, NotFound, RequestConflict
from heavy.core.ids import RUN_LEVEL, RunId, TrajectoryId, arm, new_run_id
from heavy.core.ledger import NOTHING_SPENT, Ledger
from heavy.core.records import Delta, Event, LifecycleRecord, Record, RecordBody
from heavy.core.runs import AggregationMethod, Agreement, Run, RunResult, RunSpec, RunState
from heavy.profiles.schema import Profile
from heavy.rpc.server import RpcServer
from heavy.store.api import Created, RunPage

PROFILES = {
    name: Profile(
        name=name, title=name, engine="simulated", model=name, context_tokens=4096, default_tools=("python",)
    )
    for name in ("tiny", "other")
}


class ScriptedRun:
    """One run, its log, and who is there."""

    def __init__(self, request: CreateRequest) -> None:
        created_ms = now_ms()
        spec = RunSpec(
            run=new_run_id(),
            tenant=request.tenant,
            request_id=request.request_id,
            messages=request.messages,
            policy=request.policy,
            attached=request.attached,
            created_ms=created_ms,
            deadline_ms=created_ms + round(request.policy.deadline_s * 1000),
            traceparent=request.traceparent,
            fingerprint=request.fingerprint,
        )
        self.run = Run(spec=spec, state=RunState.ACCEPTED, epoch=1, records=0)
        self.log: list[Record] = []
        self.deltas: list[tuple[Delta, ...]] = []
        self.changed = asyncio.Condition()
        self.attached = 0
        self.attachments = 0
        self.given = 0
        """How many records were handed to watchers."""
        self.watches: list[int] = []
        """From which number on each watcher began."""


class ScriptedCoordinator:
    """Keeps runs in a dictionary and does nothing by itself. Outlives the servers in front of it."""

    def __init__(self, settings: Settings) -> None:
        self.policies = PolicyDefaults(PROFILES, ("tiny",), settings, ("python", "search"))
        self.runs: dict[RunId, ScriptedRun] = {}
        self.requests: list[CreateRequest] = []
        self.refusal: Exception | None = None
        self.opening: Callable[[ScriptedRun], Awaitable[None]] | None = None
        self.cancelled: list[tuple[RunId, str]] = []
        self.changed = asyncio.Condition()

    async def create(self, request: CreateRequest) -> Created:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        for known in self.runs.values():
            spec = known.run.spec
            if request.request_id and (spec.tenant, spec.request_id) == (request.tenant, request.request_id):
                if spec.fingerprint != request.fingerprint:
                    raise RequestConflict(f"request_id {request.request_id!r} was another request")
                return Created(known.run, False)
        scripted = ScriptedRun(request)
        self.runs[scripted.run.spec.run] = scripted
        await self.emit(scripted, LifecycleRecord(Event.RUN_STATE, state=RunState.ACCEPTED))
        if self.opening is not None:
            await self.opening(scripted)
        await self._notify()
        return Created(scripted.run, True)

    async def watch(
        self, tenant: str, run: RunId, *, after: int, deltas: bool
    ) -> AsyncIterator[Record | tuple[Delta, ...]]:
        scripted = self._find(tenant, run)
        scripted.watches.append(after)
        shown = 0
        while True:
            while after < len(scripted.log):
                record = scripted.log[after]
                after, scripted.given = after + 1, scripted.given + 1
                yield record
                if isinstance(record.body, LifecycleRecord) and record.body.state in (
                    RunState.COMPLETED,
                    RunState.CANCELLED,
                ):
                    return
            while deltas and shown < len(scripted.deltas):
                shown += 1
                yield scripted.deltas[shown - 1]
            async with scripted.changed:
                while after == len(scripted.log) and not (deltas and shown < len(scripted.deltas)):
                    await scripted.changed.wait()

    async def get(self, tenant: str, run: RunId) -> Run:
        if self.refusal is not None:
            raise self.refusal
        return self._find(tenant, run).run

    async def list(
        self, tenant: str, *, states: frozenset[RunState], page_size: int, page_token: str
    ) -> RunPage:
        found = [
            known.run
            for known in reversed(self.runs.values())
            if known.run.spec.tenant == tenant and (not states or known.run.state in states)
        ]
        start = int(page_token or 0)
        rest = found[start + page_size :]
        return RunPage(tuple(found[start : start + page_size]), str(start + page_size) if rest else "")

    async def cancel(self, tenant: str, run: RunId, reason: str) -> Run:
        scripted = self._find(tenant, run)
        self.cancelled.append((run, reason))
        scripted.run = replace(scripted.run, cancel_reason=reason)
        return scripted.run

    async def trajectory(
        self, tenant: str, run: RunId, trajectory: TrajectoryId, *, after: int, limit: int
    ) -> TrajectoryPage:
        records = [
            record
            for record in self._find(tenant, run).log
            if record.number > after and record.trajectory == trajectory
        ]
        return TrajectoryPage(tuple(records[:limit]), None, len(records) > limit)

    @asynccontextmanager
    async def attach(self, run: RunId) -> AsyncIterator[None]:
        scripted = self.runs[run]
        scripted.attached += 1
        scripted.attachments += 1
        await self._notify()
        try:
            yield
        finally:
            scripted.attached -= 1
            await self._notify()

    async def emit(
        self, scripted: ScriptedRun, body: RecordBody, trajectory: TrajectoryId = RUN_LEVEL
    ) -> None:
        number = len(scripted.log) + 1
        scripted.log.append(Record(number, trajectory, -1, now_ms(), body))
        async with scripted.changed:
            scripted.changed.notify_all()

    async def note(self, scripted: ScriptedRun, text: str) -> None:
        await self.emit(scripted, LifecycleRecord(Event.NOTE, detail=text), arm(0))

    async def show(self, scripted: ScriptedRun, *deltas: Delta) -> None:
        scripted.deltas.append(deltas)
        async with scripted.changed:
            scripted.changed.notify_all()

    async def finish(self, scripted: ScriptedRun, answer: str) -> None:
        result = RunResult(answer, answer, AggregationMethod.SINGLE, Agreement())
        ledger = Ledger(NOTHING_SPENT, {})
        scripted.run = replace(scripted.run, state=RunState.COMPLETED, result=result, ledger=ledger)
        await self.emit(
            scripted, LifecycleRecord(Event.RUN_STATE, state=RunState.COMPLETED, result=result, ledger=ledger)
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, at most ten seconds, until runs or their callers have changed as described."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    @property
    def only(self) -> ScriptedRun:
        (scripted,) = self.runs.values()
        return scripted

    def _find(self, tenant: str, run: RunId) -> ScriptedRun:
        scripted = self.runs.get(run)
        if scripted is None or scripted.run.spec.tenant != tenant:
            raise NotFound(f"There is no run {run!r}")
        return scripted

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@pytest.fixture
def settings() -> Settings:
    return Settings(host="127.0.0.1", port=0, profile="tiny")


@pytest.fixture
def coordinator(settings: Settings) -> ScriptedCoordinator:
    return ScriptedCoordinator(settings)


@pytest.fixture
async def server(coordinator: ScriptedCoordinator, settings: Settings) -> AsyncIterator[RpcServer]:
    running = RpcServer(coordinator, settings)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def client(server: RpcServer) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(server.address) as connected:
        yield connected


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("alice:alice-token-0123456789\nbob:bob-token-0123456789\nalice:alice-second-0123456789\n")
    return path


@pytest.fixture
async def guarded(
    coordinator: ScriptedCoordinator, settings: Settings, tokens_file: Path
) -> AsyncIterator[RpcServer]:
    """A server that asks for tokens."""
    running = RpcServer(coordinator, settings.model_copy(update={"tokens_file": str(tokens_file)}))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def failing(coordinator: ScriptedCoordinator) -> Callable[[Exception], HeavyError | Exception]:
    """Makes every create and get fail with the error given."""

    def fail(error: Exception) -> Exception:
        coordinator.refusal = error
        return error

    return fail
