from __future__ import annotations

from collections.abc import Sequence

import pytest

from heavy.aggregation.aggregate import aggregate
from heavy.aggregation.equivalence import Equivalence
from heavy.aggregation.reflective import Candidate
from heavy.aggregation.vote import agreement_of, overtakable
from heavy.core.ids import AGGREGATOR, arm
from heavy.core.policy import AggregationMode
from heavy.core.runs import AggregationMethod, Citation, Outcome, OutcomeKind

from tests_support.domain import policy


def outcomes(*answers: str) -> list[Outcome]:
    return [
        Outcome(
            arm(i), OutcomeKind.COMPLETED if text else OutcomeKind.FAILED, answer=text and f"Answer: {text}"
        )
        for i, text in enumerate(answers)
    ]


class Reflection:
    """An aggregator that says what it was given, and counts how often it was asked."""

    def __init__(self, text: str, kind: OutcomeKind = OutcomeKind.COMPLETED) -> None:
        self.asked = 0
        self._outcome = Outcome(AGGREGATOR, kind, answer=text)

    async def __call__(self) -> tuple[Outcome, Sequence[Candidate]]:
        self.asked += 1
        return self._outcome, [Candidate(x, arm(i), "", "", "", "completed") for i, x in enumerate("ABC")]


async def test_agreement_answers_by_vote_without_asking_the_aggregator() -> None:
    reflect = Reflection("")
    found = await aggregate(policy(width=4), outcomes("7", "7.0", "7", "8"), Equivalence(), reflect)
    assert reflect.asked == 0
    assert found.result.method is AggregationMethod.VOTE
    assert found.result.short_answer == "7"
    assert [c.trajectory for c in found.result.citations] == [arm(0), arm(1), arm(2)]
    assert found.result.agreement.share == pytest.approx(0.75)


async def test_disagreement_is_reconciled_and_dissent_is_said() -> None:
    reflect = Reflection("C checked it.\nAnswer: 9\nCites: C (step 2)\nDissent: A and B forgot a term")
    found = await aggregate(policy(width=4), outcomes("7", "7", "9", "8"), Equivalence(), reflect)
    assert found.result.method is AggregationMethod.REFLECTIVE
    assert found.result.short_answer == "9"
    assert found.result.citations == (Citation(arm(2), 2),)
    assert found.result.dissent == "A and B forgot a term"


async def test_dissent_is_said_even_when_the_aggregator_forgot_to() -> None:
    found = await aggregate(
        policy(width=4), outcomes("7", "7", "9", "8"), Equivalence(), Reflection("Answer: 9")
    )
    assert "2 arms answered 7" in found.result.dissent


async def test_a_reflection_that_agrees_with_the_majority_has_no_dissent() -> None:
    reflect = Reflection("Answer: 7\nDissent: none")
    found = await aggregate(policy(width=4), outcomes("7", "7", "9", "8"), Equivalence(), reflect)
    assert found.result.dissent == ""


async def test_abstaining_gives_no_short_answer() -> None:
    found = await aggregate(
        policy(width=3), outcomes("1", "2", "3"), Equivalence(), Reflection("Answer: ABSTAIN")
    )
    assert found.result.abstained
    assert found.result.short_answer == ""


@pytest.mark.parametrize("kind", [OutcomeKind.FAILED, OutcomeKind.CUT])
async def test_a_reflection_that_did_not_end_leaves_the_answer_to_the_vote(kind: OutcomeKind) -> None:
    reflect = Reflection("Answer: 9", kind)
    found = await aggregate(policy(width=4), outcomes("7", "7", "9", "8"), Equivalence(), reflect)
    assert found.result.method is AggregationMethod.VOTE
    assert found.result.short_answer == "7"
    assert found.aggregator is not None


async def test_the_only_usable_outcome_is_the_answer() -> None:
    found = await aggregate(policy(width=4), outcomes("", "5", "", ""), Equivalence(), Reflection(""))
    assert found.result.method is AggregationMethod.SINGLE
    assert found.result.short_answer == "5"


async def test_the_reflective_mode_reflects_even_where_all_agree() -> None:
    reflect = Reflection("Answer: 7")
    contract = policy(width=3, aggregation=AggregationMode.REFLECTIVE)
    found = await aggregate(contract, outcomes("7", "7", "7"), Equivalence(), reflect)
    assert reflect.asked == 1
    assert found.result.method is AggregationMethod.REFLECTIVE


async def test_nothing_usable_is_a_programming_error_here() -> None:
    with pytest.raises(ValueError, match="usable"):
        await aggregate(policy(width=2), outcomes("", ""), Equivalence(), Reflection(""))


@pytest.mark.parametrize(
    ("answers", "out", "expected"),
    [(("7", "7", "7"), 2, False), (("7", "7"), 2, True), (("7", "7", "8"), 1, True), ((), 1, True)],
)
async def test_a_lead_is_safe_when_nobody_can_draw_level(
    answers: tuple[str, ...], out: int, expected: bool
) -> None:
    agreement = await agreement_of(outcomes(*answers), Equivalence())
    assert overtakable(agreement, out) is expected


async def test_half_a_text_votes_only_where_it_marks_an_answer() -> None:
    half = Outcome(arm(0), OutcomeKind.CUT, "early_stop", answer="perhaps then check the")
    marked = Outcome(arm(1), OutcomeKind.CUT, "straggler", answer="Answer: 7\nbut wait")
    agreement = await agreement_of([half, marked], Equivalence())
    assert [(group.answer, group.arms) for group in agreement.groups] == [("7", (arm(1),))]


async def test_where_nobody_votes_the_only_text_is_still_the_answer() -> None:
    half = Outcome(arm(0), OutcomeKind.CUT, "deadline", answer="perhaps 7")
    found = await aggregate(policy(width=2), [half], Equivalence(), Reflection(""))
    assert found.result.method is AggregationMethod.SINGLE
    assert found.result.answer == "perhaps 7"
