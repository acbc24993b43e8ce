"""Time. Wall time is for people and for deadlines that travel; monotonic time is for waiting."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Wall-clock milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def remaining_s(deadline_ms: int) -> float:
    """Seconds until a wall-clock deadline; zero when it has passed."""
    return max(0.0, (deadline_ms - now_ms()) / 1000)
