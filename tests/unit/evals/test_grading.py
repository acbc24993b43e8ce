from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from heavy.aggregation.equivalence import Equivalence
from heavy.core.errors import ConfigError
from heavy.evals.grading import Graders
from heavy.evals.questions import LETTERS, GraderName, Question, Tolerance
from heavy.evals.reading import amount_in, confidence_in, letter_in, read

OPTIONS = ("red", "blue", "green", "grey")


in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def graders() -> AsyncIterator[Graders]:
    equivalence = Equivalence(timeout_s=60.0, start_timeout_s=110.0)
    yield Graders(equivalence.same)
    await equivalence.close()


def question(answer: str, grader: GraderName, **fields: object) -> Question:
    return Question(id="q", prompt="?", answer=answer, grader=grader, **fields)  # type: ignore[arg-type]


async def graded(graders: Graders, asked: Question, text: str) -> bool:
    return await graders.right(asked, text, read(asked, text))


@in_one_loop
@pytest.mark.parametrize(
    ("truth", "text", "right"),
    [
        ("12", "So it is 12 km.\nAnswer: 12 km", True),
        ("12", "Answer: 13", False),
        ("1234.5", "Answer: $1,234.50", True),
        ("0.75", "Answer: \\frac{3}{4}", True),
        ("3e8", "Answer: 3 \\times 10^8 m s^-1", True),
        ("9.8", "Answer: 9.8 m/s^2", True),
        ("90", "Answer: $90^{\\circ}$", True),
        ("50", "Answer: 50%", True),
        ("50%", "Answer: 0.5", True),
        ("50", "Answer: 0.5", False),
        ("100000", "Answer: 10^5", True),
        ("10", "Answer: 10^5", False),
        ("12", "Answer: 12 and 13", False),
        ("7", "\\boxed{7}", True),
        ("7", "", False),
    ],
)
async def test_numbers_are_compared_exactly_without_their_units(
    graders: Graders, truth: str, text: str, right: bool
) -> None:
    assert await graded(graders, question(truth, GraderName.NUMERIC), text) is right


@in_one_loop
async def test_a_tolerance_is_kept_on_both_sides(graders: Graders) -> None:
    asked = question("10", GraderName.NUMERIC, tolerance=Tolerance(relative=0.05))
    assert [await graded(graders, asked, f"Answer: {x}") for x in ("9.5", "10.5", "9.49", "10.51")] == [
        True,
        True,
        False,
        False,
    ]
    wide = question("0", GraderName.NUMERIC, tolerance=Tolerance(absolute=0.1))
    assert await graded(graders, wide, "Answer: -0.1") is True
    assert await graded(graders, wide, "Answer: 0.1000000000001") is False


@in_one_loop
async def test_equal_mathematics_in_other_words_is_right(graders: Graders) -> None:
    asked = question("(x+1)^2", GraderName.SYMBOLIC)
    assert await graded(graders, asked, "Answer: $x^2+2x+1$") is True
    assert await graded(graders, asked, "Answer: $x^2+1$") is False


@in_one_loop
async def test_exact_forgives_case_and_a_full_stop_but_no_other_word(graders: Graders) -> None:
    asked = question("Marie Curie", GraderName.EXACT)
    assert await graded(graders, asked, "Answer: marie curie.") is True
    assert await graded(graders, asked, "Answer: Curie") is False


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B) blue", "B"),
        ("B. blue", "B"),
        ("option B", "B"),
        ("\\text{B}", "B"),
        ("$B$", "B"),
        ("**B**", "B"),
        ("Blue", "B"),
        ("A and B", ""),
        ("A, B", ""),
        ("A, B and C", ""),
        ("A) B; C", ""),
        ("B) a blue one", "B"),
        ("E", ""),
        ("Both", ""),
        ("", ""),
    ],
)
def test_an_option_is_named_by_letter_or_text(said: str, letter: str) -> None:
    assert letter_in(said, OPTIONS) == letter


@in_one_loop
async def test_a_choice_is_right_by_its_letter(graders: Graders) -> None:
    asked = question("B", GraderName.CHOICE, choices=OPTIONS)
    assert await graded(graders, asked, "It must be blue.\nAnswer: (B)") is True
    assert await graded(graders, asked, "Answer: C") is False
    assert await graded(graders, asked, "I cannot tell.") is False


@in_one_loop
async def test_a_judge_that_is_wanted_and_not_there_is_a_setting_to_mend(graders: Graders) -> None:
    with pytest.raises(ConfigError, match="--judge-profile"):
        await graded(graders, question("x", GraderName.JUDGE), "Answer: x")


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        ("Answer: 4\nConfidence: 85%", 0.85),
        ("**Confidence:** 85", 0.85),
        ("Confidence: 0.85", 0.85),
        ("Confidence: $0.5\\%$", 0.005),
        ("Confidence: 1", 0.01),
        ("Confidence: 40%\nConfidence: 90%", 0.9),
        ("Confidence: 140%", None),
        ("Confidence: high", None),
        ("My confidence is 80%", None),
    ],
)
def test_a_confidence_is_read_from_its_own_line(text: str, confidence: float | None) -> None:
    assert confidence_in(text) == confidence


def test_hle_replies_are_read_in_their_three_parts() -> None:
    asked = question("42", GraderName.JUDGE)
    reading = read(asked, "Explanation: Answer it by hand.\nAnswer: 42\nConfidence: 70%")
    assert (reading.answer, reading.confidence) == ("42", 0.7)


def test_half_a_text_answers_only_where_it_says_so() -> None:
    asked = question("42", GraderName.NUMERIC)
    assert read(asked, "so far I have 41", complete=False).answer == ""
    assert read(asked, "Answer: 42", complete=False).answer == "42"


@given(
    st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6),
    st.sampled_from(["", " km", " %"]),
)
def test_every_fraction_is_read_back_exactly(value: Fraction, unit: str) -> None:
    amount = amount_in(f"{value}{unit}")
    assert amount is not None
    assert amount.value == value
    assert amount.percent == ("%" in unit)


@given(st.text(max_size=60))
def test_whatever_a_model_writes_is_read_without_an_error(text: str) -> None:
    amount_in(text)
    confidence_in(text)
    assert letter_in(text, OPTIONS) in ("", *LETTERS[:4])
