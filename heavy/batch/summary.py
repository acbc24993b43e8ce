"""What a batch came to: answers, failures, and how agreement, cost and latency are distributed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heavy.batch.directory import Manifest, read_manifest, read_results
from heavy.batch.results import BatchResult, latest
from heavy.core.ids import AGGREGATOR
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.runs import OutcomeKind

EXAMPLES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of some values, in their own unit. Percentiles by nearest rank; all zero where there is no value."""

    count: int
    total: float
    mean: float
    min: float
    p10: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """The distribution of `values`."""
        ranked = sorted(values)
        if not ranked:
            return cls(0, *(0.0,) * 8)
        total = math.fsum(ranked)
        p10, p50, p90, p99 = (_rank(ranked, share) for share in (0.1, 0.5, 0.9, 0.99))
        return cls(len(ranked), total, total / len(ranked), ranked[0], p10, p50, p90, p99, ranked[-1])


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer in short. `agreement` is the share of the largest group of arms, 0 to 1."""

    id: str
    run_id: str
    short_answer: str
    method: str
    agreement: float
    abstained: bool
    cost_usd: float
    tokens: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class FailureKind:
    """Failures of one code: how many, the message of the first, and the first few ids."""

    code: str
    count: int
    message: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """A whole batch. `spend` has every attempt; the distributions are over questions that were answered."""

    batch: str
    created_ms: int
    questions: int
    answered: int
    failed: int
    unasked: int
    abstained: int
    simulated: bool
    spend: Spend
    agreement: Distribution
    cost_usd: Distribution
    latency_s: Distribution
    tokens: Distribution
    methods: dict[str, int]
    arms: dict[str, int]
    """Outcomes of arms: "completed", or kind and reason, such as "cut (early_stop)"."""
    failures: tuple[FailureKind, ...]
    answers: tuple[Answered, ...]


def summarise(root: Path) -> BatchSummary:
    """The summary of the batch in `root`, ended or not. Raises `ConfigError` when there is none."""
    return summary_of(read_manifest(root), read_results(root))


def summary_of(manifest: Manifest, results: Sequence[BatchResult]) -> BatchSummary:
    """The summary of every line that was written."""
    last = list(latest(results).values())
    good = [result for result in last if result.answered]
    bad = [result for result in last if not result.answered]
    arms = [o for r in last for o in r.outcomes if o.trajectory != AGGREGATOR]
    return BatchSummary(
        batch=manifest.batch,
        created_ms=manifest.created_ms,
        questions=manifest.questions,
        answered=len(good),
        failed=len(bad),
        unasked=manifest.questions - len(last),
        abstained=sum(result.abstained for result in good),
        simulated=any(result.simulated for result in last),
        spend=sum((result.spend for result in results), NOTHING_SPENT),
        agreement=Distribution.of(_agreement(result) for result in good),
        cost_usd=Distribution.of(result.spend.cost_usd for result in good),
        latency_s=Distribution.of(result.latency_s for result in good),
        tokens=Distribution.of(result.spend.tokens for result in good),
        methods=_counted(result.method.value for result in good if result.method),
        arms=_counted(
            o.kind.value if o.kind is OutcomeKind.COMPLETED else f"{o.kind.value} ({o.reason})" for o in arms
        ),
        failures=_failures(bad),
        answers=tuple(_answered(result) for result in good),
    )


def _answered(result: BatchResult) -> Answered:
    return Answered(
        id=result.id,
        run_id=result.run_id,
        short_answer=result.short_answer,
        method=result.method.value if result.method else "",
        agreement=_agreement(result),
        abstained=result.abstained,
        cost_usd=result.spend.cost_usd,
        tokens=result.spend.tokens,
        latency_s=result.latency_s,
    )


def _agreement(result: BatchResult) -> float:
    return 0.0 if result.agreement is None else result.agreement.share


def _failures(bad: Sequence[BatchResult]) -> tuple[FailureKind, ...]:
    by_code: dict[str, list[BatchResult]] = {}
    for result in bad:
        by_code.setdefault(result.failure.code if result.failure else result.state.value, []).append(result)
    kinds = (
        FailureKind(
            code,
            len(found),
            found[0].failure.message if found[0].failure else "",
            tuple(result.id for result in found[:EXAMPLES_MAX]),
        )
        for code, found in by_code.items()
    )
    return tuple(sorted(kinds, key=lambda kind: (-kind.count, kind.code)))


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _rank(ranked: Sequence[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, max(0, math.ceil(share * len(ranked)) - 1))]
