"""Problems are seeded, right, and derivable line by line."""

from __future__ import annotations

import random
import re

import pytest

from workers.abacus.tasks import FAMILIES, HELD_OUT, LEVELS, Problem, Split, distinct, make_problem
from workers.abacus.tasks.pairs import PairSearch
from workers.abacus.tasks.programs import with_slip
from workers.abacus.tasks.remainders import RemainderSearch
from workers.abacus.tasks.stumble import evaluate
from workers.abacus.tasks.trace import derivation, gold

CASES = [(family, level) for family in FAMILIES for level in LEVELS[family]]
SEARCHED = [(family, level) for family in ("pairs", "remainders") for level in LEVELS[family]]
DERIVED = [case for case in CASES if case not in SEARCHED]
EQUATION = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
DIVISION = re.compile(r"(\d+)\*(\d+)\+(\d+)")


def problems(family: str, level: int, count: int = 40) -> list[Problem]:
    return [make_problem(family, level, "dev", index) for index in range(count)]


@pytest.mark.parametrize(("family", "level"), CASES)
def test_the_same_seed_gives_the_same_problem(family: str, level: int) -> None:
    assert problems(family, level, 5) == problems(family, level, 5)
    assert len({problem.question for problem in problems(family, level)}) > 30


@pytest.mark.parametrize(("family", "level"), DERIVED)
def test_every_line_of_a_derivation_is_true_and_the_last_one_ends_in_the_answer(
    family: str, level: int
) -> None:
    rng = random.Random(0)
    for problem in problems(family, level):
        lines, answer = derivation(problem, rng)
        assert answer == problem.answer
        if problem.calls:
            continue
        for line in lines:
            for left, operator, right, result in EQUATION.findall(line):
                a, b = int(left), int(right)
                value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[operator]
                assert value == int(result), (problem.question, line)
        assert re.search(rf"={problem.answer}( [a-z]+)?$", lines[-1])


@pytest.mark.parametrize("level", LEVELS["chains"])
def test_a_written_chain_has_the_value_that_reading_it_gives(level: int) -> None:
    for problem in problems("chains", level):
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        assert len(numbers) == level + 1
        if problem.template.startswith("written"):
            signs = re.findall(r"[-+]", problem.question)
            value = numbers[0] + sum(n if s == "+" else -n for s, n in zip(signs, numbers[1:], strict=True))
            assert value == problem.answer


@pytest.mark.parametrize("level", LEVELS["totals"])
def test_a_total_is_the_sum_of_the_numbers_in_its_question(level: int) -> None:
    for problem in problems("totals", level):
        numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
        if problem.template.startswith("counted"):
            assert sum(numbers) == problem.answer
        else:
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            assert sum(a * b for a, b in pairs) == problem.answer


@pytest.mark.parametrize("level", LEVELS["programs"])
def test_calls_carry_true_results_and_the_last_good_one_is_the_answer(level: int) -> None:
    for problem in problems("programs", level):
        assert len(problem.calls) == level
        good = [call for call in problem.calls if call.result is not None]
        assert all(evaluate(call.expression) == call.result for call in good)
        assert good[-1].result == problem.answer


@pytest.mark.parametrize("level", LEVELS["programs"])
def test_a_step_reads_the_question_from_the_part_before_to_its_own(level: int) -> None:
    for problem in problems("programs", level):
        places = [problem.question.index(call.before + call.told) for call in problem.calls]
        assert problem.template == "unknown" or places == sorted(places)
        for before, call in zip(problem.calls, problem.calls[1:], strict=False):
            assert call.told.startswith("use ") or call.before.startswith(
                (before.told, problem.calls[0].told)
            )


def test_orders_of_a_total_differ_and_agree_on_the_answer() -> None:
    rng = random.Random(1)
    problem = make_problem("totals", 5, "dev", 0)
    traces = {"\n".join(derivation(problem, rng)[0]) for _ in range(8)}
    assert len(traces) > 4
    assert {trace.rpartition("=")[2].split()[0] for trace in traces} == {str(problem.answer)}


@pytest.mark.parametrize(("family", "level"), SEARCHED)
def test_a_search_has_one_answer_and_its_check_finds_it(family: str, level: int) -> None:
    for problem in problems(family, level):
        search = problem.search
        if isinstance(search, PairSearch):
            holds = {
                n for n in range(1, 99) if n < search.total - n and n * (search.total - n) == search.product
            }
        else:
            assert isinstance(search, RemainderSearch)
            within = range(search.first * search.second)
            rests = (search.first_rest, search.second_rest)
            holds = {n for n in within if (n % search.first, n % search.second) == rests}
        assert holds == {problem.answer}
        assert {n for n in range(130) if search.check(n)[1]} == holds


@pytest.mark.parametrize(("family", "level"), SEARCHED)
def test_an_attempt_at_a_search_says_only_what_is_true_and_is_right_where_it_says_yes(
    family: str, level: int
) -> None:
    rng = random.Random(0)
    right = 0
    for problem in problems(family, level):
        assert problem.search is not None
        lines, answer = problem.search.attempt(rng)
        for line in lines:
            for left, operator, other, result in EQUATION.findall(line):
                value = int(left) * int(other) if operator == "*" else int(left) - int(other)
                assert operator == "+" or value == int(result), line
            for divisor, times, rest, number in re.findall(r"(\d+)\*(\d+)\+(\d+)=(\d+)", line):
                assert int(divisor) * int(times) + int(rest) == int(number), line
        said_yes = lines[-1].endswith("yes")
        assert said_yes == (not lines[-1].startswith("guess"))
        assert not said_yes or answer == problem.answer
        right += answer == problem.answer
    assert 0 < right < 40


@pytest.mark.parametrize("level", LEVELS["remainders"])
def test_the_divisions_of_a_search_are_true(level: int) -> None:
    rng = random.Random(0)
    for problem in problems("remainders", level):
        assert problem.search is not None
        for candidate in rng.sample(range(20), 5):
            line = problem.search.check(candidate)[0]
            for divisor, times, rest in DIVISION.findall(line):
                assert int(divisor) * int(times) + int(rest) == candidate
                assert int(rest) < int(divisor)


@pytest.mark.parametrize(("family", "level"), SEARCHED)
def test_the_numbers_of_a_search_belong_to_one_split_only(family: str, level: int) -> None:
    splits: tuple[Split, ...] = ("train", "dev", "test")
    made = [{make_problem(family, level, split, i).search for i in range(150)} for split in splits]
    assert not made[0] & made[1]
    assert not made[0] & made[2]
    assert not made[1] & made[2]


def test_distinct_problems_are_asked_once_each() -> None:
    made = [problem.question for _, problem in distinct("pairs", 1, "dev")]
    assert len(made) == len(set(made)) > 50


def test_the_held_out_family_has_no_training_split() -> None:
    for split in ("train", "fresh"):
        with pytest.raises(ValueError, match="held out"):
            make_problem(HELD_OUT, 2, split, 0)  # type: ignore[arg-type]


def test_held_out_templates_share_no_sentence_with_training() -> None:
    seen = {
        make_problem("stories", level, "dev", i).template for level in LEVELS["stories"] for i in range(60)
    }
    unseen = {
        make_problem("unseen", level, "dev", i).template for level in LEVELS["unseen"] for i in range(60)
    }
    assert not seen & unseen


def test_a_slip_is_shown_but_not_imitated() -> None:
    rng = random.Random(2)
    problem = with_slip(rng, make_problem("programs", 3, "dev", 1))
    turns = [(message, kept) for message, kept in gold(problem, rng) if message["role"] == "assistant"]
    assert [kept for _, kept in turns].count(False) == 1
    ids = [message["tool_calls"][0]["id"] for message, _ in turns if message.get("tool_calls")]
    assert ids == [f"functions.python:{number}" for number in range(4)]
