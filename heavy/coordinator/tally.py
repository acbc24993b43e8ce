"""What a run's log adds up to: its ledger, its outcomes, the pages of its trajectories."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from heavy.coordinator.api import TrajectoryPage
from heavy.core.errors import NotFound
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.records import (
    CHECKPOINT,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    ToolResultRecord,
)
from heavy.core.runs import Outcome
from heavy.store.api import RunLog
from heavy.store.reading import records_of


class LoggedSpend:
    """What the records of one trajectory add up to, the generation under way at its last one included.

    Of a generation its last record counts: a checkpoint only while nothing more is known of it.
    """

    def __init__(self) -> None:
        self._ended = self._open = NOTHING_SPENT

    def take(self, record: Record) -> None:
        """Add a record, in the log's order."""
        match record.body:
            case PartialGenerationRecord(reason=reason, spend=spend) if reason == CHECKPOINT:
                self._open = spend
            case PartialGenerationRecord(spend=spend) | GenerationRecord(spend=spend):
                self._ended, self._open = self._ended + spend, NOTHING_SPENT
            case ToolResultRecord(duration_s=duration_s):
                self._ended += Spend(tool_calls=1, wall_s=duration_s)

    @property
    def total(self) -> Spend:
        """The sum so far."""
        return self._ended + self._open


async def ledger_of(
    log: RunLog,
    run: RunId,
    outcomes: Iterable[Outcome],
    paid_elsewhere: Collection[TrajectoryId] = (),
) -> Ledger:
    """What every trajectory of a run spent, and the sum.

    A runner reports a trajectory's spend with its outcome, generations that were cut or failed included
    (those by an estimate: engines count at the end). `outcomes` are those in hand; the log has those of
    runners that recorded theirs too late, or whose coordinator died. A trajectory whose runner could not
    report is accounted for by its other records, up to the last checkpoint of what it was generating. What
    was taken over from another run (`paid_elsewhere`) is in the ledger with nothing spent.
    """
    logged: dict[str, LoggedSpend] = {}
    reported: dict[str, Spend] = {}
    async for record in records_of(log, run):
        if record.trajectory:
            logged.setdefault(record.trajectory, LoggedSpend()).take(record)
            _report(reported, outcome_of(record))
    for outcome in outcomes:
        _report(reported, outcome)
    trajectories = {name: reported.get(name) or logged[name].total for name in sorted({*logged, *reported})}
    trajectories |= {name: NOTHING_SPENT for name in trajectories if name in paid_elsewhere}
    return Ledger(total=sum(trajectories.values(), NOTHING_SPENT), trajectories=trajectories)


def _report(reported: dict[str, Spend], outcome: Outcome | None) -> None:
    """Outcomes that a coordinator made up for a lost runner say nothing about what was spent."""
    if outcome is not None and outcome.spend != NOTHING_SPENT:
        reported[str(outcome.trajectory)] = outcome.spend


def outcome_of(record: Record) -> Outcome | None:
    """The outcome that a record reports, if it reports one."""
    return record.body.outcome if isinstance(record.body, LifecycleRecord) else None


async def outcomes_of(log: RunLog, run: RunId) -> tuple[Outcome, ...]:
    """The outcomes that a run's log has, in order of their ends."""
    found = [outcome_of(record) async for record in records_of(log, run)]
    return tuple(outcome for outcome in found if outcome is not None)


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
        outcome = outcome_of(record) or outcome
        if record.number > after and len(records) <= limit:
            records.append(record)
    if not known:
        raise NotFound(
            f"Run {run} has no trajectory {trajectory!r}; names are arm-0 to arm-7 and aggregator."
        )
    return TrajectoryPage(tuple(records[:limit]), outcome, more=len(records) > limit)
