"""Draws the curves of the model card from the trainer's CSV."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "abacus"

from matplotlib import pyplot as plt  # noqa: E402

SMOOTH = 8


def draw(curve: Path, target: Path) -> None:
    """Loss over tokens, one colour a phase, raw and smoothed."""
    with curve.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for phase in dict.fromkeys(row["phase"] for row in rows):
        chosen = [row for row in rows if row["phase"] == phase]
        tokens = [int(row["tokens"]) / 1e6 for row in chosen]
        losses = [float(row["loss"]) for row in chosen]
        (line,) = axes.plot(tokens, losses, linewidth=0.6, alpha=0.35)
        smooth = [
            sum(losses[max(0, i - SMOOTH) : i + 1]) / len(losses[max(0, i - SMOOTH) : i + 1])
            for i in range(len(losses))
        ]
        axes.plot(tokens, smooth, color=line.get_color(), label=phase)
    axes.set(xlabel="tokens (millions)", ylabel="loss of imitated tokens", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curve", type=Path)
    parser.add_argument("target", type=Path, help="an .svg or .png file")
    arguments = parser.parse_args()
    draw(arguments.curve, arguments.target)


if __name__ == "__main__":
    main()
