"""Whether stated confidences mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

BINS: Final = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose confidence lies in one tenth: how many, how sure they were, how many were right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`ece` is the expected calibration error over `bins` of equal width (Naeini et al. 2015), `rms` the same
    with squares (the error HLE reports, there over bins of equal count), `brier` the mean squared error
    (Brier 1950). `stated` of `answers` gave a confidence."""

    answers: int
    stated: int
    ece: float
    rms: float
    brier: float
    bins: tuple[Bin, ...]


def calibration(stated: Sequence[tuple[float, bool]], answers: int) -> Calibration | None:
    """The calibration of (confidence 0..1, right) pairs; None where none was given."""
    if not stated:
        return None
    cells: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for confidence, right in stated:
        cells[min(BINS - 1, int(confidence * BINS))].append((confidence, right))
    bins = tuple(_bin(index, cell) for index, cell in enumerate(cells) if cell)
    total = len(stated)
    gaps = [(b.count / total, abs(b.confidence - b.accuracy)) for b in bins]
    return Calibration(
        answers=answers,
        stated=total,
        ece=sum(weight * gap for weight, gap in gaps),
        rms=sqrt(sum(weight * gap * gap for weight, gap in gaps)),
        brier=sum((confidence - right) ** 2 for confidence, right in stated) / total,
        bins=bins,
    )


def _bin(index: int, cell: Sequence[tuple[float, bool]]) -> Bin:
    return Bin(
        low=index / BINS,
        high=(index + 1) / BINS,
        count=len(cell),
        confidence=sum(confidence for confidence, _ in cell) / len(cell),
        accuracy=sum(right for _, right in cell) / len(cell),
    )
