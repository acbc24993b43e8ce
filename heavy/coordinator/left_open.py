"""Writes that were begun and whose end nobody saw: said to be unknown, never repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heavy.core import clock
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.messages import ToolCall
from heavy.core.records import Entry, ToolIntentRecord, ToolResultRecord
from heavy.core.tools import CacheState, Effects, fate_unknown
from heavy.store.api import RunLog
from heavy.store.reading import records_of

NAMED_MAX = 8
"""How many such calls a sentence names; the log has all of them."""


@dataclass(frozen=True, slots=True)
class OpenWrite:
    """A write's intent without a result."""

    trajectory: TrajectoryId
    step: int
    call: ToolCall

    def entry(self) -> Entry:
        """The result that says so."""
        output = fate_unknown(self.call.name, "what executed it went away while it was under way")
        body = ToolResultRecord(
            self.call.id, self.call.name, output.content, True, CacheState.BYPASS, 0.0, unknown=True
        )
        return Entry(self.trajectory, self.step, body, clock.now_ms())


async def left_open(log: RunLog, run: RunId, trajectory: TrajectoryId | None = None) -> tuple[OpenWrite, ...]:
    """The writes that a run's log leaves open, of one trajectory or of all, in the order they were begun."""
    found: dict[tuple[TrajectoryId, str], OpenWrite] = {}
    async for record in records_of(log, run):
        if trajectory not in (None, record.trajectory):
            continue
        match record.body:
            case ToolIntentRecord(call=call, effects=Effects.WRITE):
                found[record.trajectory, call.id] = OpenWrite(record.trajectory, record.step, call)
            case ToolResultRecord(call_id=call_id):
                found.pop((record.trajectory, call_id), None)
    return tuple(found.values())


def told(left: Sequence[OpenWrite]) -> str:
    """The sentence for people; empty when nothing was left open."""
    if not left:
        return ""
    names = ", ".join(
        f"{write.call.name} ({write.trajectory}, {write.call.id})" for write in left[:NAMED_MAX]
    )
    more = f" and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
    return f"It is unknown whether these calls took effect: {names}{more}. They are not repeated."
