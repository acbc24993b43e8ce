"""Small word problems: an opening from one of many templates, then things that happen, then a question.

A template names its numbers (`a`, `b`, ... drawn from ranges) and its steps: `x*y` over those names, `_`
being the result before and `r1`, `r2` the first and the second result.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from workers.abacus.tasks.base import NAMES, Problem, apply

LEVELS = (2, 3, 4, 5)
LIMIT = 199
_STEP = re.compile(r"(\w+)([-+*/])(\w+)")


@dataclass(frozen=True, slots=True)
class Opening:
    """How a story starts: its text, the unit it counts, the ranges of its numbers, its steps."""

    key: str
    text: str
    unit: str
    ranges: dict[str, tuple[int, int]]
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens afterwards: one more step, on the result so far."""

    text: str
    step: str
    low: int
    high: int


_TWO = (5, 49)
_ONE = (2, 5)
OPENINGS = (
    Opening("train", "A train goes {a} km an hour for {h} hours.", "km", {"a": _TWO, "h": _ONE}, ("a*h",)),
    Opening("bus", "A bus drives {h} hours at {a} km an hour and {k} hours at {b} km an hour.", "km",
            {"h": _ONE, "a": _TWO, "k": _ONE, "b": _TWO}, ("h*a", "k*b", "r1+r2")),
    Opening("walk", "{n} walks {a} m and then {b} m.", "m", {"a": _TWO, "b": _TWO}, ("a+b",)),
    Opening("road", "A road is {a} km long. {n} drives {b} km each hour for {h} hours and the rest later.",
            "km", {"a": (100, 199), "b": _TWO, "h": _ONE}, ("b*h", "a-_")),
    Opening("laps", "{n} runs {k} laps of {a} m and {b} m more.", "m", {"k": _ONE, "a": _TWO, "b": _TWO},
            ("k*a", "_+b")),
    Opening("apart", "Two cars {a} km apart drive to each other at {b} and {c} km an hour, {h} hours.",
            "km", {"a": (100, 199), "b": _TWO, "c": _TWO, "h": (2, 4)}, ("b+c", "_*h", "a-_")),
    Opening("purse", "{n} has {m} coins and buys {k} pens at {p} coins.", "coins",
            {"m": (100, 199), "k": _ONE, "p": _TWO}, ("k*p", "m-_")),
    Opening("saving", "{n} saves {w} coins a week for {k} weeks.", "coins", {"w": _TWO, "k": _ONE}, ("w*k",)),
    Opening("tickets", "{k} tickets cost {p} coins each and {j} more cost {q} coins each.", "coins",
            {"k": _ONE, "p": _TWO, "j": _ONE, "q": _TWO}, ("k*p", "j*q", "r1+r2")),
    Opening("wage", "{n} earns {w} coins an hour for {h} hours and had {m} coins.", "coins",
            {"w": _TWO, "h": _ONE, "m": _TWO}, ("w*h", "_+m")),
    Opening("bill", "{k} friends share a bill of {a} and {b} coins.", "coins",
            {"k": (2, 6), "a": _TWO, "b": _TWO}, ("a+b", "_/k")),
    Opening("change", "{n} pays a hat for {a} coins and a coat for {b} coins with {m} coins.", "coins",
            {"a": _TWO, "b": _TWO, "m": (100, 199)}, ("a+b", "m-_")),
    Opening("older", "{n} is {a} years old. An aunt is {b} years older.", "years", {"a": _TWO, "b": _TWO},
            ("a+b",)),
    Opening("ages", "{n} is {a} years old. A house is {k} times as old.", "years", {"a": _TWO, "k": _ONE},
            ("a*k",)),
    Opening("sum", "{n} is {a}, a mother is {b} and an uncle is {c} years old. Add their years.", "years",
            {"a": _TWO, "b": _TWO, "c": _TWO}, ("a+b", "_+c")),
    Opening("class", "A class has {k} lessons of {a} minutes and a break of {b} minutes.", "minutes",
            {"k": _ONE, "a": _TWO, "b": _TWO}, ("k*a", "_+b")),
    Opening("film", "A film of {a} minutes has {k} breaks of {b} minutes.", "minutes",
            {"a": (60, 119), "k": _ONE, "b": _TWO}, ("k*b", "a+_")),
    Opening("hours", "A trip takes {h} hours and {a} minutes.", "minutes", {"h": _ONE, "a": _TWO},
            ("h*60", "_+a")),
    Opening("late", "A bus leaves after {a} minutes, drives {b} minutes and is {c} minutes late.", "minutes",
            {"a": _TWO, "b": _TWO, "c": _TWO}, ("a+b", "_+c")),
    Opening("day", "{n} works {h} hours. {k} breaks of {a} minutes are free.", "minutes",
            {"h": (2, 3), "k": (2, 3), "a": (5, 20)}, ("h*60", "k*a", "r1-r2")),
    Opening("rows", "A garden has {k} rows of {a} trees.", "trees", {"k": _ONE, "a": _TWO}, ("k*a",)),
    Opening("pages", "A book has {a} pages. {n} reads {b} pages a day for {k} days.", "pages",
            {"a": (100, 199), "b": _TWO, "k": _ONE}, ("b*k", "a-_")),
    Opening("tank", "A tank holds {a} litres and gets {b} litres an hour for {h} hours.", "litres",
            {"a": _TWO, "b": _TWO, "h": _ONE}, ("b*h", "a+_")),
    Opening("score", "{n} wins {a} points, then {b} points, and loses {c} points.", "points",
            {"a": _TWO, "b": _TWO, "c": _TWO}, ("a+b", "_-c")),
)  # fmt: skip
EVENTS = (
    Event("Then {x} {u} more are added.", "_+x", 3, 49),
    Event("Then come {x} {u} more.", "_+x", 3, 49),
    Event("Then {x} {u} are taken away.", "_-x", 3, 49),
    Event("Then {x} {u} are lost.", "_-x", 3, 49),
    Event("Then it all becomes {x} times as much.", "_*x", 2, 5),
    Event("Then it is shared by {x} and one share is kept.", "_/x", 2, 5),
)
QUESTIONS = ("How many {u} is that?", "How many {u} are there now?", "What is the result?")


def make(rng: random.Random, level: int) -> Problem:
    """A story of exactly `level` steps from the templates of training."""
    return compose(rng, level, "stories", OPENINGS, EVENTS, QUESTIONS)


def compose(
    rng: random.Random,
    level: int,
    family: str,
    openings: tuple[Opening, ...],
    events: tuple[Event, ...],
    questions: tuple[str, ...],
) -> Problem:
    """Draw an opening, then events, until the story has `level` steps whose results stay within 0..199."""
    fitting = [opening for opening in openings if len(opening.steps) <= level]
    while True:
        opening = rng.choice(fitting)
        numbers = {name: rng.randint(*bounds) for name, bounds in opening.ranges.items()}
        opened = work(opening.steps, numbers)
        if opened is None:
            continue
        lines, value = opened
        name = rng.choice(NAMES)
        parts = [opening.text.format(n=name, **numbers)]
        for _ in range(400):
            if len(lines) == level:
                parts.append(rng.choice(questions).format(u=opening.unit))
                return Problem(family, opening.key, level, " ".join(parts), value, lines=tuple(lines))
            event = rng.choice(events)
            x = rng.randint(event.low, event.high)
            happened = work((event.step,), {"x": x}, value)
            if happened is None:
                continue
            parts.append(event.text.format(x=x, u=opening.unit))
            lines, value = lines + happened[0], happened[1]


def work(steps: tuple[str, ...], numbers: dict[str, int], before: int = 0) -> tuple[list[str], int] | None:
    """The lines and the result of `steps`, or None where a result leaves 0..199 or is no whole number."""
    known = dict(numbers, _=before)
    lines: list[str] = []
    for count, step in enumerate(steps, 1):
        match = _STEP.fullmatch(step)
        assert match is not None, f"a step reads like a*b, not {step!r}"
        left, operator, right = match.groups()
        a = int(left) if left.isdigit() else known[left]
        b = int(right) if right.isdigit() else known[right]
        result = apply(a, operator, b)
        if result is None or result > LIMIT:
            return None
        lines.append(f"{a}{operator}{b}={result}")
        known["_"] = known[f"r{count}"] = result
    return lines, known["_"]
