"""The cache's Redis: values with a lifetime, leases on calls being executed, news of their results.

Nothing here raises for a server that is down, slow or full of nonsense: the answer is then `None`, and the
caller runs its tool without a cache. A breaker keeps a bad server from slowing every call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from heavy.core.clock import monotonic_s
from heavy.core.errors import ConfigError
from heavy.core.tools import ToolOutput

_log = logging.getLogger(__name__)
T = TypeVar("T")

PREFIX: Final = "heavy:tool:"
CONNECTIONS_MAX: Final = 16
WATCHERS_MAX: Final = 64
VALUE_BYTES_MAX: Final = 1 << 20
"""Larger results (compressed) are not stored."""
UNPACKED_BYTES_MAX: Final = 8 * VALUE_BYTES_MAX
FAILURES_MAX: Final = 3
POLL_S: Final = 0.5
"""How often a waiter looks for itself, in case the news was lost."""

# KEYS: value, lease. ARGV: token, lease in ms. The value, or 1 where the lease is ours now, or 0.
_CLAIM: Final = """
local value = redis.call('GET', KEYS[1])
if value then return value end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
# KEYS: lease. ARGV: token, lease in ms. Whether the lease was still ours.
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS: value, lease, channel. ARGV: token, lifetime in ms (0: do not store), the result (may be empty).
_SETTLE: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2]) end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', KEYS[3], ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Seconds: a result is kept, a lease lasts unless renewed, one command may take, the breaker rests."""

    ttl_s: float = 24 * 3600.0
    lease_s: float = 5.0
    command_s: float = 0.5
    rest_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to "may I execute this?": a result that is there, or the lease's token, or neither."""

    output: ToolOutput | None = None
    token: str = ""


class CacheServer:
    """One connection pool to the cache, and the breaker in front of it."""

    def __init__(self, url: str, limits: CacheLimits) -> None:
        self.limits = limits
        self._commands = _client(url, CONNECTIONS_MAX, limits.command_s)
        self._watchers = _client(url, WATCHERS_MAX, limits.command_s)
        self._claim = self._commands.register_script(_CLAIM)
        self._renew = self._commands.register_script(_RENEW)
        self._settle = self._commands.register_script(_SETTLE)
        self._failures = 0
        self._resting_until_s = 0.0

    async def get(self, key: str) -> ToolOutput | None:
        """The stored result; None also when the server does not answer."""
        data = await self._guarded(lambda: self._commands.get(PREFIX + key))
        return unpack(data) if data else None

    async def claim(self, key: str) -> Claim | None:
        """Take the lease on executing `key`, unless there is a result or someone has it. None: no server."""
        token = secrets.token_hex(8)
        keys = [PREFIX + key, _lease(key)]
        answer = await self._guarded(lambda: self._claim(keys=keys, args=[token, self._lease_ms]))
        match answer:
            case None:
                return None
            case 0:
                return Claim()
            case bytes() if (output := unpack(answer)) is not None:
                return Claim(output=output)
            case bytes():  # nobody can read this: make room for a result that can be
                await self._guarded(lambda: self._commands.delete(PREFIX + key))
                return None
            case _:
                return Claim(token=token)

    async def renew(self, key: str, token: str) -> bool:
        """Keep the lease. False once it is lost, or the server is."""
        args = [token, self._lease_ms]
        return bool(await self._guarded(lambda: self._renew(keys=[_lease(key)], args=args)))

    async def settle(self, key: str, token: str, output: ToolOutput | None) -> None:
        """Give the lease back, store what may be stored, tell those who wait; nothing without the lease.

        Successes are stored; a deterministic error is told but not stored; None is no answer at all.
        """
        usable = output is not None and (output.deterministic or not output.is_error)
        data = pack(output) if output is not None and usable else b""
        if len(data) > VALUE_BYTES_MAX:
            data = b""
        stored = bool(data) and output is not None and not output.is_error
        args = [token, int(self.limits.ttl_s * 1000) if stored else 0, data]
        keys = [PREFIX + key, _lease(key), _channel(key)]
        await self._guarded(lambda: self._settle(keys=keys, args=args))

    async def wait(self, key: str, wait_s: float) -> ToolOutput | None:
        """What another process's execution of `key` gives, within `wait_s`.

        None when it gave nothing, its lease ended, the time is up or the server does not answer.
        """
        deadline_s = monotonic_s() + wait_s
        news = self._watchers.pubsub(ignore_subscribe_messages=True)
        try:
            if await self._guarded(lambda: _subscribed(news, key)) is None:
                return None
            while (left_s := deadline_s - monotonic_s()) > 0:
                found = await self._guarded(lambda: self._commands.mget(PREFIX + key, _lease(key)))
                if not found or found[0] or not found[1]:
                    return unpack(found[0]) if found and found[0] else None
                message = await self._next(news, min(POLL_S, left_s))
                if message is not None:
                    return unpack(message)
            return None
        finally:
            with suppress(RedisError, OSError):
                await news.aclose()

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        for client in (self._commands, self._watchers):
            with suppress(RedisError, OSError):
                await client.aclose()

    @property
    def _lease_ms(self) -> int:
        return int(self.limits.lease_s * 1000)

    async def _next(self, news: Any, wait_s: float) -> bytes | None:
        """The next result published, within `wait_s`; None when none came."""
        try:
            message = await news.get_message(timeout=wait_s)
        except (RedisError, OSError) as error:
            self._failed(error)
            await asyncio.sleep(wait_s)  # as if no news had come: the caller looks for itself
            return None
        return bytes(message["data"]) if message else None

    async def _guarded(self, command: Callable[[], Awaitable[T]]) -> T | None:
        """Run one command within its time, unless the server has failed too often just now."""
        if monotonic_s() < self._resting_until_s:
            return None
        try:
            async with asyncio.timeout(self.limits.command_s):
                answer = await command()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return None
        self._failures = 0
        return answer

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._resting_until_s = monotonic_s() + self.limits.rest_s
            _log.warning("the tool cache does not answer (%s); tools run without it", type(error).__name__)


def pack(output: ToolOutput) -> bytes:
    """A result as it is stored: compressed JSON."""
    fields = [output.content, output.is_error, output.deterministic, dict(output.meta)]
    return zlib.compress(json.dumps(fields).encode(), level=1)


def unpack(data: bytes) -> ToolOutput | None:
    """What `pack` wrote; None for anything else."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, UNPACKED_BYTES_MAX)
        if not unpacker.eof:
            return None
        content, is_error, deterministic, meta = json.loads(text)
        return ToolOutput(
            str(content), is_error is True, deterministic=deterministic is True, meta=dict(meta)
        )
    except (zlib.error, ValueError, TypeError, RecursionError):
        return None


async def _subscribed(news: Any, key: str) -> bool:
    await news.subscribe(_channel(key))
    return True


def _lease(key: str) -> str:
    return f"{PREFIX}{key}:lease"


def _channel(key: str) -> str:
    return f"{PREFIX}{key}:news"


def _client(url: str, connections_max: int, command_s: float) -> Any:
    """Bounds and retries are this module's: the library has none of its own here."""
    try:
        pool: Any = BlockingConnectionPool.from_url(
            url,
            max_connections=connections_max,
            timeout=command_s,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=command_s,
            protocol=2,
            driver_info=None,
        )
    except ValueError as error:
        raise ConfigError(
            f"The cache URL cannot be read ({error}); it looks like redis://HOST:6379/1."
        ) from error
    return Redis.from_pool(pool)
