"""How the cache does: counted in every process, added up on its server now and then. Never waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from heavy.core.tools import CacheState

FLUSH_EVERY_S: Final = 1.0
PENDING_MAX: Final = 1_000
"""Names held back at most while the server does not answer; further ones are not counted."""
SAVED: Final = frozenset({CacheState.HIT, CacheState.COALESCED, CacheState.STALE})
SAVED_MS: Final = "saved_ms"
REFRESHED: Final = "refreshed"
REFRESH_FAILED: Final = "refresh_failed"

Send = Callable[[Mapping[str, int], Mapping[str, str]], Awaitable[bool]]
"""Adds counts, and tools with their digests, to what the server has. Whether it took them."""


class Counts:
    """What one process counted and has not sent yet."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._counts: Counter[str] = Counter()
        self._tools: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self._flusher: asyncio.Task[None] | None = None

    def add(self, tool: str, state: CacheState, cost_s: float) -> None:
        """One call of `tool`; where nothing was executed for it, `cost_s` was saved."""
        self._count(f"{tool} {state.value}", 1)
        if state in SAVED:
            self._count(f"{tool} {SAVED_MS}", round(cost_s * 1000))

    def add_refresh(self, tool: str, *, failed: bool) -> None:
        """One early refresh."""
        self._count(f"{tool} {REFRESH_FAILED if failed else REFRESHED}", 1)

    def tool(self, name: str, current: str) -> None:
        """What keys of a tool are made from now, for administration to find them by."""
        if self._known.get(name) != current and len(self._known) < PENDING_MAX:
            self._known[name] = self._tools[name] = current

    async def flush(self) -> None:
        """Send what there is; what the server did not take is kept for the next time."""
        counts, self._counts = self._counts, Counter()
        tools, self._tools = self._tools, {}
        if (counts or tools) and not await self._send(counts, tools):
            self._counts.update(counts)
            self._tools = {**tools, **self._tools}

    async def close(self) -> None:
        """Send the rest and stop; safe to call twice."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.cancel()
            await asyncio.gather(flusher, return_exceptions=True)
            await self.flush()

    def _count(self, name: str, amount: int) -> None:
        if name in self._counts or len(self._counts) < PENDING_MAX:
            self._counts[name] += amount
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_forever())

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()
