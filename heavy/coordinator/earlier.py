"""Arms of an earlier run, taken over into a new one: aggregated anew, not generated or paid for again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from heavy.core import clock
from heavy.core.errors import FieldViolation, HeavyError, InvalidRequest
from heavy.core.ids import RunId, TrajectoryId, arm
from heavy.core.ledger import NOTHING_SPENT
from heavy.core.messages import Message
from heavy.core.policy import ArmsFrom, Policy
from heavy.core.records import Entry, GenerationRecord, LifecycleRecord, PartialGenerationRecord, Record
from heavy.core.runs import Outcome, Run
from heavy.store.api import RunLog
from heavy.store.reading import records_of

ENTRIES_AT_ONCE: Final = 200


def check_arms_from(taken: ArmsFrom, earlier: Run, messages: Sequence[Message]) -> None:
    """Raises `InvalidRequest` unless the run has ended, was asked the same, and has these arms."""
    violations = []
    if not earlier.state.final:
        problem = f"names {taken.run}, which is still {earlier.state}; wait for its end"
        violations.append(FieldViolation("policy.arms_from.run_id", problem))
    if earlier.spec.messages != tuple(messages):
        problem = f"differ from those of {taken.run}; its arms answer another question"
        violations.append(FieldViolation("messages", problem))
    width = earlier.spec.policy.width
    if any(index >= width for index in taken.arms):
        problem = f"is {list(taken.arms)}; {taken.run} has arms 0 to {width - 1}"
        violations.append(FieldViolation("policy.arms_from.arms", problem))
    if violations:
        raise InvalidRequest(tuple(violations))


def taken_over(policy: Policy) -> frozenset[TrajectoryId]:
    """The arms of a run that another run has paid for."""
    return frozenset(map(arm, range(policy.width))) if policy.arms_from else frozenset()


async def take_over(log: RunLog, taken: ArmsFrom, run: RunId, *, epoch: int) -> tuple[Outcome, ...]:
    """Copy the arms' records into the log of `run`; their outcomes, in the new order.

    Raises `NotFound` when the earlier run is no longer there, `HeavyError` when an arm of it has no outcome,
    `LeaseLost`, `StoreUnavailable`.
    """
    names = {arm(index): arm(place) for place, index in enumerate(taken.arms)}
    outcomes: dict[TrajectoryId, Outcome] = {}
    entries: list[Entry] = []
    async for record in records_of(log, taken.run):
        if record.trajectory not in names:
            continue
        entry = _entry(record, names[record.trajectory])
        if isinstance(entry.body, LifecycleRecord) and entry.body.outcome is not None:
            outcomes[entry.trajectory] = entry.body.outcome
        entries.append(entry)
        if len(entries) == ENTRIES_AT_ONCE:
            await log.append(run, epoch=epoch, entries=entries)
            entries = []
    if entries:
        await log.append(run, epoch=epoch, entries=entries)
    if missing := sorted(set(names.values()) - set(outcomes)):
        raise HeavyError(f"{taken.run} has no outcome of the arms that become {', '.join(missing)}.")
    return tuple(outcomes[name] for name in names.values())


def _entry(record: Record, name: TrajectoryId) -> Entry:
    """A record under the arm's new name, with nothing spent: its run has paid for it."""
    body = record.body
    match body:
        case GenerationRecord() | PartialGenerationRecord():
            body = replace(body, spend=NOTHING_SPENT)
        case LifecycleRecord(outcome=outcome) if outcome is not None:
            body = replace(body, outcome=replace(outcome, trajectory=name, spend=NOTHING_SPENT))
    return Entry(name, record.step, body, clock.now_ms())
