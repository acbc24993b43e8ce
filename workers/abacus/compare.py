"""INT4 against bf16 on the same problems, greedy, by chain length: does the error accumulate?"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

from workers.abacus.intervals import bootstrap, wilson
from workers.abacus.loops import solve
from workers.abacus.pipeline import OpenVinoBackend
from workers.abacus.sample import TorchBackend, load_safetensors
from workers.abacus.tasks import LEVELS, make_problem


def compare(weights: Path, family: str, problems: int, threads: int) -> list[str]:
    """One Markdown row per level: both accuracies, their difference, and how often both say the same text."""
    torch.set_num_threads(threads)
    tokenizer = Tokenizer.from_file(str(weights / "bf16" / "tokenizer.json"))
    full = TorchBackend(load_safetensors(weights / "bf16"), tokenizer)
    small = OpenVinoBackend(weights / "int4", threads)
    lines = []
    for level in LEVELS[family]:
        asked = [make_problem(family, level, "test", index) for index in range(problems)]
        a, b = solve(full, asked, 0.0, 0), solve(small, asked, 0.0, 0)
        cells = []
        for made in (a, b):
            hits = sum(trajectory.right for trajectory in made)
            low, high = wilson(hits, problems)
            cells.append(f"{hits / problems:.3f} [{low:.3f}, {high:.3f}]")
        lost = [float(x.right) - float(y.right) for x, y in zip(a, b, strict=True)]
        low, high = bootstrap(lost)
        same = sum(x.thinking == y.thinking for x, y in zip(a, b, strict=True)) / problems
        lines.append(
            f"| {family} | {level} | {problems} | {' | '.join(cells)} | "
            f"{sum(lost) / problems:+.3f} [{low:+.3f}, {high:+.3f}] | {same:.3f} |"
        )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--family", default="chains")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "| family | level | problems | bf16 | INT4 | bf16 - INT4 | same text |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(compare(arguments.weights, arguments.family, arguments.problems, arguments.threads)))


if __name__ == "__main__":
    main()
