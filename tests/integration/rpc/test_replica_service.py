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

from heavy.admin import ReplicaClient
from heavy.cli.main import cli
from heavy.cli.replicas import table
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.coordinator.fleet import FleetAdmin
from heavy.core.errors import Forbidden, InvalidRequest, NotFound
from heavy.core.fleet import FleetListing, Member, ProfileChange, ReplicaInfo, RunnerInfo, Served, Wanted
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
RUNNER = RunnerInfo("runner-0", 5, 64, 42, sandbox="namespaces; lacking cgroup limits")


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
    running = RpcServer(coordinator, guarded, fleet=FleetAdmin(announced))
    await running.start()
    yield running
    await running.stop()


async def test_an_administrator_sees_what_is_announced_and_nobody_else_does(serving: RpcServer) -> None:
    async with HeavyClient(serving.address, ADMIN) as client:
        assert await ReplicaClient(client).list() == FleetListing((BUSY, LOST), (RUNNER,))
    async with HeavyClient(serving.address, PLAIN) as client:
        with pytest.raises(Forbidden):
            await ReplicaClient(client).list()


async def test_the_command_lists_them_for_people_and_for_machines(serving: RpcServer) -> None:
    words = ["replicas", "--server", serving.address, "--token", ADMIN]
    for_people = await asyncio.to_thread(CliRunner().invoke, cli, words)
    for part in (
        "k2-0",
        "ready",
        "12/64",
        "93%",
        "failed",
        "k2-1: out of memory at start",
        "runner-0 5/64",
        "lacking",
    ):
        assert part in for_people.output
    for_machines = await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--json"])
    assert [one["replica"] for one in json.loads(for_machines.output)["replicas"]] == ["k2-0", "k2-1"]


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_list_fits_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table(FleetListing((BUSY, LOST), (RUNNER,)), width, BUSY.since_ms + 7_300_000))
    file = console.file
    assert isinstance(file, io.StringIO)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert ("2 h" in lines[1]) == (width >= 100)


def test_fewer_than_are_wanted_is_said() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(FleetListing((BUSY, LOST), (), (Served("k2", 3, 3, 3, "abc"),)), 100, 0))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "k2: 1 of 3 ready" in file.getvalue()


def test_a_server_without_replicas_says_so() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(table(FleetListing((), ()), 100, 0))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "heavy up" in file.getvalue()


DEFINITION = """
name = "k2"
title = "K2"
engine = "sglang"
model = "kimi-k2-thinking"
context_tokens = 4096
[serve]
model_path = "/models/k2"
replicas = 3
"""


@pytest.fixture
async def served(announced: RedisStore) -> RedisStore:
    """One profile wanted, one member of it noted."""
    wanted = Wanted("k2", "{}", 2, 2, 2)
    await announced.fleet.want(wanted)
    epoch = await announced.fleet.lead(owner="test", lease_s=100)
    assert epoch is not None
    await announced.fleet.put_member(Member("k2-0", "k2", wanted.revision, "{}", 0), epoch=epoch)
    await announced.fleet.keep_log("k2-1", ["loading", "CUDA out of memory"])
    return announced


async def command(server: RpcServer, *words: str, token: str = ADMIN) -> Any:
    full = ["replicas", words[0], *words[1:], "--server", server.address, "--token", token]
    return await asyncio.to_thread(CliRunner().invoke, cli, full)


async def test_a_drain_is_noted_for_the_controller_and_an_unknown_replica_is_named(
    served: RedisStore, serving: RpcServer
) -> None:
    told = await command(serving, "drain", "k2-0")
    assert told.output.startswith("k2-0 drains. k2: 2 wanted"), told.output
    (wanted,) = await served.fleet.wanted()
    assert wanted.drained == ("k2-0",)
    async with HeavyClient(serving.address, ADMIN) as client:
        with pytest.raises(NotFound, match="no replica 'k2-9' to drain; there are: k2-0"):
            await ReplicaClient(client).drain("k2-9")


async def test_an_update_changes_numbers_definition_and_restarts(
    served: RedisStore, serving: RpcServer, tmp_path: Path
) -> None:
    (before,) = await served.fleet.wanted()
    told = await command(serving, "update", "k2", "--replicas", "4", "--replicas-max", "6")
    assert told.output.startswith(f"k2: 4 to 6 wanted, revision {before.revision}."), told.output
    file = tmp_path / "k2.toml"
    file.write_text(DEFINITION)
    assert (await command(serving, "update", "k2", "--file", str(file))).exit_code == 0
    (after,) = await served.fleet.wanted()
    assert (after.replicas_min, after.revision != before.revision) == (3, True)
    assert (await command(serving, "update", "k2", "--restart")).exit_code == 0
    (restarted,) = await served.fleet.wanted()
    assert (restarted.restarts, restarted.revision != after.revision) == (1, True)


async def test_a_definition_that_cannot_be_served_changes_nothing(
    served: RedisStore, serving: RpcServer
) -> None:
    before = await served.fleet.wanted()
    async with HeavyClient(serving.address, ADMIN) as client:
        fleet = ReplicaClient(client)
        for definition, says in (
            (DEFINITION.replace("replicas", "replicsa"), r"k2\.toml:\d+: serve\.replicsa.*Did you mean"),
            (DEFINITION.replace('"/models', '"./models'), "must be absolute"),
            (DEFINITION.replace('"k2"', '"k3"', 1), "of the name 'k3', not 'k2'"),
            ("= nonsense", "not TOML"),
        ):
            with pytest.raises(InvalidRequest, match=says):
                await fleet.update(ProfileChange("k2", definition))
        with pytest.raises(InvalidRequest, match="replicas: is 999"):
            await fleet.update(ProfileChange("k2", replicas=999))
        with pytest.raises(InvalidRequest, match="replicas_max: is 1, less than the 2 there are at least"):
            await fleet.update(ProfileChange("k2", replicas_max=1))
        with pytest.raises(NotFound, match="No profile 'k4' is served here; served are: k2"):
            await fleet.update(ProfileChange("k4", restart=True))
    assert await served.fleet.wanted() == before


async def test_the_log_of_a_replica_outlives_it(served: RedisStore, serving: RpcServer) -> None:
    assert (await command(serving, "logs", "k2-1")).output == "loading\nCUDA out of memory\n"
    async with HeavyClient(serving.address, ADMIN) as client:
        with pytest.raises(NotFound, match="no log"):
            await ReplicaClient(client).log("k2-77")


@pytest.mark.parametrize("words", [("drain", "k2-0"), ("logs", "k2-1"), ("update", "k2", "--restart")])
async def test_only_administrators_act(
    served: RedisStore, serving: RpcServer, words: tuple[str, ...]
) -> None:
    before = await served.fleet.wanted()
    told = await command(serving, *words, token=PLAIN)
    assert isinstance(told.exception, Forbidden)
    assert await served.fleet.wanted() == before
