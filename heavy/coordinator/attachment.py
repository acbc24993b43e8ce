"""Attached runs: as long as a caller is there they live; when the last one leaves, a grace begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from heavy.core.ids import RunId


class Attachments:
    """Who is attached to which run. `on_gone` is awaited once for a run whose grace ran out.

    `elsewhere` says whether a caller is attached to a run through another process: no grace ends meanwhile.
    """

    def __init__(
        self,
        grace_s: float,
        on_gone: Callable[[RunId], Awaitable[None]],
        elsewhere: Callable[[RunId], Awaitable[bool]],
    ) -> None:
        self._grace_s = grace_s
        self._on_gone = on_gone
        self._elsewhere = elsewhere
        self._callers: dict[RunId, int] = {}
        self._graces: dict[RunId, asyncio.Task[None]] = {}

    def expect(self, run: RunId) -> None:
        """An attached run has begun; until its caller attaches it is in its grace."""
        self._callers[run] = 0
        self._begin_grace(run)

    def forget(self, run: RunId) -> None:
        """The run has ended; nobody needs to hold it any more."""
        self._callers.pop(run, None)
        self._end_grace(run)

    @asynccontextmanager
    async def attached(self, run: RunId) -> AsyncIterator[None]:
        """A caller is there. Without effect on runs that nobody expects callers for."""
        if run in self._callers:
            self._callers[run] += 1
            self._end_grace(run)
        try:
            yield
        finally:
            if run in self._callers:
                self._callers[run] -= 1
                if self._callers[run] <= 0:
                    self._begin_grace(run)

    async def close(self) -> None:
        """End every grace without its consequence."""
        graces = list(self._graces.values())
        self._callers.clear()
        self._graces.clear()
        for task in graces:
            task.cancel()
        await asyncio.gather(*graces, return_exceptions=True)

    def _begin_grace(self, run: RunId) -> None:
        self._end_grace(run)
        self._graces[run] = asyncio.create_task(self._grace(run))

    def _end_grace(self, run: RunId) -> None:
        task = self._graces.pop(run, None)
        if task is not None:
            task.cancel()

    async def _grace(self, run: RunId) -> None:
        here = True
        while here:
            await asyncio.sleep(self._grace_s)
            here = await self._elsewhere(run)
        del self._graces[run]
        await self._on_gone(run)
