"""Reading transcripts: the seam between the aggregation's trace tools and wherever logs are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a transcript. `start` and `total` count characters; `step` is the one it begins in."""

    text: str
    start: int
    total: int
    step: int


class TraceReader(Protocol):
    """Opens the transcripts of one run's candidates by their anonymous labels.

    Every method raises `NotFound` for a label that is not there.
    """

    async def labels(self) -> tuple[str, ...]:
        """The labels that can be opened."""
        ...

    async def answer(self, label: str) -> str:
        """The candidate's final answer as it wrote it; empty when it has none."""
        ...

    async def search(self, label: str, query: str, matches_max: int) -> tuple[Segment, ...]:
        """Stretches of the transcript around case-insensitive matches of `query`, in order."""
        ...

    async def read(self, label: str, start: int, length: int) -> Segment:
        """`length` characters of the transcript from `start` on."""
        ...
