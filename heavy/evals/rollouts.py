"""A run's log as evaluation reads it: each arm by itself, and the run as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from heavy.core.ids import AGGREGATOR, TrajectoryId, arm
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.records import Event, LifecycleRecord, Record
from heavy.core.runs import AggregationMethod, Outcome, OutcomeKind, Run, RunState

UNANSWERED = "no_usable_outcome"
"""The failure of a run whose arms all ended without an answer: the models' own doing, counted as wrong."""


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
    """One question's run. `arms` has `width` entries, in order of index."""

    question: str
    run: str
    width: int
    arms: tuple[ArmRollout, ...]
    heavy: HeavyRollout
    simulated: bool


def answered(run: Run) -> bool:
    """Whether an ended run says something about its models: an answer, or that they came to none."""
    failure = run.failure
    return run.state is RunState.COMPLETED or (failure is not None and failure.code == UNANSWERED)


def rollout_of(question: str, run: Run, records: Iterable[Record]) -> Rollout:
    """What a run and its records say. An arm without an outcome counts as failed."""
    began_ms = run.spec.created_ms
    started: dict[TrajectoryId, int] = {}
    ended: dict[TrajectoryId, tuple[int, Outcome]] = {}
    for record in records:
        if isinstance(record.body, LifecycleRecord):
            if record.body.event is Event.TRAJECTORY_STARTED:
                started.setdefault(record.trajectory, record.at_ms)
            elif record.body.outcome is not None:
                ended[record.trajectory] = record.at_ms, record.body.outcome
            elif record.body.state is RunState.RUNNING:
                began_ms = record.at_ms
    spends = run.ledger.trajectories if run.ledger else {}

    def took_s(name: TrajectoryId) -> float:
        return max(0, ended[name][0] - started[name]) / 1000 if name in ended and name in started else 0.0

    def arm_of(index: int) -> ArmRollout:
        name = arm(index)
        profile = run.spec.policy.members.arms[index]
        spend = spends.get(name, NOTHING_SPENT)
        if name not in ended:
            return ArmRollout(index, profile, OutcomeKind.FAILED, "", spend, 0.0)
        outcome = ended[name][1]
        return ArmRollout(index, profile, outcome.kind, outcome.answer, spend, took_s(name))

    result = run.result
    heavy = HeavyRollout(
        text="" if result is None or result.abstained else result.answer,
        method=result.method if result else None,
        abstained=bool(result and result.abstained),
        spend=run.ledger.total if run.ledger else NOTHING_SPENT,
        latency_s=max(0, (run.ended_ms or began_ms) - began_ms) / 1000,
        aggregation=spends.get(AGGREGATOR, NOTHING_SPENT),
        aggregation_s=took_s(AGGREGATOR),
    )
    width = run.spec.policy.width
    arms = tuple(arm_of(index) for index in range(width))
    return Rollout(question, run.spec.run, width, arms, heavy, run.spec.simulated)
