"""Votes: which arms agree, who leads, and whether the leader can still be overtaken."""

from __future__ import annotations

from collections.abc import Sequence

from heavy.aggregation.answers import marked_answer, short_answer
from heavy.aggregation.equivalence import Equivalence
from heavy.core.ids import TrajectoryId
from heavy.core.runs import Agreement, AnswerGroup, Outcome, OutcomeKind


async def agreement_of(outcomes: Sequence[Outcome], equivalence: Equivalence) -> Agreement:
    """Group the outcomes that vote by equivalent answers, largest group first, ties by order of arrival."""
    groups: list[tuple[str, list[TrajectoryId]]] = []
    votes = [(outcome, answer) for outcome in outcomes if (answer := vote_of(outcome))]
    for outcome, answer in votes:
        for wording, arms in groups:
            if await equivalence.same(wording, answer):
                arms.append(outcome.trajectory)
                break
        else:
            groups.append((answer, [outcome.trajectory]))
    groups.sort(key=lambda group: -len(group[1]))
    return Agreement(
        groups=tuple(AnswerGroup(wording, tuple(arms)) for wording, arms in groups),
        share=len(groups[0][1]) / len(votes) if groups else 0.0,
    )


def vote_of(outcome: Outcome) -> str:
    """The short answer an outcome votes for; empty when it has none. Half a text votes only if it says so."""
    completed = outcome.kind is OutcomeKind.COMPLETED
    return short_answer(outcome.answer) if completed else marked_answer(outcome.answer)


def overtakable(agreement: Agreement, out: int) -> bool:
    """Whether `out` more arms could still make another answer lead, or draw level."""
    if not agreement.groups:
        return True
    sizes = [len(group.arms) for group in agreement.groups]
    second = sizes[1] if len(sizes) > 1 else 0
    return second + out >= sizes[0]


def threshold_reached(agreement: Agreement, *, width: int, threshold: float) -> bool:
    """Whether the leading answer holds `threshold` of all `width` arms, whatever the others say."""
    return bool(agreement.groups) and len(agreement.groups[0].arms) >= threshold * width
