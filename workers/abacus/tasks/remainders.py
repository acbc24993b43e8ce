"""A number with two known remainders: checking a candidate takes one line, finding it takes luck."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import gcd

from workers.abacus.tasks.base import Problem

LEVELS = (1, 2, 3)
TRIES = 2
SECOND = {1: (4, 6), 2: (7, 9), 3: (9, 11)}
QUESTIONS = (
    "Which number below {n} leaves {r} when divided by {a} and {q} when divided by {b}?",
    "What number below {n} leaves {r} divided by {a} and {q} divided by {b}?",
    "A number below {n} leaves {r} when divided by {a} and {q} when divided by {b}. What is it?",
    "Find the number below {n} that leaves {r} when divided by {a} and {q} when divided by {b}.",
    "Of fewer than {n} eggs {r} are left over in boxes of {a} and {q} in boxes of {b}. How many eggs?",
    "In rows of {a} {r} stones are left over, in rows of {b} {q}. How many stones, fewer than {n}?",
)


@dataclass(frozen=True, slots=True)
class RemainderSearch:
    """Looks for the number that leaves `first_rest` over `first` and `second_rest` over `second`."""

    first: int
    first_rest: int
    second: int
    second_rest: int

    def attempt(self, rng: random.Random) -> tuple[list[str], int]:
        """Two numbers that leave the first rest are tried on the second; then a third one is guessed."""
        lines: list[str] = []
        number = 0
        for tried, times in enumerate(rng.sample(range(self.second), TRIES + 1)):
            number = self.first * times + self.first_rest
            line = f"{self.first}*{times}+{self.first_rest}={number}"
            if tried == TRIES:
                lines.append(f"guess {line}")
                break
            times, rest = divmod(number, self.second)
            holds = rest == self.second_rest
            wanted = f"of {self.second_rest} {'yes' if holds else 'no'}"
            lines.append(f"{line} {self.second}*{times}+{rest} {wanted}")
            if holds:
                break
        return lines, number

    def check(self, candidate: int) -> tuple[str, bool]:
        """The line that checks a candidate, and whether it holds."""
        times, rest = divmod(candidate, self.first)
        line = f"{candidate}: {self.first}*{times}+{rest} of {self.first_rest}"
        if rest != self.first_rest or candidate >= self.first * self.second:
            return f"{line} no", False
        times, rest = divmod(candidate, self.second)
        holds = rest == self.second_rest
        line = f"{line} {self.second}*{times}+{rest} of {self.second_rest}"
        return f"{line} {'yes' if holds else 'no'}", holds


def make(rng: random.Random, level: int) -> Problem:
    """A number below the product of two coprime divisors; a level is the size of the second."""
    while True:
        first, second = rng.randint(3, 9), rng.randint(*SECOND[level])
        if gcd(first, second) == 1:
            break
    number = rng.randrange(1, first * second)
    index = rng.randrange(len(QUESTIONS))
    search = RemainderSearch(first, number % first, second, number % second)
    text = QUESTIONS[index].format(
        n=first * second, a=first, r=search.first_rest, b=second, q=search.second_rest
    )
    return Problem("remainders", f"rest-{index}", level, text, number, search=search)
