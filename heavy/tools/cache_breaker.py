"""Whether the cache's server is worth asking: it is not when it fails, nor when it is merely slow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from heavy.core.clock import monotonic_s

SAMPLES_MIN: Final = 5
"""Answers after which their time counts: the first ones pay for connections."""
WEIGHT: Final = 0.3
"""Of the latest answer in the average."""


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """After how many failures in a row, or above which average time of an answer, it opens, for how long."""

    failures_max: int = 3
    slow_s: float = 0.25
    rest_s: float = 2.0


class _State(Enum):
    CLOSED = auto()
    OPEN = auto()
    PROBING = auto()


class Breaker:
    """Ask `allows` before each command and report how it went. After a rest one command tries for all."""

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._state = _State.CLOSED
        self._until_s = 0.0
        self._failures = 0
        self._samples = 0
        self._average_s = 0.0

    def allows(self) -> bool:
        """Whether a command may be sent now."""
        if self._state is _State.CLOSED:
            return True
        if monotonic_s() < self._until_s:
            return False
        self._state = _State.PROBING
        self._until_s = (
            monotonic_s() + self._limits.rest_s
        )  # a probe that never reports is followed by another
        return True

    def answered(self, took_s: float) -> bool:
        """A command was answered. Whether that opened it: answers come too slowly."""
        self._failures = 0
        if self._state is _State.PROBING:
            if took_s > self._limits.slow_s:
                return self._open()
            self._state, self._samples, self._average_s = _State.CLOSED, 0, 0.0
        if self._state is _State.OPEN:
            return False  # sent before it opened
        self._samples += 1
        self._average_s += (took_s - self._average_s) * (WEIGHT if self._samples > 1 else 1.0)
        return self._samples >= SAMPLES_MIN and self._average_s > self._limits.slow_s and self._open()

    def failed(self) -> bool:
        """A command failed. Whether that opened it."""
        self._failures += 1
        probing = self._state is _State.PROBING
        return (probing or self._failures >= self._limits.failures_max) and self._open()

    def _open(self) -> bool:
        news = self._state is _State.CLOSED
        self._state, self._until_s = _State.OPEN, monotonic_s() + self._limits.rest_s
        return news
