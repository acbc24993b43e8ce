"""The held-out family: stories and totals in templates that training never shows."""

from __future__ import annotations

import random

from workers.abacus.tasks.base import Problem, Term, join_and
from workers.abacus.tasks.stories import Event, Opening, compose
from workers.abacus.tasks.totals import LABELS, problem

LEVELS = (2, 3, 4, 5)
_TWO = (5, 49)
_ONE = (2, 5)
OPENINGS = (
    Opening("boat", "In {h} hours a boat makes {a} km each hour.", "km", {"h": _ONE, "a": _TWO}, ("h*a",)),
    Opening("hens", "{n} has {k} boxes with {a} eggs and {b} eggs in a bag.", "eggs",
            {"k": _ONE, "a": _TWO, "b": _TWO}, ("k*a", "_+b")),
    Opening("rent", "{n} had {m} coins. The rent of a room is {p} coins a day for {k} days.", "coins",
            {"m": (100, 199), "p": _TWO, "k": _ONE}, ("p*k", "m-_")),
    Opening("team", "A team scores {a} points on day one, {b} on day two and {c} on day three.", "points",
            {"a": _TWO, "b": _TWO, "c": _TWO}, ("a+b", "_+c")),
    Opening("wood", "Of {a} trees in a wood {b} are old and are taken away.", "trees",
            {"a": (100, 199), "b": _TWO}, ("a-b",)),
    Opening("bread", "A loaf needs {a} minutes to rest and {b} minutes to bake.", "minutes",
            {"a": _TWO, "b": _TWO}, ("a+b",)),
)  # fmt: skip
EVENTS = (
    Event("After that it grows by {x} {u}.", "_+x", 3, 49),
    Event("After that {x} {u} go missing.", "_-x", 3, 49),
    Event("After that it is {x} times that.", "_*x", 2, 5),
)
QUESTIONS = ("So how many {u}?", "Tell me how many {u} that makes.")
TOTALS = ("In a room I see {}. Count all of them.", "{} are on a ship. How many pieces does it carry?")


def make(rng: random.Random, level: int) -> Problem:
    """Two thirds stories of `level` steps, one third totals of at least three terms."""
    if rng.random() < 2 / 3:
        return compose(rng, level, "unseen", OPENINGS, EVENTS, QUESTIONS)
    index = rng.randrange(len(TOTALS))
    terms = [Term(label, rng.randint(3, 39)) for label in rng.sample(LABELS, max(3, level))]
    told = join_and([f"{term.amount} {term.label}" for term in terms])
    return problem("unseen", f"total-{index}", level, TOTALS[index].format(told), terms)
