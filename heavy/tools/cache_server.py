"""The cache's Redis: entries with a lifetime, leases on calls being executed, news of their results.

Nothing here raises for a server that is down, slow or full of nonsense: the answer is then `None`, and the
caller runs its tool without a cache. A breaker keeps a bad server from slowing every call.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from heavy.core.clock import monotonic_s
from heavy.core.errors import ConfigError
from heavy.tools import cache_entry
from heavy.tools.cache_breaker import Breaker, BreakerLimits
from heavy.tools.cache_entry import Entry, Found, Packed
from heavy.tools.cache_key import Key, Keys
from heavy.tools.config import CacheSection

_log = logging.getLogger(__name__)
T = TypeVar("T")

PREFIX: Final = "heavy:tool:"
COUNTS: Final = f"{PREFIX}counts"
"""Hash: what was counted, `tool state` and `tool saved_ms`, since the cache was empty."""
TOOLS: Final = f"{PREFIX}tools"
"""Hash: the tools whose results are kept, and for each the digest and scope now in use."""
CONNECTIONS_MAX: Final = 16
WATCHERS_MAX: Final = 64
POLL_S: Final = 0.5
"""How often a waiter looks for itself, in case the news was lost."""

# KEYS: value, lease. ARGV: token, lease in ms, the version of a value that will not do ('' for none).
# The value, where there is another; or 1 where the lease is ours now, or 0.
_CLAIM: Final = """
local value = redis.call('GET', KEYS[1])
if value and (ARGV[3] == '' or string.sub(value, 1, #ARGV[3]) ~= ARGV[3]) then return value end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
# KEYS: lease. ARGV: token, lease in ms. Whether the lease was still ours.
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
# KEYS: value, lease. ARGV: token, lifetime in ms (0: do not store), the entry (may be empty), channel.
_SETTLE: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '0' then redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2]) end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1
"""
# KEYS: body. ARGV: content, lifetime in ms. It outlives every entry that refers to it: its time only grows.
_BODY: Final = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Seconds: a result is kept unless its policy says otherwise, a lease lasts unless renewed, one command
    may take. `wait_share`: the part of a call's time it may spend waiting for another's result; the rest is
    to run it alone."""

    ttl_s: float = 24 * 3600.0
    lease_s: float = 5.0
    command_s: float = 0.5
    wait_share: float = 0.5
    breaker: BreakerLimits = field(default_factory=BreakerLimits)

    @classmethod
    def of(cls, section: CacheSection) -> CacheLimits:
        """The limits that the operator's table names; the defaults for the rest."""
        given = section.model_dump(exclude_none=True)
        return cls(**{**given, "breaker": BreakerLimits(**given["breaker"])})


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to "may I execute this?": something that is there, or the lease's token, or neither."""

    found: Found | None = None
    token: str = ""


class CacheServer:
    """One connection pool to the cache, and the breaker in front of it."""

    def __init__(self, url: str, limits: CacheLimits, keys: Keys) -> None:
        self.limits = limits
        self._keys = keys
        self._commands = client(url, CONNECTIONS_MAX, limits.command_s)
        self._watchers = client(url, WATCHERS_MAX, limits.command_s)
        self._claim = self._commands.register_script(_CLAIM)
        self._renew = self._commands.register_script(_RENEW)
        self._settle = self._commands.register_script(_SETTLE)
        self._body = self._commands.register_script(_BODY)
        self._breaker = Breaker(limits.breaker)

    async def get(self, key: Key) -> Found | None:
        """What is stored; None for nothing, and when the server does not answer."""
        data = await self._guarded(lambda: self._commands.get(value_key(key.name)))
        return await self.read(data) if data else None

    async def read(self, data: bytes) -> Found:
        """What bytes under a key are, with the content that they may only refer to."""
        version, unpacked = cache_entry.version_of(data), cache_entry.unpack(data)
        if unpacked is None:
            return Found(version, None)
        entry, address = unpacked
        if not address:
            return Found(version, entry)
        body = await self._guarded(lambda: self._commands.get(body_key(address)))
        content = cache_entry.content_of(body) if body else None
        if content is None:  # evicted, or the server is gone
            return Found(version, None)
        return Found(version, replace(entry, output=replace(entry.output, content=content)))

    async def claim(self, key: Key, known: str) -> Claim | None:
        """Take the lease on executing `key`, unless there is an entry or someone has it. None: no server.

        `known` is the version of an entry that will not do; another one is an answer.
        """
        token = secrets.token_hex(8) + key.tool + key.scope
        keys, args = (
            [value_key(key.name), lease_key(key.name)],
            [token, self._lease_ms, known.encode("latin-1")],
        )
        match await self._guarded(lambda: self._claim(keys=keys, args=args)):
            case None:
                return None
            case 0:
                return Claim()
            case bytes() as data:
                return Claim(found=await self.read(data))
            case _:
                return Claim(token=token)

    async def renew(self, key: Key, token: str) -> bool | None:
        """Keep the lease. False once it is lost; None when the server does not answer."""
        args = [token, self._lease_ms]
        answer = await self._guarded(lambda: self._renew(keys=[lease_key(key.name)], args=args))
        return None if answer is None else bool(answer)

    async def settle(self, key: Key, token: str, entry: Entry | None, keep_s: float) -> None:
        """Give the lease back, keep the entry so long, tell those who wait; nothing without the lease.

        With `keep_s` 0 it is told but not kept. None is no answer at all.
        """
        packed = cache_entry.pack(entry, key, self._keys) if entry is not None else None
        keep_ms = int(keep_s * 1000) if packed is not None else 0
        if packed is not None and packed.body and not await self._kept(packed, keep_ms):
            packed, keep_ms = None, 0
        args = [token, keep_ms, packed.data if packed else b"", news_channel(key.name)]
        await self._guarded(lambda: self._settle(keys=[value_key(key.name), lease_key(key.name)], args=args))

    async def wait(self, key: Key, known: str, wait_s: float) -> Found | None:
        """What another process's execution of `key` gives, within `wait_s`.

        None when it gave nothing, its lease ended, the time is up or the server does not answer.
        """
        deadline_s = monotonic_s() + wait_s
        news = self._watchers.pubsub(ignore_subscribe_messages=True)
        try:
            if await self._guarded(lambda: _subscribed(news, key)) is None:
                return None
            while (left_s := deadline_s - monotonic_s()) > 0:
                looked = await self._look(key)
                if looked is None:
                    return None
                value, lease = looked
                if value and cache_entry.version_of(value) != known:
                    return await self.read(value)
                if not lease:
                    return None
                message = await self._next(news, min(POLL_S, left_s))
                if message is not None:
                    return await self.read(message) if message else None
            return None
        finally:
            with suppress(RedisError, OSError):
                await news.aclose()

    async def count(self, counts: Mapping[str, int], tools: Mapping[str, str]) -> bool:
        """Add to what was counted, and say which tools there are. Whether the server took it."""

        async def add() -> bool:
            pipeline = self._commands.pipeline(transaction=False)
            for name, amount in counts.items():
                pipeline.hincrby(COUNTS, name, amount)
            if tools:
                pipeline.hset(TOOLS, mapping=dict(tools))
            await pipeline.execute()
            return True

        return bool(await self._guarded(add))

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        for connected in (self._commands, self._watchers):
            with suppress(RedisError, OSError):
                await connected.aclose()

    @property
    def _lease_ms(self) -> int:
        return int(self.limits.lease_s * 1000)

    async def _kept(self, packed: Packed, keep_ms: int) -> bool:
        """Put a large content under its address, for at least as long as its entry, and those who wait."""
        args = [packed.body, max(keep_ms, self._lease_ms)]
        answer = await self._guarded(lambda: self._body(keys=[body_key(packed.body_address)], args=args))
        return answer is not None

    async def _look(self, key: Key) -> tuple[bytes, bytes] | None:
        names = (value_key(key.name), lease_key(key.name))
        found = await self._guarded(lambda: self._commands.mget(*names))
        return (found[0] or b"", found[1] or b"") if found else None

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
        """Run one command within its time, unless the server has failed too often or is too slow just now."""
        if not self._breaker.allows():
            return None
        started_s = monotonic_s()
        try:
            async with asyncio.timeout(self.limits.command_s):
                answer = await command()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return None
        if self._breaker.answered(monotonic_s() - started_s):
            _log.warning("the tool cache answers too slowly; tools run without it")
        return answer

    def _failed(self, error: Exception) -> None:
        if self._breaker.failed():
            _log.warning("the tool cache does not answer (%s); tools run without it", type(error).__name__)


async def _subscribed(news: Any, key: Key) -> bool:
    await news.subscribe(news_channel(key.name))
    return True


def value_key(name: str) -> str:
    """Where an entry stands. What belongs to one key shares a hash tag, so that scripts touch one slot."""
    return f"{PREFIX}{{{name}}}:value"


def lease_key(name: str) -> str:
    """Where the token of whoever executes the call stands."""
    return f"{PREFIX}{{{name}}}:lease"


def news_channel(name: str) -> str:
    """Where its result is published."""
    return f"{PREFIX}{{{name}}}:news"


def body_key(address: str) -> str:
    """Where a large content stands."""
    return f"{PREFIX}body:{address}"


def client(url: str, connections_max: int, command_s: float) -> Any:
    """A connection pool whose bounds and retries are its user's: the library has none of its own here.

    Raises `ConfigError` for a URL that cannot be read.
    """
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
