"""One bounded, retried way to talk to the server. Everything the store does goes through it."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from heavy.core.clock import monotonic_s
from heavy.core.errors import Overloaded
from heavy.store.translate import server_name, translated, unreadable, worth_retrying

T = TypeVar("T")
Argument = str | bytes | int

CONNECTIONS_MAX: Final = 16
"""Commands under way at once; further ones wait, within their bound."""
WATCHERS_MAX: Final = 256
"""Logs followed at once: each waits on a connection of its own."""
ATTEMPTS_PER_BOUND: Final = 2
"""A silent connection is given up after this part of the bound, so that a fresh one gets its chance."""
BACKOFF_BASE_S: Final = 0.01
BACKOFF_MAX_S: Final = 0.5
BLOCK_MAX_S: Final = 1.0
RETRY_AFTER_S: Final = 5.0


class Link:
    """Connections to one server, and the time every operation has, retries included."""

    def __init__(self, url: str, *, timeout_s: float, watchers_max: int = WATCHERS_MAX) -> None:
        self.url = url
        self.server = server_name(url)
        self.timeout_s = timeout_s
        self.block_s = min(BLOCK_MAX_S, timeout_s / 4)
        """How long one blocking read waits for something new."""
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._watching = 0
        self._watchers_max = watchers_max
        self._commands: Any = self._client(CONNECTIONS_MAX)
        self._watchers: Any = self._client(watchers_max)
        self._scripts: dict[str, Any] = {}

    def client(self) -> Any:
        """A client with one connection of its own, for subscriptions. The caller closes it."""
        return self._client(1)

    def _client(self, connections_max: int) -> Any:
        # The library neither times out nor retries here: bounds and retries are this module's, in one place.
        # RESP2 and no driver info: a new connection costs no extra round trips.
        try:
            pool: Any = ConnectionPool.from_url(
                self.url,
                max_connections=connections_max,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=self.timeout_s / ATTEMPTS_PER_BOUND,
                protocol=2,
                driver_info=None,
            )
        except ValueError:
            raise unreadable() from None
        return Redis.from_pool(pool)

    async def call(self, doing: str, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Run `operation(client)`, again after a broken connection, until it succeeds or time is up.

        `doing` completes "could not ..." in the error. Raises `StoreUnavailable`, `ConfigError`.
        """

        async def attempt(_: int) -> T:
            return await operation(self._commands)

        async with self._bounded(doing), self._turns:
            return await self._attempts(attempt)

    async def script(
        self, doing: str, text: str, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> list[Any]:
        """`call` for a script of `heavy.store.scripts`, which is told whether it is being repeated."""
        script = self._script(text)

        async def attempt(index: int) -> list[Any]:
            found: list[Any] = await script(keys=keys, args=[min(index, 1), *arguments])
            return found

        async with self._bounded(doing), self._turns:
            return await self._attempts(attempt)

    async def once(self, doing: str, text: str, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Run a script that must not be repeated: what it loses is lost."""
        async with self._bounded(doing), self._turns:
            await self._script(text)(keys=keys, args=[0, *arguments])

    async def wait(self, doing: str, operation: Callable[[Any], Awaitable[T]]) -> T:
        """`call` for a read that blocks for up to `block_s`; only within `watcher`."""

        async def attempt(_: int) -> T:
            return await operation(self._watchers)

        async with self._bounded(doing):
            return await self._attempts(attempt)

    @asynccontextmanager
    async def watcher(self) -> AsyncIterator[None]:
        """Within it, a connection for blocking reads is set aside. Raises `Overloaded` when none is left."""
        if self._watching >= self._watchers_max:
            raise Overloaded(
                f"{self._watching} logs are being followed through this process, which is its limit;"
                " try again later or ask another server.",
                RETRY_AFTER_S,
            )
        self._watching += 1
        try:
            yield
        finally:
            self._watching -= 1

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._commands.aclose()
                await self._watchers.aclose()
        except (RedisError, OSError, TimeoutError):
            pass  # what is being thrown away need not close well

    @asynccontextmanager
    async def _bounded(self, doing: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.timeout_s):
                yield
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            raise translated(error, url=self.url, doing=doing, timeout_s=self.timeout_s) from error

    async def _attempts(self, attempt: Callable[[int], Awaitable[T]]) -> T:
        """Attempts with growing, jittered pauses; the last error once there is no time for another."""
        until_s = monotonic_s() + self.timeout_s
        for index in itertools.count():
            pause_s = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** min(index, 10)) * random.uniform(0.5, 1.0)
            try:
                async with asyncio.timeout(self.timeout_s / ATTEMPTS_PER_BOUND):
                    return await attempt(index)
            except (RedisError, OSError) as error:
                if not worth_retrying(error) or monotonic_s() + pause_s >= until_s:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("the loop above has no end")

    def _script(self, text: str) -> Any:
        if text not in self._scripts:
            self._scripts[text] = self._commands.register_script(text)
        return self._scripts[text]


def new_token() -> str:
    """A token by which the server recognises a write that is repeated."""
    return secrets.token_hex(8)
