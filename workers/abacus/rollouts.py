"""Sampled trajectories on disk: one JSON line per problem, drawn again as aggregation examples."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.abacus.prompting import Candidate
from workers.abacus.tasks import Problem, make_problem
from workers.abacus.tasks.base import Split


@dataclass(frozen=True, slots=True)
class Rollout:
    """One problem, named by how it is made, and what the model's trajectories came to."""

    family: str
    level: int
    split: Split
    index: int
    arms: tuple[tuple[str | None, str], ...]

    def problem(self) -> Problem:
        """The problem itself."""
        return make_problem(self.family, self.level, self.split, self.index)

    def candidates(self) -> list[Candidate]:
        """The arms, labelled in the order they were sampled."""
        return [
            Candidate("ABCDEFGH"[number], answer, reasoning, "completed" if answer else "failed")
            for number, (answer, reasoning) in enumerate(self.arms[:8])
        ]

    @property
    def agree(self) -> bool:
        """Whether every arm gave the same answer."""
        return len({answer for answer, _ in self.arms}) == 1


class Rollouts:
    """Trajectories to learn aggregation from."""

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self._rollouts = [r for r in rollouts if not r.agree] or list(rollouts)

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Rollouts:
        """Read files written by `dump`."""
        return cls([rollout for path in paths for rollout in read(path)])

    def __len__(self) -> int:
        return len(self._rollouts)

    def draw(self, rng: random.Random) -> tuple[Problem, list[Candidate]]:
        """A problem with its candidates, now and then with some left out or cut short."""
        rollout = rng.choice(self._rollouts)
        candidates = rollout.candidates()
        if rng.random() < 0.6:
            candidates = rng.sample(candidates, rng.randint(2, 6))
        if rng.random() < 0.1:
            place = rng.randrange(len(candidates))
            told = candidates[place].reasoning.split("\n")
            kept = "\n".join(told[: rng.randint(0, len(told))])
            candidates[place] = Candidate(candidates[place].label, None, kept, "cut")
        return rollout.problem(), candidates


def read(path: Path) -> list[Rollout]:
    """The rollouts of one file."""
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        row["arms"] = tuple((answer, reasoning) for answer, reasoning in row["arms"])
        found.append(Rollout(**row))
    return found


def dump(rollouts: Iterable[Rollout], path: Path) -> None:
    """Append rollouts to a file."""
    with path.open("a") as file:
        for r in rollouts:
            row = {"family": r.family, "level": r.level, "split": r.split, "index": r.index, "arms": r.arms}
            file.write(json.dumps(row) + "\n")
