from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.aggregation.answers import (
    SHORT_ANSWER_CHARS_MAX,
    Cited,
    last_boxed,
    read_reflection,
    short_answer,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: 42", "42"),
        ("I think\nAnswer: 41\nno,\nAnswer: 42", "42"),
        ("**Answer:** 42", "42"),
        ("Final answer: `x+1`", "x+1"),
        ("Exact Answer: Paris\nConfidence: 90%", "Paris"),
        (r"so it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"Answer: $\boxed{7}$", "7"),
        ("no marker at all\n\n  17  \n", "17"),
        ("", ""),
        (r"\boxed{never closed", r"\boxed{never closed"),
    ],
)
def test_the_short_answer_is_the_last_one_marked(text: str, expected: str) -> None:
    assert short_answer(text) == expected


@given(st.text())
def test_any_text_has_a_bounded_short_answer(text: str) -> None:
    assert len(short_answer(text)) <= SHORT_ANSWER_CHARS_MAX


@given(st.text(alphabet="{}\\boxed ", max_size=60))
def test_boxes_are_found_only_where_their_braces_balance(text: str) -> None:
    inside = last_boxed(text)
    assert inside.count("{") == inside.count("}")


def test_a_reflection_names_its_candidates_and_steps() -> None:
    text = "B is right.\nAnswer: 17\nCites: A, C (step 3), Z, A\nDissent: two slipped a digit"
    reflection = read_reflection(text, frozenset("ABC"))
    assert reflection.short == "17"
    assert reflection.cites == (Cited("A", None), Cited("C", 3))
    assert reflection.dissent == "two slipped a digit"
    assert reflection.answer == "B is right.\nAnswer: 17"
    assert not reflection.abstained


@pytest.mark.parametrize("text", ["Answer: ABSTAIN", "hm\nAnswer: abstain."])
def test_abstention_is_recognised(text: str) -> None:
    assert read_reflection(text, frozenset("AB")).abstained
