"""Scored questions and batch results, made to order."""

from __future__ import annotations

import random
from collections.abc import Sequence

from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.runs import AggregationMethod, OutcomeKind
from heavy.evals.questions import GraderName, Question
from heavy.evals.scoring import Answered, ScoredArm, ScoredQuestion


def answered(
    right: bool, *, tokens: int = 100, latency_s: float = 1.0, confidence: float | None = None
) -> Answered:
    """An answer of ten output tokens to every `tokens`."""
    spend = Spend(tokens_prompt=tokens, tokens_output=tokens // 10)
    return Answered("yes" if right else "no", right, confidence, spend, latency_s)


def scored(
    name: str,
    arms: Sequence[tuple[int, bool]],
    heavy: bool,
    *,
    greedy: bool | None = None,
    labels: dict[str, str] | None = None,
    confidence: float | None = None,
    simulated: bool = False,
) -> ScoredQuestion:
    """A question whose arms are (group, right), each of 110 tokens; arm 0 takes 1 s, arm 1 takes 2 s."""
    return ScoredQuestion(
        question=Question(name, "?", "yes", GraderName.EXACT, labels=labels or {}),
        run=f"run-{name}",
        arms=tuple(
            ScoredArm(
                answered(right, latency_s=1.0 + place, confidence=confidence),
                group,
                OutcomeKind.COMPLETED,
                "tiny",
            )
            for place, (group, right) in enumerate(arms)
        ),
        heavy=answered(heavy, tokens=1000, latency_s=20.0, confidence=confidence),
        method=AggregationMethod.REFLECTIVE,
        abstained=False,
        aggregation=Spend(tokens_prompt=200) if heavy else NOTHING_SPENT,
        aggregation_s=1.0,
        greedy=None if greedy is None else answered(greedy),
        simulated=simulated,
    )


def many(count: int, seed: int, width: int = 8) -> list[ScoredQuestion]:
    """Questions with arms that are right or wrong at random; equal answers are of one group."""
    rng = random.Random(seed)
    found = []
    for index in range(count):
        groups = [rng.randrange(4) for _ in range(width)]
        arms = [(group, group == 0) for group in groups]
        labels = {"family": "abc"[index % 3], "level": str(index % 12)}
        heavy = rng.random() < 0.6
        found.append(
            scored(f"q{index}", arms, heavy, greedy=rng.random() < 0.4, labels=labels, confidence=0.7)
        )
    return found
