"""Executed once, by however many asked, whatever happens to the cache and to whoever was executing."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import zstandard

from heavy.core.ids import RunId, arm
from heavy.core.tools import CacheState, ToolContext, ToolOutput
from heavy.testing.tools import FailingTool, ScriptedTool, SlowTool, tool_spec
from heavy.tools import cache_key
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.cache_breaker import BreakerLimits
from heavy.tools.cache_entry import HEADER_BYTES
from heavy.tools.cache_server import CacheLimits, value_key

from tests_support.proxy import LossyProxy
from tests_support.waiting import until as waited

SECRET = b"a secret of this test"
PATIENT = CacheLimits(command_s=5.0, lease_s=5.0, breaker=BreakerLimits(slow_s=5.0))
"""A busy machine must not look like a broken server."""
SPEC = tool_spec("look", cacheable=True)

ASKER = """
import asyncio, json, sys
from pathlib import Path
from heavy.core.ids import RunId, arm
from heavy.core.tools import ToolContext, ToolOutput
from heavy.testing.tools import tool_spec
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.cache_breaker import BreakerLimits
from heavy.tools.cache_server import CacheLimits

url, folder, mode = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

class Recorder:
    spec = tool_spec("look", cacheable=True)
    async def call(self, arguments, context):
        with (folder / "executions").open("a") as log:
            log.write(str(arguments["q"]))
        while not (folder / "release").exists() or mode == "hang":
            await asyncio.sleep(0.01)
        return ToolOutput("found it")

async def main():
    limits = CacheLimits(command_s=5.0, lease_s=float(sys.argv[4]), breaker=BreakerLimits(slow_s=5.0))
    cache = await ToolCache.connect(url, b"a secret of this test", limits)
    (folder / f"ready-{sys.argv[5]}").touch()
    while not (folder / "go").exists():
        await asyncio.sleep(0.005)
    context = ToolContext(RunId("run-1"), arm(0), 0, "t", "c", 60.0)
    tool = CachedTool(Recorder(), cache)
    calls = [tool.call({"q": q}, context) for q in range(int(sys.argv[6])) for _ in range(2)]
    outputs = await asyncio.gather(*calls)
    print(json.dumps([[output.content, output.cache] for output in outputs]))
    await cache.close()

asyncio.run(main())
"""


def context(timeout_s: float = 20.0, tenant: str = "tenant") -> ToolContext:
    return ToolContext(RunId("run-1"), arm(0), 0, tenant, "functions.look:0", timeout_s)


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def cache(valkey: Any) -> AsyncIterator[ToolCache]:
    cache = await ToolCache.connect(valkey.url, SECRET, PATIENT)
    yield cache
    await cache.close()


@pytest.fixture
async def other(valkey: Any) -> AsyncIterator[ToolCache]:
    """The same cache as another process would see it: no flights in common."""
    cache = await ToolCache.connect(valkey.url, SECRET, PATIENT)
    yield cache
    await cache.close()


async def test_a_second_call_is_a_hit_however_its_arguments_are_written(cache: ToolCache) -> None:
    tool = ScriptedTool(SPEC, [ToolOutput("found", meta={"a": "b"})])
    cached = CachedTool(tool, cache)
    first = await cached.call({"x": 1, "y": "é"}, context())
    second = await cached.call({"y": "é", "x": 1.0}, context())
    assert (first.cache, second.cache) == (CacheState.MISS, CacheState.HIT)
    assert (second.content, second.meta) == ("found", {"a": "b"})
    assert len(tool.calls) == 1


async def test_tenants_and_uncacheable_tools_share_nothing(cache: ToolCache) -> None:
    tool, plain = ScriptedTool(SPEC), ScriptedTool(tool_spec("plain"))
    for tenant in ("one", "two"):
        output = await CachedTool(tool, cache).call({}, context(tenant=tenant))
        assert output.cache is CacheState.MISS
        output = await CachedTool(plain, cache).call({}, context(tenant=tenant))
        assert output.cache is CacheState.BYPASS
    assert (len(tool.calls), len(plain.calls)) == (2, 2)


async def test_nothing_readable_and_nothing_eternal_is_stored(cache: ToolCache, valkey: Any) -> None:
    await CachedTool(ScriptedTool(SPEC, ["an answer"]), cache).call({"password": "s3cret"}, context())
    client: Any = redis.asyncio.Redis.from_url(valkey.url, protocol=2)
    try:
        keys = await client.keys("*")
        assert len(keys) == 1
        assert b"s3cret" not in keys[0]
        assert b"tenant" not in keys[0]
        assert 0 < await client.pttl(keys[0]) <= PATIENT.ttl_s * 1000
    finally:
        await client.aclose()


@pytest.mark.parametrize("deterministic", [True, False])
async def test_errors_are_never_stored(cache: ToolCache, deterministic: bool) -> None:
    tool = ScriptedTool(SPEC, [ToolOutput("no", is_error=True, deterministic=deterministic), "yes"])
    cached = CachedTool(tool, cache)
    assert (await cached.call({}, context())).is_error
    assert (await cached.call({}, context())).content == "yes"
    with pytest.raises(RuntimeError):
        await CachedTool(FailingTool(SPEC, RuntimeError("no")), cache).call({"x": 2}, context())


async def test_calls_in_flight_in_one_process_are_one_execution(cache: ToolCache) -> None:
    tool = SlowTool(SPEC)
    calls = [asyncio.create_task(CachedTool(tool, cache).call({}, context())) for _ in range(8)]
    await tool.started.wait()
    tool.release.set()
    states = sorted(output.cache for output in await asyncio.gather(*calls))
    assert states == [CacheState.COALESCED] * 7 + [CacheState.MISS]
    assert len(tool.calls) == 1


async def test_a_call_in_flight_elsewhere_is_waited_for(cache: ToolCache, other: ToolCache) -> None:
    tool, never = SlowTool(SPEC, ["found"]), ScriptedTool(SPEC)
    first = asyncio.create_task(CachedTool(tool, cache).call({}, context()))
    await tool.started.wait()
    second = asyncio.create_task(CachedTool(never, other).call({}, context()))
    await _someone_waits(other)
    tool.release.set()
    output = await second
    assert (output.content, output.cache) == ("found", CacheState.COALESCED)
    assert (await first).cache is CacheState.MISS
    assert never.calls == []


async def _someone_waits(cache: ToolCache) -> None:
    """Until `cache` has subscribed to the news of another process's execution."""
    pool = cache._server._watchers.connection_pool
    await until(lambda: bool(pool._in_use_connections if hasattr(pool, "_in_use_connections") else True))


async def test_a_failure_that_may_pass_is_not_an_answer_for_those_who_wait(
    cache: ToolCache, other: ToolCache
) -> None:
    flaky = SlowTool(SPEC, [ToolOutput("timed out", is_error=True, deterministic=False)])
    steady, remote = ScriptedTool(SPEC, ["steady"]), ScriptedTool(SPEC, ["steady"])
    first = asyncio.create_task(CachedTool(flaky, cache).call({}, context()))
    await flaky.started.wait()
    second = asyncio.create_task(CachedTool(steady, cache).call({}, context()))
    third = asyncio.create_task(CachedTool(remote, other).call({}, context()))
    await _someone_waits(other)
    flaky.release.set()
    assert (await first).is_error
    assert (await second).content == "steady"
    assert (await third).content == "steady"
    assert len(steady.calls) + len(remote.calls) == 1


async def test_a_failure_that_would_come_again_is_told_to_those_who_wait(
    cache: ToolCache, other: ToolCache
) -> None:
    tool, never = SlowTool(SPEC, [ToolOutput("bad code", is_error=True)]), ScriptedTool(SPEC)
    first = asyncio.create_task(CachedTool(tool, cache).call({}, context()))
    await tool.started.wait()
    second = asyncio.create_task(CachedTool(never, cache).call({}, context()))
    third = asyncio.create_task(CachedTool(never, other).call({}, context()))
    await _someone_waits(other)
    tool.release.set()
    outputs = await asyncio.gather(first, second, third)
    assert [output.content for output in outputs] == ["bad code"] * 3
    assert never.calls == []


async def test_cancelling_one_who_waits_or_who_began_does_not_cancel_the_others(cache: ToolCache) -> None:
    tool = SlowTool(SPEC, ["found"])
    calls = [asyncio.create_task(CachedTool(tool, cache).call({}, context())) for _ in range(3)]
    await tool.started.wait()
    for leaving in calls[:2]:
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    tool.release.set()
    assert (await calls[2]).content == "found"
    assert tool.cancelled == 0


async def test_when_the_last_one_leaves_the_execution_ends_and_the_next_caller_starts_anew(
    cache: ToolCache, other: ToolCache
) -> None:
    tool, next_tool = SlowTool(SPEC), ScriptedTool(SPEC, ["anew"])
    calls = [asyncio.create_task(CachedTool(tool, cache).call({}, context())) for _ in range(2)]
    await tool.started.wait()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert tool.cancelled == 1
    assert cache._flights == {}
    output = await CachedTool(next_tool, other).call({}, context())
    assert (output.content, output.cache) == ("anew", CacheState.MISS)


async def test_who_has_waited_long_enough_runs_alone(cache: ToolCache, other: ToolCache) -> None:
    stuck = SlowTool(SPEC)
    first = asyncio.create_task(CachedTool(stuck, cache).call({}, context(60.0)))
    await stuck.started.wait()
    for impatient in (cache, other):
        mine = ScriptedTool(SPEC, ["mine"])
        output = await CachedTool(mine, impatient).call({}, context(1.0))
        assert (output.content, output.cache) == ("mine", CacheState.BYPASS)
        assert mine.calls[0][1].timeout_s <= 0.6
    stuck.release.set()
    assert (await first).cache is CacheState.MISS


async def test_a_long_execution_keeps_its_lease(valkey: Any) -> None:
    short = CacheLimits(command_s=5.0, lease_s=0.4, breaker=BreakerLimits(slow_s=5.0))
    caches = [await ToolCache.connect(valkey.url, SECRET, short) for _ in range(2)]
    tool, never = SlowTool(SPEC, ["found"]), ScriptedTool(SPEC)
    first = asyncio.create_task(CachedTool(tool, caches[0]).call({}, context()))
    await tool.started.wait()
    second = asyncio.create_task(CachedTool(never, caches[1]).call({}, context()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await asyncio.shield(second)
    tool.release.set()
    assert (await second).content == "found"
    assert never.calls == []
    await first
    for cache in caches:
        await cache.close()


async def test_a_result_is_not_stored_once_the_lease_is_lost(cache: ToolCache, valkey: Any) -> None:
    tool = SlowTool(SPEC, ["late"])
    call = asyncio.create_task(CachedTool(tool, cache).call({}, context()))
    await tool.started.wait()
    client: Any = redis.asyncio.Redis.from_url(valkey.url, protocol=2)
    try:
        await client.flushall()
        tool.release.set()
        assert (await call).content == "late"
        assert await client.keys("*") == []
    finally:
        await client.aclose()


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\x78\x9c\x03\x00", "bomb"])
async def test_a_stored_value_that_cannot_be_read_is_a_miss(
    cache: ToolCache, valkey: Any, rubbish: bytes | str
) -> None:
    bomb = zstandard.ZstdCompressor().compress(b'["' + b"0" * 50_000_000 + b'"]')
    data = b"v" * HEADER_BYTES + b"z" + bomb if rubbish == "bomb" else rubbish
    client: Any = redis.asyncio.Redis.from_url(valkey.url, protocol=2)
    try:
        scope = cache_key.scope_of("tenant", tenant="tenant", run="")
        key = cache.keys.key(SPEC.name, cache_key.tool_digest(SPEC), scope, "", "{}")
        await client.set(value_key(key.name), data)
        output = await CachedTool(ScriptedTool(SPEC, ["fresh"]), cache).call({}, context())
        assert output.content == "fresh"
    finally:
        await client.aclose()


async def _start(
    folder: Path, url: str, name: str, *, mode: str = "wait", lease_s: float = 5.0, queries: int = 1
) -> Any:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ASKER,
        url,
        str(folder),
        mode,
        str(lease_s),
        name,
        str(queries),
        stdout=asyncio.subprocess.PIPE,
    )


async def test_eight_processes_that_ask_the_same_things_twice_execute_each_once(
    valkey: Any, tmp_path: Path
) -> None:
    processes = [await _start(tmp_path, valkey.url, str(n), queries=5) for n in range(8)]
    try:
        await until(lambda: len(list(tmp_path.glob("ready-*"))) == 8, within_s=60)
        (tmp_path / "go").touch()
        await until((tmp_path / "executions").exists)
        (tmp_path / "release").touch()
        async with asyncio.timeout(60):
            said = [json.loads((await process.communicate())[0]) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
    answers = [answer for one in said for answer in one]
    assert {content for content, _ in answers} == {"found it"}
    assert sorted((tmp_path / "executions").read_text()) == ["0", "1", "2", "3", "4"]
    states = [state for _, state in answers]
    assert (len(states), states.count("miss")) == (80, 5)
    assert set(states) <= {"miss", "hit", "coalesced"}


async def test_a_process_killed_while_executing_is_replaced(valkey: Any, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    victim = await _start(tmp_path, valkey.url, "victim", mode="hang", lease_s=1.0)
    heir = None
    try:
        await until((tmp_path / "executions").exists, within_s=60)
        heir = await _start(tmp_path, valkey.url, "heir", lease_s=1.0)
        await until((tmp_path / "ready-heir").exists, within_s=60)
        victim.kill()
        (tmp_path / "release").touch()
        async with asyncio.timeout(30):
            said = json.loads((await heir.communicate())[0])
    finally:
        for process in (victim, heir):
            if process is not None and process.returncode is None:
                process.kill()
        await victim.wait()
    assert sorted(said) == [["found it", "coalesced"], ["found it", "miss"]]
    assert (tmp_path / "executions").read_text() == "00"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_cache_that_dies_or_freezes_in_the_middle_costs_a_little_time_and_nothing_else(
    valkey: Any, number: signal.Signals
) -> None:
    quick = CacheLimits(command_s=0.5, lease_s=5.0, breaker=BreakerLimits(rest_s=60.0))
    caches = [await ToolCache.connect(valkey.url, SECRET, quick) for _ in range(2)]
    slow, remote = SlowTool(SPEC, ["found"]), ScriptedTool(SPEC, ["mine"])
    first = asyncio.create_task(CachedTool(slow, caches[0]).call({}, context()))
    await slow.started.wait()
    second = asyncio.create_task(CachedTool(remote, caches[1]).call({}, context()))
    await _someone_waits(caches[1])
    valkey.signal(number)
    assert (await second).content == "mine"
    slow.release.set()
    assert (await first).content == "found"
    loop = asyncio.get_running_loop()
    for n in range(6):
        tool = ScriptedTool(SPEC, ["still"])
        output = await CachedTool(tool, caches[0]).call({"n": n}, context())
        assert (output.content, output.cache) == ("still", CacheState.BYPASS)
    started = loop.time()
    await CachedTool(ScriptedTool(SPEC), caches[0]).call({"n": "rested"}, context())
    assert loop.time() - started < 0.4  # the breaker is open: nobody waits for a dead server any more
    for cache in caches:
        await cache.close()


async def test_a_slow_cache_is_left_alone_after_a_few_answers_and_asked_again_when_it_is_quick(
    valkey: Any, tmp_path: Path
) -> None:
    limits = CacheLimits(command_s=5.0, breaker=BreakerLimits(slow_s=0.1, rest_s=0.5))
    async with LossyProxy(valkey.url, tmp_path) as proxy:
        cache = await ToolCache.connect(proxy.url, SECRET, limits)
        tool = ScriptedTool(SPEC)
        proxy.delay_s = 0.2
        states = [(await CachedTool(tool, cache).call({"n": n}, context())).cache for n in range(6)]
        assert states[0] is CacheState.MISS
        assert states[-1] is CacheState.BYPASS
        proxy.delay_s = 0.0

        async def again() -> CacheState:
            return (await CachedTool(tool, cache).call({}, context())).cache

        await waited(again, lambda state: state is CacheState.HIT)
        await cache.close()


async def test_a_cache_that_is_flushed_in_the_middle_costs_at_most_one_more_execution(
    cache: ToolCache, other: ToolCache, valkey: Any
) -> None:
    slow, remote = SlowTool(SPEC, ["found"]), ScriptedTool(SPEC, ["found"])
    first = asyncio.create_task(CachedTool(slow, cache).call({}, context()))
    await slow.started.wait()
    second = asyncio.create_task(CachedTool(remote, other).call({}, context()))
    await _someone_waits(other)
    client: Any = redis.asyncio.Redis.from_url(valkey.url, protocol=2)
    await client.flushall()
    await client.script_flush()
    assert (await second).content == "found"
    slow.release.set()
    assert (await first).content == "found"
    assert len(slow.calls) + len(remote.calls) == 2
    assert (await CachedTool(remote, cache).call({}, context())).cache is CacheState.HIT
    await client.aclose()


async def test_no_server_at_all_means_uncached_but_still_one_execution_at_a_time(tmp_path: Path) -> None:
    cache = await ToolCache.connect(f"unix://{tmp_path}/nothing.sock", SECRET)
    tool = SlowTool(SPEC)
    calls = [asyncio.create_task(CachedTool(tool, cache).call({}, context())) for _ in range(4)]
    await tool.started.wait()
    tool.release.set()
    states = sorted(output.cache for output in await asyncio.gather(*calls))
    assert states == [CacheState.BYPASS] + [CacheState.COALESCED] * 3
    assert len(tool.calls) == 1
    await cache.close()


async def test_closing_ends_what_is_under_way(cache: ToolCache) -> None:
    tool = SlowTool(SPEC)
    call = asyncio.create_task(CachedTool(tool, cache).call({}, context()))
    await tool.started.wait()
    await cache.close()
    await asyncio.wait({call})
    assert tool.cancelled == 1
