"""The streams a server has open, so that it can end them all when it goes down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from heavy.core.errors import ServerUnavailable

GOING_DOWN = "The server is going down; the run goes on where its log is kept: try again"


class Streams:
    """Open streams. While draining, no new ones; when closed, those still open end as unavailable."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._scopes)

    def require_open(self) -> None:
        """Raises `ServerUnavailable` while draining."""
        if self._draining:
            raise ServerUnavailable(GOING_DOWN)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Around one stream. Raises `ServerUnavailable` when the server is going down, even half-way."""
        self.require_open()
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes.add(scope)
                self._idle.clear()
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
                    if not self._scopes:
                        self._idle.set()
        except TimeoutError:
            if scope.expired():
                raise ServerUnavailable(GOING_DOWN) from None
            raise

    def drain(self) -> None:
        """Open no more streams; those that are open go on."""
        self._draining = True

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no stream is open, at most so long; whether that came about."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End every stream that is still open, as unavailable."""
        self.drain()
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(now)
