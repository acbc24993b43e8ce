"""A runner process: executes trajectories, records how they begin and end, stops when told or orphaned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol

from heavy.agent.trajectory import Trajectory
from heavy.core import clock
from heavy.core.errors import HeavyError, LeaseLost, Overloaded, StoreUnavailable
from heavy.core.records import Event, LifecycleRecord
from heavy.core.runs import Outcome, OutcomeKind, TrajectorySpec
from heavy.runner.deltas import Deltas
from heavy.runner.journal import StoreJournal
from heavy.store.api import Control, ControlKind, Store
from heavy.telemetry import names
from heavy.telemetry.tracing import Tracing, traceparent_of

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1.0
LEASE_CHECKS_PER_LEASE = 4


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a trajectory was stopped from outside."""

    reason: str
    detail: str
    kind: OutcomeKind = OutcomeKind.CUT


class Workbench(Protocol):
    """Puts trajectories together."""

    def trajectory(self, spec: TrajectorySpec, journal: StoreJournal) -> Trajectory:
        """A trajectory ready to run. Raises `NotFound` for a profile or tool that is not there."""
        ...

    def title(self, profile: str) -> str:
        """What people call the model of a profile."""
        ...


class TrajectoryHost:
    """Implements `heavy.runner.api.Runner` in this process. `stop` cuts what is under way."""

    def __init__(
        self,
        store: Store,
        deltas: Deltas,
        bench: Workbench,
        tracing: Tracing,
        *,
        in_flight_max: int,
        lease_s: float,
    ) -> None:
        self._store = store
        self._deltas = deltas
        self._bench = bench
        self._tracing = tracing
        self._in_flight_max = in_flight_max
        self._lease_s = lease_s
        self._under_way: set[asyncio.Task[Outcome]] = set()

    @property
    def in_flight(self) -> int:
        """Trajectories under way."""
        return len(self._under_way)

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Roll out one trajectory. Raises `Overloaded` when there is no room."""
        if self.in_flight >= self._in_flight_max:
            raise Overloaded(f"The runner already executes {self.in_flight} trajectories.", RETRY_AFTER_S)
        task = asyncio.create_task(self._run(spec), name=f"{spec.run}/{spec.trajectory}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def stop(self) -> None:
        """Cancel every trajectory and wait for its end."""
        tasks = tuple(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, spec: TrajectorySpec) -> Outcome:
        attributes = {
            names.OPERATION: names.INVOKE_AGENT,
            names.AGENT_NAME: spec.trajectory,
            names.TRAJECTORY: spec.trajectory,
            names.PROFILE: spec.profile,
            names.CONVERSATION_ID: spec.run,
        }
        name = f"{names.INVOKE_AGENT} {spec.trajectory}"
        with self._tracing.span(name, spec.traceparent, attributes) as span:
            spec = replace(spec, traceparent=traceparent_of(span) or spec.traceparent)
            outcome = await self._recorded(spec)
            span.set_attribute(names.OUTCOME, outcome.kind.value)
            span.set_attribute(names.OUTCOME_REASON, outcome.reason)
            span.set_attribute(names.COST_USD, outcome.spend.cost_usd)
            return outcome

    async def _recorded(self, spec: TrajectorySpec) -> Outcome:
        """The trajectory between its first and last record. A lost store or lease leaves no last record."""
        journal = StoreJournal(self._store, spec, self._deltas)
        trajectory = self._bench.trajectory(spec, journal)
        title = self._bench.title(spec.profile)
        try:
            started = LifecycleRecord(Event.TRAJECTORY_STARTED, title, profile=spec.profile)
            await journal.record(-1, started)
            outcome = await self._watched(spec, trajectory)
            ended = LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome, profile=spec.profile)
            await journal.record(-1, ended)
        except (LeaseLost, StoreUnavailable) as error:
            return replace(trajectory.cut(error.code, str(error)), kind=OutcomeKind.FAILED)
        return outcome

    async def _watched(self, spec: TrajectorySpec, trajectory: Trajectory) -> Outcome:
        """Run it beside those who may stop it: control messages and the loss of the lease."""
        async with self._store.control.listen(spec.run) as controls:
            rollout = asyncio.create_task(trajectory.run())
            stop = asyncio.create_task(self._stop_signal(spec, controls))
            try:
                await asyncio.wait({rollout, stop}, return_when=asyncio.FIRST_COMPLETED)
                if rollout.done():
                    return rollout.result()
                rollout.cancel()
                await asyncio.wait({rollout})
                return self._stopped_outcome(rollout, stop.result(), trajectory)
            finally:
                rollout.cancel()
                stop.cancel()
                await asyncio.gather(rollout, stop, return_exceptions=True)

    def _stopped_outcome(
        self, rollout: asyncio.Task[Outcome], stopped: Stopped, trajectory: Trajectory
    ) -> Outcome:
        if not rollout.cancelled() and rollout.exception() is None:
            return rollout.result()
        return replace(trajectory.cut(stopped.reason, stopped.detail), kind=stopped.kind)

    async def _stop_signal(self, spec: TrajectorySpec, controls: AsyncIterator[Control]) -> Stopped:
        """The first reason to stop. Raises `LeaseLost` when the run has no owner any more."""
        told = asyncio.create_task(self._told(spec, controls))
        orphaned = asyncio.create_task(self._orphaned(spec))
        try:
            done, _ = await asyncio.wait({told, orphaned}, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in (told, orphaned):
                task.cancel()
            await asyncio.gather(told, orphaned, return_exceptions=True)

    async def _told(self, spec: TrajectorySpec, controls: AsyncIterator[Control]) -> Stopped:
        async for control in controls:
            if control.kind == ControlKind.CANCEL:
                return Stopped("cancelled", control.reason)
            if control.kind == ControlKind.CUT and control.trajectory == spec.trajectory:
                return Stopped(control.reason, "")
        raise StoreUnavailable(f"The control channel of {spec.run} ended.")

    async def _orphaned(self, spec: TrajectorySpec) -> Stopped:
        """Ends when the lease under which this trajectory writes is gone, at most one lease late."""
        seen_s = clock.monotonic_s()
        while True:
            await asyncio.sleep(self._lease_s / LEASE_CHECKS_PER_LEASE)
            try:
                if not await self._store.leases.held(spec.run, epoch=spec.epoch):
                    return Stopped("lease_lost", "Nobody owns the run any more.", OutcomeKind.FAILED)
                seen_s = clock.monotonic_s()
            except HeavyError as error:
                if clock.monotonic_s() - seen_s >= self._lease_s:
                    return Stopped("store_unavailable", str(error), OutcomeKind.FAILED)
