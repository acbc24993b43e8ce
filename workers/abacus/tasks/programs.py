"""Tasks for the `python` tool: several calls in a row, each built on the result before, errors included.

A level is the number of calls a clean solution makes (calls that must fail count too).
"""

from __future__ import annotations

import random
from dataclasses import replace

from workers.abacus import cell
from workers.abacus.tasks.base import Call, Problem, join_and
from workers.abacus.tasks.totals import LABELS

LEVELS = (1, 2, 3, 4)
LIMIT = 9_999
NAMES_UNKNOWN = ("rate", "price", "size", "speed", "tax")
ZERO_DIVISION = (
    "ZeroDivisionError: division by zero",
    "ZeroDivisionError: integer division or modulo by zero",
)
VERBS = {
    "*": ("multiply by {}", "times {}"),
    "+": ("add {}", "plus {}"),
    "-": ("subtract {}", "take away {}"),
    "//": ("divide by {} and round down",),
}


def make(rng: random.Random, level: int) -> Problem:
    """A tool task of `level` calls."""
    kinds = [_sequence, _sequence, _purchase] + ([_quotients, _unknown] if level >= 2 else [])
    return rng.choice(kinds)(rng, level)


def _sequence(rng: random.Random, level: int) -> Problem:
    start = value = rng.randint(10, 999)
    told: list[str] = []
    calls: list[Call] = []
    while len(calls) < level:
        operator = rng.choice(("*", "+", "-", "//"))
        operand = rng.randint(2, 19) if operator in ("*", "//") else rng.randint(10, 999)
        result = _value(value, operator, operand)
        if not 0 < result <= LIMIT:
            continue
        told.append(rng.choice(VERBS[operator]).format(operand))
        calls.append(_call(told[-1], f"{value}{operator}{operand}", result))
        value = result
    text = rng.choice(
        ("Use python: start with {}, {}.", "With python, start with {}, {}.", "Use python: take {}, {}.")
    )
    befores = [f"{part}, " for part in (str(start), *told)]
    return _problem("sequence", level, text.format(start, ", ".join(told)), value, calls, befores)


def _purchase(rng: random.Random, level: int) -> Problem:
    labels = rng.sample(LABELS, level)
    pairs = [(rng.randint(2, 29), rng.randint(11, 79)) for _ in labels]
    calls: list[Call] = []
    total = 0
    told = [f"{c} {label} at {p}" for (c, p), label in zip(pairs, labels, strict=True)]
    for (count, price), part in zip(pairs, told, strict=True):
        head = f"{total}+" if calls else ""
        total += count * price
        calls.append(_call(part, f"{head}{count}*{price}", total))
    text = rng.choice(("Use python: what do {} cost?", "With python, add up {}."))
    return _problem("purchase", level, text.format(join_and(told)), total, calls, _before_each(told))


def _quotients(rng: random.Random, level: int) -> Problem:
    amount = rng.randint(100, 999)
    divisors = [rng.randint(2, 19) for _ in range(level - 1)]
    divisors.insert(rng.randrange(level), 0)
    calls: list[Call] = []
    total: int | None = None
    for divisor in divisors:
        expression = f"{amount}//{divisor}" if total is None else f"{total}+{amount}//{divisor}"
        if divisor == 0:
            note = f"{expression} fails, skip"
            calls.append(Call(str(divisor), expression, None, note, rng.choice(ZERO_DIVISION)))
            continue
        total = (total or 0) + amount // divisor
        calls.append(_call(str(divisor), expression, total))
    told = [str(divisor) for divisor in divisors]
    text = rng.choice(
        (
            "Use python: divide {} by {}, rounding down, and add what works.",
            "With python, add up {} divided by {}, rounded down. Skip what fails.",
        )
    )
    assert total is not None
    befores = [f"{amount} by ", *_before_each(told)[1:]]
    if "divided" in text:
        befores[0] = f"{amount} divided by "
    return _problem("quotients", level, text.format(amount, join_and(told)), total, calls, befores)


def _unknown(rng: random.Random, level: int) -> Problem:
    name, count, value = rng.choice(NAMES_UNKNOWN), rng.randint(11, 99), rng.randint(11, 99)
    error = f"NameError: name '{name}' is not defined"
    calls = [
        Call(f"take {name}*{count}", f"{name}*{count}", None, f"{name} fails, use {value}", error),
        _call(f"use {value}", f"{value}*{count}", value * count),
    ]
    total = value * count
    told: list[str] = []
    while len(calls) < level:
        operator, operand = rng.choice(("+", "*")), rng.randint(2, 19)
        result = _value(total, operator, operand)
        if result > LIMIT:
            operator, result = "+", total + operand
        told.append(rng.choice(VERBS[operator]).format(operand))
        calls.append(_call(told[-1], f"{total}{operator}{operand}", result))
        total = result
    then = "".join(f", {part}" for part in told)
    text = f"Use python: take {name}*{count}{then}. If {name} is not known use {value}."
    befores = ["", "", *(f"{part}, " for part in (calls[0].told, *told))]
    return _problem("unknown", level, text, total, calls, befores)


def with_slip(rng: random.Random, problem: Problem) -> Problem:
    """The same problem with one bad call before a good one: a masked mistake to recover from."""
    good = [index for index, call in enumerate(problem.calls) if call.result is not None]
    index = rng.choice(good)
    expression = problem.calls[index].expression
    bad, error = rng.choice(
        (
            (f"x{expression}", f"NameError: name 'x{expression.split('+')[0].split('*')[0]}' is not defined"),
            (f"total+{expression}", "NameError: name 'total' is not defined"),
            (f"{expression}/0", "ZeroDivisionError: division by zero"),
            (f"{expression}+", "SyntaxError: invalid syntax"),
        )
    )
    slip = replace(
        problem.calls[index], expression=bad, result=None, note="fails, again", error=error, slip=True
    )
    return replace(problem, calls=(*problem.calls[:index], slip, *problem.calls[index:]))


def result_text(rng: random.Random, call: Call) -> str:
    """What the tool hands back: mostly as Heavy's own does (stdout without its last newline, a whole
    traceback), at times as others do.
    """
    newline = rng.choice(("\n", ""))
    if call.result is not None:
        return f"{call.result}{newline}"
    shape = rng.random()
    if shape < 0.6:
        return cell.told(f"print({call.expression})")
    if shape < 0.8:
        return f"{call.error}{newline}"
    place = rng.choice(('  File "<cell>", line 1, in <module>\n', '  File "<string>", line 1, in <module>\n'))
    return f"Traceback (most recent call last):\n{place}{call.error}{newline}"


def _value(left: int, operator: str, right: int) -> int:
    values = {"*": left * right, "+": left + right, "-": left - right, "//": left // right}
    return values[operator]


def _call(told: str, expression: str, result: int) -> Call:
    return Call(told, expression, result, f"{expression}={result}")


def _before_each(told: list[str]) -> list[str]:
    """What stands before each part of a list told with `join_and`: the part before and what lies between."""
    between = [", "] * (len(told) - 2) + [" and "]
    return ["", *(part + joint for part, joint in zip(told[:-1], between, strict=False))]


def _problem(
    template: str, level: int, text: str, answer: int, calls: list[Call], befores: list[str]
) -> Problem:
    placed = tuple(replace(call, before=before) for call, before in zip(calls, befores, strict=False))
    assert all(f"{call.before}{call.told}" in text for call in placed), "a step reads what the question says"
    return Problem("programs", template, level, text, answer, calls=placed)
