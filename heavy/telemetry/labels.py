"""Label values that come from outside: each is a time series kept for ever, so there are only so many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

OTHER: Final = "other"
"""The label of everything there is no room for."""
VALUES_MAX: Final = 128


class Values:
    """The values one label may have: the `known` ones, and others as they come while there is room."""

    def __init__(self, known: Iterable[str] = (), most: int = VALUES_MAX) -> None:
        self._seen = set(known)
        self._most = most

    def of(self, value: str) -> str:
        """The label for a value: itself, or `OTHER`."""
        if value not in self._seen:
            if len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value
