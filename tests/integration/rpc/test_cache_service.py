"""The cache as administrators see it: over a real server and a real Valkey, with results of real calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from heavy.admin import CacheClient
from heavy.cli.main import cli
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.caching import CachePurge, CacheQuery
from heavy.core.errors import Forbidden, InvalidRequest, NotFound, StoreUnavailable
from heavy.core.ids import RunId, arm
from heavy.core.tools import CacheState, ToolContext
from heavy.rpc.server import RpcServer
from heavy.store.embedded import EmbeddedValkey
from heavy.testing.tools import ScriptedTool, SlowTool, tool_spec
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.cache_admin import CacheAdmin
from heavy.tools.cache_breaker import BreakerLimits
from heavy.tools.cache_server import CacheLimits

SECRET = b"secret"
SPEC = tool_spec("look", cacheable=True)
ADMIN, PLAIN = "alice-admin-0123456789", "alice-token-0123456789"
PATIENT = CacheLimits(command_s=5.0, breaker=BreakerLimits(slow_s=5.0))


def context(tenant: str = "alice") -> ToolContext:
    return ToolContext(RunId("run-1"), arm(0), 0, tenant, "functions.look:0", 20.0)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "valkey", role="cache", memory_mb=64)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def cache(valkey: EmbeddedValkey) -> AsyncIterator[ToolCache]:
    """As a runner has it."""
    cache = await ToolCache.connect(valkey.url(), SECRET, PATIENT)
    yield cache
    await cache.close()


@pytest.fixture
async def rpc(valkey: EmbeddedValkey, coordinator: Any, settings: Settings, tmp_path: Path) -> Any:
    tokens = tmp_path / "admins"
    tokens.write_text(f"alice:{ADMIN}:admin\nalice:{PLAIN}\n")
    admin = CacheAdmin(valkey.url(), SECRET)
    server = RpcServer(coordinator, settings.model_copy(update={"tokens_file": str(tokens)}), cache=admin)
    await server.start()
    yield server
    await server.stop()
    await admin.close()


@pytest.fixture
async def admin(rpc: RpcServer) -> AsyncIterator[CacheClient]:
    async with HeavyClient(rpc.address, ADMIN, patience_s=0.0) as client:
        yield CacheClient(client)


async def test_stats_say_what_was_executed_what_was_not_and_what_is_stored(
    cache: ToolCache, admin: CacheClient
) -> None:
    tool = CachedTool(ScriptedTool(SPEC), cache)
    for query in (1, 1, 2, 1):
        await tool.call({"q": query}, context())
    await cache.counts.flush()
    stats = await admin.stats()
    (look,) = stats.tools
    assert (look.tool, look.hits, look.misses, look.entries) == ("look", 2, 2, 2)
    assert (look.calls, look.hit_share) == (4, 0.5)
    assert look.bytes > 0
    assert stats.memory_bytes > 0
    assert stats.complete


async def test_a_result_is_found_by_its_call_and_by_its_key(cache: ToolCache, admin: CacheClient) -> None:
    await CachedTool(ScriptedTool(SPEC, ["found"]), cache).call({"q": 1, "a": "é"}, context())
    await cache.counts.flush()
    item = await admin.get(CacheQuery(tool="look", arguments='{"a": "\\u00e9", "q": 1.0}'))
    assert (item.content, item.tool, item.is_error) == ("found", "look", False)
    assert item.stored_ms < item.fresh_until_ms
    assert await admin.get(CacheQuery(key=item.key)) == item
    with pytest.raises(NotFound):
        await admin.get(CacheQuery(tool="look", arguments='{"q": 2}'))
    with pytest.raises(NotFound):
        await admin.get(CacheQuery(tool="look", arguments='{"a": "é", "q": 1}', tenant="bob"))


@pytest.mark.parametrize(
    "query",
    [
        CacheQuery(key="no key"),
        CacheQuery(tool="unheard of"),
        CacheQuery(tool="look", arguments="[1]"),
        CacheQuery(tool="look", arguments="{"),
        CacheQuery(),
    ],
)
async def test_a_query_that_means_nothing_is_told_what_is_wrong(
    cache: ToolCache, admin: CacheClient, query: CacheQuery
) -> None:
    await CachedTool(ScriptedTool(SPEC), cache).call({}, context())
    await cache.counts.flush()
    with pytest.raises(InvalidRequest):
        await admin.get(query)


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (CachePurge(tool="look"), [("seek", "alice"), ("seek", "bob")]),
        (CachePurge(tenant="alice"), [("look", "bob"), ("seek", "bob")]),
        (CachePurge(tool="look", tenant="bob"), [("look", "alice"), ("seek", "alice"), ("seek", "bob")]),
        (CachePurge(all=True), []),
    ],
)
async def test_a_purge_takes_what_it_names_and_nothing_else(
    cache: ToolCache, admin: CacheClient, purge: CachePurge, left: list[tuple[str, str]]
) -> None:
    tools = {
        name: CachedTool(ScriptedTool(tool_spec(name, cacheable=True)), cache) for name in ("look", "seek")
    }
    for tool in tools.values():
        for tenant in ("alice", "bob"):
            await tool.call({}, context(tenant))
    assert (await admin.purge(purge)).entries == 4 - len(left)
    found = [
        (name, tenant)
        for name, tool in tools.items()
        for tenant in ("alice", "bob")
        if (await tool.call({}, context(tenant))).cache is CacheState.HIT
    ]
    assert found == left


async def test_what_a_call_under_way_gives_is_not_stored_after_a_purge(
    cache: ToolCache, admin: CacheClient
) -> None:
    tool = SlowTool(SPEC, ["before the purge"])
    call = asyncio.create_task(CachedTool(tool, cache).call({}, context()))
    await tool.started.wait()
    assert (await admin.purge(CachePurge(tool="look"))).leases == 1
    tool.release.set()
    assert (await call).content == "before the purge"
    again = await CachedTool(ScriptedTool(SPEC, ["after it"]), cache).call({}, context())
    assert again.content == "after it"


async def test_a_purge_that_names_nothing_or_two_things_at_once_is_refused(admin: CacheClient) -> None:
    for purge in (CachePurge(), CachePurge(all=True, tool="look"), CachePurge(key="0" * 64, tenant="alice")):
        with pytest.raises(InvalidRequest):
            await admin.purge(purge)


async def test_the_cache_is_for_administrators_alone(rpc: RpcServer) -> None:
    async with HeavyClient(rpc.address, PLAIN, patience_s=0.0) as client:
        plain = CacheClient(client)
        for question in (
            plain.stats(),
            plain.get(CacheQuery(key="0" * 64)),
            plain.purge(CachePurge(all=True)),
        ):
            with pytest.raises(Forbidden, match=":admin"):
                await question


async def test_a_cache_that_is_down_is_said_to_be(admin: CacheClient, valkey: EmbeddedValkey) -> None:
    valkey.stop()
    with pytest.raises(StoreUnavailable, match="tool cache"):
        await admin.stats()


async def test_the_command_shows_gets_and_purges(cache: ToolCache, rpc: RpcServer) -> None:
    tool = CachedTool(ScriptedTool(SPEC, ["found it"]), cache)
    await tool.call({"q": 1}, context())
    await tool.call({"q": 1}, context())
    await cache.counts.flush()

    async def heavy(*words: str) -> str:
        words = ("cache", *words, "--server", rpc.address, "--token", ADMIN)
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "50%" in await heavy("stats")
    assert json.loads(await heavy("stats", "--json"))["tools"][0]["hits"] == 1
    shown = await heavy("get", "--tool", "look", "--arguments", '{"q": 1}')
    assert "found it" in shown
    assert "Removed 1 results" in await heavy("purge", "--tool", "look")
    assert "0 results" in await heavy("purge", "--all")
