"""What several trajectories ask of a cacheable tool is executed once, in this process and over all of them.

A call looks for a stored result; then for the same call under way in this process (a flight) and joins it;
else it starts the flight, which takes the lease in Redis and executes, or waits for the process that holds
it. The flight is nobody's: it lives as long as somebody waits for it. Without Redis the flights remain and
everything else is as without a cache.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from heavy.core.clock import monotonic_s
from heavy.core.errors import ConfigError
from heavy.core.tools import CacheState, ToolContext, ToolOutput, ToolSpec
from heavy.tools import cache_key
from heavy.tools.api import Tool
from heavy.tools.cache_server import CacheLimits, CacheServer

Execute = Callable[[float], Awaitable[ToolOutput]]
"""Runs the tool within the seconds given."""

WAIT_SHARE: Final = 0.5
"""The part of a call's time it may spend waiting for another's result; the rest is to run it alone."""
ATTEMPTS_MAX: Final = 4
"""How often a call takes part in single-flight when those before it end without an answer."""
RENEWALS_PER_LEASE: Final = 3


class CachedTool:
    """A tool behind the cache. Only `spec.cacheable` ones are cached; results stay within a tenant."""

    def __init__(self, inner: Tool, cache: ToolCache) -> None:
        self._inner = inner
        self._cache = cache
        self._digest = cache_key.tool_digest(inner.spec)

    @property
    def spec(self) -> ToolSpec:
        """What the tool declares."""
        return self._inner.spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """The result, and in `cache` how it was come by.

        The tool gets the canonical arguments, so that a result depends on nothing its key does not hold.
        """
        if not self.spec.cacheable:
            return await self._inner.call(arguments, context)
        text = cache_key.canonical(arguments)

        async def execute(left_s: float) -> ToolOutput:
            given = json.loads(text)
            return await self._inner.call(given, replace(context, timeout_s=left_s))

        key = self._cache.key(context.tenant, self._digest, text)
        return await self._cache.fetch(key, execute, context.timeout_s)


@dataclass(eq=False, slots=True)
class _Flight:
    """One execution under way, or wait for one elsewhere, and how many wait for it here."""

    task: asyncio.Task[ToolOutput]
    waiting: int = 0


class ToolCache:
    """Stored results and single flights. `connect` makes one."""

    def __init__(self, server: CacheServer, secret: bytes) -> None:
        self._server = server
        self._secret = secret
        self._flights: dict[str, _Flight] = {}

    @classmethod
    async def connect(cls, url: str, secret: bytes, limits: CacheLimits | None = None) -> ToolCache:
        """Connect to the Redis or Valkey at `url`. One that does not answer is no error: tools run uncached.

        Raises `ConfigError` for a URL that cannot be read or an empty secret.
        """
        if not secret:
            raise ConfigError(
                "The tool cache needs a secret to key its entries with; set HEAVY_CACHE_SECRET."
            )
        return cls(CacheServer(url, limits or CacheLimits()), secret)

    def key(self, scope: str, tool: str, arguments: str) -> str:
        """The key of a call of `tool` (its digest) with canonical arguments, within `scope`."""
        return cache_key.key(self._secret, scope, tool, arguments)

    async def fetch(self, key: str, execute: Execute, timeout_s: float) -> ToolOutput:
        """The result under `key`: stored, from a flight, or executed. Raises only what `execute` does."""
        deadline_s = monotonic_s() + timeout_s
        wait_until_s = monotonic_s() + timeout_s * WAIT_SHARE
        for _ in range(ATTEMPTS_MAX):
            flight = self._flights.get(key)
            if flight is None and (stored := await self._server.get(key)) is not None:
                return replace(stored, cache=CacheState.HIT)
            flight = self._flights.get(key)
            if flight is None:
                flight = self._depart(key, execute, wait_until_s, deadline_s)
                await self._join(flight, key, None)
                return flight.task.result()
            await self._join(flight, key, max(0.0, wait_until_s - monotonic_s()))
            if (shared := _shared(flight)) is not None:
                return shared
            if monotonic_s() >= wait_until_s:
                break
        return await _alone(execute, deadline_s)

    async def close(self) -> None:
        """End what is under way and close the connections; safe to call twice."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.close()

    def _depart(self, key: str, execute: Execute, wait_until_s: float, deadline_s: float) -> _Flight:
        task = asyncio.create_task(self._fly(key, execute, wait_until_s, deadline_s))
        flight = self._flights[key] = _Flight(task)
        task.add_done_callback(lambda _: self._land(key, flight))
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

    async def _fly(self, key: str, execute: Execute, wait_until_s: float, deadline_s: float) -> ToolOutput:
        """Claim the call and execute it, or wait for whoever has it; alone when that leads nowhere."""
        for _ in range(ATTEMPTS_MAX):
            claim = await self._server.claim(key)
            if claim is None:
                break
            if claim.output is not None:
                return replace(claim.output, cache=CacheState.HIT)
            if claim.token:
                return await self._execute(key, claim.token, execute, deadline_s)
            left_s = wait_until_s - monotonic_s()
            if left_s <= 0:
                break
            output = await self._server.wait(key, left_s)
            if output is not None:
                return replace(output, cache=CacheState.COALESCED)
        return await _alone(execute, deadline_s)

    async def _execute(self, key: str, token: str, execute: Execute, deadline_s: float) -> ToolOutput:
        """Execute under the lease, and let go of it however that ends."""
        heart = asyncio.create_task(self._keep(key, token))
        output: ToolOutput | None = None
        try:
            output = await execute(max(0.0, deadline_s - monotonic_s()))
            return replace(output, cache=CacheState.MISS)
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            await self._server.settle(key, token, output)

    async def _keep(self, key: str, token: str) -> None:
        """Renew the lease until it is lost. Nothing breaks when it is: the result is not stored."""
        while True:
            await asyncio.sleep(self._server.limits.lease_s / RENEWALS_PER_LEASE)
            if not await self._server.renew(key, token):
                return


def _shared(flight: _Flight) -> ToolOutput | None:
    """A flight's result as an answer for those who joined it; None when it is none for them."""
    task = flight.task
    if not task.done() or task.cancelled() or task.exception() is not None:
        return None
    output = task.result()
    if output.is_error and not output.deterministic:
        return None
    return output if output.cache is CacheState.HIT else replace(output, cache=CacheState.COALESCED)


async def _alone(execute: Execute, deadline_s: float) -> ToolOutput:
    output = await execute(max(0.0, deadline_s - monotonic_s()))
    return replace(output, cache=CacheState.BYPASS)
