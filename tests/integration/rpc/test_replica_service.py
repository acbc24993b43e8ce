"""Replicas as administrators see them: announced in a real store, seen through service and command."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from heavy.admin import Listing, ReplicaClient
from heavy.cli.main import cli
from heavy.cli.replicas import table
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.errors import Forbidden
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.rpc.server import RpcServer
from heavy.store.redis import RedisStore

ADMIN, PLAIN = "alice-admin-0123456789", "alice-token-0123456789"
BUSY = ReplicaInfo(
    replica="k2-0",
    profile="k2",
    base_url="http://10.0.0.7:30000/v1",
    engine="sglang",
    model="kimi-k2-thinking",
    state="ready",
    running=12,
    waiting=3,
    kv_tokens_used=930_000,
    kv_tokens_max=1_000_000,
    in_flight_max=64,
    pid=4711,
    nodes=("10.0.0.7", "10.0.0.8"),
    revision="abcdef0123",
    since_ms=1_700_000_000_000,
)
LOST = ReplicaInfo("k2-1", "k2", "", "sglang", "kimi-k2-thinking", "failed", detail="out of memory at start")
RUNNER = RunnerInfo("runner-0", 5, 64, 42)


@pytest.fixture
async def announced(store: RedisStore) -> RedisStore:
    for replica in (BUSY, LOST):
        await store.directory.announce_replica(replica, ttl_s=100)
    await store.directory.announce_runner(RUNNER, ttl_s=100)
    return store


@pytest.fixture
async def serving(
    announced: RedisStore, coordinator: Any, settings: Settings, tmp_path: Path
) -> AsyncIterator[RpcServer]:
    tokens = tmp_path / "admins"
    tokens.write_text(f"alice:{ADMIN}:admin\nalice:{PLAIN}\n")
    guarded = settings.model_copy(update={"tokens_file": str(tokens)})
    running = RpcServer(coordinator, guarded, directory=announced.directory)
    await running.start()
    yield running
    await running.stop()


async def test_an_administrator_sees_what_is_announced_and_nobody_else_does(serving: RpcServer) -> None:
    async with HeavyClient(serving.address, ADMIN) as client:
        assert await ReplicaClient(client).list() == Listing((BUSY, LOST), (RUNNER,))
    async with HeavyClient(serving.address, PLAIN) as client:
        with pytest.raises(Forbidden):
            await ReplicaClient(client).list()


async def test_the_command_lists_them_for_people_and_for_machines(serving: RpcServer) -> None:
    words = ["replicas", "--server", serving.address, "--token", ADMIN]
    for_people = await asyncio.to_thread(CliRunner().invoke, cli, words)
    for part in ("k2-0", "ready", "12/64", "93%", "failed", "k2-1: out of memory at start", "runner-0 5/64"):
        assert part in for_people.output
    for_machines = await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--json"])
    assert [one["replica"] for one in json.loads(for_machines.output)["replicas"]] == ["k2-0", "k2-1"]


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_list_fits_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table(Listing((BUSY, LOST), (RUNNER,)), width, BUSY.since_ms + 7_300_000))
    file = console.file
    assert isinstance(file, io.StringIO)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert ("2 h" in lines[1]) == (width >= 100)


def test_a_server_without_replicas_says_so() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(Listing((), ()), 100, 0))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "heavy up" in file.getvalue()
