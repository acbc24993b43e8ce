"""How an MCP server is reached: a program of its own, or an address; no message is larger than allowed.

The protocol's library reads whole messages into memory, whatever their size. So a program's messages pass a
relay, a small process that ends the connection at the first one that is too large, and an address's answers
are counted as they come.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TextIO

import httpx2
from mcp import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from heavy.tools.config import McpSection

_RELAY: Final = """
import os, sys
most, program, *arguments = sys.argv[1:]
read, write = os.pipe()
actions = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_CLOSE, write), (os.POSIX_SPAWN_CLOSE, read)]
server = os.posix_spawnp(program, [program, *arguments], os.environ, file_actions=actions)
os.close(write)
os.close(0)
messages = os.fdopen(read, 'rb')
try:
    while message := messages.readline(int(most) + 1):
        if len(message) > int(most):
            os.write(2, f'a message of more than {most} bytes was not taken'.encode())
            os.kill(server, 9)
            break
        while message:
            message = message[os.write(1, message):]
except BrokenPipeError:
    os.kill(server, 15)
os.waitpid(server, 0)
"""


class MessageTooLarge(httpx2.StreamError):
    """An answer over HTTP that is not read to its end. The library makes an error of the one call of it."""


def transport(section: McpSection, secrets: Mapping[str, str], errors: TextIO) -> Any:
    """A context with the streams of one connection.

    `secrets` are the values of the variables that the section names; a program's stderr goes to `errors`.
    Raises FileNotFoundError for a program that is not there.
    """
    if not section.command:
        return _over_http(section, secrets)
    program = section.command[0]
    if shutil.which(os.path.join(section.cwd, program) if "/" in program else program) is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such program", program)
    relay = ["-I", "-S", "-c", _RELAY, str(section.message_bytes_max), *section.command]
    environment = {name: secrets[variable] for name, variable in section.env.items()}
    parameters = StdioServerParameters(
        command=sys.executable, args=relay, env=environment, cwd=section.cwd or None
    )
    return stdio_client(parameters, errlog=errors)


@asynccontextmanager
async def _over_http(section: McpSection, secrets: Mapping[str, str]) -> AsyncIterator[Any]:
    headers = {name: secrets[variable] for name, variable in section.headers.items()}
    # Nothing is taken packed: a small answer could become a large one.
    headers = {"Accept-Encoding": "identity", **headers}
    times = httpx2.Timeout(section.start_timeout_s, read=None)
    hooks = {"response": [bounded(section.message_bytes_max)]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=times, event_hooks=hooks) as http,
        streamable_http_client(
            section.url, http_client=http, max_sse_event_size=section.message_bytes_max
        ) as streams,
    ):
        yield streams


def bounded(bytes_max: int) -> Callable[[httpx2.Response], Awaitable[None]]:
    """A hook by which an answer ends in `MessageTooLarge` beyond `bytes_max`, and a packed one in an error.

    Streams of events are left alone: the library bounds them event by event.
    """

    async def bound(response: httpx2.Response) -> None:
        packed = response.headers.get("content-encoding", "identity")
        if packed != "identity":
            raise httpx2.DecodingError(f"The answer is packed as {packed!r:.40}, which was not asked for.")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Counted(response.stream, bytes_max)

    return bound


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, bytes_max: int) -> None:
        self._inner = inner
        self._bytes_max = bytes_max

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        async for chunk in self._inner:
            taken += len(chunk)
            if taken > self._bytes_max:
                raise MessageTooLarge(f"the answer is larger than {self._bytes_max} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
