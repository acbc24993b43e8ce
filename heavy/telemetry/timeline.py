"""Where the time of a run went, from its log alone: its critical path, its steps.

The critical path of a run is its wall time, from acceptance to its last record, cut into five parts that add
up to it exactly:

| part        | what it is                                                                                |
|-------------|-------------------------------------------------------------------------------------------|
| waiting     | for the run's turn, a runner, a replica, another attempt, and whatever else is none below |
| prefill     | from when a replica had the request to its first token                                    |
| decode      | from the first token to the last; of a generation that was cut, all of its time           |
| tools       | from the record of a generation to the last result of the calls it asked for              |
| aggregation | from when the arms had ended to the end of the run, whatever was done in it               |

The middle three are those of one arm, the critical one: that which ended last before the aggregation began,
because the run waited for it. What its siblings did meanwhile cost money but no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from heavy.core.ids import AGGREGATOR, RUN_LEVEL, TrajectoryId
from heavy.core.records import (
    CHECKPOINT,
    Event,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    ToolResultRecord,
)
from heavy.core.runs import RunState


class Part(StrEnum):
    """A part of a run's critical path."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    TOOLS = "tools"
    AGGREGATION = "aggregation"


@dataclass(slots=True)
class _Walk:
    """One arm's time so far, part by part, up to `at_ms`: walked along its records, never back."""

    at_ms: int
    seconds: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(Part, 0.0))

    def to(self, at_ms: int, *parts: tuple[Part, float]) -> None:
        """Go on to `at_ms`. The parts lie at the end, the last one last; what is before them is waiting."""
        left_s = max(0, at_ms - self.at_ms) / 1000
        self.at_ms = max(self.at_ms, at_ms)
        for part, seconds in reversed(parts):
            taken_s = min(max(0.0, seconds), left_s)
            self.seconds[part] += taken_s
            left_s -= taken_s
        self.seconds[Part.WAITING] += left_s


@dataclass(slots=True)
class _Step:
    """A step of one trajectory: its generation, from when it was asked for, and its tool calls."""

    number: int
    began_ms: float
    ended_ms: int


class Timeline:
    """Takes the records of a run in the log's order; then says where its time went.

    Records carry the clocks of several machines. A record that seems to lie before the one it follows, or
    after the end of its phase, is taken to be there: parts may blur by the clocks' difference, sums do not.
    """

    def __init__(self, created_ms: int) -> None:
        self._created_ms = created_ms
        self._running_ms: int | None = None
        self._aggregating_ms: int | None = None
        self._arms: dict[TrajectoryId, _Walk] = {}
        self._critical: _Walk | None = None
        self._open: dict[TrajectoryId, _Step] = {}
        self.steps: list[tuple[TrajectoryId, float]] = []
        """Every step that ended in order, with its seconds: generation and tool calls."""

    def take(self, record: Record) -> None:
        """Add a record."""
        if record.trajectory == RUN_LEVEL:
            self._phase(record)
            return
        self._step(record)
        if record.trajectory != AGGREGATOR and self._aggregating_ms is None:
            self._walk(record)

    @property
    def queued_s(self) -> float | None:
        """How long the run waited for its turn; None while it has not begun."""
        return None if self._running_ms is None else (self._running_ms - self._created_ms) / 1000

    def path(self, ended_ms: int) -> dict[Part, float]:
        """The critical path of a run that ended then, in seconds."""
        ended_ms = max(ended_ms, self._created_ms)
        arms_ended_ms = min(self._aggregating_ms or ended_ms, ended_ms)
        began_ms = min(self._running_ms or arms_ended_ms, arms_ended_ms)
        seconds = _within(self._critical, began_ms, arms_ended_ms)
        seconds[Part.WAITING] += (began_ms - self._created_ms) / 1000
        seconds[Part.AGGREGATION] = (ended_ms - arms_ended_ms) / 1000
        return seconds

    def end(self) -> None:
        """The log has ended: the last step of each trajectory has."""
        for trajectory in tuple(self._open):
            self._close(trajectory)

    def _phase(self, record: Record) -> None:
        if not isinstance(record.body, LifecycleRecord) or record.body.event is not Event.RUN_STATE:
            return
        at_ms = max(record.at_ms, self._created_ms)
        if record.body.state is RunState.RUNNING:
            self._running_ms = at_ms
        elif record.body.state is RunState.AGGREGATING:
            self._aggregating_ms = at_ms

    def _walk(self, record: Record) -> None:
        walk = self._arms.setdefault(record.trajectory, _Walk(self._running_ms or self._created_ms))
        match record.body:
            case GenerationRecord(timing=timing):
                walk.to(record.at_ms, (Part.PREFILL, timing.first_token_s), (Part.DECODE, timing.decode_s))
            case PartialGenerationRecord(reason=reason) if reason != CHECKPOINT:
                walk.to(record.at_ms, (Part.DECODE, float("inf")))
            case ToolResultRecord():
                walk.to(record.at_ms, (Part.TOOLS, float("inf")))
            case LifecycleRecord(event=Event.TRAJECTORY_STARTED):
                walk.to(record.at_ms)
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED):
                walk.to(record.at_ms)
                self._critical = walk

    def _step(self, record: Record) -> None:
        match record.body:
            case GenerationRecord(timing=timing):
                self._close(record.trajectory)
                took_s = timing.queue_s + timing.first_token_s + timing.decode_s
                self._open[record.trajectory] = _Step(record.step, record.at_ms - 1000 * took_s, record.at_ms)
            case ToolResultRecord() if step := self._open.get(record.trajectory):
                step.ended_ms = max(step.ended_ms, record.at_ms)
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED):
                self._close(record.trajectory)

    def _close(self, trajectory: TrajectoryId) -> None:
        if step := self._open.pop(trajectory, None):
            self.steps.append((trajectory, (step.ended_ms - step.began_ms) / 1000))


def _within(walk: _Walk | None, began_ms: int, ended_ms: int) -> dict[Part, float]:
    """An arm's time, fitted into its phase: shrunk where clocks differ, waiting where it is short."""
    seconds = dict.fromkeys(Part, 0.0)
    room_s = (ended_ms - began_ms) / 1000
    walked_s = sum(walk.seconds.values()) if walk else 0.0
    if walk is not None and walked_s > 0:
        scale = min(1.0, room_s / walked_s)
        seconds.update({part: value * scale for part, value in walk.seconds.items()})
        walked_s *= scale
    seconds[Part.WAITING] += room_s - walked_s
    return seconds
