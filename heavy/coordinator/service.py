"""The coordinator: admits runs, executes those it owns, serves any run's log, and ends what others left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from opentelemetry.trace import Span

from heavy.config import Settings
from heavy.coordinator.admission import Admission
from heavy.coordinator.api import CreateRequest, TrajectoryPage
from heavy.coordinator.attachment import Attachments
from heavy.coordinator.caller_calls import attached_elsewhere, take, to_be_sent
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.earlier import check_arms_from, taken_over
from heavy.coordinator.run import Parts, RunExecution
from heavy.coordinator.sweep import end_orphans
from heavy.coordinator.tally import trajectory_page
from heavy.core import clock
from heavy.core.calling import CallerCall, CallerResult, Receipt, Withdrawn
from heavy.core.errors import HeavyError, LeaseLost, NotFound
from heavy.core.files import ref_of
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.core.ids import RUN_LEVEL, RunId, TrajectoryId, is_run_id, new_run_id
from heavy.core.policy import Members
from heavy.core.records import Delta, Record
from heavy.core.runs import Run, RunSpec, RunState
from heavy.store.api import Control, ControlKind, Created, RunPage
from heavy.store.reading import records_of
from heavy.telemetry import names
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.timeline import Timeline
from heavy.telemetry.tracing import Tracing, traceparent_of

logger = logging.getLogger(__name__)

SHUTDOWN_GRACE_S = 15.0


class CoordinatorService:
    """Implements `heavy.coordinator.api.Coordinator`. `start` and `stop` are idempotent."""

    def __init__(
        self,
        parts: Parts,
        policies: PolicyDefaults,
        settings: Settings,
        metrics: RunMetrics,
        tracing: Tracing,
        owner: str,
    ) -> None:
        self.policies = policies
        self._parts = parts
        self._store = parts.store
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._owner = owner
        self._admission = Admission(settings.runs_max, settings.queue_max)
        self._attachments = Attachments(settings.attach_grace_s, self._caller_gone, self._caller_elsewhere)
        self._executions: dict[RunId, asyncio.Task[None]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to end runs whose coordinator died."""
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Accept nothing new, cancel what is under way, wait a bounded time for it to end."""
        self._admission.close()
        await self._attachments.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        for run in tuple(self._executions):
            with contextlib.suppress(HeavyError):
                await self._send_cancel(run, "The server is shutting down.")
        left = list(self._executions.values())
        if left:
            await asyncio.wait(left, timeout=SHUTDOWN_GRACE_S)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def create(self, request: CreateRequest) -> Created:
        """Accept a run, or find the one its request_id created.

        Raises `Overloaded`, `RequestConflict`, `StoreUnavailable`.
        """
        try:
            self._admission.take()
            return await self._create_in_place(request)
        except HeavyError as error:
            self._metrics.refused(error.code)
            raise

    async def _create_in_place(self, request: CreateRequest) -> Created:
        """Create under a place already taken; the place goes back unless an execution now holds it."""
        span = self._run_span(request)
        execution: asyncio.Task[None] | None = None
        try:
            spec = await self._with_earlier(self._spec(request, traceparent_of(span) or request.traceparent))
            created = await self._store.log.create(
                spec, owner=self._owner, lease_s=self._settings.lease_s, files=request.files
            )
            if created.fresh:
                execution = self._begin(created.run, span)
            return created
        finally:
            if execution is None:
                self._admission.give_back()

    async def _with_earlier(self, spec: RunSpec) -> RunSpec:
        """Check the run that arms are taken from, where they are. Raises `NotFound`, `InvalidRequest`."""
        taken = spec.policy.arms_from
        if taken is None:
            return spec
        earlier = await self.get(spec.tenant, taken.run)
        check_arms_from(taken, earlier, spec.messages)
        return replace(spec, simulated=spec.simulated or earlier.spec.simulated)

    def _begin(self, run: Run, span: Span) -> asyncio.Task[None]:
        spec = run.spec
        span.set_attribute(names.CONVERSATION_ID, spec.run)
        if spec.attached:
            self._attachments.expect(spec.run)
        task = asyncio.create_task(self._execute(run, span), name=spec.run)
        self._executions[spec.run] = task
        return task

    async def _execute(self, run: Run, span: Span) -> None:
        """One run to its end, whatever happens; what is left when the store is gone is ended by a sweep."""
        spec = run.spec
        try:
            with self._metrics.under_way() as standing:
                await RunExecution(spec, run.epoch, self._parts, standing).execute(self._admission.turn)
            await self._account(spec, span)
        except LeaseLost as error:
            logger.warning("run %s is no longer ours: %s", spec.run, error)
        except HeavyError as error:
            logger.error("run %s could not be carried on: %s", spec.run, error)
        except Exception:
            logger.exception("run %s failed inside the coordinator", spec.run)
        finally:
            span.end()
            self._attachments.forget(spec.run)
            self._admission.give_back()
            del self._executions[spec.run]

    async def _account(self, spec: RunSpec, span: Span) -> None:
        run = await self._store.log.get(spec.run)
        span.set_attribute(names.RUN_STATE, run.state.value)
        if run.result is not None:
            span.set_attribute(names.AGGREGATION_METHOD, run.result.method.value)
            span.set_attribute(names.AGREEMENT_SHARE, run.result.agreement.share)
        if run.ledger is not None:
            span.set_attribute(names.COST_USD, run.ledger.total.cost_usd)
        await self._count(run)

    async def _count(self, run: Run) -> None:
        """Count a run that has ended: its ledger at once, then what its log says of how it went."""
        self._metrics.run_ended(run)
        timeline = Timeline(run.spec.created_ms)
        elsewhere = taken_over(run.spec.policy)
        async for record in records_of(self._store.log, run.spec.run):
            if record.trajectory not in elsewhere:
                timeline.take(record)
                self._metrics.record(record, run.spec)
        timeline.end()
        self._metrics.timed(run, timeline)

    async def watch(
        self, tenant: str, run: RunId, *, after: int, deltas: bool
    ) -> AsyncGenerator[Record | tuple[Delta, ...]]:
        """Records above `after` as they come; ends after the final record. Raises `NotFound`."""
        await self.get(tenant, run)
        async with contextlib.aclosing(self._store.log.follow(run, after=after, deltas=deltas)) as items:
            async for item in items:
                yield item

    async def get(self, tenant: str, run: RunId) -> Run:
        """The run record. Raises `NotFound`, for another tenant's run too."""
        if not is_run_id(run):
            raise NotFound(f"{run[:80]!r} is not a run id; ids look like run-0123456789abcdef01234567.")
        found = await self._store.log.get(run)
        if found.spec.tenant != tenant:
            raise NotFound(f"There is no run {run}.")
        return found

    async def list(
        self,
        tenant: str,
        *,
        states: frozenset[RunState],
        page_size: int,
        page_token: str,
        id_start: str = "",
    ) -> RunPage:
        """The tenant's runs, newest first."""
        return await self._store.log.list(
            tenant, states=states, page_size=page_size, page_token=page_token, id_start=id_start
        )

    async def cancel(self, tenant: str, run: RunId, reason: str) -> Run:
        """Ask a run to stop; the run as it was when that was noted."""
        found = await self.get(tenant, run)
        if not found.state.final:
            await self._send_cancel(run, reason or "The caller cancelled the run.")
        return found

    async def trajectory(
        self, tenant: str, run: RunId, trajectory: TrajectoryId, *, after: int, limit: int
    ) -> TrajectoryPage:
        """At most `limit` records of one trajectory. Raises `NotFound`."""
        await self.get(tenant, run)
        return await trajectory_page(self._store.log, run, trajectory, after=after, limit=limit)

    async def records(self, tenant: str, run: RunId, *, after: int, limit: int) -> tuple[Record, ...]:
        """At most `limit` records above `after`. Raises `NotFound`, for another tenant's run too."""
        await self.get(tenant, run)
        return await self._store.log.read(run, after=after, limit=limit)

    async def file(self, tenant: str, run: RunId, digest: str) -> bytes:
        """The content of a file of a run. Raises `NotFound`, for another tenant's run too."""
        await self.get(tenant, run)
        return await self._store.files.read(run, digest)

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        """The replicas that announce themselves now."""
        return await self._store.directory.replicas()

    async def runners(self) -> tuple[RunnerInfo, ...]:
        """The runners that announce themselves now."""
        return await self._store.directory.runners()

    def attach(self, run: RunId) -> AbstractAsyncContextManager[None]:
        """Within it, a caller is there; when the last one leaves an attached run, its grace begins."""
        if run in self._executions:
            return self._attachments.attached(run)
        return attached_elsewhere(self._store.exchange, run, self._settings.attach_grace_s)

    @contextlib.asynccontextmanager
    async def calls(
        self, tenant: str, run: RunId, held: frozenset[str]
    ) -> AsyncIterator[AsyncIterator[CallerCall | Withdrawn]]:
        """Calls of the caller's tools as they come; `held` ones are with the caller. Raises `NotFound`."""
        await self.get(tenant, run)
        async with self._store.exchange.calls(run) as calls:
            yield to_be_sent(self._store.exchange, run, calls, held)

    async def answer(self, tenant: str, run: RunId, result: CallerResult) -> Receipt:
        """Take the caller's result of a call. Raises `NotFound`."""
        await self.get(tenant, run)
        return await take(self._store.exchange, run, result)

    async def _caller_gone(self, run: RunId) -> None:
        try:
            await self._send_cancel(run, "The caller went away and did not come back.")
        except HeavyError as error:
            logger.warning("could not cancel %s after its caller went away: %s", run, error)

    async def _caller_elsewhere(self, run: RunId) -> bool:
        try:
            return await self._store.exchange.is_attached(run)
        except HeavyError:
            return False

    async def _send_cancel(self, run: RunId, reason: str) -> None:
        await self._store.control.send(run, Control(ControlKind.CANCEL, RUN_LEVEL, reason))

    async def _sweep(self) -> None:
        """End runs whose coordinator died, and count them, once per lease, for as long as this one lives."""
        while True:
            try:
                async for run in end_orphans(self._store, self._owner, self._settings.lease_s):
                    await self._count(run)
            except HeavyError as error:
                logger.warning("could not look for runs without an owner: %s", error)
            await asyncio.sleep(self._settings.lease_s)

    def _run_span(self, request: CreateRequest) -> Span:
        attributes = {
            names.OPERATION: names.INVOKE_WORKFLOW,
            names.AGENT_NAME: "heavy",
            names.TENANT: request.tenant,
        }
        return self._tracing.start(f"{names.INVOKE_WORKFLOW} heavy", request.traceparent, attributes)

    def _simulated(self, members: Members) -> bool:
        names = {*members.arms, members.aggregator}
        return any(self._parts.profiles.get(name).simulated for name in names)

    def _spec(self, request: CreateRequest, traceparent: str) -> RunSpec:
        now_ms = clock.now_ms()
        return RunSpec(
            run=new_run_id(),
            tenant=request.tenant,
            request_id=request.request_id,
            messages=request.messages,
            policy=request.policy,
            attached=request.attached,
            created_ms=now_ms,
            deadline_ms=now_ms + int(request.policy.deadline_s * 1000),
            traceparent=traceparent,
            fingerprint=request.fingerprint,
            caller_tools=request.caller_tools,
            files=tuple(map(ref_of, request.files)),
            simulated=self._simulated(request.policy.members),
        )
