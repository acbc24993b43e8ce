"""One question's rollouts, graded: every arm, the groups they vote in, and the run's own answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from heavy.core.ledger import Spend
from heavy.core.runs import AggregationMethod, OutcomeKind
from heavy.evals.grading import Graders, Same
from heavy.evals.questions import Question
from heavy.evals.reading import Reading, read
from heavy.evals.rollouts import ArmRollout, HeavyRollout, Rollout

NOTHING: Final[Mapping[int, HeavyRollout]] = {}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, whether it is right, how sure it says it is, what it cost and how long it took."""

    answer: str
    right: bool
    confidence: float | None
    spend: Spend
    latency_s: float


@dataclass(frozen=True, slots=True)
class ScoredArm:
    """One arm's answer. `group` numbers the arms that say the same; -1 has no answer and does not vote."""

    scored: Answered
    group: int
    kind: OutcomeKind
    profile: str


@dataclass(frozen=True, slots=True)
class ScoredQuestion:
    """One question as every way of answering it did. `greedy` is one arm at temperature 0, where asked."""

    question: Question
    run: str
    arms: tuple[ScoredArm, ...]
    heavy: Answered
    method: AggregationMethod | None
    abstained: bool
    aggregation: Spend
    aggregation_s: float
    greedy: Answered | None
    simulated: bool
    heavy_at: dict[int, Answered] = field(default_factory=dict)
    """The run's answer from k of its arms, by k, where they were aggregated anew."""

    @property
    def groups(self) -> tuple[int, ...]:
        """The group of each arm."""
        return tuple(arm.group for arm in self.arms)

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each arm is right."""
        return tuple(arm.scored.right for arm in self.arms)

    @property
    def leading(self) -> int:
        """How many arms the largest group has."""
        groups = [group for group in self.groups if group >= 0]
        return max((groups.count(group) for group in groups), default=0)


async def score(
    question: Question,
    rollout: Rollout,
    graders: Graders,
    same: Same,
    *,
    greedy: Rollout | None = None,
    heavy_at: Mapping[int, HeavyRollout] = NOTHING,
) -> ScoredQuestion:
    """Grade a question's rollouts. Raises `JudgeFailed` when a judge gives no verdict."""
    readings = [read(question, arm.text, complete=arm.kind is OutcomeKind.COMPLETED) for arm in rollout.arms]
    groups = await _groups(readings, same)
    scored = [
        await _scored(question, arm, reading, graders)
        for arm, reading in zip(rollout.arms, readings, strict=True)
    ]
    heavy = rollout.heavy
    return ScoredQuestion(
        question=question,
        run=rollout.run,
        arms=tuple(
            ScoredArm(one, group, arm.kind, arm.profile)
            for one, group, arm in zip(scored, groups, rollout.arms, strict=True)
        ),
        heavy=await _scored_heavy(question, heavy, graders),
        method=heavy.method,
        abstained=heavy.abstained,
        aggregation=heavy.aggregation,
        aggregation_s=heavy.aggregation_s,
        greedy=await _scored_alone(question, greedy, graders) if greedy else None,
        simulated=rollout.simulated,
        heavy_at={k: await _scored_heavy(question, one, graders) for k, one in heavy_at.items()},
    )


async def _scored_heavy(question: Question, heavy: HeavyRollout, graders: Graders) -> Answered:
    said = read(question, heavy.text)
    right = await graders.right(question, heavy.text, said)
    return Answered(said.answer, right, said.confidence, heavy.spend, heavy.latency_s)


async def _scored(question: Question, arm: ArmRollout, reading: Reading, graders: Graders) -> Answered:
    right = await graders.right(question, arm.text, reading)
    return Answered(reading.answer, right, reading.confidence, arm.spend, arm.latency_s)


async def _scored_alone(question: Question, rollout: Rollout, graders: Graders) -> Answered:
    arm = rollout.arms[0]
    reading = read(question, arm.text, complete=arm.kind is OutcomeKind.COMPLETED)
    return await _scored(question, arm, reading, graders)


async def _groups(readings: Sequence[Reading], same: Same) -> list[int]:
    """Which arms say the same, in order of first appearance, as the server's vote groups them."""
    wordings: list[str] = []
    groups = []
    for reading in readings:
        if not reading.answer:
            groups.append(-1)
            continue
        for group, wording in enumerate(wordings):
            if await same(wording, reading.answer):
                groups.append(group)
                break
        else:
            groups.append(len(wordings))
            wordings.append(reading.answer)
    return groups
