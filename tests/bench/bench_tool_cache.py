"""What a cached tool call and a sandboxed one cost, as ratios to the least they could cost.

Predicted before the first measurement: a hit through `CachedTool` takes 1.5 times a bare Redis GET of the
same value by the same client (one GET, one HMAC, one small decompression, one timer); a sandboxed
`print(1)` takes 2.5 times a bare `python -I -S -c pass` (the mounts and namespaces cost about as much as
starting python, and the standard library lies on more mounts).
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import redis.asyncio

from heavy.core.ids import RunId, arm
from heavy.core.tools import ToolContext
from heavy.store.embedded import EmbeddedValkey
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.cache_server import PREFIX
from heavy.tools.sandbox.sandbox import Sandbox

ROUND: Final = 200
ROUNDS: Final = 8
STARTS: Final = 25
"""The best of them counts, as of the rounds: the rest is what else the machine was doing."""
CONTEXT: Final = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "functions.look:0", 30.0)
SPEC: Final = tool_spec("look", cacheable=True)
ARGUMENTS: Final = {"code": "print(sum(range(1000)))\n" * 20}


async def _each_s(operation: Callable[[], Awaitable[object]], times: int) -> float:
    """Median seconds of one operation."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await operation()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def _hits(url: str) -> None:
    cache = await ToolCache.connect(url, b"bench")
    cached = CachedTool(ScriptedTool(SPEC, ["499500\n" * 20]), cache)
    await cached.call(ARGUMENTS, CONTEXT)
    client: Any = redis.asyncio.Redis.from_url(url, protocol=2)
    (key,) = await client.keys(PREFIX + "*")
    pairs = []
    for _ in range(ROUNDS):  # interleaved: whatever else the machine does falls on both
        bare_s = await _each_s(lambda: client.get(key), ROUND)
        hit_s = await _each_s(lambda: cached.call(ARGUMENTS, CONTEXT), ROUND)
        pairs.append((bare_s, hit_s))
    bare_s, hit_s = (min(column) for column in zip(*pairs, strict=True))
    print(
        f"hit / bare GET: {hit_s / bare_s:.2f} (aim 1.5); {hit_s * 1e6:.0f} us against {bare_s * 1e6:.0f} us"
    )
    await client.aclose()
    await cache.close()


async def _bare_python() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", "pass")
    await process.wait()


async def _starts() -> None:
    sandbox = Sandbox()
    await sandbox.probe()
    pairs = []
    for _ in range(STARTS):
        bare_s = await _each_s(_bare_python, 1)
        pairs.append((bare_s, await _each_s(lambda: sandbox.run("print(1)", timeout_s=30.0), 1)))
    bare_s, boxed_s = (min(column) for column in zip(*pairs, strict=True))
    print(
        f"sandbox / bare python: {boxed_s / bare_s:.2f}; {boxed_s * 1e3:.1f} ms against {bare_s * 1e3:.1f} ms"
    )


async def _all(url: str) -> None:
    await _hits(url)
    await _starts()


def main() -> None:
    """Print both ratios; takes a few seconds."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder), role="cache", memory_mb=64)
        url = server.start()
        try:
            asyncio.run(_all(url))
        finally:
            server.stop()
