"""What sandboxed code writes, read in bounded memory: head and tail are kept, what is between is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from heavy.tools.sandbox.child import CHUNK


class Output:
    """One stream's output. `total` counts every byte of it."""

    def __init__(self, bytes_max: int) -> None:
        self._head_max = bytes_max * 3 // 4
        self._tail_max = bytes_max - self._head_max
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    async def fill(self, stream: asyncio.StreamReader, count: Callable[[], None]) -> None:
        """Read to the end; `count` is called after each chunk."""
        while chunk := await stream.read(CHUNK):
            self._feed(chunk)
            count()

    async def fill_until(
        self, stream: asyncio.StreamReader, marker: bytes, count: Callable[[], None]
    ) -> bool:
        """Read up to `marker`, which is not part of the output; whether it came before the end."""
        held = b""
        while chunk := await stream.read(CHUNK):
            held += chunk
            at = held.find(marker)
            if at >= 0:
                self._feed(held[:at])
                return True
            keep = len(marker) - 1  # the marker may have begun
            self._feed(held[:-keep])
            held = held[-keep:]
            count()
        self._feed(held)
        return False

    def text(self) -> str:
        """What was kept, with a line between head and tail that says how much is missing."""
        missing = self.total - len(self._head) - len(self._tail)
        gap = f"\n... [{missing} bytes left out here] ...\n".encode() if missing else b""
        return bytes(self._head + gap + self._tail).decode("utf-8", "replace")

    def _feed(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self._head_max - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        del self._tail[: -self._tail_max]
