"""Arithmetic chains: a number and `level` operations, worked from left to right."""

from __future__ import annotations

import random

from workers.abacus.tasks.base import Problem, apply

LEVELS = (2, 3, 4, 5, 6)
LIMIT = 199
VERBS = {
    "+": ("add {}", "plus {}"),
    "-": ("subtract {}", "minus {}", "take away {}"),
    "*": ("times {}", "multiply by {}"),
}
OPENINGS = ("What is {}?", "Compute {}.", "{}=?", "Work out {}.", "How much is {}?")
STORIES = (
    "Start with {}. What do you get?",
    "Take {}. What is the result?",
    "Start with {}. What is the result?",
    "Begin with {}. What do you get?",
)


def make(rng: random.Random, level: int) -> Problem:
    """A chain of `level` operations whose results stay within 0..199; only spoken chains multiply."""
    spoken = rng.random() < 0.5
    start = rng.randint(2, 49)
    value = start
    steps: list[tuple[str, int]] = []
    lines: list[str] = []
    while len(steps) < level:
        operator = rng.choice("++--*" if spoken else "++-")
        operand = rng.randint(2, 5) if operator == "*" else rng.randint(2, 49)
        result = apply(value, operator, operand)
        if result is None or result > LIMIT:
            continue
        steps.append((operator, operand))
        lines.append(f"{value}{operator}{operand}={result}")
        value = result
    text, template = _spoken(rng, start, steps) if spoken else _written(rng, start, steps)
    return Problem("chains", template, level, text, value, lines=tuple(lines))


def _written(rng: random.Random, start: int, steps: list[tuple[str, int]]) -> tuple[str, str]:
    index = rng.randrange(len(OPENINGS))
    gap = " " if rng.random() < 0.3 else ""
    expression = str(start) + "".join(f"{gap}{operator}{gap}{operand}" for operator, operand in steps)
    return OPENINGS[index].format(expression), f"written-{index}"


def _spoken(rng: random.Random, start: int, steps: list[tuple[str, int]]) -> tuple[str, str]:
    index = rng.randrange(len(STORIES))
    told = ", ".join(rng.choice(VERBS[operator]).format(operand) for operator, operand in steps)
    return STORIES[index].format(f"{start}, {told}"), f"spoken-{index}"
