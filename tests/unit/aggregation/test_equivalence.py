from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.aggregation.equivalence import Equivalence, as_number, normalise


@pytest.fixture
async def equivalence() -> AsyncIterator[Equivalence]:
    judge = Equivalence(timeout_s=5.0)
    yield judge
    await judge.close()


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("42", "42.0"),
        ("1,234", "1234"),
        ("  Paris. ", "paris"),
        ("1/2", "0.5"),
        ("50%", "0.5"),
        ("−3", "-3"),
        ("$7$", "7"),
        (r"\frac{1}{2}", "0.5"),
        ("(x+1)^2", "x^2+2x+1"),
    ],
)
async def test_equal_answers_in_other_words_are_the_same(
    equivalence: Equivalence, left: str, right: str
) -> None:
    assert await equivalence.same(left, right)


@pytest.mark.parametrize(
    ("left", "right"), [("42", "43"), ("Paris", "London"), ("x+1", "x+2"), ("", "0"), ("1/0", "1")]
)
async def test_different_answers_are_different(equivalence: Equivalence, left: str, right: str) -> None:
    assert not await equivalence.same(left, right)


async def test_an_answer_made_to_run_for_ever_counts_as_different_and_the_judge_goes_on() -> None:
    judge = Equivalence(timeout_s=1.0)
    try:
        assert not await judge.same("9**9**9**9**9 + x", "10**10**10**10 + x")
        assert await judge.same(r"\frac{2}{4}", "1/2")
    finally:
        await judge.close()


async def test_closing_twice_is_harmless(equivalence: Equivalence) -> None:
    await equivalence.same("x+1", "1+x")
    await equivalence.close()
    await equivalence.close()


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) in (once, normalise(normalise(once)))


@given(st.fractions(max_denominator=10**6))
def test_numbers_keep_their_exact_value(value: Fraction) -> None:
    assert as_number(f"{value.numerator}/{value.denominator}") == value
