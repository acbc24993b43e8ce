"""How many questions are out at once: at most so many, fewer while the server is full."""

from __future__ import annotations

from typing import Final

SHRINK: Final = 0.7


class Throttle:
    """A limit that falls by a share when the server is full, and grows back by one a round of answers.

    Refusals that come together tell one thing: after one of them the limit rests until the server was to be
    asked again.
    """

    def __init__(self, concurrency_max: int) -> None:
        self._max = concurrency_max
        self._limit = float(concurrency_max)
        self._rests_until_s = 0.0

    @property
    def limit(self) -> int:
        """How many may be out now; at least one."""
        return max(1, int(self._limit))

    def full(self, out: int, now_s: float, retry_after_s: float) -> None:
        """The server took no more while `out` others were out. Times are monotonic seconds."""
        if now_s >= self._rests_until_s:
            self._limit = max(1.0, min(self._limit, float(out)) * SHRINK)
            self._rests_until_s = now_s + retry_after_s

    def answered(self) -> None:
        """One came back: each opens the limit by a part, a round of them by one."""
        self._limit = min(float(self._max), self._limit + 1.0 / self._limit)
