"""No host is asked by too many at once or too soon again, whatever the models want of it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from heavy.core.clock import monotonic_s

HOSTS_MAX: Final = 2_000
"""Hosts whose last visit is remembered; idle ones unused for longest are forgotten first."""


@dataclass(eq=False, slots=True)
class _Gate:
    slots: asyncio.Semaphore
    using: int = 0
    next_s: float = 0.0


class Politeness:
    """Gates per host: `at_once_max` requests, and `delay_s` from the start of one to that of the next."""

    def __init__(self, at_once_max: int, delay_s: float) -> None:
        self._at_once_max = at_once_max
        self._delay_s = delay_s
        self._gates: OrderedDict[str, _Gate] = OrderedDict()

    @asynccontextmanager
    async def visit(self, host: str, delay_s: float | None = None) -> AsyncIterator[None]:
        """Wait for one's turn at a host. `delay_s`: what the host itself asks for, where that is more."""
        gate = self._gate(host)
        gate.using += 1
        try:
            async with gate.slots:
                now_s = monotonic_s()
                start_s = max(now_s, gate.next_s)
                gate.next_s = start_s + max(self._delay_s, delay_s or 0.0)
                await asyncio.sleep(start_s - now_s)
                yield
        finally:
            gate.using -= 1

    def _gate(self, host: str) -> _Gate:
        if host not in self._gates:
            self._gates[host] = _Gate(asyncio.Semaphore(self._at_once_max))
            idle = [name for name, gate in self._gates.items() if not gate.using and name != host]
            for name in idle[: max(0, len(self._gates) - HOSTS_MAX)]:
                del self._gates[name]
        self._gates.move_to_end(host)
        return self._gates[host]
