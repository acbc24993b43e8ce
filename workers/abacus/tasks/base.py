"""The words every family shares: a problem, its lines of reasoning, its splits."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, Protocol

Split = Literal["train", "dev", "test", "fresh"]

NAMES = ("Ana", "Ben", "Mia", "Tom", "Eva", "Max", "Lea", "Jon", "Zoe", "Sam")


@dataclass(frozen=True, slots=True)
class Term:
    """One labelled quantity of a total: `times` groups of `amount`; a plain quantity has `times` None."""

    label: str
    amount: int
    times: int | None = None

    @property
    def value(self) -> int:
        """What the term adds to the total."""
        return self.amount * (1 if self.times is None else self.times)


@dataclass(frozen=True, slots=True)
class Call:
    """One call to `python` a solution makes.

    `told` is the part of the question it carries out, word for word, and `before` the part that stands before
    it there, with what lies between; `expression` is what is printed; `result` what comes back, or None where
    it raises `error`; `note` what is thought of that. A `slip` is a call nobody should imitate: it is shown,
    its loss is masked, and what follows corrects it.
    """

    told: str
    expression: str
    result: int | None
    note: str
    error: str = ""
    slip: bool = False
    before: str = ""

    def step(self, number: int) -> str:
        """The line that names what is to be done. It reads on in the question from the part done last to this
        one: that is easier than to find the third part of four.
        """
        return f"step {number}: {self.before}{self.told}"


class Search(Protocol):
    """Something to be found by trying: finding takes luck, checking a candidate is one short line."""

    def attempt(self, rng: random.Random) -> tuple[list[str], int]:
        """The lines and the answer of one bounded attempt: a few tries, then a guess, which may be wrong."""
        ...

    def check(self, candidate: int) -> tuple[str, bool]:
        """The line that checks `candidate`, and whether it is the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its true answer and what is needed to derive and to check it.

    Exactly one of four kinds: `lines` is a derivation in a fixed order, `terms` may be visited in any order,
    `calls` is a derivation whose results come from the `python` tool, `search` is found by trying.
    """

    family: str
    template: str
    level: int
    question: str
    answer: int
    lines: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    calls: tuple[Call, ...] = ()
    search: Search | None = None

    @property
    def needs_tool(self) -> bool:
        """Whether the question cannot be answered without the `python` tool."""
        return bool(self.calls)


def rng_for(split: Split, family: str, level: int, index: int) -> random.Random:
    """The generator of one problem: the same four words give the same problem on every machine."""
    return random.Random(f"abacus/{split}/{family}/{level}/{index}")


def join_and(parts: list[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def apply(left: int, operator: str, right: int) -> int | None:
    """The value of one step, or None where it is not a whole number of zero or more."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right if left >= right else None
    if operator == "*":
        return left * right
    if operator == "/":
        return left // right if right and left % right == 0 else None
    raise ValueError(f"unknown operator {operator!r}: use one of + - * /")
