"""What the tool cache costs and saves, and what happens to a run when its server fails in the middle.

The predictions are in docs/measurements/tool-cache.md, written down before the first measurement, with what
was found. `HEAVY_BENCH_RECORDING` names a recording (`heavy record`) to play instead of the made-up workload.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio

from heavy.core.ids import RunId, arm
from heavy.core.tools import CacheState, ToolContext, ToolOutput, ToolSpec
from heavy.store.embedded import EmbeddedValkey
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.cache_server import PREFIX
from heavy.tools.recording import RecordedCall, Recording, load_recording
from heavy.tools.sandbox.sandbox import Sandbox

from tests_support.proxy import LossyProxy

ROUND: Final = 15
ROUNDS: Final = 200
STARTS: Final = 25
"""The best of them counts, as of the rounds: the rest is what else the machine was doing."""
CONTEXT: Final = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "functions.look:0", 30.0)
SPEC: Final = tool_spec("look", cacheable=True)
ARGUMENTS: Final = {"code": "print(sum(range(1000)))\n" * 20}

PROCESSES: Final = 4
ARMS: Final = 8
QUERIES: Final = 50
CALL_S: Final = 0.02

DISTINCT: Final = 120
CALLS_PER_ARM: Final = 60
SPEED: Final = 20.0
"""The workload is played so many times as fast as it was recorded."""


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
    (key,) = await client.keys(f"{PREFIX}*:value")
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


class Timed:
    """A tool that takes `CALL_S`, or as long as a table says, and counts what it was made to do."""

    def __init__(self, takes_s: dict[str, float] | None = None, spec: ToolSpec = SPEC) -> None:
        self.spec = spec
        self.executed = 0
        self._takes_s = takes_s

    async def call(self, arguments: Any, context: ToolContext) -> ToolOutput:
        """Take the time."""
        self.executed += 1
        await asyncio.sleep(CALL_S if self._takes_s is None else self._takes_s[arguments["q"]] / SPEED)
        return ToolOutput(f"result of {arguments['q']}\n" * 20)


def _context(index: int) -> ToolContext:
    return ToolContext(RunId("run-1"), arm(index), 0, "tenant", f"look:{index}", 60.0)


async def _arms(url: str, first: int, count: int, queries: int) -> None:
    """One process's part of the run of `_once`: its arms, all asking everything."""
    cache, tool = await ToolCache.connect(url, b"bench"), Timed()
    cached = CachedTool(tool, cache)

    async def one(index: int) -> list[str]:
        calls = ({"q": q} for q in range(queries))
        return [(await cached.call(call, _context(index))).cache.value for call in calls]

    states = await asyncio.gather(*(one(index) for index in range(first, first + count)))
    print(json.dumps({"executed": tool.executed, "states": [s for part in states for s in part]}))
    await cache.close()


def process(url: str, first: str, count: str, queries: str) -> None:
    """The entry point of one of the processes of `_once`."""
    asyncio.run(_arms(url, int(first), int(count), int(queries)))


def _once(url: str) -> None:
    """Eight arms in four processes ask the same fifty things."""
    each = ARMS // PROCESSES
    code = "import sys; from tests.bench import bench_tool_cache as bench; bench.process(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "tests/support"])}
    started_s = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, str(n * each), str(each), str(QUERIES)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for n in range(PROCESSES)
    ]
    said = [json.loads(process.communicate()[0]) for process in running]
    executed = sum(one["executed"] for one in said)
    bypassed = sum(one["states"].count(CacheState.BYPASS.value) for one in said)
    print(
        f"{ARMS} x {QUERIES} identical calls in {PROCESSES} processes: {executed} executions, "
        f"{bypassed} without the cache, {time.perf_counter() - started_s:.1f} s with the processes' start"
    )


def _workload() -> Recording:
    """Eight arms of sixty calls out of 120, some far more popular than others, each with its own time."""
    if file := os.environ.get("HEAVY_BENCH_RECORDING"):
        return load_recording(file)
    rng = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(DISTINCT)]
    takes_s = [rng.uniform(0.3, 3.0) for _ in range(DISTINCT)]
    calls = []
    for index in range(ARMS):
        for step, q in enumerate(rng.choices(range(DISTINCT), weights, k=CALLS_PER_ARM)):
            arguments = json.dumps({"q": q})
            calls.append(
                RecordedCall(
                    "look",
                    arguments,
                    arm(index),
                    step,
                    "read",
                    "found\n" * 50,
                    False,
                    False,
                    "miss",
                    takes_s[q],
                )
            )
    return Recording("made-up", tuple(calls))


@dataclass(frozen=True, slots=True)
class Played:
    """What became of a workload."""

    wall_s: float
    executed: int
    states: dict[str, int]
    saved_s: float
    worst_s: float
    """The most that one call took beyond its own execution."""


async def _play(recording: Recording, url: str, event: Callable[[], Awaitable[None]] | None = None) -> Played:
    """Play a workload through the cache; `event` happens when a third of the calls have been made."""
    takes = _executions_s(recording)
    cache, tool = await ToolCache.connect(url, b"bench"), Timed(takes)
    cached = CachedTool(tool, cache)
    states: dict[str, int] = {}
    made, saved_s, worst_s = 0, 0.0, 0.0
    by_arm: dict[str, list[RecordedCall]] = {}
    for call in recording.calls:
        by_arm.setdefault(call.trajectory, []).append(call)

    async def one(index: int, calls: list[RecordedCall]) -> None:
        nonlocal made, saved_s, worst_s
        for call in calls:
            asked = f"{call.tool} {call.arguments}"
            started_s = time.perf_counter()
            output = await cached.call({"q": asked}, _context(index))
            beyond_s = time.perf_counter() - started_s - takes[asked] / SPEED
            worst_s = max(worst_s, beyond_s)
            states[output.cache.value] = states.get(output.cache.value, 0) + 1
            if output.cache in (CacheState.HIT, CacheState.COALESCED):
                saved_s += takes[asked]
            made += 1
            if made == len(recording.calls) // 3 and event is not None:
                await event()

    started_s = time.perf_counter()
    await asyncio.gather(*(one(index, calls) for index, calls in enumerate(by_arm.values())))
    wall_s = time.perf_counter() - started_s
    await cache.close()
    return Played(wall_s, tool.executed, states, saved_s, worst_s)


def _executions_s(recording: Recording) -> dict[str, float]:
    """How long each distinct call takes to execute: as it did, not as long as others waited for it."""
    takes: dict[str, float] = {}
    for call in recording.calls:
        asked = f"{call.tool} {call.arguments}"
        if call.cache in ("miss", "bypass") or asked not in takes:
            takes[asked] = call.duration_s
    return takes


async def _workloads(folder: Path) -> None:
    recording = _workload()
    takes = _executions_s(recording)
    total_s = sum(takes[f"{call.tool} {call.arguments}"] for call in recording.calls)
    distinct = len({(call.tool, call.arguments) for call in recording.calls})
    print(
        f"workload {recording.run}: {len(recording.calls)} calls, {distinct} distinct, {total_s:.0f} s in all"
    )
    nobody = await _play(recording, f"unix://{folder}/nobody.sock")
    for name in ("healthy", "killed", "frozen", "slow", "flushed"):
        async with AsyncExitStack() as stack:
            place = folder / name
            server = EmbeddedValkey(place, role="cache", memory_mb=64)
            url = server.start()
            proxy = await stack.enter_async_context(LossyProxy(url, place))
            stack.push_async_callback(asyncio.sleep, 0.1)  # the proxy sees that the server is gone
            stack.callback(server.stop)
            stack.callback(_thaw, server)
            played = await _play(recording, proxy.url, _event(name, server, proxy, url))
        share = 1 - played.executed / len(recording.calls)
        print(
            f"{name:<8} not executed {share:.0%}, saved {played.saved_s:.0f} s of {total_s:.0f}; "
            f"wall / uncached {played.wall_s / nobody.wall_s:.2f}; "
            f"worst call + {played.worst_s:.2f} s; {played.executed} executed; {played.states}"
        )


def _event(
    name: str, server: EmbeddedValkey, proxy: LossyProxy, url: str
) -> Callable[[], Awaitable[None]] | None:
    """What happens to the server in the middle."""

    async def killed() -> None:
        os.kill(server.pid, signal.SIGKILL)

    async def frozen() -> None:
        os.kill(server.pid, signal.SIGSTOP)

    async def slow() -> None:
        proxy.delay_s = 0.4

    async def flushed() -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            await client.flushall()

    return {"killed": killed, "frozen": frozen, "slow": slow, "flushed": flushed}.get(name)


def _thaw(server: EmbeddedValkey) -> None:
    try:
        os.kill(server.pid, signal.SIGCONT)
    except (ProcessLookupError, AssertionError):
        return


async def _rest(folder: Path) -> None:
    await _workloads(folder)
    await _starts()


def main() -> None:
    """Print everything; takes about half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder) / "main", role="cache", memory_mb=64)
        url = server.start()
        try:
            asyncio.run(_hits(url))
            _once(url)
            asyncio.run(_rest(Path(folder)))
        finally:
            server.stop()
