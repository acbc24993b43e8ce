"""A runner process: executes trajectories, records how they begin and end, stops when told or orphaned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol

from heavy.agent.trajectory import Trajectory
from heavy.core import clock
from heavy.core.errors import HeavyError, LeaseLost, NotFound, Overloaded, RunnerLost, StoreUnavailable
from heavy.core.records import Event, LifecycleRecord
from heavy.core.redaction import NOTHING, Redactor
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

    async def over(self, spec: TrajectorySpec) -> None:
        """The trajectory has ended: let go of what was kept for it."""
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
        redact: Redactor = NOTHING,
    ) -> None:
        self._store = store
        self._deltas = deltas
        self._bench = bench
        self._tracing = tracing
        self._in_flight_max = in_flight_max
        self._lease_s = lease_s
        self._redact = redact
        self._under_way: set[asyncio.Task[Outcome]] = set()
        self._stopping = False

    @property
    def in_flight(self) -> int:
        """Trajectories under way."""
        return len(self._under_way)

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Roll out one trajectory; whatever fails in it is an outcome.

        Raises `Overloaded` when there is no room (nothing has begun then), `RunnerLost` when it is stopped.
        """
        if self._stopping:
            raise RunnerLost("The runner is going down.")
        if self.in_flight >= self._in_flight_max:
            raise Overloaded(f"The runner already executes {self.in_flight} trajectories.", RETRY_AFTER_S)
        task = asyncio.create_task(self._run(spec), name=f"{spec.run}/{spec.trajectory}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():  # not by our caller, so by `stop`
            raise RunnerLost(f"The runner went down while it executed {spec.trajectory}.")
        return task.result()

    async def stop(self) -> None:
        """Accept nothing more, cancel every trajectory and wait for its end. Safe to call twice."""
        self._stopping = True
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
        try:
            await journal.record(-1, self._started(spec))
            outcome = await self._executed(spec, journal)
            # It may be what an engine said, which may repeat what it was sent.
            outcome = replace(outcome, detail=self._redact(outcome.detail))
            ended = LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome, profile=spec.profile)
        except HeavyError as error:
            return _failed(spec, error)
        try:
            await journal.record(-1, ended)
        except HeavyError as error:
            return replace(outcome, kind=OutcomeKind.FAILED, reason=error.code, detail=str(error))
        return outcome

    def _started(self, spec: TrajectorySpec) -> LifecycleRecord:
        try:
            title = self._bench.title(spec.profile)
        except NotFound:  # putting the trajectory together says so
            title = spec.profile
        return LifecycleRecord(Event.TRAJECTORY_STARTED, title, profile=spec.profile)

    async def _executed(self, spec: TrajectorySpec, journal: StoreJournal) -> Outcome:
        """The trajectory, whatever becomes of it. What it spent before it failed stays in its outcome."""
        trajectory: Trajectory | None = None
        try:
            trajectory = self._bench.trajectory(spec, journal)
            return await self._watched(spec, trajectory)
        except HeavyError as error:
            problem = error
        except Exception as error:
            logger.exception("%s of %s failed inside the runner", spec.trajectory, spec.run)
            problem = HeavyError(f"It failed inside the runner: {type(error).__name__}; its log says more.")
        finally:
            await self._bench.over(spec)
        if trajectory is None:
            return _failed(spec, problem)
        return replace(trajectory.cut(problem.code, str(problem)), kind=OutcomeKind.FAILED)

    async def _watched(self, spec: TrajectorySpec, trajectory: Trajectory) -> Outcome:
        """Run it beside those who may stop it: control messages and the loss of the lease."""
        async with self._store.control.listen(spec.run) as controls:
            rollout = asyncio.create_task(trajectory.run())
            stop = asyncio.create_task(self._stop_signal(spec, controls))
            try:
                await asyncio.wait({rollout, stop}, return_when=asyncio.FIRST_COMPLETED)
                rollout.cancel()
                await asyncio.wait({rollout})
                if not rollout.cancelled():
                    return rollout.result()
                if not stop.done():
                    raise HeavyError("The trajectory was cancelled from within.")
                stopped = stop.result()
                return replace(trajectory.cut(stopped.reason, stopped.detail), kind=stopped.kind)
            finally:
                rollout.cancel()
                stop.cancel()
                await asyncio.gather(rollout, stop, return_exceptions=True)

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
        """Ends when nobody is known to hold the lease under which this trajectory writes.

        That is a quarter of a lease after it was lost, or one whole lease after the store last answered.
        """
        known_until_s = clock.monotonic_s() + self._lease_s
        while True:
            await asyncio.sleep(self._lease_s / LEASE_CHECKS_PER_LEASE)
            try:
                async with asyncio.timeout(known_until_s - clock.monotonic_s()):
                    held = await self._store.leases.held(spec.run, epoch=spec.epoch)
            except (HeavyError, TimeoutError) as error:
                if clock.monotonic_s() >= known_until_s:
                    detail = str(error) or f"The store has not answered for {self._lease_s:g} s."
                    return Stopped(StoreUnavailable.code, detail, OutcomeKind.FAILED)
                continue
            if not held:
                return Stopped(LeaseLost.code, "Nobody owns the run any more.", OutcomeKind.FAILED)
            known_until_s = clock.monotonic_s() + self._lease_s


def _failed(spec: TrajectorySpec, error: HeavyError) -> Outcome:
    """The outcome of a trajectory that never ran, or whose end could not be recorded."""
    return Outcome(
        spec.trajectory, OutcomeKind.FAILED, reason=error.code, detail=str(error), profile=spec.profile
    )
