"""A timing wheel on the event loop: thousands of pending deadlines cost one timer."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

GRANULE_S = 0.002


class Wheel:
    """Calls back at about the asked time, late by at most a granule; calls of one granule share a wake-up."""

    def __init__(self, granule_s: float = GRANULE_S) -> None:
        self.granule_s = granule_s
        self._slots: dict[int, list[Callable[[], None]]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback` when the loop's clock passes `when` (seconds, as `loop.time()`)."""
        slot = int(when / self.granule_s) + 1
        calls = self._slots.get(slot)
        if calls is None:
            self._slots[slot] = [callback]
            heapq.heappush(self._order, slot)
            self._arm()
        else:
            calls.append(callback)

    def stop(self) -> None:
        """Forget everything that is pending."""
        self._slots.clear()
        self._order.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if not self._order or (self._timer is not None and self._timer_slot <= self._order[0]):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = self._order[0]
        self._timer = asyncio.get_running_loop().call_at(self._timer_slot * self.granule_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._order and self._order[0] * self.granule_s <= now + self.granule_s / 4:
            for call in self._slots.pop(heapq.heappop(self._order)):
                call()
        self._arm()
