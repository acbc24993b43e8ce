"""Prompts that are prefilled one at a time, while nothing is decoded: what SGLang's scheduler does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Prefills:
    """The order of prefills, first come first served, and how long decoding has stood still for them.

    Times are the loop's. Loop thread only.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[object, Callable[[float], None]]] = deque()
        self._owner: object | None = None
        self._since = self._until = 0.0
        self._stood_still_s = 0.0

    def enter(self, owner: object, begin: Callable[[float], None], now: float) -> None:
        """Call `begin` with the time when the prompts before it are prefilled, perhaps at once."""
        self._waiting.append((owner, begin))
        self._next(now)

    def takes(self, until: float) -> None:
        """Whose turn it is will be done by then."""
        self._until = until

    def leave(self, owner: object, now: float) -> None:
        """It is done, or gives up, at whatever point. Idempotent."""
        if owner is not self._owner:
            self._waiting = deque(one for one in self._waiting if one[0] is not owner)
            return
        self._stood_still_s += max(0.0, now - self._since)
        self._owner = None
        self._next(now)

    def stood_still_s(self, now: float) -> float:
        """How long decoding has stood still in all, up to now."""
        return self._stood_still_s + (max(0.0, now - self._since) if self._owner is not None else 0.0)

    def goes_on(self, now: float) -> float:
        """When decoding goes on, as far as is known: now, where nothing is being prefilled."""
        return max(now, self._until) if self._owner is not None else now

    def _next(self, now: float) -> None:
        if self._owner is None and self._waiting:
            self._owner, begin = self._waiting.popleft()
            self._since = self._until = now
            begin(now)
