"""Finding markers in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def held(text: str, markers: Iterable[str]) -> int:
    """Characters at the end of `text` that may be the beginning of a marker, so must wait for more."""
    longest = 0
    for marker in markers:
        for size in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:size]):
                longest = size
                break
    return longest


def first(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """Position and name of the first complete marker; of two at one place the longer."""
    found = [(at, -len(marker), marker) for marker in markers if (at := text.find(marker)) >= 0]
    if not found:
        return None
    at, _, marker = min(found)
    return at, marker


class StopMatcher:
    """Cuts a text at the first stop string; what may become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._pending = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """The text that may be shown by now. Nothing follows once `matched` is true."""
        if self.matched or not self._stops:
            return "" if self.matched else text
        self._pending += text
        found = first(self._pending, self._stops)
        if found is not None and not self._earlier_may_come(found[0]):
            self.matched = True
            shown, self._pending = self._pending[: found[0]], ""
            return shown
        keep = held(self._pending, self._stops) if found is None else len(self._pending)
        shown, self._pending = (
            self._pending[: len(self._pending) - keep],
            self._pending[len(self._pending) - keep :],
        )
        return shown

    def _earlier_may_come(self, at: int) -> bool:
        """Whether a stop string that began before `at` could still be completed."""
        return len(self._pending) - held(self._pending, self._stops) < at

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        if self._stops and not self.matched and (found := first(self._pending, self._stops)) is not None:
            self.matched = True
            self._pending = self._pending[: found[0]]
        shown, self._pending = self._pending, ""
        return shown
