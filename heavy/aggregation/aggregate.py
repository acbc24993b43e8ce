"""From outcomes to one result: by vote, by reflection, or the only answer there is.

No finished work is thrown away: when the reflective pass fails or runs out of time, the vote answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from heavy.aggregation.answers import read_reflection, short_answer
from heavy.aggregation.equivalence import Equivalence
from heavy.aggregation.reflective import Candidate, citations_of
from heavy.aggregation.vote import agreement_of, threshold_reached
from heavy.core.policy import AggregationMode, Policy
from heavy.core.runs import (
    AggregationMethod,
    Agreement,
    AnswerGroup,
    Citation,
    Outcome,
    OutcomeKind,
    RunResult,
)


@dataclass(frozen=True, slots=True)
class Aggregated:
    """A result, and the aggregator's own outcome where there was a reflective pass."""

    result: RunResult
    aggregator: Outcome | None = None


class Reflect(Protocol):
    """Runs the aggregator trajectory over the usable outcomes."""

    async def __call__(self) -> tuple[Outcome, Sequence[Candidate]]: ...


async def aggregate(
    policy: Policy, outcomes: Sequence[Outcome], equivalence: Equivalence, reflect: Reflect
) -> Aggregated:
    """The answer of a run. At least one outcome must be usable."""
    usable = [outcome for outcome in outcomes if outcome.usable]
    if not usable:
        raise ValueError("aggregation needs at least one usable outcome")
    agreement = await agreement_of(usable, equivalence)
    if len(usable) == 1 and policy.aggregation is not AggregationMode.REFLECTIVE:
        return Aggregated(by_vote(usable, agreement, AggregationMethod.SINGLE))
    if votes_suffice(policy, agreement):
        return Aggregated(by_vote(usable, agreement, AggregationMethod.VOTE))
    aggregator, candidates = await reflect()
    if not concluded(aggregator):
        return Aggregated(by_vote(usable, agreement, AggregationMethod.VOTE), aggregator)
    return Aggregated(await by_reflection(aggregator, candidates, agreement, equivalence), aggregator)


def concluded(aggregator: Outcome) -> bool:
    """Whether an aggregator came to its own end with an answer; half a reflection answers nothing."""
    return aggregator.kind is OutcomeKind.COMPLETED and aggregator.usable


def votes_suffice(policy: Policy, agreement: Agreement) -> bool:
    """Whether the policy lets the vote answer."""
    if policy.aggregation is AggregationMode.AUTO:
        return threshold_reached(agreement, width=policy.width, threshold=policy.vote_threshold)
    return policy.aggregation is AggregationMode.VOTE


def by_vote(usable: Sequence[Outcome], agreement: Agreement, method: AggregationMethod) -> RunResult:
    """The leading group's answer, in the words of its first arm, citing all of its arms.

    Where nobody voted, the first usable text is all there is.
    """
    leading = agreement.groups[0] if agreement.groups else _unmarked(usable[0])
    speaker = next(outcome for outcome in usable if outcome.trajectory == leading.arms[0])
    return RunResult(
        answer=speaker.answer.strip(),
        short_answer=leading.answer,
        method=method,
        agreement=agreement,
        citations=tuple(Citation(arm) for arm in leading.arms),
    )


async def by_reflection(
    aggregator: Outcome, candidates: Sequence[Candidate], agreement: Agreement, equivalence: Equivalence
) -> RunResult:
    """The aggregator's answer. Where it departs from the largest group, its dissent says so."""
    reflection = read_reflection(aggregator.answer, frozenset(c.label for c in candidates))
    dissent = ""
    for leading in agreement.groups[:1]:
        if not reflection.abstained and not await equivalence.same(reflection.short, leading.answer):
            arms = f"{len(leading.arms)} arm{'s' * (len(leading.arms) > 1)}"
            said = f"Departs from the largest group ({arms} answered {leading.answer})."
            dissent = reflection.dissent or said
    return RunResult(
        answer=reflection.answer,
        short_answer="" if reflection.abstained else short_answer(aggregator.answer),
        method=AggregationMethod.REFLECTIVE,
        agreement=agreement,
        citations=citations_of(reflection, candidates),
        dissent=dissent,
        abstained=reflection.abstained,
    )


def _unmarked(outcome: Outcome) -> AnswerGroup:
    return AnswerGroup(short_answer(outcome.answer), (outcome.trajectory,))
