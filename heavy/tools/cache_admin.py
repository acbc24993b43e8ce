"""Looking into the tool cache and taking results out of it: for administrators, beside the calls.

Keys tell nothing, so tools and scopes are recognised by the tags in each entry's header. Looking at
everything is bounded; a cache that does not answer is an error here, unlike for a call.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import RedisError

from heavy.core.caching import CacheItem, CachePurge, CacheQuery, CacheStats, Purged, ToolCacheStats
from heavy.core.errors import FieldViolation, InvalidRequest, NotFound, StoreUnavailable
from heavy.tools import cache_key
from heavy.tools.cache_counts import REFRESHED, SAVED_MS
from heavy.tools.cache_entry import HEADER_BYTES, tags_of
from heavy.tools.cache_key import Keys
from heavy.tools.cache_server import (
    COUNTS,
    PREFIX,
    TOOLS,
    CacheLimits,
    CacheServer,
    client,
    lease_key,
    value_key,
)

COMMAND_S: Final = 5.0
CONNECTIONS_MAX: Final = 4
PAGE: Final = 500
KEYS_MAX: Final = 500_000
"""Keys looked at for one answer."""

_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Tool:
    """What runners said of a tool: what its keys are made from."""

    digest: str
    scope: str
    auth: str


class CacheAdmin:
    """One connection to the cache for administration. Every method raises `StoreUnavailable`."""

    def __init__(self, url: str, secret: bytes) -> None:
        """Raises `ConfigError` for a URL that cannot be read."""
        self._keys = Keys(secret)
        self._server = CacheServer(url, CacheLimits(command_s=COMMAND_S), self._keys)
        self._client = client(url, CONNECTIONS_MAX, COMMAND_S)

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._server.close()
        await self._client.aclose()

    async def stats(self) -> CacheStats:
        """How the cache does."""
        async with _answering():
            counts = {k.decode(): int(v) for k, v in (await self._client.hgetall(COUNTS)).items()}
            names = {*(name.rpartition(" ")[0] for name in counts), *await self._tools()}
            by_tag = {self._keys.tag("tool", name): name for name in names}
            entries: Counter[str] = Counter()
            sizes: Counter[str] = Counter()
            seen = 0
            async for _, header, size in self._entries():
                seen += 1
                name = by_tag.get(tags_of(header)[0], "")
                entries[name] += 1
                sizes[name] += size
            bodies = [size async for _, _, size in self._sized(f"{PREFIX}body:*")]
            leases = [key async for page in self._pages(f"{PREFIX}*:lease") for key in page]
            memory, stats = await self._client.info("memory"), await self._client.info("stats")
        return CacheStats(
            tools=tuple(
                _stats(name, counts, entries[name], sizes[name]) for name in sorted({*names, *entries})
            ),
            bodies=len(bodies),
            body_bytes=sum(bodies),
            leases=len(leases),
            memory_bytes=int(memory["used_memory"]),
            memory_bytes_max=int(memory.get("maxmemory", 0)),
            evicted=int(stats["evicted_keys"]),
            complete=max(seen, len(bodies)) < KEYS_MAX,
        )

    async def get(self, query: CacheQuery) -> CacheItem:
        """One stored result. Raises `NotFound`, and `InvalidRequest` for a query that names none."""
        async with _answering():
            tools = await self._tools()
            key, tool = self._named(query, tools)
            data = await self._client.get(value_key(key))
            expires_ms = await self._client.pexpiretime(value_key(key))
        found = await self._server.read(data) if data else None
        if found is None or found.entry is None or expires_ms < 0:
            raise NotFound(f"Nothing is stored under {key}.")
        by_tag = {self._keys.tag("tool", name): name for name in tools}
        entry = found.entry
        return CacheItem(
            key=key,
            tool=tool or by_tag.get(tags_of(data[:HEADER_BYTES])[0], ""),
            content=entry.output.content,
            is_error=entry.output.is_error,
            stored_ms=entry.stored_ms,
            fresh_until_ms=entry.fresh_until_ms,
            expires_ms=expires_ms,
            cost_s=entry.cost_s,
            bytes=len(data),
        )

    async def purge(self, purge: CachePurge) -> Purged:
        """Remove results, and the leases of calls that would store such. Raises `InvalidRequest`.

        Large contents go when their time is up: others may refer to them.
        """
        given = (purge.key, purge.tool, purge.tenant, purge.all)
        if not any(given) or (purge.key and any(given[1:])) or (purge.all and any(given[:3])):
            problem = "give either a key, or a tool, a tenant or both, or all"
            raise InvalidRequest((FieldViolation("", problem),))
        async with _answering():
            if purge.key:
                name = _checked(purge.key)
                removed = await self._client.delete(value_key(name))
                return Purged(removed, await self._client.delete(lease_key(name)))
            tool = self._keys.tag("tool", purge.tool) if purge.tool else ""
            scope = self._keys.tag("scope", _tenant_scope(purge.tenant)) if purge.tenant else ""
            entries = leases = 0
            async for key, header, _ in self._entries():
                if _matches(tags_of(header), tool, scope):
                    entries += await self._client.delete(key)
            async for page in self._pages(f"{PREFIX}*:lease"):
                for lease, token in zip(page, await self._client.mget(page), strict=True):
                    if token and _matches(tags_of(token), tool, scope):
                        leases += await self._client.delete(lease)
            return Purged(entries, leases)

    def _named(self, query: CacheQuery, tools: dict[str, _Tool]) -> tuple[str, str]:
        """The key that a query means, and the tool where it says one."""
        if query.key:
            return _checked(query.key), ""
        if query.tool not in tools:
            known = ", ".join(sorted(tools)) or "none"
            problem = f"{query.tool!r:.80} has nothing stored; known: {known}"
            raise InvalidRequest((FieldViolation("tool", problem),))
        tool = tools[query.tool]
        scope = cache_key.scope_of(tool.scope, tenant=query.tenant, run=query.run)
        arguments = cache_key.canonical(_arguments(query.arguments))
        return self._keys.key(query.tool, tool.digest, scope, tool.auth, arguments).name, query.tool

    async def _tools(self) -> dict[str, _Tool]:
        found = await self._client.hgetall(TOOLS)
        return {name.decode(): _Tool(*_three(text.decode())) for name, text in found.items()}

    async def _entries(self) -> AsyncIterator[tuple[bytes, bytes, int]]:
        """Every entry: its key, its header, its size."""
        async for item in self._sized(f"{PREFIX}*:value"):
            yield item

    async def _sized(self, pattern: str) -> AsyncIterator[tuple[bytes, bytes, int]]:
        async for page in self._pages(pattern):
            pipeline = self._client.pipeline(transaction=False)
            for key in page:
                pipeline.getrange(key, 0, HEADER_BYTES - 1)
                pipeline.strlen(key)
            answers = await pipeline.execute()
            for key, header, size in zip(page, answers[::2], answers[1::2], strict=True):
                yield key, header, size

    async def _pages(self, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        cursor, seen = 0, 0
        while seen < KEYS_MAX:
            cursor, page = await self._client.scan(cursor, match=pattern, count=PAGE)
            seen += len(page)
            if page:
                yield page
            if not cursor:
                return


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable(
            f"The tool cache does not answer ({type(error).__name__}); see whether its server runs."
        ) from error


def _stats(tool: str, counts: dict[str, int], entries: int, size: int) -> ToolCacheStats:
    def count(name: str) -> int:
        return counts.get(f"{tool} {name}", 0)

    return ToolCacheStats(
        tool=tool,
        hits=count("hit"),
        coalesced=count("coalesced"),
        misses=count("miss"),
        bypassed=count("bypass"),
        stale=count("stale"),
        refreshed=count(REFRESHED),
        saved_s=count(SAVED_MS) / 1000,
        entries=entries,
        bytes=size,
    )


def _matches(tags: tuple[str, str], tool: str, scope: str) -> bool:
    """Whether an entry's tags are those wanted; an empty one is any."""
    return tool in ("", tags[0]) and scope in ("", tags[1])


def _tenant_scope(tenant: str) -> str:
    return cache_key.scope_of("tenant", tenant=tenant, run="")


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise InvalidRequest((FieldViolation("key", f"{key!r:.80} is no key; one is 64 hex digits"),))
    return key


def _arguments(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest((FieldViolation("arguments", f"are not JSON: {error}"),)) from error
    if not isinstance(values, dict):
        raise InvalidRequest((FieldViolation("arguments", "must be one JSON object"),))
    return values


def _three(text: str) -> Iterable[str]:
    digest, scope, auth = (*text.split(" ", 2), "", "")[:3]
    return digest, scope, auth
