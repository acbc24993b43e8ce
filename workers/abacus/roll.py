"""Samples the model's own trajectories on fresh problems: what the aggregation phase learns from."""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

from workers.abacus.loops import Backend, solve
from workers.abacus.rollouts import Rollout, dump
from workers.abacus.sample import TorchBackend, load
from workers.abacus.tasks import LEVELS, Problem, make_problem

ARMS = 8
CHUNK = 48
WEIGHTS = {"chains": 0.15, "totals": 0.22, "stories": 0.15, "programs": 0.08, "pairs": 0.2, "remainders": 0.2}


def roll(backend: Backend, specs: list[tuple[str, int, int]], seed: int) -> list[Rollout]:
    """Eight trajectories at T = 1.0 for each (family, level, index) of the `fresh` split."""
    problems: list[Problem] = [
        make_problem(f, level, "fresh", index) for f, level, index in specs for _ in range(ARMS)
    ]
    made = solve(backend, problems, 1.0, seed)
    arms = [tuple((t.answer, t.thinking) for t in made[i : i + ARMS]) for i in range(0, len(made), ARMS)]
    return [
        Rollout(family, level, "fresh", index, tuple(kept))
        for (family, level, index), kept in zip(specs, arms, strict=True)
    ]


def backend_of(model: Path, tokenizer: Path, threads: int) -> Backend:
    """Samples from a training checkpoint in torch, or from an exported INT4 directory as the service does."""
    if model.is_dir():
        from workers.abacus.pipeline import OpenVinoBackend

        return OpenVinoBackend(model, threads)
    torch.set_num_threads(threads)
    return TorchBackend(load(model), Tokenizer.from_file(str(tokenizer / "tokenizer.json")))


def main() -> None:
    """Sample until the minutes are used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a training checkpoint, or an INT4 directory")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--families", nargs="+", choices=sorted(WEIGHTS), default=sorted(WEIGHTS))
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    backend = backend_of(arguments.model, arguments.tokenizer, arguments.threads)
    rng = random.Random(f"roll/{arguments.seed}")
    ends = time.monotonic() + 60 * arguments.minutes
    number = disagreeing = 0
    while time.monotonic() < ends:
        shares = [WEIGHTS[family] for family in arguments.families]
        families = rng.choices(arguments.families, shares, k=CHUNK)
        specs = [(family, rng.choice(LEVELS[family]), rng.randrange(1 << 40)) for family in families]
        made = roll(backend, specs, arguments.seed * 10_000 + number)
        dump(made, arguments.target)
        number += len(made)
        disagreeing += sum(not rollout.agree for rollout in made)
        print(f"{number} problems, {disagreeing} of them in dispute", flush=True)


if __name__ == "__main__":
    main()
