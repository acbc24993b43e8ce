"""How many runs a coordinator takes on: so many under way, so many waiting, no more."""

from __future__ import annotations

import asyncio

from heavy.core.errors import Overloaded

RETRY_AFTER_S = 5.0


class Admission:
    """Counts runs in, and hands out turns. `turn` bounds how many are under way at once."""

    def __init__(self, runs_max: int, queue_max: int) -> None:
        self.turn = asyncio.Semaphore(runs_max)
        self._places = runs_max + queue_max
        self._taken = 0
        self._closed = False

    @property
    def taken(self) -> int:
        """Runs accepted here that have not ended."""
        return self._taken

    def take(self) -> None:
        """Take a place. Raises `Overloaded` when none is left or the server is going away."""
        if self._closed:
            raise Overloaded(
                "This server is shutting down; ask again, another one will answer.", RETRY_AFTER_S
            )
        if self._taken >= self._places:
            raise Overloaded(
                f"All {self._places} places for runs are taken; try again in {RETRY_AFTER_S:g} s, "
                "or raise HEAVY_RUNS_MAX or HEAVY_QUEUE_MAX.",
                RETRY_AFTER_S,
            )
        self._taken += 1

    def give_back(self) -> None:
        """Return a place."""
        self._taken -= 1

    def close(self) -> None:
        """Admit nothing more."""
        self._closed = True
