"""Findings, computed from scored questions alone: the same every time.

Shares of questions have Wilson's interval, all else a paired
bootstrap over questions (`heavy.evals.intervals`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

from heavy.core.ledger import Spend
from heavy.core.runs import OutcomeKind
from heavy.evals.calibration import Calibration, calibration
from heavy.evals.estimates import any_at, most_of, sum_of, vote_at, vote_of
from heavy.evals.findings import (
    AgreementBin,
    ArmRow,
    CurvePoint,
    Decisions,
    Findings,
    Gains,
    Grouping,
    GroupRow,
    MethodRow,
    Price,
    Way,
)
from heavy.evals.intervals import Bootstrap, Estimate, wilson
from heavy.evals.scoring import Answered, ScoredQuestion

GROUP_VALUES_MAX: Final = 24
"""A label with more values than this is no group to report by, unless it was asked for."""


def findings(
    scored: Sequence[ScoredQuestion], *, seed: int = 0, group_by: Sequence[tuple[str, ...]] | None = None
) -> Findings:
    """Compute everything. `group_by` None groups by every label with 2 to `GROUP_VALUES_MAX` values."""
    if not scored:
        raise ValueError("there is no scored question")
    ways = _Ways(scored)
    boot = Bootstrap(len(scored), seed)
    unit = "usd" if any(q.heavy.spend.cost_usd > 0 for q in scored) else "tokens"
    return Findings(
        questions=len(scored),
        width=ways.width,
        ways=_way_rows(ways, boot),
        arms=tuple(_arm_row(scored, index) for index in range(ways.width)),
        curve=tuple(_point(ways, boot, unit, k) for k in range(1, ways.width + 1)),
        gains=_gains(ways, boot),
        decisions=_decisions(ways, boot),
        price=_price(ways, boot, unit),
        agreement=_agreement(ways),
        methods=_methods(ways),
        calibration=_calibrations(scored),
        groups=tuple(_grouping(scored, names, seed) for names in group_by or _groupable(scored)),
    )


class _Ways:
    """Per question, in one order: how right each way of answering was, 0 to 1."""

    def __init__(self, scored: Sequence[ScoredQuestion]) -> None:
        self.scored = scored
        self.width = max(len(q.arms) for q in scored)
        self.single = [sum(q.right) / len(q.arms) for q in scored]
        self.vote = [float(vote_of(q.groups, q.right, range(len(q.arms)))) for q in scored]
        self.any = [float(any(q.right)) for q in scored]
        self.heavy = [float(q.heavy.right) for q in scored]
        self.greedy: list[float] | None = None
        if all(q.greedy is not None for q in scored):
            self.greedy = [float(q.greedy.right) for q in scored if q.greedy]

    def votes(self, k: int) -> list[float]:
        return [vote_at(q.groups, q.right, min(k, len(q.arms))) for q in self.scored]

    def anys(self, k: int) -> list[float]:
        return [any_at(sum(q.right), len(q.arms), min(k, len(q.arms))) for q in self.scored]

    def heavy_at(self, k: int) -> list[Answered]:
        """The answers of heavy with k arms; none unless every question has one."""
        if k == self.width:
            return [q.heavy for q in self.scored]
        found = [q.heavy_at[k] for q in self.scored if k in q.heavy_at]
        return found if len(found) == len(self.scored) else []

    def arms(
        self, of: Callable[[Answered], float], k: int, over: Callable[[Sequence[float], int], float]
    ) -> list[float]:
        """A quantity of k arms per question, by a mean over subsets."""
        return [over([of(arm.scored) for arm in q.arms], min(k, len(q.arms))) for q in self.scored]


def share(values: Sequence[float]) -> Estimate:
    """Wilson's interval of a 0/1 quantity."""
    return wilson(round(sum(values)), len(values))


def cost_in(unit: str) -> Callable[[Answered], float]:
    """What an answer cost, in "usd" or "tokens"."""
    return _usd if unit == "usd" else _tokens


def _usd(one: Answered) -> float:
    return one.spend.cost_usd


def _tokens(one: Answered) -> float:
    return float(one.spend.tokens)


def _latency(one: Answered) -> float:
    return one.latency_s


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _way_rows(ways: _Ways, boot: Bootstrap) -> tuple[Way, ...]:
    n, scored = ways.width, ways.scored
    everything = [_sum(arm.scored.spend for arm in q.arms) for q in scored]
    slowest = ways.arms(_latency, n, most_of)
    each = [arm.scored for q in scored for arm in q.arms]
    rows = [
        _way("single", boot.mean(ways.single), [one.spend for one in each], [one.latency_s for one in each]),
        _way(f"vote@{n}", share(ways.vote), everything, slowest),
        _way(
            "heavy", share(ways.heavy), [q.heavy.spend for q in scored], [q.heavy.latency_s for q in scored]
        ),
        _way(f"any@{n}", share(ways.any), everything, slowest),
    ]
    if ways.greedy is not None:
        alone = [q.greedy for q in scored if q.greedy]
        rows.insert(
            0, _way("greedy", share(ways.greedy), [a.spend for a in alone], [a.latency_s for a in alone])
        )
    return tuple(rows)


def _way(name: str, accuracy: Estimate, spends: Sequence[Spend], latencies: Sequence[float]) -> Way:
    ordered = sorted(latencies)
    return Way(
        name=name,
        accuracy=accuracy,
        cost_usd=_mean(s.cost_usd for s in spends),
        gpu_seconds=_mean(s.gpu_seconds for s in spends),
        tokens=_mean(s.tokens for s in spends),
        tokens_output=_mean(s.tokens_output for s in spends),
        latency_s=_mean(ordered),
        latency_median_s=median(ordered),
        latency_p95_s=ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
    )


def _sum(spends: Iterable[Spend]) -> Spend:
    return sum(spends, Spend())


def _arm_row(scored: Sequence[ScoredQuestion], index: int) -> ArmRow:
    arms = [q.arms[index] for q in scored if index < len(q.arms)]
    return ArmRow(
        arm=index,
        profile=arms[0].profile,
        accuracy=share([float(arm.scored.right) for arm in arms]),
        cost_usd=_mean(arm.scored.spend.cost_usd for arm in arms),
        tokens=_mean(arm.scored.spend.tokens for arm in arms),
        latency_s=_mean(arm.scored.latency_s for arm in arms),
        completed=sum(arm.kind is OutcomeKind.COMPLETED for arm in arms),
        cut=sum(arm.kind is OutcomeKind.CUT for arm in arms),
        failed=sum(arm.kind is OutcomeKind.FAILED for arm in arms),
        unanswered=sum(not arm.scored.answer for arm in arms),
    )


def _point(ways: _Ways, boot: Bootstrap, unit: str, k: int) -> CurvePoint:
    cost = cost_in(unit)
    whole = k == ways.width
    votes, anys = (ways.vote, ways.any) if whole else (ways.votes(k), ways.anys(k))
    measured = ways.heavy_at(k)
    return CurvePoint(
        k=k,
        vote=share(votes) if whole else boot.mean(votes),
        any=share(anys) if whole else boot.mean(anys),
        cost=_mean(ways.arms(cost, k, sum_of)),
        latency_s=_mean(ways.arms(_latency, k, most_of)),
        heavy=share([float(one.right) for one in measured]) if measured else None,
        heavy_cost=_mean(map(cost, measured)) if measured else None,
        heavy_latency_s=_mean(map(_latency, measured)) if measured else None,
    )


def _gains(ways: _Ways, boot: Bootstrap) -> Gains:
    return Gains(
        heavy_over_single=boot.difference(ways.heavy, ways.single),
        heavy_over_vote=boot.difference(ways.heavy, ways.vote),
        vote_over_single=boot.difference(ways.vote, ways.single),
        any_over_vote=boot.difference(ways.any, ways.vote),
        heavy_over_greedy=None if ways.greedy is None else boot.difference(ways.heavy, ways.greedy),
    )


def _decisions(ways: _Ways, boot: Bootstrap) -> Decisions:
    pairs = list(zip(ways.heavy, ways.vote, ways.any, strict=True))
    return Decisions(
        both_right=sum(heavy == 1 and vote == 1 for heavy, vote, _ in pairs),
        heavy_alone_right=sum(heavy == 1 and vote == 0 for heavy, vote, _ in pairs),
        vote_alone_right=sum(heavy == 0 and vote == 1 for heavy, vote, _ in pairs),
        both_wrong=sum(heavy == 0 and vote == 0 for heavy, vote, _ in pairs),
        right_where_no_arm_was=sum(heavy == 1 and some == 0 for heavy, _, some in pairs),
        abstained=sum(q.abstained for q in ways.scored),
        gap_won=boot.ratio(
            [heavy - vote for heavy, vote, _ in pairs], [some - vote for _, vote, some in pairs]
        ),
    )


def _price(ways: _Ways, boot: Bootstrap, unit: str) -> Price:
    cost = cost_in(unit)
    single = ways.arms(cost, 1, sum_of)
    heavy = [cost(q.heavy) for q in ways.scored]
    gain = _mean(ways.heavy) - _mean(ways.single)
    spent = sum(heavy)
    reflecting = sum(q.aggregation.cost_usd if unit == "usd" else q.aggregation.tokens for q in ways.scored)
    return Price(
        cost_unit=unit,
        single=_mean(single),
        heavy=_mean(heavy),
        premium=boot.ratio(heavy, single),
        slowdown=boot.ratio([q.heavy.latency_s for q in ways.scored], ways.arms(_latency, 1, sum_of)),
        cost_per_extra_right=(_mean(heavy) - _mean(single)) / gain if gain > 0 else None,
        aggregation_share=reflecting / spent if spent else 0.0,
    )


def _agreement(ways: _Ways) -> tuple[AgreementBin, ...]:
    cells: dict[int, list[int]] = {}
    for index, question in enumerate(ways.scored):
        cells.setdefault(question.leading, []).append(index)
    return tuple(
        AgreementBin(
            leading,
            len(found),
            share([ways.vote[i] for i in found]),
            share([ways.heavy[i] for i in found]),
        )
        for leading, found in sorted(cells.items())
    )


def _methods(ways: _Ways) -> tuple[MethodRow, ...]:
    cells: dict[str, list[int]] = {}
    for index, question in enumerate(ways.scored):
        cells.setdefault(question.method or "none", []).append(index)
    return tuple(
        MethodRow(
            method, len(found), share([ways.heavy[i] for i in found]), share([ways.vote[i] for i in found])
        )
        for method, found in sorted(cells.items())
    )


def _calibrations(scored: Sequence[ScoredQuestion]) -> dict[str, Calibration]:
    answers = {
        "single": [arm.scored for q in scored for arm in q.arms],
        "heavy": [q.heavy for q in scored],
        "greedy": [q.greedy for q in scored if q.greedy],
    }
    found = {
        name: calibration([(a.confidence, a.right) for a in said if a.confidence is not None], len(said))
        for name, said in answers.items()
    }
    return {name: one for name, one in found.items() if one is not None}


def _groupable(scored: Sequence[ScoredQuestion]) -> list[tuple[str, ...]]:
    values: dict[str, set[str]] = {}
    for question in scored:
        for name, value in question.question.labels.items():
            values.setdefault(name, set()).add(value)
    return [(name,) for name in sorted(values) if 2 <= len(values[name]) <= GROUP_VALUES_MAX]


def _grouping(scored: Sequence[ScoredQuestion], names: tuple[str, ...], seed: int) -> Grouping:
    cells: dict[tuple[str, ...], list[ScoredQuestion]] = {}
    for question in scored:
        values = tuple(question.question.labels.get(name, "") for name in names)
        cells.setdefault(values, []).append(question)
    return Grouping(names, tuple(_group_row(v, cells[v], seed) for v in sorted(cells, key=_in_order)))


def _in_order(values: tuple[str, ...]) -> list[tuple[bool, float, str]]:
    """Numbers in the order of their values, before words."""
    return [(False, float(v), v) if v.isdecimal() else (True, 0.0, v) for v in values]


def _group_row(values: tuple[str, ...], scored: Sequence[ScoredQuestion], seed: int) -> GroupRow:
    ways, boot = _Ways(scored), Bootstrap(len(scored), seed)
    return GroupRow(
        values=values,
        questions=len(scored),
        single=boot.mean(ways.single),
        vote=share(ways.vote),
        heavy=share(ways.heavy),
        any=share(ways.any),
        greedy=None if ways.greedy is None else share(ways.greedy),
        heavy_over_single=boot.difference(ways.heavy, ways.single),
        heavy_over_vote=boot.difference(ways.heavy, ways.vote),
    )
