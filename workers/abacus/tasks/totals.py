"""Totals of labelled quantities. Nothing says in which order to visit them, so trajectories truly differ."""

from __future__ import annotations

import random

from workers.abacus.tasks.base import Problem, Term, join_and

LEVELS = (3, 4, 5, 6)
LABELS = (
    "apples", "pears", "figs", "plums", "limes", "nuts", "eggs", "cups", "pens", "books", "maps", "hats",
    "coats", "shoes", "rings", "balls", "dolls", "cars", "boats", "lamps", "chairs", "tables", "plates",
    "forks", "knives", "stones", "shells", "roses", "trees", "birds",
)  # fmt: skip
COUNTED = (
    "How many things are {} in all?",
    "Add up {}.",
    "A shop has {}. How many things is that?",
    "There are {}. How many in all?",
    "What is the total of {}?",
)
GROUPED = (
    ("{times} boxes of {amount} {label}", "There are {}. How many things in all?"),
    ("{times} bags of {amount} {label}", "How many things are {}?"),
    ("{times} {label} at {amount} coins", "I buy {}. How many coins do I pay?"),
    ("{times} {label} for {amount} each", "What is the price of {}?"),
)


def make(rng: random.Random, level: int) -> Problem:
    """A total of `level` terms; half of the problems count plain quantities, half count groups of them."""
    labels = rng.sample(LABELS, level)
    if rng.random() < 0.5:
        index = rng.randrange(len(COUNTED))
        terms = [Term(label, rng.randint(3, 39)) for label in labels]
        told = join_and([f"{term.amount} {term.label}" for term in terms])
        return problem("totals", f"counted-{index}", level, COUNTED[index].format(told), terms)
    index = rng.randrange(len(GROUPED))
    part, whole = GROUPED[index]
    terms = [Term(label, rng.randint(2, 12), rng.randint(2, 5)) for label in labels]
    told = join_and([part.format(times=term.times, amount=term.amount, label=term.label) for term in terms])
    return problem("totals", f"grouped-{index}", level, whole.format(told), terms)


def problem(family: str, template: str, level: int, question: str, terms: list[Term]) -> Problem:
    """A problem over `terms`, answered by their sum."""
    return Problem(family, template, level, question, sum(term.value for term in terms), terms=tuple(terms))


def line(number: int, term: Term, before: int) -> str:
    """The one line that visits `term` as the `number`-th one, `before` being the total so far."""
    tail = f" {term.label}"
    if term.times is None:
        return (
            f"{number} "
            + (f"{term.amount}" if number == 1 else f"{before}+{term.amount}={before + term.value}")
            + tail
        )
    product = f"{term.times}*{term.amount}={term.value}"
    return (
        f"{number} "
        + (product if number == 1 else f"{product} {before}+{term.value}={before + term.value}")
        + tail
    )
