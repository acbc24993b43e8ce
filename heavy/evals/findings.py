"""What an evaluation found, as plain data. Every quantity is a mean over questions."""

from __future__ import annotations

from dataclasses import dataclass

from heavy.evals.calibration import Calibration
from heavy.evals.intervals import Estimate


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering: how often right, and per question what it cost and how long it took.

    `tokens` counts prompt and output. Latencies are wall seconds, measured under the evaluation's own load.
    """

    name: str
    accuracy: Estimate
    cost_usd: float
    gpu_seconds: float
    tokens: float
    tokens_output: float
    latency_s: float
    latency_median_s: float
    latency_p95_s: float


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm by its index: the standard mode, measured once per arm."""

    arm: int
    profile: str
    accuracy: Estimate
    cost_usd: float
    tokens: float
    latency_s: float
    completed: int
    cut: int
    failed: int
    unanswered: int


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What k arms do: `vote` and `any` are means over all subsets of k arms, and at n what the
    server's own vote says. `any` is what a perfect
    aggregator could reach without an answer of its own. `heavy` is there where k of the arms were aggregated,
    below n a subset drawn for each question. Costs are in the report's `cost_unit`."""

    k: int
    vote: Estimate
    any: Estimate
    cost: float
    latency_s: float
    heavy: Estimate | None = None
    heavy_cost: float | None = None
    heavy_latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gains:
    """Differences in accuracy on the same questions, paired; positive where the first is better."""

    heavy_over_single: Estimate
    heavy_over_vote: Estimate
    vote_over_single: Estimate
    any_over_vote: Estimate
    heavy_over_greedy: Estimate | None


@dataclass(frozen=True, slots=True)
class Decisions:
    """Where heavy and the vote of all arms part. `gap_won` is the share of the gap from the vote to any-of-n
    that heavy wins: 1 would be a perfect choice among the arms' answers, below 0 it loses to the vote."""

    both_right: int
    heavy_alone_right: int
    vote_alone_right: int
    both_wrong: int
    right_where_no_arm_was: int
    abstained: int
    gap_won: Estimate | None


@dataclass(frozen=True, slots=True)
class Price:
    """What the gain costs. `premium` is heavy's cost over a single arm's, `slowdown` its latency over it;
    `cost_per_extra_right` is what one more right answer costs over the standard mode; None without a gain."""

    cost_unit: str
    single: float
    heavy: float
    premium: Estimate | None
    slowdown: Estimate | None
    cost_per_extra_right: float | None
    aggregation_share: float


@dataclass(frozen=True, slots=True)
class AgreementBin:
    """Questions whose largest group had `leading` arms of n: how often the vote and heavy were right."""

    leading: int
    questions: int
    vote: Estimate
    heavy: Estimate


@dataclass(frozen=True, slots=True)
class MethodRow:
    """Questions that the run answered in one way: by vote, by reflection, or with no answer."""

    method: str
    questions: int
    heavy: Estimate
    vote: Estimate


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Questions that share the values of some labels."""

    values: tuple[str, ...]
    questions: int
    single: Estimate
    vote: Estimate
    heavy: Estimate
    any: Estimate
    greedy: Estimate | None
    heavy_over_single: Estimate
    heavy_over_vote: Estimate


@dataclass(frozen=True, slots=True)
class Grouping:
    """The rows of one label, or of several taken together."""

    labels: tuple[str, ...]
    rows: tuple[GroupRow, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything computed from the scored questions. `width` is n."""

    questions: int
    width: int
    ways: tuple[Way, ...]
    arms: tuple[ArmRow, ...]
    curve: tuple[CurvePoint, ...]
    gains: Gains
    decisions: Decisions
    price: Price
    agreement: tuple[AgreementBin, ...]
    methods: tuple[MethodRow, ...]
    calibration: dict[str, Calibration]
    groups: tuple[Grouping, ...]
