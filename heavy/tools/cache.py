"""What several trajectories ask of a cacheable tool is executed once, in this process and over all of them.

A call looks for a stored result; then for the same call under way in this process (a flight) and joins it;
else it starts the flight, which takes the lease in Redis and executes, or waits for the process that holds
it. The flight is nobody's: it lives as long as somebody waits for it. Without Redis the flights remain and
everything else is as without a cache.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from heavy.core import clock
from heavy.core.clock import monotonic_s
from heavy.core.errors import ConfigError
from heavy.core.tools import CacheState, Effects, ToolContext, ToolOutput, ToolSpec
from heavy.tools import cache_entry, cache_key
from heavy.tools.api import Tool
from heavy.tools.cache_call import CachedCall, fresh, labelled, may_pass
from heavy.tools.cache_counts import Counts
from heavy.tools.cache_entry import Entry, Found
from heavy.tools.cache_key import Key, Keys
from heavy.tools.cache_server import CacheLimits, CacheServer
from heavy.tools.config import CachePolicy

ATTEMPTS_MAX: Final = 4
"""How often a call takes part in single-flight when those before it end without an answer."""
RENEWALS_PER_LEASE: Final = 3
REFRESHES_MAX: Final = 8
"""Early refreshes under way at once in one process."""


class CachedTool:
    """A tool behind the cache. The operator's policy says for whom and how long; the tool may only narrow it.

    Never cached: tools that do not declare themselves cacheable, writes, and stateful tools whose call
    history nobody kept. `auth` names whose rights the tool uses, so that another's are another key.
    """

    def __init__(
        self, inner: Tool, cache: ToolCache, policy: CachePolicy | None = None, *, auth: str = ""
    ) -> None:
        self._inner = inner
        self._cache = cache
        self._policy = policy or CachePolicy()
        self._auth = auth
        self._digested: ToolSpec | None = None
        self._digest = ""

    @property
    def spec(self) -> ToolSpec:
        """What the tool declares."""
        return self._inner.spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """The result, and in `cache` how it was come by.

        The tool gets the canonical arguments, so that a result depends on nothing its key does not hold.
        """
        text = _canonical(arguments) if self._cacheable(context) else None
        if text is None:
            return await self._inner.call(arguments, context)

        async def execute(left_s: float) -> ToolOutput:
            given = json.loads(text)
            return await self._inner.call(given, replace(context, timeout_s=left_s))

        call = CachedCall(self._key(text, context), self.spec, self._policy, execute)
        return await self._cache.fetch(call, context.timeout_s)

    def _cacheable(self, context: ToolContext) -> bool:
        spec = self.spec
        allowed = self._policy.scope != "off" and spec.cacheable and spec.effects is not Effects.WRITE
        return allowed and (not spec.stateful or context.history is not None)

    def _key(self, arguments: str, context: ToolContext) -> Key:
        spec = self.spec
        if spec is not self._digested:  # a tool may change what it declares
            self._digested, self._digest = spec, cache_key.tool_digest(spec)
            self._cache.counts.tool(spec.name, f"{self._digest} {self._policy.scope} {self._auth}")
        scope = cache_key.scope_of(self._policy.scope, tenant=context.tenant, run=context.run)
        history = cache_key.chained(context.history or (), context.files) if spec.stateful else ""
        return self._cache.keys.key(spec.name, self._digest, scope, self._auth, arguments, history)


@dataclass(eq=False, slots=True)
class _Flight:
    """One execution under way, or wait for one elsewhere, and how many wait for it here."""

    task: asyncio.Task[Entry]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Times:
    """Monotonic times of a call: until when it may wait for another's execution, and when it is over."""

    wait_until_s: float
    deadline_s: float

    @classmethod
    def within(cls, timeout_s: float, wait_share: float) -> _Times:
        now_s = monotonic_s()
        return cls(now_s + timeout_s * wait_share, now_s + timeout_s)

    def left_s(self) -> float:
        return max(0.0, self.deadline_s - monotonic_s())

    def wait_s(self) -> float:
        return max(0.0, self.wait_until_s - monotonic_s())


class ToolCache:
    """Stored results and single flights. `connect` makes one."""

    def __init__(self, server: CacheServer, keys: Keys) -> None:
        self.keys = keys
        self.counts = Counts(server.count)
        self._server = server
        self._flights: dict[str, _Flight] = {}
        self._refreshes: dict[str, asyncio.Task[None]] = {}

    @classmethod
    async def connect(cls, url: str, secret: bytes, limits: CacheLimits | None = None) -> ToolCache:
        """Connect to the Redis or Valkey at `url`. One that does not answer is no error: tools run uncached.

        Raises `ConfigError` for a URL that cannot be read or an empty secret.
        """
        if not secret:
            raise ConfigError(
                "The tool cache needs a secret to key its entries with; set HEAVY_CACHE_SECRET."
            )
        keys = Keys(secret)
        return cls(CacheServer(url, limits or CacheLimits(), keys), keys)

    async def fetch(self, call: CachedCall, timeout_s: float) -> ToolOutput:
        """The result of a call: stored, from a flight, or executed. Raises only what its `execute` does."""
        entry = await self._entry(call, _Times.within(timeout_s, self._server.limits.wait_share))
        self.counts.add(call.tool.name, entry.output.cache, entry.cost_s)
        return entry.output

    async def close(self) -> None:
        """End what is under way and close the connections; safe to call twice."""
        tasks = [*(flight.task for flight in self._flights.values()), *self._refreshes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.counts.close()
        await self._server.close()

    async def _entry(self, call: CachedCall, times: _Times) -> Entry:
        key = call.key.name
        for _ in range(ATTEMPTS_MAX):
            flight, found = self._flights.get(key), None
            if flight is None:
                found = await self._server.get(call.key)
                if (entry := fresh(found)) is not None:
                    if call.policy.early_refresh and entry.due(clock.now_ms()):
                        self._refresh(call, found)
                    return _as(entry, CacheState.HIT)
                flight = self._flights.get(key)
            if flight is None:
                flight = self._depart(call, found, times)
                await self._join(flight, key, None)
                return flight.task.result()
            await self._join(flight, key, times.wait_s())
            if (shared := _shared(flight)) is not None:
                return shared
            if not times.wait_s():
                break
        return await self._alone(call, times)

    def _depart(self, call: CachedCall, found: Found | None, times: _Times) -> _Flight:
        task = asyncio.create_task(self._fly(call, found, times))
        flight = self._flights[call.key.name] = _Flight(task)
        task.add_done_callback(lambda _: self._land(call.key.name, flight))
        return flight

    def _land(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.task.cancelled():
            flight.task.exception()  # seen, whether or not anybody still waits

    async def _join(self, flight: _Flight, key: str, wait_s: float | None) -> None:
        """Wait for a flight to end, at most `wait_s`. Whoever leaves it last ends it."""
        flight.waiting += 1
        try:
            await asyncio.wait({flight.task}, timeout=wait_s)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._land_early(key, flight)
                await asyncio.wait({flight.task})

    def _land_early(self, key: str, flight: _Flight) -> None:
        """Cancel a flight; nobody can join it any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.task.cancel()

    async def _fly(self, call: CachedCall, found: Found | None, times: _Times) -> Entry:
        """A call's result in the end: got, or in place of a failure a stale one where that is allowed."""
        stale = call.stale(found)
        if stale is None:
            return await self._got(call, found, times)
        try:
            async with asyncio.timeout(
                times.left_s()
            ):  # before the toolset's own, which would end all of this
                entry = await self._got(call, found, times)
        except Exception:
            return labelled(stale)
        return labelled(stale) if may_pass(entry.output) else entry

    async def _got(self, call: CachedCall, found: Found | None, times: _Times) -> Entry:
        """Claim the call and execute it, or wait for whoever has it; alone when that leads nowhere."""
        known = found.version if found else ""
        for _ in range(ATTEMPTS_MAX):
            claim = await self._server.claim(call.key, known)
            if claim is None:
                break
            if claim.token:
                return await self._execute(call, claim.token, times.deadline_s)
            if claim.found is not None:
                known = claim.found.version
                if (entry := fresh(claim.found)) is not None:
                    return _as(entry, CacheState.HIT)
                continue
            if not times.wait_s():
                break
            waited = await self._server.wait(call.key, known, times.wait_s())
            if waited is not None and waited.entry is not None:
                return _as(waited.entry, CacheState.COALESCED)
        return await self._alone(call, times)

    async def _execute(self, call: CachedCall, token: str, deadline_s: float) -> Entry:
        """Execute under the lease, and let go of it however that ends."""
        heart = asyncio.create_task(self._keep(call.key, token))
        started_s = monotonic_s()
        entry: Entry | None = None
        keep_s = 0.0
        try:
            output = await call.execute(max(0.0, deadline_s - started_s))
            fresh_s, keep_s = call.keep_s(output, self._server.limits.ttl_s)
            entry = cache_entry.made(
                output, monotonic_s() - started_s, fresh_s or self._server.limits.lease_s
            )
            return _as(entry, CacheState.MISS)
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            told = (
                entry if entry is not None and entry.output.storable and not may_pass(entry.output) else None
            )
            await self._server.settle(call.key, token, told, keep_s)

    async def _keep(self, key: Key, token: str) -> None:
        """Renew the lease until it is lost. Nothing breaks when it is: the result is not stored."""
        while True:
            await asyncio.sleep(self._server.limits.lease_s / RENEWALS_PER_LEASE)
            if await self._server.renew(key, token) is False:
                return

    async def _alone(self, call: CachedCall, times: _Times) -> Entry:
        """Execute without the cache: nobody shares the result."""
        started_s = monotonic_s()
        output = await call.execute(times.left_s())
        return _as(cache_entry.made(output, monotonic_s() - started_s, 0.0), CacheState.BYPASS)

    def _refresh(self, call: CachedCall, found: Found | None) -> None:
        """Fetch a hot entry anew before its time is up, beside its readers; never what keeps a state."""
        key = call.key.name
        if call.tool.stateful or key in self._refreshes or len(self._refreshes) >= REFRESHES_MAX:
            return
        task = self._refreshes[key] = asyncio.create_task(
            self._refreshed(call, found.version if found else "")
        )
        task.add_done_callback(lambda _: self._refreshes.pop(key, None))

    async def _refreshed(self, call: CachedCall, known: str) -> None:
        """One refresh. Whatever goes wrong, the entry that is there stays."""
        claim = await self._server.claim(call.key, known)
        if claim is None or not claim.token:
            return
        try:
            deadline_s = monotonic_s() + call.tool.timeout_s
            async with asyncio.timeout(call.tool.timeout_s):
                entry = await self._execute(call, claim.token, deadline_s)
        except Exception:
            return
        self.counts.add_refresh(call.tool.name, failed=entry.output.is_error)


def _canonical(arguments: Mapping[str, Any]) -> str | None:
    """Canonical arguments; None for those nested too deeply to compare, which are not cached."""
    try:
        return cache_key.canonical(arguments)
    except RecursionError:
        return None


def _as(entry: Entry, state: CacheState) -> Entry:
    if entry.output.cache is state:
        return entry
    return replace(entry, output=replace(entry.output, cache=state))


def _shared(flight: _Flight) -> Entry | None:
    """A flight's result as an answer for those who joined it; None when it is none for them."""
    task = flight.task
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    entry = task.result()
    if may_pass(entry.output) or not entry.output.storable:
        return None
    given = entry.output.cache in (CacheState.HIT, CacheState.STALE)
    return entry if given else _as(entry, CacheState.COALESCED)
