"""Fan-out: all arms at once, outcomes as they come, cuts when waiting on pays no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from heavy.aggregation.equivalence import Equivalence
from heavy.aggregation.vote import agreement_of
from heavy.coordinator.quorum import ALL_ENDED, Standing, Stop, Wait, decide, quorum_reached
from heavy.core import clock
from heavy.core.errors import HeavyError
from heavy.core.ids import TrajectoryId
from heavy.core.policy import Policy
from heavy.core.runs import Agreement, Outcome, OutcomeKind, TrajectorySpec
from heavy.runner.api import Runner

CUT_GRACE_S = 5.0
"""How long a cut arm may take to flush its transcript and come back with its outcome."""

Cut = Callable[[TrajectoryId, str], Awaitable[None]]
"""Tells whoever executes a trajectory to stop, and why."""
Lost = Callable[[Outcome], Awaitable[Outcome]]
"""Records an outcome that no runner has recorded, as it is gone or silent; gives it as it was recorded."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a fan-out came back with, in arm order, and why it stopped waiting."""

    outcomes: tuple[Outcome, ...]
    stopped: str


class FanOut:
    """The arms of one run. `gather` ends when every arm has ended or been cut; it leaves no task behind."""

    def __init__(
        self,
        policy: Policy,
        specs: Sequence[TrajectorySpec],
        runner: Runner,
        equivalence: Equivalence,
        cut: Cut,
        lost: Lost,
    ) -> None:
        self._policy = policy
        self._specs = {spec.trajectory: spec for spec in specs}
        self._runner = runner
        self._equivalence = equivalence
        self._cut = cut
        self._lost = lost
        self._recording: set[TrajectoryId] = set()
        self._outcomes: dict[TrajectoryId, Outcome] = {}
        self._agreement = Agreement()
        self._quorum_since_s: float | None = None

    async def gather(self, deadline_at_s: float, cancelled: asyncio.Event) -> Gathered:
        """Run all arms. A set `cancelled` cuts whatever is still out. `deadline_at_s` is monotonic time."""
        arms = {asyncio.create_task(self._arm(spec)): name for name, spec in self._specs.items()}
        cancel = asyncio.create_task(cancelled.wait())
        try:
            stopped = await self._until_stop(set(arms), cancel, deadline_at_s)
            await self._cut_rest(arms, stopped)
        finally:
            await _end({*arms, cancel})
        return Gathered(
            outcomes=tuple(self._outcomes[name] for name in self._specs),
            stopped=stopped,
        )

    async def _until_stop(
        self, pending: set[asyncio.Task[Outcome]], cancel: asyncio.Task[bool], deadline_at_s: float
    ) -> str:
        while True:
            match decide(self._policy, self._standing(len(pending), deadline_at_s)):
                case Stop(reason):
                    return reason
                case Wait(seconds):
                    done, _ = await asyncio.wait(
                        {*pending, cancel}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                    )
            if cancel in done:
                return "cancelled"
            ended = pending & done
            pending -= ended
            await self._take(ended, out=len(pending))

    async def _take(self, ended: set[asyncio.Task[Outcome]], out: int) -> None:
        for task in ended:
            outcome = task.result()
            self._outcomes[outcome.trajectory] = outcome
        self._agreement = await agreement_of(self._completed(), self._equivalence)
        if self._quorum_since_s is None and quorum_reached(self._policy, len(self._completed()), out):
            self._quorum_since_s = clock.monotonic_s()

    def _completed(self) -> list[Outcome]:
        return [o for o in self._outcomes.values() if o.kind is OutcomeKind.COMPLETED]

    def _standing(self, out: int, deadline_at_s: float) -> Standing:
        return Standing(
            completed=len(self._completed()),
            out=out,
            agreement=self._agreement,
            now_s=clock.monotonic_s(),
            quorum_since_s=self._quorum_since_s,
            deadline_at_s=deadline_at_s,
        )

    async def _cut_rest(self, arms: dict[asyncio.Task[Outcome], TrajectoryId], reason: str) -> None:
        out = [task for task, name in arms.items() if name not in self._outcomes]
        if not out or reason == ALL_ENDED:
            return
        for task in out:
            await self._cut(arms[task], reason)
        await asyncio.wait(out, timeout=CUT_GRACE_S)
        for task in out:
            name = arms[task]
            if task.done() or name in self._recording:
                self._outcomes[name] = await task
            else:
                task.cancel()  # nobody listens to it any more: it records no end beside this one
                self._outcomes[name] = await self._lost(self._silent(name, reason))

    def _silent(self, name: TrajectoryId, reason: str) -> Outcome:
        return Outcome(
            trajectory=name,
            kind=OutcomeKind.CUT,
            reason=reason,
            detail=f"It was cut and its runner did not answer within {CUT_GRACE_S:g} s.",
            profile=self._specs[name].profile,
        )

    async def _arm(self, spec: TrajectorySpec) -> Outcome:
        """One arm. Its failure is a value, so that it cancels no sibling, and recorded at once."""
        try:
            return await self._runner.run(spec)
        except HeavyError as error:
            self._recording.add(spec.trajectory)
            return await self._lost(failed(spec, error))


def failed(spec: TrajectorySpec, error: HeavyError) -> Outcome:
    """The outcome of a trajectory whose runner could not carry it."""
    return Outcome(
        trajectory=spec.trajectory,
        kind=OutcomeKind.FAILED,
        reason=error.code,
        detail=str(error),
        profile=spec.profile,
    )


async def _end(tasks: set[asyncio.Task[Outcome] | asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
