"""Open streams: counted, drained, and ended all at once."""

from __future__ import annotations

import asyncio

import pytest

from heavy.core.errors import ServerUnavailable
from heavy.rpc.streams import Streams


async def hold(streams: Streams, entered: asyncio.Event) -> None:
    async with streams.open():
        entered.set()
        await asyncio.Event().wait()


async def test_closing_ends_every_stream_as_unavailable() -> None:
    streams = Streams()
    events = [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.create_task(hold(streams, event)) for event in events]
    await asyncio.gather(*(event.wait() for event in events))
    assert len(streams) == 3
    streams.close()
    streams.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ServerUnavailable] * 3
    assert len(streams) == 0
    with pytest.raises(ServerUnavailable):
        streams.require_open()


async def test_draining_opens_no_more_and_waits_for_the_rest() -> None:
    streams, entered = Streams(), asyncio.Event()
    assert await streams.wait_idle(0)
    task = asyncio.create_task(hold(streams, entered))
    await entered.wait()
    streams.drain()
    assert not await streams.wait_idle(0.01)
    with pytest.raises(ServerUnavailable, match="going down"):
        await hold(streams, asyncio.Event())
    task.cancel()
    assert await streams.wait_idle(5)


async def test_a_cancelled_stream_stays_cancelled_even_while_closing() -> None:
    streams, entered = Streams(), asyncio.Event()
    task = asyncio.create_task(hold(streams, entered))
    await entered.wait()
    task.cancel()
    streams.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_of_the_streams_own_is_not_mistaken_for_the_end() -> None:
    streams = Streams()
    with pytest.raises(TimeoutError):
        async with streams.open(), asyncio.timeout(0):
            await asyncio.Event().wait()
    assert len(streams) == 0
