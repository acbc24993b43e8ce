"""One ended run as a batch writes it down, and how it is put together from the run and its records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from heavy.core.errors import HeavyError
from heavy.core.ids import AGGREGATOR
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.runs import AggregationMethod, Agreement, Citation, Outcome, Run, RunState


class ResultState(StrEnum):
    """How a question ended. Only `completed` has an answer."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    """The server did not take it as a run, or its run went out of sight."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: a stable code, and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One line of `results.jsonl`. `latency_s` is from acceptance to the run's end, by the server's clock.

    `outcomes` has every arm and, where there was one, the aggregator, each with its answer and its spend.
    `log` is the file with the run's records, relative to the directory; empty where none was asked for.
    """

    id: str
    attempt: int
    request_id: str
    run_id: str
    state: ResultState
    answer: str = ""
    short_answer: str = ""
    method: AggregationMethod | None = None
    abstained: bool = False
    agreement: Agreement | None = None
    dissent: str = ""
    citations: tuple[Citation, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    ledger: Ledger | None = None
    latency_s: float = 0.0
    created_ms: int = 0
    ended_ms: int = 0
    failure: Failure | None = None
    simulated: bool = False
    log: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether there is an answer (an abstention is one)."""
        return self.state is ResultState.COMPLETED

    @property
    def out_of_sight(self) -> bool:
        """Whether there is a run of it whose end nobody saw: asked under the same id, it is found again."""
        return self.state is ResultState.REFUSED and bool(self.run_id)

    @property
    def spend(self) -> Spend:
        """What it cost in all."""
        return NOTHING_SPENT if self.ledger is None else self.ledger.total


@dataclass(frozen=True, slots=True)
class Asked:
    """Which question, for the how-manieth time, under which id."""

    id: str
    attempt: int
    request_id: str
    metadata: Mapping[str, Any]


def of_run(asked: Asked, run: Run, outcomes: Iterable[Outcome], log: str) -> BatchResult:
    """The result of a run that has ended."""
    ended_ms = run.ended_ms or run.spec.created_ms
    ended = BatchResult(
        **_asked(asked),
        run_id=run.spec.run,
        state=ResultState(run.state.value),
        outcomes=tuple(sorted(outcomes, key=lambda o: (o.trajectory == AGGREGATOR, o.trajectory))),
        ledger=run.ledger,
        latency_s=(ended_ms - run.spec.created_ms) / 1000,
        created_ms=run.spec.created_ms,
        ended_ms=ended_ms,
        failure=_failure(run),
        simulated=run.spec.simulated,
        log=log,
    )
    return ended if run.result is None else _with_answer(ended, run)


def of_refusal(asked: Asked, error: HeavyError, now_ms: int, run_id: str = "") -> BatchResult:
    """The result of a question of which the server made no run, or whose run is gone."""
    return BatchResult(
        **_asked(asked),
        run_id=run_id,
        state=ResultState.REFUSED,
        created_ms=now_ms,
        ended_ms=now_ms,
        failure=Failure(error.code, error.message),
    )


def latest(results: Iterable[BatchResult]) -> dict[str, BatchResult]:
    """The last result of each question, by id, in the order in which they first ended."""
    found: dict[str, BatchResult] = {}
    for result in results:
        found[result.id] = result
    return found


def _asked(asked: Asked) -> dict[str, Any]:
    return {
        "id": asked.id,
        "attempt": asked.attempt,
        "request_id": asked.request_id,
        "metadata": asked.metadata,
    }


def _with_answer(ended: BatchResult, run: Run) -> BatchResult:
    result = run.result
    assert result is not None
    return replace(
        ended,
        answer=result.answer,
        short_answer=result.short_answer,
        method=result.method,
        abstained=result.abstained,
        agreement=result.agreement,
        dissent=result.dissent,
        citations=result.citations,
    )


def _failure(run: Run) -> Failure | None:
    if run.failure is not None:
        return Failure(run.failure.code, run.failure.message)
    if run.state is RunState.CANCELLED:
        return Failure("cancelled", run.cancel_reason or "The run was cancelled.")
    return None
