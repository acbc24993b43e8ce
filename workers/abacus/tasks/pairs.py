"""Two numbers with a known sum and product: checking a candidate takes one line, finding it takes luck."""

from __future__ import annotations

import random
from dataclasses import dataclass

from workers.abacus.tasks.base import Problem

LEVELS = (1, 2, 3)
SMALLEST = 2
BOUNDS = {1: (9, 29), 2: (14, 49), 3: (19, 49)}
QUESTIONS = (
    "Two numbers add to {s} and multiply to {p}. What is the smaller one?",
    "Which two numbers add to {s} and multiply to {p}? Give the smaller one.",
    "The sum of two numbers is {s} and their product is {p}. Which is the smaller one?",
    "Find two numbers with sum {s} and product {p}. What is the smaller one?",
    "A field of {p} square metres has two sides of {s} metres together. How long is the shorter side?",
    "Two ages add to {s} and multiply to {p}. What is the smaller age?",
)


@dataclass(frozen=True, slots=True)
class PairSearch:
    """Looks for the smaller of two numbers that add to `total` and multiply to `product`."""

    total: int
    product: int
    largest: int

    def attempt(self, rng: random.Random) -> tuple[list[str], int]:
        """One number is tried; too low or too high, the answer is a guess above or below it."""
        low, high = SMALLEST, min(self.largest, (self.total - 1) // 2)
        tried = rng.randint(low, high)
        other = self.total - tried
        line = f"{self.total}-{tried}={other} {self._compared(tried * other, f'{tried}*{other}')}"
        if tried * other == self.product:
            return [f"{line} yes"], tried
        if tried * other < self.product:
            verdict, guess = "low", rng.randint(tried + 1, high)
        else:
            verdict, guess = "high", rng.randint(low, tried - 1)
        return [f"{line} {verdict}", f"guess {guess}"], guess

    def check(self, candidate: int) -> tuple[str, bool]:
        """The line that checks a candidate, and whether it holds."""
        other = self.total - candidate
        if other <= candidate:
            return f"{candidate}: no", False
        product = candidate * other
        holds = product == self.product
        compared = self._compared(product, f"{candidate}*{other}")
        line = f"{candidate}: {self.total}-{candidate}={other} {compared}"
        return f"{line} {'yes' if holds else 'no'}", holds

    def _compared(self, product: int, sides: str) -> str:
        """A product beside the one wanted, then their digits from the last to the first that differ."""
        digits = len(str(max(product, self.product)))
        parts = [f"{sides}={product} of {self.product}"]
        places = zip(f"{product:0{digits}}"[::-1], f"{self.product:0{digits}}"[::-1], strict=True)
        for digit, wanted in places:
            parts.append(f"{digit} of {wanted}")
            if digit != wanted:
                break
        return " ".join(parts)


def make(rng: random.Random, level: int) -> Problem:
    """A pair of which the smaller number is at most 9, 14 or 19, the larger at most 29 or 49."""
    largest, most = BOUNDS[level]
    smaller = rng.randint(SMALLEST, largest)
    larger = rng.randint(smaller + 1, most)
    index = rng.randrange(len(QUESTIONS))
    text = QUESTIONS[index].format(s=smaller + larger, p=smaller * larger)
    search = PairSearch(smaller + larger, smaller * larger, largest)
    return Problem("pairs", f"pair-{index}", level, text, smaller, search=search)
