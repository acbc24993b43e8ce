"""A circuit breaker per replica: a server that keeps failing is left alone, then tried by one request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from heavy.core import clock


class BreakerState(StrEnum):
    """`CLOSED`: everyone may; `OPEN`: nobody, until the cool-down is over; `HALF_OPEN`: one may try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """`failures_max` failures in a row open it. Each failed trial doubles the cool-down up to its maximum."""

    failures_max: int = 3
    cool_down_s: float = 1.0
    cool_down_max_s: float = 30.0
    jitter_share: float = 0.2
    """Cool-downs differ by up to this share, so that processes do not try again all at once."""


class Breaker:
    """The state machine. Whoever is let in by `enter` may report `answered`, then `succeeded` or `failed`.

    Who was let in as a trial and learnt nothing reports `abandoned`, so that another one may try.
    """

    def __init__(
        self,
        limits: BreakerLimits | None = None,
        *,
        now_s: Callable[[], float] = clock.monotonic_s,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._limits = limits or BreakerLimits()
        self._now_s = now_s
        self._jitter = jitter
        self._failures = 0
        self._opened = 0
        """How often it has opened since the last success."""
        self._open_until_s: float | None = None
        self._trial = False

    @property
    def state(self) -> BreakerState:
        """Where it is now."""
        if self._open_until_s is None:
            return BreakerState.CLOSED
        if self._now_s() < self._open_until_s:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    @property
    def admits(self) -> bool:
        """Whether `enter` would let someone in."""
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and not self._trial)

    @property
    def opens_in_s(self) -> float:
        """Seconds until it lets someone try; 0 when it does now."""
        return max(0.0, (self._open_until_s or 0.0) - self._now_s())

    def enter(self) -> bool:
        """Go through, only where it admits; whether as the trial of a half-open one."""
        assert self.admits
        self._trial = self.state is BreakerState.HALF_OPEN
        return self._trial

    def answered(self) -> None:
        """A first sign of life. Enough to let others in again, too little to forget failures."""
        if self.state is BreakerState.HALF_OPEN:
            self._open_until_s = None
            self._trial = False
            self._failures = self._limits.failures_max - 1

    def succeeded(self) -> None:
        """A whole answer: closed, and everything forgotten. One that is open stays so till its time."""
        if self.state is not BreakerState.OPEN:
            self._failures = self._opened = 0
            self._open_until_s = None
            self._trial = False

    def failed(self, retry_after_s: float | None = None) -> None:
        """The replica failed. `retry_after_s`, where the server has named it, opens at once and so long."""
        self._failures += 1
        half_open = self.state is BreakerState.HALF_OPEN
        if half_open or retry_after_s is not None or self._failures >= self._limits.failures_max:
            self._open(retry_after_s)

    def abandoned(self) -> None:
        """The trial went away without learning anything."""
        self._trial = False

    def _open(self, retry_after_s: float | None) -> None:
        limits = self._limits
        cool_down_s = min(limits.cool_down_s * 2.0 ** min(self._opened, 16), limits.cool_down_max_s)
        spread = 1 + limits.jitter_share * self._jitter()
        until_s = self._now_s() + max(cool_down_s * spread, retry_after_s or 0.0)
        if self.state is not BreakerState.OPEN:  # those who fail together open it once
            self._opened += 1
        self._open_until_s = max(until_s, self._open_until_s or 0.0)
        self._trial = False
