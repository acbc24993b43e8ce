"""Audits accept sound candidates, reject the rest at the first wrong line, and cite who agrees."""

from __future__ import annotations

import random

import pytest

from workers.abacus.answers import cited, extract
from workers.abacus.prompting import Candidate, aggregate_prompt, rows
from workers.abacus.tasks import LEVELS, Problem, Term, make_problem
from workers.abacus.tasks.audit import aggregate, audit
from workers.abacus.tasks.stumble import candidates, trajectory
from workers.abacus.tasks.trace import answer_message

TOTAL = Problem("totals", "t", 3, "?", 60, terms=(Term("figs", 10), Term("nuts", 20), Term("pens", 30)))


@pytest.mark.parametrize("family", ["chains", "totals", "stories", "programs"])
def test_a_faultless_trajectory_is_sound(family: str) -> None:
    rng = random.Random(0)
    for index in range(60):
        problem = make_problem(family, LEVELS[family][-1], "dev", index)
        lines, answer = trajectory(problem, rng, 0.0)
        assert audit(problem, "\n".join(lines), str(answer)).sound


@pytest.mark.parametrize("family", ["chains", "totals", "stories", "programs"])
def test_a_wrong_answer_never_survives(family: str) -> None:
    rng = random.Random(1)
    for index in range(120):
        problem = make_problem(family, LEVELS[family][-1], "dev", index)
        lines, answer = trajectory(problem, rng, 0.4)
        if answer != problem.answer:
            result = audit(problem, "\n".join(lines), str(answer))
            assert not result.sound
            assert result.lines[-1].endswith("bad")


@pytest.mark.parametrize(
    ("reasoning", "answer", "last"),
    [
        ("1 20 nuts\n2 20+10=40 figs", "40", "2 20+10=30 figs bad"),
        ("1 20 nuts\n2 20+20=40 nuts", "40", "2 20 twice bad"),
        ("1 20 nuts\n2 20+10=30 figs", "30", "30 missing bad"),
        ("1 20 nuts\n2 20+10=30 figs\n3 30+30=60 pens", "61", "= 60 bad"),
        ("1 20 nuts\n2 20+15=35 figs", "35", "bad"),
        ("1 20 nuts\nwhatever", "60", "bad"),
        ("", None, "10 missing bad"),
    ],
)
def test_an_audit_names_what_is_wrong(reasoning: str, answer: str | None, last: str) -> None:
    assert audit(TOTAL, reasoning, answer).lines[-1] == last


def test_the_prompt_lists_answers_as_the_audit_visits_them() -> None:
    made = candidates(make_problem("totals", 4, "dev", 3), random.Random(3), 8, 0.3)
    prompt = aggregate_prompt("?", made)
    table = "\n".join(f"{answer}: {', '.join(labels)}" for answer, labels in rows(made))
    assert prompt.endswith("Answers:\n" + table)


def test_a_minority_that_is_right_wins_and_is_cited() -> None:
    wrong = "1 20 nuts\n2 20+10=30 figs\n3 30+30=70 pens"
    right = "1 30 pens\n2 30+20=50 nuts\n3 50+10=60 figs"
    made = [Candidate("A", "70", wrong), Candidate("B", "70", wrong), Candidate("C", "60", right)]
    thought, answer, cites = aggregate(TOTAL, made, random.Random(0))
    assert (answer, cites) == ("60", ["C"])
    assert thought.endswith("= 60 ok")
    content = answer_message(answer, thought, cites)["content"]
    assert extract(content) == "60"
    assert cited(content) == ("C",)


def test_where_nobody_is_right_the_answer_is_derived_anew_and_nobody_is_cited() -> None:
    made = [Candidate("A", None, "1 20 nuts", "cut"), Candidate("B", "61", "1 21 nuts")]
    thought, answer, cites = aggregate(TOTAL, made, random.Random(0))
    assert (answer, cites) == ("60", [])
    assert "\nnone\n" in thought
