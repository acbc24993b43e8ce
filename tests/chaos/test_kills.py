"""`kill -9` of each process in the middle of a run, and what a caller sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heavy.admin import CacheClient
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.coordinator.tally import LoggedSpend
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ServerUnavailable, StoreUnavailable
from heavy.core.fleet import ReplicaInfo
from heavy.core.ledger import Spend
from heavy.core.records import Delta, PartialGenerationRecord
from heavy.core.runs import Outcome, OutcomeKind, Run, RunState
from heavy.profiles.loader import load_profiles
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import Endpoint, HttpPool
from heavy.store.redis import RedisStore, connect

from tests_support.servers import StoreServer
from tests_support.up import PROFILES, Up, alive, processes_below
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUESTION = "What is 6 times 7?"
LEASE_S = 3.0
CALM = PolicyDraft(width=4, early_stop=False)


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A store of our own, so that it can be killed."""
    server = StoreServer("valkey", tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def up(own_store: StoreServer) -> Iterator[Up]:
    """`heavy up` with two replicas of the patient engine, two runners and a short lease."""
    env = {
        "HEAVY_STORE_URL": own_store.url,
        "HEAVY_LEASE_S": str(LEASE_S),
        "HEAVY_STORE_TIMEOUT_S": "2",
        "HEAVY_CHECKPOINT_TOKENS": "5",
    }
    running = Up(["patient"], env=env)
    running.start()
    yield running
    running.stop()
    print("".join(running.output))


@pytest.fixture
async def client(up: Up) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(up.address, patience_s=20.0) as connected:
        yield connected


@pytest.fixture
async def store(own_store: StoreServer) -> AsyncIterator[RedisStore]:
    connected = await connect(own_store.url, Settings(store_timeout_s=2.0))
    yield connected
    await connected.close()


async def ready_replicas(store: RedisStore) -> list[ReplicaInfo]:
    return [info for info in await store.directory.replicas() if info.state == "ready"]


async def generating(client: HeavyClient, policy: PolicyDraft = CALM) -> Run:
    """A run whose arms are in the middle of their generations."""
    run = await client.create(QUESTION, policy)
    seen: set[str] = set()
    async with client.watch(run.spec.run, deltas=True) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                seen.add(event.trajectory)
            if len(seen) == policy.width:
                return run
    raise AssertionError(f"the run ended before its arms spoke: {await client.get(run.spec.run)}")


async def ended(client: HeavyClient, run: Run) -> Run:
    async with client.watch(run.spec.run, deltas=False) as stream:
        async for _ in stream:
            pass
    return await client.get(run.spec.run)


async def test_an_engine_that_is_killed_costs_no_arm(client: HeavyClient, store: RedisStore) -> None:
    await until(lambda: ready_replicas(store), lambda ready: len(ready) == 2)
    victim = (await ready_replicas(store))[0]
    run = await generating(client)
    for pid in processes_below(victim.pid) - {victim.pid}:
        os.kill(pid, signal.SIGKILL)
    after = await ended(client, run)
    assert after.state is RunState.COMPLETED
    outcomes = [(await client.trajectory(run.spec.run, f"arm-{i}")).outcome for i in range(4)]
    assert {outcome.kind for outcome in outcomes if outcome} == {OutcomeKind.COMPLETED}
    back = await until(lambda: ready_replicas(store), lambda ready: len(ready) == 2, within_s=30.0)
    assert victim.pid not in {info.pid for info in back}


async def logged(client: HeavyClient, run: Run, outcome: Outcome) -> Spend:
    """What a lost trajectory's records add up to, its last checkpoint included."""
    page = await client.trajectory(run.spec.run, outcome.trajectory)
    assert any(isinstance(record.body, PartialGenerationRecord) for record in page.records)
    spend = LoggedSpend()
    for record in page.records:
        spend.take(record)
    assert spend.total.tokens_output > 0
    return spend.total


async def test_a_runner_that_is_killed_fails_its_arms_and_the_rest_answer(
    client: HeavyClient, store: RedisStore
) -> None:
    await until(store.directory.runners, lambda runners: len(runners) == 2, within_s=60.0)
    run = await generating(client)
    busy = await until(store.directory.runners, lambda runners: runners[0].in_flight > 0)
    os.kill(busy[0].pid, signal.SIGKILL)
    after = await ended(client, run)
    assert after.state is RunState.COMPLETED
    outcomes = [(await client.trajectory(run.spec.run, f"arm-{i}")).outcome for i in range(4)]
    reasons = [outcome.reason for outcome in outcomes if outcome and outcome.kind is OutcomeKind.FAILED]
    assert reasons
    assert set(reasons) == {"runner_lost"}
    for outcome in filter(None, outcomes):
        assert after.ledger is not None
        assert after.ledger.trajectories[outcome.trajectory] == (
            outcome.spend if outcome.kind is OutcomeKind.COMPLETED else await logged(client, run, outcome)
        )
    await until(store.directory.runners, lambda runners: len(runners) == 2, within_s=60.0)


async def test_a_coordinator_that_is_killed_leaves_a_readable_log_and_nothing_generating(
    up: Up, client: HeavyClient, store: RedisStore
) -> None:
    run = await generating(client)
    async with HeavyClient(up.address, patience_s=0.1) as impatient:
        stream = impatient.watch(run.spec.run, deltas=False)
        await anext(stream)
        os.kill(coordinator_pid(up), signal.SIGKILL)
        with pytest.raises(ServerUnavailable):
            async for _ in stream:
                pass
    await until(lambda: ready_replicas(store), idle, within_s=LEASE_S * 3)
    assert await store.log.read(run.spec.run, after=0, limit=10)
    async with HeavyClient(up.address, patience_s=60.0) as patient:
        after = await ended(patient, run)
    assert after.state is RunState.FAILED
    assert after.failure is not None
    assert after.failure.code == "coordinator_lost"


async def test_a_tool_cache_that_is_killed_is_started_again(up: Up, client: HeavyClient) -> None:
    async def pid() -> int:
        return pid_of(up, b"valkey-server")

    victim = await pid()
    os.kill(victim, signal.SIGKILL)
    await until(pid, lambda new: new not in (0, victim), within_s=60.0)
    assert (await CacheClient(client).stats()).memory_bytes > 0


async def test_a_store_that_is_killed_ends_the_run_as_unavailable_and_nothing_generates(
    up: Up, client: HeavyClient, store: RedisStore, own_store: StoreServer
) -> None:
    await until(store.directory.runners, lambda runners: len(runners) == 2, within_s=60.0)
    engines = await ready_replicas(store)
    run = await generating(client)
    async with HeavyClient(up.address, patience_s=0.1) as impatient:
        stream = impatient.watch(run.spec.run, deltas=False)
        await anext(stream)
        own_store.kill()
        with pytest.raises((StoreUnavailable, ServerUnavailable)):
            async for _ in stream:
                pass
        with pytest.raises((StoreUnavailable, ServerUnavailable)):
            await impatient.create(QUESTION, CALM)
    await until(lambda: running_in(engines), lambda count: count == 0, within_s=20.0)


async def test_at_the_end_nothing_is_left_behind(up: Up) -> None:
    below = processes_below(up.pid)
    assert len(below) > 8
    await asyncio.to_thread(up.stop)
    assert alive(below) == set()


def idle(infos: list[ReplicaInfo]) -> bool:
    return bool(infos) and not any(info.running or info.waiting for info in infos)


async def running_in(engines: list[ReplicaInfo]) -> int:
    """Generations that engines report now, asked directly."""
    profile = load_profiles([PROFILES]).get("patient")
    pool = HttpPool(2)
    try:
        loads = [
            await HttpReplica(Endpoint.of(e.replica, e.base_url, profile), pool, silence_s=5.0).load(5.0)
            for e in engines
        ]
    finally:
        await pool.close()
    return sum(load.running + load.waiting for load in loads)


def pid_of(up: Up, program: bytes) -> int:
    """A process of `up` that runs this program; 0 for none."""
    for pid in processes_below(up.pid):
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b" ")[0].endswith(program):
                return pid
    return 0


def coordinator_pid(up: Up) -> int:
    for pid in processes_below(up.pid):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if command[-3:-1] == [b"-m", b"heavy.app"] and b"workers.guard" not in command:
            return pid
    raise AssertionError("no coordinator runs")
