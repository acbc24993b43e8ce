"""Gold aggregations answer right where anybody did, cite who agrees, and match the prompt's table."""

from __future__ import annotations

import random

import pytest

from workers.abacus.answers import cited, extract
from workers.abacus.prompting import Candidate, aggregate_prompt, rows
from workers.abacus.tasks import LEVELS, TRAINED, Problem, Term, make_problem
from workers.abacus.tasks.aggregation import aggregate
from workers.abacus.tasks.pairs import PairSearch
from workers.abacus.tasks.remainders import RemainderSearch
from workers.abacus.tasks.stumble import candidates, trajectory
from workers.abacus.tasks.trace import answer_message

TOTAL = Problem("totals", "t", 3, "?", 60, terms=(Term("figs", 10), Term("nuts", 20), Term("pens", 30)))


@pytest.mark.parametrize("family", ["chains", "totals", "stories", "programs"])
def test_an_imagined_trajectory_without_slips_is_right(family: str) -> None:
    rng = random.Random(0)
    for index in range(60):
        problem = make_problem(family, LEVELS[family][-1], "dev", index)
        assert trajectory(problem, rng, 0.0)[1] == problem.answer


@pytest.mark.parametrize("family", TRAINED)
def test_the_answer_is_right_if_anybody_was_and_else_the_most_frequent(family: str) -> None:
    rng = random.Random(1)
    for index in range(100):
        problem = make_problem(family, LEVELS[family][-1], "dev", index)
        made = candidates(problem, rng, 5, 0.3)
        thought, answer, cites = aggregate(problem, made, rng)
        given = {candidate.label: candidate.short_answer for candidate in made}
        assert {given[label] for label in cites} == {answer}
        if str(problem.answer) in given.values():
            assert answer == str(problem.answer)
            assert thought.endswith(f"= {answer}: {', '.join(cites)}")
        else:
            assert answer == rows(made)[0][0]
            assert thought.endswith("none")


def test_the_prompt_lists_answers_most_frequent_first() -> None:
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
    content = answer_message(answer, thought, cites)["content"]
    assert extract(content) == "60"
    assert cited(content) == ("C",)


def test_where_nobody_answered_it_answers_itself_and_cites_nobody() -> None:
    thought, answer, cites = aggregate(TOTAL, [Candidate("A", None, "1 20 nuts", "cut")], random.Random(0))
    assert (answer, cites) == ("60", [])
    assert thought.endswith("= 60: none")


def test_what_can_be_checked_is_checked_until_something_holds() -> None:
    problem = Problem("pairs", "p", 1, "?", 9, search=PairSearch(23, 126, 9))
    made = [
        Candidate("A", "7", ""),
        Candidate("B", "9", ""),
        Candidate("C", "7", ""),
        Candidate("D", "x", ""),
    ]
    assert aggregate(problem, made, random.Random(0)) == (
        "7: 23-7=16 7*16=112 of 126 2 of 6 no\n9: 23-9=14 9*14=126 of 126 6 of 6 2 of 2 1 of 1 yes\n= 9: B",
        "9",
        ["B"],
    )


def test_where_nothing_holds_the_most_frequent_answer_stays() -> None:
    problem = Problem("remainders", "r", 1, "?", 23, search=RemainderSearch(7, 2, 9, 5))
    made = [Candidate("A", "30", ""), Candidate("B", "9", ""), Candidate("C", "9", "")]
    thought, answer, cites = aggregate(problem, made, random.Random(0))
    assert thought == "9: 7*1+2 of 2 9*1+0 of 5 no\n30: 7*4+2 of 2 9*3+3 of 5 no\nnone"
    assert (answer, cites) == ("9", ["B", "C"])


def test_what_takes_a_tool_is_read_off_whoever_made_the_call_until_nobody_did() -> None:
    problem = make_problem("programs", 3, "dev", 2)
    steps = [call.step(number) for number, call in enumerate(problem.calls, 1)]
    notes = [call.note for call in problem.calls]
    split = [Candidate("A", "5", "\n".join(notes[:2])), Candidate("B", str(problem.answer), notes[2])]
    thought, answer, cites = aggregate(problem, split, random.Random(0))
    assert thought == "\n".join(
        [*(line for pair in zip(steps, notes, strict=True) for line in pair), f"= {answer}: B"]
    )
    assert (answer, cites) == (str(problem.answer), ["B"])
    thought, answer, cites = aggregate(problem, [split[0]], random.Random(0))
    assert thought.endswith(f"{steps[2]}\n{problem.calls[2].expression} none")
    assert (answer, cites) == ("5", ["A"])
