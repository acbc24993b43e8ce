"""A connection to one MCP server, owned by one task from its first message to its last.

Sessions of the protocol's library belong to the task that opened them. So one task opens, uses and closes
each; calls are jobs that it runs inside itself, and callers wait for their results. When the server goes, the
task comes back to it after growing pauses, and lists its tools anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TextIO

import httpx2
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.types import CONNECTION_CLOSED, CallToolResult, Implementation, Tool, ToolListChangedNotification

from heavy.core.errors import ConfigError
from heavy.tools.config import McpSection, secret_of
from heavy.tools.mcp_transport import transport

_log = logging.getLogger(__name__)

RECONNECT_FIRST_S: Final = 0.25
STEADY_S: Final = 30.0
"""A connection that held this long was a good one: pauses begin at the shortest again."""
PING_EVERY_S: Final = 20.0
PING_TIMEOUT_S: Final = 10.0
JOBS_MAX: Final = 256
LIST_PAGES_MAX: Final = 50
LAST_WORDS_BYTES: Final = 2_000
"""How much of a server's stderr is kept to explain why it does not start."""


class McpUnavailable(ConfigError):
    """An MCP server that cannot be reached now. Says which, and why."""

    code = "mcp_unavailable"


class ConnectionLost(Exception):
    """The server went while a call was under way: whether it took effect is not known."""


class CallRefused(Exception):
    """The server answered a call with a protocol error, which it says in its own words."""


@dataclass(eq=False, slots=True)
class _Job:
    tool: str
    arguments: dict[str, Any]
    timeout_s: float
    meta: Any
    result: asyncio.Future[CallToolResult]
    running: asyncio.Task[None] | None = None


class McpServer:
    """One server. `start` it, read `tools`, `call` them, `close` it."""

    def __init__(self, name: str, section: McpSection) -> None:
        self.name = name
        self.section = section
        self.tools: tuple[Tool, ...] = ()
        """What it offers, by its own names, as it last said."""
        self.problem = "it was not asked yet"
        """Why there is no connection; empty while there is one."""
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(JOBS_MAX)
        self._slots = asyncio.Semaphore(section.calls_at_once_max)
        self._tried = asyncio.Event()
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._secrets = {variable: secret_of(variable, f"[mcp.{name}]") for variable in _variables(section)}

    async def start(self) -> None:
        """Begin to connect, and wait for the end of the first attempt; a failed one is followed by others."""
        self._owner = asyncio.create_task(self._own(), name=f"mcp {self.name}")
        with suppress(TimeoutError):
            async with asyncio.timeout(self.section.start_timeout_s):
                await self._tried.wait()

    def check(self) -> None:
        """Raises `McpUnavailable` while there is no connection."""
        if self.problem:
            raise McpUnavailable(f"The MCP server {self.name} cannot be reached: {self.problem}.")

    async def connected(self) -> None:
        """Wait until there is a connection. Unbounded: give it a time-out."""
        await self._up.wait()

    async def call(
        self, tool: str, arguments: Mapping[str, Any], timeout_s: float, meta: Mapping[str, Any] | None = None
    ) -> CallToolResult:
        """Call a tool; `meta` goes with the request.

        Raises `McpUnavailable` (nothing was sent), `ConnectionLost`, `CallRefused`, TimeoutError.
        """
        self.check()
        job = _Job(
            tool, dict(arguments), timeout_s, dict(meta or {}), asyncio.get_running_loop().create_future()
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._jobs.put(job)
                return await job.result
        finally:
            job.result.cancel()
            if job.running is not None:
                job.running.cancel()

    async def close(self) -> None:
        """End the connection, and the server where we started it; safe to call twice."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.cancel()
            await asyncio.gather(owner, return_exceptions=True)
        self.problem = "it was closed"

    async def _own(self) -> None:
        """Connect, serve calls until the connection is lost, and begin again after a pause."""
        pause_s, told = RECONNECT_FIRST_S, ""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            words = _LastWords()
            try:
                await self._connection(words)
                told = ""  # it was there: that it went is news
                self.problem += words.said()
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self.problem = "its connection was cancelled from within"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                self.problem = _why(error) + words.said()
            finally:
                words.close()
            self._tried.set()
            if self.problem != told:
                _log.warning("the MCP server %s is not connected: %s", self.name, self.problem)
                told = self.problem
            pause_s = RECONNECT_FIRST_S if loop.time() - began_s > STEADY_S else pause_s
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, self.section.reconnect_max_s)

    async def _connection(self, words: _LastWords) -> None:
        """One connection, from its opening to its loss."""
        self._lost.clear()
        self._changed.clear()
        # The time is for the opening alone; the connection itself may last.
        async with asyncio.timeout(self.section.start_timeout_s) as opening:
            async with self._client(words) as client:
                self.tools = await self._list(client)
                opening.reschedule(None)
                self.problem = ""
                self._tried.set()
                self._up.set()
                _log.info("the MCP server %s offers %d tools", self.name, len(self.tools))
                try:
                    await self._serve(client)
                finally:
                    self._lose()

    async def _serve(self, client: Client) -> None:
        """Run jobs and watch, until the connection is lost. Ends every job that is then under way."""
        tasks = [
            asyncio.create_task(watch(client))
            for watch in (
                self._take_jobs,
                self._watch_loss,
                self._watch_list,
                self._watch_pulse,
                self._listen,
            )
        ]
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_jobs(self, client: Client) -> None:
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._slots.acquire()
                job = await self._next_job()
                task = job.running = asyncio.create_task(self._run(client, job))
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(lambda _: self._slots.release())
        finally:
            for task in tuple(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _next_job(self) -> _Job:
        try:
            while True:
                job = await self._jobs.get()
                if not job.result.done():
                    return job
        except asyncio.CancelledError:
            self._slots.release()
            raise

    async def _run(self, client: Client, job: _Job) -> None:
        """One call. Its failure is its caller's; a lost connection is everybody's."""
        try:
            async with asyncio.timeout(job.timeout_s):
                result = await client.call_tool(job.tool, job.arguments, meta=job.meta)
            _settle(job, result)
        except asyncio.CancelledError:
            _settle(job, ConnectionLost("the connection was lost while the call ran"))
            raise
        except TimeoutError as error:
            _settle(job, error)
        except MCPError as error:
            if self._lost.is_set() or _is_loss(error):
                self._lose()
                _settle(job, ConnectionLost(str(error)))
            else:
                _settle(job, CallRefused(str(error)))
        except ValueError as error:  # a result that does not conform to the protocol
            _settle(job, CallRefused(f"its answer does not follow the protocol: {type(error).__name__}"))
        except Exception as error:
            self._lose()
            _settle(job, ConnectionLost(_why(error)))

    def _lose(self) -> None:
        """The connection is no good any more: nothing is sent on it, and those who wait wait for the next."""
        self.problem = "its connection was lost"
        self._up.clear()
        self._lost.set()

    async def _watch_loss(self, _: Client) -> None:
        await self._lost.wait()

    async def _watch_list(self, client: Client) -> None:
        """List the tools anew whenever the server says that they changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                async with asyncio.timeout(self.section.start_timeout_s):
                    self.tools = await self._list(client)
                _log.info("the MCP server %s changed its tools: %d now", self.name, len(self.tools))
            except (MCPError, TimeoutError, ValueError) as error:
                _log.warning("the MCP server %s did not list its changed tools: %s", self.name, error)

    async def _watch_pulse(self, client: Client) -> None:
        """Notice a server that is gone although nobody calls it."""
        while True:
            await asyncio.sleep(PING_EVERY_S)
            try:
                async with asyncio.timeout(PING_TIMEOUT_S):
                    await client.list_tools(cache_mode="bypass")
            except (MCPError, TimeoutError, OSError, httpx2.HTTPError):
                self._lose()
                return

    async def _listen(self, client: Client) -> None:
        """Newer servers tell of changes only to those who listen; older ones just do."""
        with suppress(ListenNotSupportedError, MCPError, SubscriptionLost, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changed.set()

    async def _heard(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed.set()
        elif isinstance(message, Exception):
            self._lose()

    async def _list(self, client: Client) -> tuple[Tool, ...]:
        """Every tool that the operator lets it offer, within the limits."""
        found: list[Tool] = []
        cursor: str | None = None
        for _ in range(LIST_PAGES_MAX):
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [tool for tool in page.tools if self.section.offers(tool.name)]
            cursor = page.next_cursor
            if cursor is None or len(found) >= self.section.tools_max:
                break
        return tuple(found[: self.section.tools_max])

    def _client(self, words: _LastWords) -> Client:
        """A client to be opened. It offers the server nothing: no sampling, no roots, no questions."""
        return Client(
            transport(self.section, self._secrets, words.file),
            client_info=Implementation(name="heavy", version="1"),
            message_handler=self._heard,
            cache=None,
        )


class _LastWords:
    """The end of what a server says on stderr. `file` is its, until `close`."""

    def __init__(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        self._read = read
        self._tail = b""
        self.file: TextIO = os.fdopen(write, "w")
        asyncio.get_running_loop().add_reader(read, self._drain)

    def said(self) -> str:
        """What it said last, as a clause for a message; empty when it said nothing."""
        self._drain()
        text = " ".join(self._tail.decode("utf-8", "replace").split())
        return f" (it said: {text[-500:]})" if text else ""

    def close(self) -> None:
        """Let go of the pipe."""
        asyncio.get_running_loop().remove_reader(self._read)
        self.file.close()
        os.close(self._read)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._tail = (self._tail + os.read(self._read, 1 << 16))[-LAST_WORDS_BYTES:]


def _settle(job: _Job, outcome: CallToolResult | Exception) -> None:
    if job.result.done():
        return
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)


def _variables(section: McpSection) -> set[str]:
    return {*section.env.values(), *section.headers.values()}


def _is_loss(error: MCPError) -> bool:
    """Whether a protocol error means that the connection is gone rather than that the call was refused."""
    text = error.message.lower()
    return "session terminated" in text or (error.code == CONNECTION_CLOSED and "clos" in text)


def _why(error: BaseException) -> str:
    """The first cause in a group of errors, in a few words."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"{type(error).__name__}: {error}"[:500]
