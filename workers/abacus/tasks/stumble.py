"""Imagined wrong trajectories, for first lessons in auditing; later ones come from the model itself."""

from __future__ import annotations

import random
import re

from workers.abacus.prompting import LABELS, Candidate
from workers.abacus.tasks.base import Problem, Term

_EQUATION = re.compile(r"^(\d+)([-+*/])(\d+)=(\d+)$")


def candidates(problem: Problem, rng: random.Random, width: int, rate: float) -> list[Candidate]:
    """`width` candidates, each line of each going wrong with probability `rate`."""
    made: list[Candidate] = []
    for label in LABELS[:width]:
        lines, answer = trajectory(problem, rng, rate)
        made.append(Candidate(label, str(answer), "\n".join(lines)))
    return made


def trajectory(problem: Problem, rng: random.Random, rate: float) -> tuple[list[str], int]:
    """The lines and the answer of one attempt."""
    if problem.search is not None:
        lines, answer = problem.search.attempt(rng)
        return lines, slip(rng, answer) if rng.random() < rate / 3 else answer
    if problem.terms:
        return _wander(problem, rng, rate)
    if problem.calls:
        return _program(problem, rng, rate)
    return _derive(problem, rng, rate)


def slip(rng: random.Random, value: int) -> int:
    """A number that is nearly `value`: off by one place, or with one digit or two changed."""
    while True:
        digits = list(str(value))
        kind = rng.random()
        if kind < 0.5:
            wrong = value + rng.choice((-1, 1)) * rng.choice((1, 1, 10, 10, 100))
        elif kind < 0.9 or len(digits) < 2:
            digits[rng.randrange(len(digits))] = str(rng.randrange(10))
            wrong = int("".join(digits))
        else:
            place = rng.randrange(len(digits) - 1)
            digits[place], digits[place + 1] = digits[place + 1], digits[place]
            wrong = int("".join(digits))
        if wrong >= 0 and wrong != value and len(str(wrong)) <= len(str(value)) + 1:
            return wrong


def _wander(problem: Problem, rng: random.Random, rate: float) -> tuple[list[str], int]:
    order = rng.sample(problem.terms, len(problem.terms))
    if rng.random() < rate and len(order) > 2:
        place = rng.randrange(1, len(order))
        order[place : place + 1] = [] if rng.random() < 0.4 else [order[rng.randrange(place)]]
    lines: list[str] = []
    before = 0
    for number, term in enumerate(order, 1):
        amount = slip(rng, term.amount) if rng.random() < rate / 3 else term.amount
        value = Term(term.label, amount, term.times).value
        product = slip(rng, value) if term.times is not None and rng.random() < rate / 2 else value
        after = before + product
        if number > 1 and rng.random() < rate:
            after = slip(rng, after)
        head, tail = f"{number} ", f" {term.label}"
        part = f"{term.times}*{amount}={product}" if term.times is not None else f"{amount}"
        if number == 1:
            lines.append(head + part + tail)
        elif term.times is not None:
            lines.append(f"{head}{part} {before}+{product}={after}{tail}")
        else:
            lines.append(f"{head}{before}+{product}={after}{tail}")
        before = after
    return lines, before


def _derive(problem: Problem, rng: random.Random, rate: float) -> tuple[list[str], int]:
    changed: dict[str, str] = {}
    lines: list[str] = []
    result = problem.answer
    steps = list(problem.lines)
    if rng.random() < rate / 2 and len(steps) > 2:
        del steps[rng.randrange(1, len(steps))]
    for step in steps:
        match = _EQUATION.match(step)
        assert match is not None, f"a line reads like a+b=c, not {step!r}"
        left, operator, right, true = match.groups()
        a, b = changed.get(left, left), changed.get(right, right)
        if rng.random() < rate / 3:
            b = str(slip(rng, int(b)))
        value = _compute(int(a), operator, int(b))
        result = slip(rng, value) if rng.random() < rate else value
        if str(result) != true:
            changed[true] = str(result)
        lines.append(f"{a}{operator}{b}={result}")
    return lines, result


def _compute(a: int, operator: str, b: int) -> int:
    values = {"+": a + b, "-": abs(a - b), "*": a * b, "/": a // b if b else 0}
    return values[operator]


def _program(problem: Problem, rng: random.Random, rate: float) -> tuple[list[str], int]:
    """Tool results are right by nature, so what goes wrong is the reading: a part skipped, taken twice, or
    its number mistaken, for one nearby more often than not.
    """
    order = list(range(len(problem.calls)))
    first = 3 if problem.template == "unknown" else 1
    if rng.random() < rate and len(order) > first:
        place = rng.randrange(first, len(order))
        order[place : place + 1] = [] if rng.random() < 0.5 else [rng.randrange(first - 1, place), place]
    lines: list[str] = []
    running = ""
    for number, index in enumerate(order, 1):
        call = problem.calls[index]
        rest = call.expression.removeprefix(_running(problem, index))
        step = call.step(number)
        if call.result is None:
            note = call.note.replace(call.expression, f"{running}{rest}" if running else rest.lstrip("+"))
            lines += [step, note]
            continue
        if rng.random() < rate / 2:
            wrong = rng.choice(re.findall(r"\d+", rest))
            near = rng.choice(re.findall(r"\d+", problem.question)) if rng.random() < 0.6 else wrong
            taken = near if near not in (wrong, "0") else str(slip(rng, int(wrong)) or 1)
            step, rest = _last_replaced(step, wrong, taken), _last_replaced(rest, wrong, taken)
        expression = f"{running}{rest}" if running else rest.lstrip("+")
        running = str(max(1, evaluate(expression)))
        lines += [step, f"{expression}={running}"]
    return [*lines, "done"], int(running or 0)


def _running(problem: Problem, index: int) -> str:
    """What the calls before the `index`-th came to, as its expression begins; empty where none did."""
    results = [call.result for call in problem.calls[:index] if call.result is not None]
    return str(results[-1]) if results else ""


def _last_replaced(text: str, old: str, new: str) -> str:
    head, found, tail = text.rpartition(old)
    return f"{head}{new}{tail}" if found else text


def evaluate(expression: str) -> int:
    """The value of `a op b` or `t+a op b` with op one of + - * //."""
    head, plus, tail = expression.partition("+")
    if plus:
        return evaluate(head) + evaluate(tail)
    for operator in ("//", "*", "-"):
        left, found, right = expression.partition(operator)
        if found:
            a, b = int(left), int(right)
            return a // max(b, 1) if operator == "//" else a * b if operator == "*" else a - b
    return int(expression)


__all__ = ["candidates", "evaluate", "slip", "trajectory"]
