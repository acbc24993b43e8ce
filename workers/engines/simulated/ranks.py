"""The ranks of a simulated gang: rank 0 serves once all have joined it; the others only stay connected.

As with real ones, a rank that is lost does not end the others: rank 0 goes on listening and answers nothing
useful any more, and a follower that has lost rank 0 waits. Ending the gang is its owner's work.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Final

from workers.engines.api.process import announce

JOIN_POLL_S: Final = 0.1
JOIN_WITHIN_S: Final = 600.0


class Ranks:
    """Rank 0's side of the meeting."""

    def __init__(self, address: str, nodes: int) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._nodes = nodes
        self._joined: set[int] = set()
        self._complete = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.lost = False
        """Whether a rank that had joined has gone."""

    async def gather(self) -> None:
        """Wait until every other rank has joined. Raises OSError when the address is taken."""
        self._server = await asyncio.start_server(self._member, self._host, self._port)
        await asyncio.wait_for(self._complete.wait(), JOIN_WITHIN_S)

    async def close(self) -> None:
        """Let the others go."""
        if self._server is not None:
            self._server.close()

    async def _member(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._joined.add(int(await reader.readline()))
            if self._joined == set(range(1, self._nodes)):
                self._complete.set()
            await reader.read()  # until it is gone
            self.lost = True
        finally:
            writer.close()


async def follow(address: str, rank: int) -> int:
    """Join rank 0, say so, and stay until SIGTERM. Returns the exit status."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    host, _, port = address.rpartition(":")
    writer = await _join(host, int(port), rank)
    announce({"event": "joined", "rank": rank, "rank_0": address})
    await told.wait()
    if writer is not None:
        writer.close()
    return 0


async def _join(host: str, port: int, rank: int) -> asyncio.StreamWriter | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(JOIN_WITHIN_S):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(host, port)
                    writer.write(b"%d\n" % rank)
                    return writer
                await asyncio.sleep(JOIN_POLL_S)
    return None
