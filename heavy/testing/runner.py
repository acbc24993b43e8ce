"""A runner that says what it was told to: for tests of what stands above runners."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from heavy.core.errors import HeavyError
from heavy.core.ids import TrajectoryId
from heavy.core.ledger import Spend
from heavy.core.runs import Outcome, OutcomeKind, TrajectorySpec
from heavy.store.api import ControlChannel, ControlKind

SPEND = Spend(tokens_prompt=10, tokens_output=5, cost_usd=0.001)
_SET = asyncio.Event()
_SET.set()


@dataclass(frozen=True, slots=True)
class Part:
    """What one trajectory does: answers, raises, or hangs until it is told to stop; deaf ones do not listen.

    `after` is waited for first; `drafted` is the answer it has when it is cut.
    """

    answer: str = ""
    error: HeavyError | None = None
    hangs: bool = False
    deaf: bool = False
    drafted: str = ""
    after: asyncio.Event = field(default_factory=lambda: _SET)


class ScriptedRunner:
    """Implements `heavy.runner.api.Runner`. `specs` has what was started, `stopped` what was told to stop."""

    def __init__(self, control: ControlChannel, parts: Mapping[TrajectoryId, Part]) -> None:
        self.specs: dict[TrajectoryId, TrajectorySpec] = {}
        self.stopped: dict[TrajectoryId, str] = {}
        self.under_way = 0
        self._control = control
        self._parts = parts

    async def run(self, spec: TrajectorySpec) -> Outcome:
        """Play the part of the spec's trajectory."""
        self.specs[spec.trajectory] = spec
        self.under_way += 1
        try:
            return await self._play(spec, self._parts[spec.trajectory])
        finally:
            self.under_way -= 1

    async def _play(self, spec: TrajectorySpec, part: Part) -> Outcome:
        name = spec.trajectory
        await part.after.wait()
        if part.error is not None:
            raise part.error
        if part.deaf:
            await asyncio.Event().wait()
        if part.hangs:
            reason = self.stopped[name] = await self._told(spec)
            return Outcome(name, OutcomeKind.CUT, reason, answer=part.drafted, spend=SPEND)
        kind = OutcomeKind.COMPLETED if part.answer else OutcomeKind.FAILED
        return Outcome(name, kind, "" if part.answer else "no_answer", answer=part.answer, spend=SPEND)

    async def _told(self, spec: TrajectorySpec) -> str:
        async with self._control.listen(spec.run) as controls:
            async for control in controls:
                if control.kind == ControlKind.CANCEL:
                    return "cancelled"
                if control.trajectory == spec.trajectory:
                    return control.reason
        return "channel_closed"
