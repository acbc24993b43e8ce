"""A generation is given up when its replica is lost while it is silent: long before silence is a failure.

A model may think for minutes without a word, so silence has a generous bound. But a replica that is shown
as failed, that is no longer announced, or that was started anew will not speak again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from heavy.core.errors import EngineUnavailable

T = TypeVar("T")

LOOKS_IN_A_ROW = 2
"""A replica must be found lost so often in a row: an announcement may come late on a busy machine."""


class Vigil:
    """Stands by one generation: enter it, then take every event through `next`."""

    def __init__(self, replica: str, lost: Callable[[], Awaitable[str]], every_s: float) -> None:
        """`lost` tells why the replica cannot answer any more; empty while it may."""
        self._replica = replica
        self._lost = lost
        self._every_s = every_s
        self._waiting: asyncio.Timeout | None = None
        self._why = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Vigil:
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def next(self, events: AsyncGenerator[T]) -> T:
        """The next event. Raises `EngineUnavailable` when the replica is lost meanwhile."""
        waiting = asyncio.timeout(None)
        try:
            async with waiting:
                self._waiting = waiting
                return await anext(events)
        except TimeoutError:
            if not waiting.expired():
                raise
            raise EngineUnavailable(f"Replica {self._replica} {self._why}.", self._replica) from None
        finally:
            self._waiting = None

    async def _keep(self) -> None:
        """Look after the replica while one and the same event is waited for."""
        looked, waited_for = 0, None
        while True:
            await asyncio.sleep(self._every_s)
            if self._waiting is None or self._waiting is not waited_for:
                looked, waited_for = 0, self._waiting
                continue
            why = await self._lost()
            looked = looked + 1 if why else 0
            if looked >= LOOKS_IN_A_ROW and self._waiting is waited_for and waited_for is not None:
                self._why = why
                waited_for.reschedule(asyncio.get_running_loop().time())
                looked = 0
