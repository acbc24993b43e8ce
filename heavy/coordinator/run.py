"""One run in the coordinator that owns it, from its lease to its final record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from heavy.aggregation.aggregate import Aggregated, aggregate, concluded
from heavy.aggregation.equivalence import Equivalence
from heavy.aggregation.reflective import Candidate, aggregator_spec, candidates_of
from heavy.coordinator.earlier import take_over, taken_over
from heavy.coordinator.fanout import FanOut, Gathered
from heavy.coordinator.lease import kept
from heavy.coordinator.left_open import left_open, told
from heavy.coordinator.plan import alone, arm_spec, arms_deadline_ms, nothing_usable
from heavy.coordinator.proposal import proposed
from heavy.coordinator.tally import ledger_of, outcomes_of
from heavy.core import clock
from heavy.core.errors import ConfigError, HeavyError, LeaseLost, StoreUnavailable
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, TrajectoryId
from heavy.core.policy import ArmsFrom, Policy
from heavy.core.records import ARMS_ENDED, Entry, Event, LifecycleRecord
from heavy.core.runs import (
    Outcome,
    OutcomeKind,
    RunFailure,
    RunResult,
    RunSpec,
    RunState,
    TrajectorySpec,
)
from heavy.profiles.loader import ProfileBook
from heavy.runner.api import Runner
from heavy.store.api import Control, ControlKind, Ending, Store
from heavy.telemetry.metrics import Standing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What every run of a coordinator shares."""

    store: Store
    runner: Runner
    profiles: ProfileBook
    equivalence: Equivalence
    lease_s: float


class RunExecution:
    """Executes one accepted run. `execute` always leaves the run ended, or its lease lost."""

    def __init__(self, spec: RunSpec, epoch: int, parts: Parts, standing: Standing) -> None:
        self._spec = spec
        self._epoch = epoch
        self._parts = parts
        self._standing = standing
        self._log = parts.store.log
        self._cancelled = asyncio.Event()
        self._cancel_reason = ""

    async def execute(self, turn: asyncio.Semaphore) -> None:
        """Wait for its turn, fan out, aggregate, end. Raises `LeaseLost`, `StoreUnavailable`."""
        leases, control = self._parts.store.leases, self._parts.store.control
        run = self._spec.run
        async with kept(leases, run, self._epoch, self._parts.lease_s), control.listen(run) as controls:
            listener = asyncio.create_task(self._listen(controls))
            try:
                await self._run_in_turn(turn)
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def _run_in_turn(self, turn: asyncio.Semaphore) -> None:
        if not await self._await_turn(turn):
            await self._end_unstarted()
            return
        try:
            await self._run()
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception as error:
            logger.exception("run %s failed inside the coordinator", self._spec.run)
            await self._end_broken(error)
        finally:
            turn.release()

    async def _run(self) -> None:
        await self._move(RunState.RUNNING)
        outcomes = await self._fan_out()
        if await self._is_cancelled(outcomes):
            await self._finish(RunState.CANCELLED, outcomes, failure=self._cancellation(outcomes))
        elif not any(outcome.usable for outcome in outcomes):
            await self._finish(RunState.FAILED, outcomes, failure=nothing_usable(outcomes))
        else:
            await self._conclude(outcomes)

    async def _conclude(self, outcomes: tuple[Outcome, ...]) -> None:
        await self._move(RunState.AGGREGATING)
        aggregated = await self._aggregate(outcomes)
        if aggregated.aggregator is not None:
            outcomes = (*outcomes, aggregated.aggregator)
        if await self._is_cancelled(outcomes):
            await self._finish(RunState.CANCELLED, outcomes, failure=self._cancellation(outcomes))
        else:
            await self._finish(RunState.COMPLETED, outcomes, result=aggregated.result)

    async def _fan_out(self) -> tuple[Outcome, ...]:
        policy, profiles = self._spec.policy, self._parts.profiles
        if policy.arms_from is not None:
            return await self._take_over(policy.arms_from)
        arms = [
            arm_spec(self._spec, index, profiles.get(name), self._epoch)
            for index, name in enumerate(policy.members.arms)
        ]
        specs = await proposed(self._parts.store, profiles, arms)
        gathered = await self._gather(policy, specs, arms_deadline_ms(self._spec))
        await self._note(f"{ARMS_ENDED}{gathered.stopped}")
        return gathered.outcomes

    async def _take_over(self, taken: ArmsFrom) -> tuple[Outcome, ...]:
        outcomes = await take_over(self._log, taken, self._spec.run, epoch=self._epoch)
        await self._note(f"arms_taken_over: from {taken.run}, arms {', '.join(map(str, taken.arms))}")
        return outcomes

    async def _aggregate(self, outcomes: tuple[Outcome, ...]) -> Aggregated:
        async def reflect() -> tuple[Outcome, Sequence[Candidate]]:
            return await self._reflect(outcomes)

        aggregated = await aggregate(self._spec.policy, outcomes, self._parts.equivalence, reflect)
        reflection = aggregated.aggregator
        if reflection is not None and not concluded(reflection):
            await self._note(f"reflection_failed: {reflection.reason or reflection.kind}; the vote answers")
        return aggregated

    async def _reflect(self, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, Sequence[Candidate]]:
        """The aggregator trajectory over the usable outcomes, ended by a cancel or the deadline."""
        policy = self._spec.policy
        profile = self._parts.profiles.get(policy.members.aggregator)
        candidates = await candidates_of(self._spec, outcomes, self._log, profile.aggregation)
        try:
            spec = aggregator_spec(self._spec, candidates, profile, epoch=self._epoch)
        except ConfigError as error:
            unsaid = Outcome(AGGREGATOR, OutcomeKind.FAILED, error.code, str(error), profile=profile.name)
            await self._record_ended(unsaid)
            return unsaid, candidates
        gathered = await self._gather(alone(policy), [spec], self._spec.deadline_ms)
        return gathered.outcomes[0], candidates

    async def _gather(self, policy: Policy, specs: Sequence[TrajectorySpec], deadline_ms: int) -> Gathered:
        fan_out = FanOut(policy, specs, self._parts.runner, self._parts.equivalence, self._cut, self._lost)
        until_s = clock.monotonic_s() + clock.remaining_s(deadline_ms)
        return await fan_out.gather(until_s, self._cancelled)

    async def _lost(self, outcome: Outcome) -> Outcome:
        """Record how a trajectory ended that no runner has recorded, and which of its writes it left open."""
        left = await left_open(self._log, self._spec.run, outcome.trajectory)
        if left:
            await self._log.append(self._spec.run, epoch=self._epoch, entries=[call.entry() for call in left])
            outcome = replace(outcome, detail=f"{outcome.detail} {told(left)}")
        await self._record_ended(outcome)
        return outcome

    async def _finish(
        self,
        state: RunState,
        outcomes: tuple[Outcome, ...],
        result: RunResult | None = None,
        failure: RunFailure | None = None,
    ) -> None:
        ledger = await ledger_of(self._log, self._spec.run, outcomes, taken_over(self._spec.policy))
        ending = Ending(state, result, failure, ledger, clock.now_ms())
        body = LifecycleRecord(
            Event.RUN_STATE,
            state=state,
            result=result,
            failure=failure,
            ledger=ledger,
            detail=self._cancel_reason,
        )
        await self._log.finish(
            self._spec.run, epoch=self._epoch, ending=ending, entry=self._entry(RUN_LEVEL, body)
        )

    async def _await_turn(self, turn: asyncio.Semaphore) -> bool:
        """Whether the run's turn came before it was cancelled or its deadline passed."""
        acquire = asyncio.create_task(turn.acquire())
        cancel = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait(
                {acquire, cancel},
                timeout=clock.remaining_s(self._spec.deadline_ms),
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            if acquire.done() and not acquire.cancelled():
                turn.release()
            raise
        finally:
            acquire.cancel()
            cancel.cancel()
            await asyncio.gather(acquire, cancel, return_exceptions=True)
        acquired = acquire.done() and not acquire.cancelled()
        if acquired and self._cancelled.is_set():
            turn.release()
            return False
        return acquired

    async def _end_unstarted(self) -> None:
        if self._cancelled.is_set():
            await self._finish(RunState.CANCELLED, (), failure=self._cancellation(()))
        else:
            message = (
                "The deadline passed while the run waited for its turn; ask again later, or give it longer."
            )
            await self._finish(RunState.FAILED, (), failure=RunFailure("deadline", message))

    async def _end_broken(self, error: Exception) -> None:
        """End a run that met a defect or a setting that cannot work, with what its arms had done."""
        code = error.code if isinstance(error, HeavyError) else "internal"
        outcomes = await outcomes_of(self._log, self._spec.run)
        message = f"The run failed inside the coordinator: {error}"
        await self._finish(RunState.FAILED, outcomes, failure=RunFailure(code, message, outcomes))

    async def _listen(self, controls: AsyncIterator[Control]) -> None:
        """Take cancels. A run that could not be cancelled any more is ended: nobody else could stop it."""
        try:
            async for control in controls:
                if control.kind == ControlKind.CANCEL:
                    self._cancel(control.reason)
        except Exception as error:
            logger.exception("the control channel of %s is lost", self._spec.run)
            self._cancel(f"The control channel of the run is lost: {error}")

    async def _is_cancelled(self, outcomes: tuple[Outcome, ...]) -> bool:
        """Whether the run was cancelled. Its runners may hear of it, and be done, before we do."""
        if not self._cancelled.is_set() and any(outcome.reason == "cancelled" for outcome in outcomes):
            self._cancel((await self._log.get(self._spec.run)).cancel_reason)
        return self._cancelled.is_set()

    def _cancel(self, reason: str) -> None:
        self._cancel_reason = reason
        self._cancelled.set()

    async def _cut(self, trajectory: TrajectoryId, reason: str) -> None:
        await self._parts.store.control.send(self._spec.run, Control(ControlKind.CUT, trajectory, reason))

    async def _move(self, state: RunState) -> None:
        body = LifecycleRecord(Event.RUN_STATE, state=state)
        await self._log.transition(
            self._spec.run, epoch=self._epoch, state=state, entry=self._entry(RUN_LEVEL, body)
        )
        self._standing(state)

    async def _note(self, text: str) -> None:
        entry = self._entry(RUN_LEVEL, LifecycleRecord(Event.NOTE, detail=text))
        await self._log.append(self._spec.run, epoch=self._epoch, entries=[entry])

    async def _record_ended(self, outcome: Outcome) -> None:
        body = LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome, profile=outcome.profile)
        entry = self._entry(outcome.trajectory, body)
        await self._log.append(self._spec.run, epoch=self._epoch, entries=[entry])

    def _entry(self, trajectory: TrajectoryId, body: LifecycleRecord) -> Entry:
        return Entry(trajectory=trajectory, step=-1, body=body, at_ms=clock.now_ms())

    def _cancellation(self, outcomes: tuple[Outcome, ...]) -> RunFailure:
        return RunFailure("cancelled", self._cancel_reason or "The run was cancelled.", outcomes)
