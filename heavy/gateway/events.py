"""Following a run over HTTP: its records as server-sent events, resumable by their numbers.

    id: 17
    event: record       a record in brief (`heavy.gateway.briefs`)

    event: deltas       fresh text of generations in progress; it has no number, and what is lost is no loss

    event: problem      why the stream ends early, as the body of an error

    event: end          the run has ended: nothing will follow

A connection that is lost is taken up again with the header `Last-Event-ID`, as browsers do by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, TypeVar

from aiohttp import web

from heavy.core import codec
from heavy.core.errors import HeavyError
from heavy.core.records import Delta, Record
from heavy.gateway.briefs import brief_of
from heavy.gateway.problems import problem_of

T = TypeVar("T")

KEEP_ALIVE_S: Final = 15.0
"""How long a stream may be silent before a comment shows that it lives."""
HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class EventStreams:
    """The streams a server has open, so that it can end them when it goes down."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def send(
        self, request: web.Request, events: AsyncIterator[Record | tuple[Delta, ...]]
    ) -> web.StreamResponse:
        """Write events as they come, until they end, the caller goes, or the server does."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        task = asyncio.ensure_future(_write(response, events))
        self._tasks.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._tasks.discard(task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return response

    async def close(self) -> None:
        """End every stream; its reader may take it up again elsewhere."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _write(response: web.StreamResponse, events: AsyncIterator[Record | tuple[Delta, ...]]) -> None:
    """Each write waits for a slow reader, so nothing piles up here."""
    with contextlib.suppress(ConnectionError):
        try:
            async with contextlib.aclosing(_with_pauses(events, KEEP_ALIVE_S)) as paced:
                await response.write(b"retry: 1000\n\n")
                async for event in paced:
                    await response.write(_event(event))
            await response.write(b"event: end\ndata: {}\n\n")
        except HeavyError as error:
            await response.write(b"event: problem\ndata: " + codec.dump(problem_of(error)) + b"\n\n")


def _event(event: Record | tuple[Delta, ...] | None) -> bytes:
    match event:
        case None:
            return b": still here\n\n"
        case Record():
            return b"id: %d\nevent: record\ndata: %b\n\n" % (event.number, codec.dump(brief_of(event)))
        case _:
            return b"event: deltas\ndata: [" + b",".join(map(codec.dump, event)) + b"]\n\n"


async def _with_pauses(items: AsyncIterator[T], pause_s: float) -> AsyncGenerator[T | None]:
    """The items, and None whenever so long nothing came. Ends the items when it is closed."""

    async def following() -> T:
        return await anext(items)

    coming = asyncio.ensure_future(following())
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=pause_s)
            if not done:
                yield None
                continue
            try:
                item = coming.result()
            except StopAsyncIteration:
                return
            coming = asyncio.ensure_future(following())
            yield item
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        if isinstance(items, AsyncGenerator):
            await items.aclose()
