"""Mixed loads of runs, drawn from a seed: how wide, when they come, how long their prompts are and grow."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

CHARACTERS_PER_TOKEN: Final = 4

Span = tuple[int, int]
"""From, to; both are drawn."""


@dataclass(frozen=True, slots=True)
class Step:
    """One generation of an arm: what its prompt has grown by, what it says, how long the tool then takes."""

    grown_tokens: int
    output_tokens: int
    tool_s: float


@dataclass(frozen=True, slots=True)
class RunLoad:
    """One run: when it comes, what all its arms begin with, and each arm's steps."""

    name: str
    comes_s: float
    opening_tokens: int
    arms: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """What the runs of a load are drawn from; one of `openings` is drawn first, then a length from it."""

    runs: int
    within_s: float
    widths: tuple[int, ...]
    openings: tuple[Span, ...]
    steps: Span
    grown: Span
    output: Span
    tool_ms: Span

    def drawn(self, seed: int) -> tuple[RunLoad, ...]:
        """The same runs for the same seed, in the order in which they come."""
        rng = random.Random(seed)
        comes = sorted(rng.uniform(0, self.within_s) for _ in range(self.runs))
        return tuple(self._run(rng, f"{seed}-{number}", at) for number, at in enumerate(comes))

    def _run(self, rng: random.Random, name: str, comes_s: float) -> RunLoad:
        opening = rng.randint(*rng.choice(self.openings))
        arms = tuple(self._arm(rng) for _ in range(rng.choice(self.widths)))
        return RunLoad(name, comes_s, opening, arms)

    def _arm(self, rng: random.Random) -> tuple[Step, ...]:
        return tuple(
            Step(
                rng.randint(*self.grown) if number else 0,
                rng.randint(*self.output),
                rng.randint(*self.tool_ms) / 1_000,
            )
            for number in range(rng.randint(*self.steps))
        )


MIXES: Final = {
    # What a service sees: narrow and wide runs, short questions and long documents, a few steps each.
    "mixed": Mix(12, 2.5, (1, 2, 4, 8), ((50, 300), (2_000, 6_000)), (2, 6), (50, 400), (8, 40), (0, 200)),
    # Long documents asked about by wide runs: a prefill counts for as much as a generation.
    "long": Mix(9, 3.0, (4, 8), ((6_000, 10_000),), (2, 4), (50, 200), (8, 30), (0, 100)),
    # Short questions, answers of very different lengths: nothing but crowds to avoid.
    "short": Mix(11, 1.5, (4, 8), ((30, 150),), (1, 3), (20, 60), (4, 80), (0, 50)),
    # Few arms that read pages: each prompt grows by more than it began with, memory is the bound.
    "deep": Mix(9, 2.0, (2, 4), ((200, 600),), (5, 9), (500, 1_500), (8, 30), (0, 300)),
    # The long documents at a quarter of the rate: most replicas are idle most of the time.
    "light": Mix(6, 8.0, (4, 8), ((6_000, 10_000),), (2, 4), (50, 200), (8, 30), (0, 100)),
}


def text(name: str, tokens: int) -> str:
    """So many tokens that begin like no other text."""
    line = f"{name} of the load. "
    characters = max(len(line), tokens * CHARACTERS_PER_TOKEN)
    return (line * (characters // len(line) + 1))[:characters]
