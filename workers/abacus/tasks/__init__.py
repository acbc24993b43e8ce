"""The families of problems Abacus is trained and measured on, from easy to hard. Standard library only."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from random import Random

from workers.abacus.tasks import chains, pairs, programs, remainders, stories, totals, unseen
from workers.abacus.tasks.base import Call, Problem, Split, Term, rng_for

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "LEVELS",
    "TRAINED",
    "Call",
    "Problem",
    "Split",
    "Term",
    "distinct",
    "make_problem",
    "rng_for",
]

FAMILIES: dict[str, Callable[[Random, int], Problem]] = {
    "chains": chains.make,
    "totals": totals.make,
    "stories": stories.make,
    "pairs": pairs.make,
    "remainders": remainders.make,
    "programs": programs.make,
    "unseen": unseen.make,
}
HELD_OUT = "unseen"
TRAINED = tuple(family for family in FAMILIES if family != HELD_OUT)
LEVELS: dict[str, tuple[int, ...]] = {
    "chains": chains.LEVELS,
    "totals": totals.LEVELS,
    "stories": stories.LEVELS,
    "pairs": pairs.LEVELS,
    "remainders": remainders.LEVELS,
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
    rng = rng_for(split, family, level, index)
    while True:
        problem = FAMILIES[family](rng, level)
        if problem.search is None or _side(problem) == _SIDES[split]:
            return problem


def distinct(family: str, level: int, split: Split) -> Iterator[tuple[int, Problem]]:
    """The problems of a split with their indices, none asked twice, until a thousand in a row are known."""
    seen: set[str] = set()
    index = last = 0
    while index - last < 1000:
        problem = make_problem(family, level, split, index)
        if problem.question not in seen:
            seen.add(problem.question)
            last = index
            yield index, problem
        index += 1


_SIDES: dict[Split, str] = {"train": "train", "fresh": "train", "dev": "dev", "test": "test"}


def _side(problem: Problem) -> str:
    """Which side the numbers of a search belong to: there are few, so an eighth is kept for `dev` and a
    quarter for `test`, and training never asks for those in any words.
    """
    share = zlib.crc32(repr(problem.search).encode()) % 8
    return "dev" if share == 0 else "test" if share in (1, 2) else "train"
