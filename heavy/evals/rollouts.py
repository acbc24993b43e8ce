"""A run's log as evaluation reads it: each arm by itself, and the run as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from heavy.agent.trajectory import NO_ANSWER
from heavy.batch.results import BatchResult
from heavy.core.errors import ContextOverflow
from heavy.core.ids import AGGREGATOR, TrajectoryId, arm_index
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.records import Event, LifecycleRecord, Record
from heavy.core.runs import AggregationMethod, OutcomeKind, RunState

UNANSWERED: Final = "no_usable_outcome"
"""The failure of a run none of whose arms has an answer."""
_OWN_DOING: Final = frozenset({NO_ANSWER, ContextOverflow.code})
"""Why an arm may end without an answer by its model's own doing. Engines, runners, deadlines and budgets are
not: another sitting may bring one."""


@dataclass(frozen=True, slots=True)
class ArmRollout:
    """One arm: how it ended, what it says, what it spent and how long it took."""

    index: int
    profile: str
    kind: OutcomeKind
    text: str
    spend: Spend
    latency_s: float


@dataclass(frozen=True, slots=True)
class HeavyRollout:
    """The run's own answer. `text` is empty where it abstained or had none.

    `latency_s` is wall time from the start of the arms to the end of the run: waiting for a turn on a busy
    server is not in it.
    """

    text: str
    method: AggregationMethod | None
    abstained: bool
    spend: Spend
    latency_s: float
    aggregation: Spend
    aggregation_s: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """One question's run, with its arms in order of index."""

    run: str
    arms: tuple[ArmRollout, ...]
    heavy: HeavyRollout
    simulated: bool


def answered(result: BatchResult) -> bool:
    """Whether a result says something about the models: an answer, or that all of them came to none."""
    if result.answered or result.failure is None or result.failure.code != UNANSWERED:
        return result.answered
    return all(
        outcome.kind is OutcomeKind.COMPLETED or outcome.reason in _OWN_DOING for outcome in result.outcomes
    )


def rollout_of(result: BatchResult, records: Iterable[Record]) -> Rollout:
    """What a result and the records of its run say."""
    times = _Times(result.created_ms)
    for record in records:
        times.take(record)
    spends = result.ledger.trajectories if result.ledger else {}
    arms = [
        ArmRollout(
            index,
            outcome.profile,
            outcome.kind,
            outcome.answer,
            spends.get(outcome.trajectory, outcome.spend),
            times.took_s(outcome.trajectory),
        )
        for outcome in result.outcomes
        if (index := arm_index(outcome.trajectory)) is not None
    ]
    heavy = HeavyRollout(
        text="" if result.abstained else result.answer,
        method=result.method,
        abstained=result.abstained,
        spend=result.spend,
        latency_s=max(0, result.ended_ms - times.began_ms) / 1000,
        aggregation=spends.get(AGGREGATOR, NOTHING_SPENT),
        aggregation_s=times.took_s(AGGREGATOR),
    )
    return Rollout(result.run_id, tuple(sorted(arms, key=lambda a: a.index)), heavy, result.simulated)


def with_arms(again: Rollout, rollout: Rollout, arms: Sequence[int]) -> HeavyRollout:
    """A run that aggregated some arms of `rollout` anew, with what those arms had cost and taken."""
    taken = [arm for arm in rollout.arms if arm.index in arms]
    return replace(
        again.heavy,
        spend=sum((arm.spend for arm in taken), again.heavy.spend),
        latency_s=again.heavy.latency_s + max((arm.latency_s for arm in taken), default=0.0),
    )


class _Times:
    """When a run and its trajectories began and ended, by the clock of whoever recorded it."""

    def __init__(self, accepted_ms: int) -> None:
        self.began_ms = accepted_ms
        self._started: dict[TrajectoryId, int] = {}
        self._ended: dict[TrajectoryId, int] = {}

    def take(self, record: Record) -> None:
        body = record.body
        if not isinstance(body, LifecycleRecord):
            return
        if body.event is Event.TRAJECTORY_STARTED:
            self._started.setdefault(record.trajectory, record.at_ms)
        elif body.event is Event.TRAJECTORY_ENDED:
            self._ended[record.trajectory] = record.at_ms
        elif body.state is RunState.RUNNING:
            self.began_ms = record.at_ms

    def took_s(self, name: TrajectoryId) -> float:
        """Zero for what never started."""
        started = self._started.get(name)
        return 0.0 if started is None else max(0, self._ended.get(name, started) - started) / 1000
