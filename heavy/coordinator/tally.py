"""The ledger of a run: what its runners reported, and for those that could not, what its log says."""

from __future__ import annotations

from collections.abc import Iterable

from heavy.coordinator.api import TrajectoryPage
from heavy.core.errors import NotFound
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.records import GenerationRecord, LifecycleRecord, Record, ToolResultRecord
from heavy.core.runs import Outcome
from heavy.store.api import RunLog
from heavy.store.reading import records_of


def spend_of(record: Record) -> Spend:
    """What one record adds to its trajectory's spend."""
    match record.body:
        case GenerationRecord(spend=spend):
            return spend
        case ToolResultRecord(duration_s=duration_s):
            return Spend(tool_calls=1, wall_s=duration_s)
        case _:
            return NOTHING_SPENT


async def ledger_of(log: RunLog, run: RunId, outcomes: Iterable[Outcome]) -> Ledger:
    """Per trajectory the larger of what its outcome and what its log account for, and their sum."""
    logged: dict[str, Spend] = {}
    async for record in records_of(log, run):
        if record.trajectory:
            logged[record.trajectory] = logged.get(record.trajectory, NOTHING_SPENT) + spend_of(record)
    reported = {str(outcome.trajectory): outcome.spend for outcome in outcomes}
    trajectories = {
        name: max(logged.get(name, NOTHING_SPENT), reported.get(name, NOTHING_SPENT), key=lambda s: s.tokens)
        for name in sorted({*logged, *reported})
    }
    return Ledger(total=sum(trajectories.values(), NOTHING_SPENT), trajectories=trajectories)


async def outcomes_of(log: RunLog, run: RunId) -> tuple[Outcome, ...]:
    """The outcomes that a run's log has, in order of their ends."""
    bodies = [record.body async for record in records_of(log, run)]
    return tuple(body.outcome for body in bodies if isinstance(body, LifecycleRecord) and body.outcome)


async def trajectory_page(
    log: RunLog, run: RunId, trajectory: TrajectoryId, *, after: int, limit: int
) -> TrajectoryPage:
    """At most `limit` records of one trajectory above `after`. Raises `NotFound` when it has none at all."""
    records: list[Record] = []
    outcome: Outcome | None = None
    known = False
    async for record in records_of(log, run):
        if record.trajectory != trajectory:
            continue
        known = True
        if isinstance(record.body, LifecycleRecord) and record.body.outcome is not None:
            outcome = record.body.outcome
        if record.number > after and len(records) <= limit:
            records.append(record)
    if not known:
        raise NotFound(
            f"Run {run} has no trajectory {trajectory!r}; names are arm-0 to arm-7 and aggregator."
        )
    return TrajectoryPage(tuple(records[:limit]), outcome, more=len(records) > limit)
