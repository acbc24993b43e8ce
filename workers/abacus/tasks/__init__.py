"""The families of problems Abacus is trained and measured on, from easy to hard. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from workers.abacus.tasks import chains, programs, stories, totals, unseen
from workers.abacus.tasks.base import Call, Problem, Split, Term, rng_for

__all__ = ["FAMILIES", "HELD_OUT", "LEVELS", "Call", "Problem", "Split", "Term", "make_problem", "rng_for"]

FAMILIES: dict[str, Callable[[Random, int], Problem]] = {
    "chains": chains.make,
    "totals": totals.make,
    "stories": stories.make,
    "programs": programs.make,
    "unseen": unseen.make,
}
HELD_OUT = "unseen"
LEVELS: dict[str, tuple[int, ...]] = {
    "chains": chains.LEVELS,
    "totals": totals.LEVELS,
    "stories": stories.LEVELS,
    "programs": programs.LEVELS,
    "unseen": unseen.LEVELS,
}


def make_problem(family: str, level: int, split: Split, index: int) -> Problem:
    """The `index`-th problem of a split; the same arguments give the same problem everywhere.

    Raises `ValueError` for a level the family does not have, and for held-out templates in the training
    split.
    """
    if level not in LEVELS[family]:
        raise ValueError(f"{family} has levels {LEVELS[family]}, not {level}")
    if family == HELD_OUT and split in ("train", "fresh"):
        raise ValueError(f"{family!r} is held out: it has no {split} split")
    return FAMILIES[family](rng_for(split, family, level, index), level)
