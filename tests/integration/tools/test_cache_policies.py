"""What the operator's policy makes of a result: for whom, how long, in place of what, and never at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from heavy.core.ids import RunId, arm
from heavy.core.tools import CacheState, Effects, ToolContext, ToolOutput
from heavy.testing.tools import FailingTool, ScriptedTool, SlowTool, tool_spec
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.cache_breaker import BreakerLimits
from heavy.tools.cache_entry import INLINE_BYTES_MAX, Entry
from heavy.tools.cache_server import PREFIX, CacheLimits
from heavy.tools.config import CachePolicy
from heavy.tools.history import Remembering

from tests_support.waiting import until

PATIENT = CacheLimits(command_s=5.0, lease_s=5.0, breaker=BreakerLimits(slow_s=5.0))
SPEC = tool_spec("look", cacheable=True)
FLAKY = ToolOutput("it broke", is_error=True, deterministic=False)
BRIEF_S = 0.05


def context(tenant: str = "tenant", run: str = "run-1", timeout_s: float = 20.0) -> ToolContext:
    return ToolContext(RunId(run), arm(0), 0, tenant, "functions.look:0", timeout_s)


@pytest.fixture
async def cache(valkey: Any) -> AsyncIterator[ToolCache]:
    cache = await ToolCache.connect(valkey.url, b"secret", PATIENT)
    yield cache
    await cache.close()


@pytest.fixture
async def server(valkey: Any) -> AsyncIterator[Any]:
    client: Any = redis.asyncio.Redis.from_url(valkey.url, protocol=2)
    yield client
    await client.aclose()


async def grown_stale() -> None:
    """Until an entry that is fresh for `BRIEF_S` no longer is."""
    await asyncio.sleep(2 * BRIEF_S)


@pytest.mark.parametrize(("scope", "executions"), [("run", 4), ("tenant", 2), ("global", 1), ("off", 4)])
async def test_results_are_shared_within_their_scope_alone(
    cache: ToolCache, scope: Any, executions: int
) -> None:
    tool = ScriptedTool(SPEC)
    cached = CachedTool(tool, cache, CachePolicy(scope=scope))
    for tenant in ("one", "two"):
        for run in ("run-1", "run-2"):
            await cached.call({}, context(tenant, run))
    assert len(tool.calls) == executions


async def test_rights_are_part_of_the_key(cache: ToolCache) -> None:
    tool = ScriptedTool(SPEC)
    for auth in ("alice's key", "bob's key", "alice's key"):
        await CachedTool(tool, cache, CachePolicy(scope="global"), auth=auth).call({}, context())
    assert len(tool.calls) == 2


@pytest.mark.parametrize(
    "spec",
    [
        tool_spec("look"),
        tool_spec("look", cacheable=True, effects=Effects.WRITE),
    ],
)
async def test_a_policy_never_widens_what_a_tool_declares(cache: ToolCache, spec: Any) -> None:
    tool = ScriptedTool(spec)
    for _ in range(2):
        output = await CachedTool(tool, cache, CachePolicy(scope="global", ttl_s=60)).call({}, context())
        assert output.cache is CacheState.BYPASS
    assert len(tool.calls) == 2


async def test_a_result_that_is_not_to_be_stored_is_shared_with_nobody(cache: ToolCache) -> None:
    tool = SlowTool(SPEC, [ToolOutput("mine", storable=False)])
    cached = CachedTool(tool, cache)
    calls = [asyncio.create_task(cached.call({}, context())) for _ in range(2)]
    await tool.started.wait()
    tool.release.set()
    await asyncio.gather(*calls)
    await cached.call({}, context())
    assert len(tool.calls) == 3


async def test_failures_that_would_come_again_are_kept_where_the_policy_says_so(cache: ToolCache) -> None:
    tool = ScriptedTool(SPEC, [ToolOutput("no such page", is_error=True), "found"])
    cached = CachedTool(tool, cache, CachePolicy(negative_ttl_s=60.0))
    first, second = await cached.call({}, context()), await cached.call({}, context())
    assert (first.cache, second.cache) == (CacheState.MISS, CacheState.HIT)
    assert second.is_error
    assert len(tool.calls) == 1


@pytest.mark.parametrize("status", ["401", "403", "408", "425", "429", "500", "502", "503", "504"])
async def test_refusals_load_and_broken_servers_are_never_kept_whatever_the_tool_believes(
    cache: ToolCache, status: str
) -> None:
    failed = ToolOutput("no", is_error=True, deterministic=True, meta={"http_status": status})
    tool = ScriptedTool(SPEC, [failed, "found"])
    cached = CachedTool(tool, cache, CachePolicy(negative_ttl_s=60.0))
    await cached.call({}, context())
    assert (await cached.call({}, context())).content == "found"


@pytest.mark.parametrize("failure", ["value", "exception", "time-out"])
async def test_a_stale_result_stands_in_for_a_failure_and_says_so(cache: ToolCache, failure: str) -> None:
    policy = CachePolicy(ttl_s=BRIEF_S, stale_if_error_s=60.0)
    await CachedTool(ScriptedTool(SPEC, ["as it was"]), cache, policy).call({}, context())
    await grown_stale()
    broken: Any = {
        "value": ScriptedTool(SPEC, [FLAKY]),
        "exception": FailingTool(SPEC, RuntimeError("it broke")),
        "time-out": SlowTool(SPEC),
    }[failure]
    output = await CachedTool(broken, cache, policy).call({}, context(timeout_s=0.5))
    assert output.cache is CacheState.STALE
    assert not output.is_error
    assert output.content.startswith("[The tool failed just now")
    assert output.content.endswith("as it was")
    mended = await CachedTool(ScriptedTool(SPEC, ["as it is"]), cache, policy).call({}, context())
    assert (mended.content, mended.cache) == ("as it is", CacheState.MISS)


async def test_without_the_policys_leave_a_stale_result_is_none(cache: ToolCache) -> None:
    long_kept = CachePolicy(ttl_s=BRIEF_S, stale_if_error_s=60.0)
    await CachedTool(ScriptedTool(SPEC, ["as it was"]), cache, long_kept).call({}, context())
    await grown_stale()
    output = await CachedTool(ScriptedTool(SPEC, [FLAKY]), cache, CachePolicy(ttl_s=BRIEF_S)).call(
        {}, context()
    )
    assert output.is_error


async def test_what_is_wrong_for_good_is_no_reason_for_a_stale_result(cache: ToolCache) -> None:
    policy = CachePolicy(ttl_s=BRIEF_S, stale_if_error_s=60.0)
    await CachedTool(ScriptedTool(SPEC, ["as it was"]), cache, policy).call({}, context())
    await grown_stale()
    gone = ScriptedTool(SPEC, [ToolOutput("gone", is_error=True)])
    assert (await CachedTool(gone, cache, policy).call({}, context())).content == "gone"


async def test_a_hot_result_is_fetched_anew_before_its_time_is_up(
    cache: ToolCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = ScriptedTool(SPEC, ["old", "new"])
    cached = CachedTool(tool, cache, CachePolicy(ttl_s=60.0))
    await cached.call({}, context())
    assert (await cached.call({}, context())).content == "old"
    assert len(tool.calls) == 1
    monkeypatch.setattr(Entry, "due", lambda entry, now_ms: entry.output.content == "old")
    assert (await cached.call({}, context())).cache is CacheState.HIT

    async def content() -> str:
        return (await cached.call({}, context())).content

    assert await until(content, lambda said: said == "new") == "new"
    assert len(tool.calls) == 2


def test_the_closer_the_end_and_the_dearer_the_call_the_likelier_a_reader_fetches_anew() -> None:
    def share(left_s: float, cost_s: float) -> float:
        entry = Entry(ToolOutput("x"), cost_s, 0, int(left_s * 1000))
        return sum(entry.due(0) for _ in range(2_000)) / 2_000

    assert share(3600.0, 1.0) == 0.0
    assert 0.3 < share(1.0, 1.0) < 0.45  # 1/e
    assert share(1.0, 10.0) > 0.8
    assert share(0.0, 0.0) == 1.0


async def test_a_large_content_is_stored_once_for_all_who_have_it_and_lives_as_long_as_the_last(
    cache: ToolCache, server: Any
) -> None:
    large = "".join(f"{n * 7919 % 104729:x}" for n in range(20_000))
    short, long = CachePolicy(ttl_s=30.0), CachePolicy(ttl_s=3000.0)
    tool = ScriptedTool(SPEC, [large])
    await CachedTool(tool, cache, long).call({"q": 1}, context())
    await CachedTool(tool, cache, short).call({"q": 2}, context("another"))
    (body,) = [key async for key in server.scan_iter(f"{PREFIX}body:*")]
    assert await server.strlen(body) > INLINE_BYTES_MAX
    assert await server.pttl(body) > 2_000_000
    for query, tenant in ((1, "tenant"), (2, "another")):
        output = await CachedTool(tool, cache, short).call({"q": query}, context(tenant))
        assert (output.content, output.cache) == (large, CacheState.HIT)
    await server.delete(body)  # as if evicted: the entry that refers to it is none
    output = await CachedTool(tool, cache, short).call({"q": 1}, context())
    assert (output.content, output.cache) == (large, CacheState.MISS)


async def test_a_content_that_two_processes_wait_for_travels_whatever_its_size(
    cache: ToolCache, valkey: Any
) -> None:
    large = "".join(f"{n * 7919 % 104729:x}" for n in range(20_000))
    other = await ToolCache.connect(valkey.url, b"secret", PATIENT)
    tool, never = SlowTool(SPEC, [large]), ScriptedTool(SPEC)
    first = asyncio.create_task(CachedTool(tool, cache).call({}, context()))
    await tool.started.wait()
    second = asyncio.create_task(CachedTool(never, other).call({}, context()))
    await asyncio.sleep(0)
    tool.release.set()
    assert {(await first).content, (await second).content} == {large}
    assert never.calls == []
    await other.close()


STATEFUL = tool_spec("session", cacheable=True, stateful=True)


async def test_a_stateful_tools_results_are_found_by_its_whole_history_in_order(cache: ToolCache) -> None:
    def session(tool: ScriptedTool) -> Remembering:
        return Remembering(CachedTool(tool, cache))

    async def states(*codes: str) -> list[CacheState]:
        one = session(ScriptedTool(STATEFUL))
        return [(await one.call({"code": code}, context())).cache for code in codes]

    assert await states("a", "b", "c") == [CacheState.MISS] * 3
    assert await states("a", "b", "c") == [CacheState.HIT] * 3
    assert await states("a", "c", "b") == [CacheState.HIT, CacheState.MISS, CacheState.MISS]
    assert await states("b") == [CacheState.MISS]


async def test_a_stateful_tool_is_told_of_the_calls_that_the_cache_answered(cache: ToolCache) -> None:
    first = Remembering(CachedTool(ScriptedTool(STATEFUL), cache))
    await first.call({"code": "a"}, context())
    tool = ScriptedTool(STATEFUL)
    second = Remembering(CachedTool(tool, cache))
    await second.call({"code": "a"}, context())
    await second.call({"code": "b"}, context())
    assert [told.history for _, told in tool.calls] == [({"code": "a"},)]


async def test_once_a_state_is_in_doubt_nothing_after_it_is_cached(cache: ToolCache) -> None:
    tool = ScriptedTool(STATEFUL, ["fine", FLAKY, "on"])
    session = Remembering(CachedTool(tool, cache))
    said = [(await session.call({"n": n}, context())).cache for n in range(4)]
    assert said == [CacheState.MISS, CacheState.MISS, CacheState.BYPASS, CacheState.BYPASS]
    assert [told.history for _, told in tool.calls] == [(), ({"n": 0},), None, None]


async def test_calls_of_a_stateful_tool_wait_for_one_another(cache: ToolCache) -> None:
    tool = SlowTool(STATEFUL)
    session = Remembering(CachedTool(tool, cache))
    calls = [asyncio.create_task(session.call({"n": n}, context())) for n in range(3)]
    await tool.started.wait()
    assert len(tool.calls) == 1
    tool.release.set()
    await asyncio.gather(*calls)
    assert [given["n"] for given, _ in tool.calls] == [0, 1, 2]
