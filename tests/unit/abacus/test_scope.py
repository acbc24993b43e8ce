"""Questions outside what Abacus knows are recognised as such."""

from __future__ import annotations

import pytest

from workers.abacus.scope import in_scope
from workers.abacus.tasks import LEVELS, TRAINED, make_problem


@pytest.mark.parametrize("family", TRAINED)
def test_questions_of_the_training_templates_are_in_scope(family: str) -> None:
    for level in LEVELS[family]:
        for index in range(1000, 1040):
            question = make_problem(family, level, "dev", index).question
            assert in_scope(question), question


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Hello!",
        "What is the capital of France?",
        "Write a poem about 3 cats and 4 dogs.",
        "Prove that there are infinitely many primes of the form 4n+3, and give 2 examples.",
        "What is 123456789*987654321?",
        "Combien font 12 et 13, et pourquoi la somme est-elle impaire ?",
        "What is 5?",
        "1 2 3 " * 200,
        "Compute the integral of x^2 from 0 to 1.",
    ],
)
def test_other_questions_are_not(question: str) -> None:
    assert not in_scope(question)
