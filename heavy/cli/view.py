"""What a person needs to see of a run: built from its records and deltas, drawn by others."""

from __future__ import annotations

from dataclasses import dataclass, field

from heavy.core.ids import AGGREGATOR, TrajectoryId
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.records import (
    CHECKPOINT,
    Delta,
    Event,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.core.runs import Outcome, RunFailure, RunResult, RunState

SAYING_CHARS_MAX = 2_000
"""How much of the text in progress a lane keeps."""


@dataclass(slots=True)
class Lane:
    """One trajectory as it goes."""

    trajectory: TrajectoryId
    title: str = ""
    step: int = 0
    saying: str = ""
    anew: bool = False
    """Whether what it says next begins its step once more."""
    fresh_chars: int = 0
    """How much has been said since the engine last counted."""
    tool: str = ""
    tool_calls: int = 0
    spend: Spend = NOTHING_SPENT
    outcome: Outcome | None = None


@dataclass(slots=True)
class RunView:
    """A run as it goes: feed it every event in order."""

    state: RunState = RunState.ACCEPTED
    run: str = ""
    lanes: dict[TrajectoryId, Lane] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    result: RunResult | None = None
    failure: RunFailure | None = None
    total: Spend = NOTHING_SPENT

    @property
    def titles(self) -> tuple[str, ...]:
        """The models that speak, each once."""
        return tuple(dict.fromkeys(lane.title for lane in self.lanes.values() if lane.title))

    @property
    def spent(self) -> Spend:
        """What the run has cost as far as it is counted; what is being generated is not yet."""
        return self.total if self.state.final else sum((x.spend for x in self.lanes.values()), NOTHING_SPENT)

    @property
    def ordered(self) -> list[Lane]:
        """Arms by index, the aggregator last."""
        return sorted(self.lanes.values(), key=lambda lane: (lane.trajectory == AGGREGATOR, lane.trajectory))

    def apply(self, event: Record | Delta) -> None:
        """Take one event in."""
        if isinstance(event, Delta):
            lane = self._lane(event.trajectory)
            lane.step = event.step
            fresh = event.reasoning + event.content
            lane.saying = (("" if lane.anew else lane.saying) + fresh)[-SAYING_CHARS_MAX:]
            lane.anew = False
            lane.fresh_chars += len(fresh)
        elif isinstance(event.body, LifecycleRecord):
            self._lifecycle(event, event.body)
        else:
            self._record(event)

    def _record(self, record: Record) -> None:
        lane = self._lane(record.trajectory)
        lane.step = record.step
        match record.body:
            case GenerationRecord(message=message, spend=spend):
                lane.spend += spend
                lane.fresh_chars = 0
                lane.saying = message.content or message.reasoning
            case PartialGenerationRecord(message=message, reason=reason):
                lane.saying = message.content or message.reasoning
                lane.anew = reason != CHECKPOINT
            case ToolIntentRecord(call=call):
                lane.tool = f"{call.name} …"
            case ToolResultRecord(name=name) as result:
                lane.tool_calls += 1
                lane.tool = f"{name} {ending_of(result)}"
                lane.saying = ""

    def _lifecycle(self, record: Record, body: LifecycleRecord) -> None:
        match body.event:
            case Event.RUN_STATE if body.state is not None:
                self.state = body.state
                self.result, self.failure = body.result, body.failure
                if body.ledger is not None:
                    self.total = body.ledger.total
                    for name, spend in body.ledger.trajectories.items():
                        self._lane(TrajectoryId(name)).spend = spend  # lost runners reported none
            case Event.TRAJECTORY_STARTED:
                self._lane(record.trajectory).title = body.detail
            case Event.TRAJECTORY_ENDED if body.outcome is not None:
                lane = self._lane(record.trajectory)
                lane.outcome, lane.spend, lane.fresh_chars = body.outcome, body.outcome.spend, 0
            case Event.NOTE:
                who = record.trajectory or "run"
                self.notes.append(f"{who}: {body.detail}")

    def _lane(self, trajectory: TrajectoryId) -> Lane:
        return self.lanes.setdefault(trajectory, Lane(trajectory))


def ending_of(result: ToolResultRecord) -> str:
    """How a tool call ended, in one word: how its result was come by, `error`, or `unknown`."""
    if result.unknown:
        return "unknown"
    return "error" if result.is_error else result.cache.value
