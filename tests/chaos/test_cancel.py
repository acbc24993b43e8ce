"""Cancels, callers that vanish and engines that break their streams: what the engine and the caller see."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.policy import AggregationMode
from heavy.core.records import Delta, Event, LifecycleRecord, PartialGenerationRecord, Record
from heavy.core.runs import Outcome, OutcomeKind, Run, RunState
from heavy.store.redis import connect

from tests_support.servers import StoreServer
from tests_support.up import Up
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PROFILES = ("patient", "torn", "hanging", "flaky")
QUESTION = "What is 6 times 7?"
ATTACH_GRACE_S = 2.0
SILENCE_S = 3.0
PATIENT = PolicyDraft(
    width=4, arms=("patient",), aggregator="patient", early_stop=False, aggregation=AggregationMode.VOTE
)


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A store whose directory the tests may read."""
    server = StoreServer("valkey", tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def up(own_store: StoreServer) -> Iterator[Up]:
    """`heavy up` with one patient replica and one for each way to break."""
    env = {
        "HEAVY_STORE_URL": own_store.url,
        "HEAVY_ATTACH_GRACE_S": str(ATTACH_GRACE_S),
        "HEAVY_GENERATION_SILENCE_S": str(SILENCE_S),
    }
    running = Up(PROFILES, "--replicas", "1", env=env)
    running.start()
    yield running
    running.stop()
    print("".join(running.output))


@pytest.fixture
async def client(up: Up) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(up.address, patience_s=20.0) as connected:
        yield connected


class Engines:
    """What the engines say of themselves, asked directly."""

    def __init__(self, http: aiohttp.ClientSession, urls: dict[str, str]) -> None:
        self._http = http
        self._urls = urls

    async def counted(self, profile: str, name: str) -> int:
        """One figure of an engine's own metrics."""
        async with self._http.get(f"{self._urls[profile]}/metrics") as response:
            text = await response.text()
        found = re.search(rf"^heavy_engine:{name}\{{.*\}} (\S+)$", text, re.MULTILINE)
        assert found is not None, text
        return int(float(found[1]))

    async def busy(self, profile: str) -> int:
        """Generations that run or wait."""
        return sum([await self.counted(profile, f"num_{kind}_reqs") for kind in ("running", "queue")])

    async def aborts(self, profile: str) -> int:
        """Generations aborted since the engine started."""
        return await self.counted(profile, "num_aborted_requests_total")


@pytest.fixture
async def engines(up: Up, own_store: StoreServer) -> AsyncIterator[Engines]:
    store = await connect(own_store.url, Settings(store_timeout_s=2.0))
    try:
        found = await until(store.directory.replicas, lambda infos: len(infos) == len(PROFILES))
    finally:
        await store.close()
    async with aiohttp.ClientSession() as http:
        yield Engines(http, {info.profile: info.base_url.removesuffix("/v1") for info in found})


async def all_speak(client: HeavyClient, run: Run, width: int) -> None:
    """Wait until each arm is in the middle of a generation."""
    seen: set[str] = set()
    async with client.watch(run.spec.run, deltas=True) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                seen.add(event.trajectory)
            if len(seen) == width:
                return
    raise AssertionError(f"the run ended before its arms spoke: {await client.get(run.spec.run)}")


async def ended(client: HeavyClient, run: Run) -> Run:
    async with client.watch(run.spec.run, deltas=False) as stream:
        async for _ in stream:
            pass
    return await client.get(run.spec.run)


async def records_of(client: HeavyClient, run: Run, trajectory: str) -> tuple[Record, ...]:
    return (await client.trajectory(run.spec.run, trajectory)).records


async def outcomes_of(client: HeavyClient, run: Run, width: int) -> list[Outcome]:
    found = [(await client.trajectory(run.spec.run, f"arm-{index}")).outcome for index in range(width)]
    return [outcome for outcome in found if outcome is not None]


def notes(records: tuple[Record, ...]) -> list[str]:
    return [
        record.body.detail
        for record in records
        if isinstance(record.body, LifecycleRecord) and record.body.event is Event.NOTE
    ]


async def test_a_cancel_is_seen_as_aborts_in_the_engine_and_every_arm_keeps_what_it_had_said(
    client: HeavyClient, engines: Engines
) -> None:
    aborts = await engines.aborts("patient")
    run = await client.create(QUESTION, PATIENT)
    await all_speak(client, run, 4)
    streaming = await until(lambda: engines.busy("patient"), lambda busy: busy > 0)
    await client.cancel(run.spec.run, "changed my mind")
    await until(lambda: engines.busy("patient"), lambda busy: busy == 0, within_s=2.0)
    after = await ended(client, run)
    assert after.state is RunState.CANCELLED
    assert after.cancel_reason == "changed my mind"
    assert await engines.aborts("patient") - aborts >= min(streaming, 1)
    outcomes = await outcomes_of(client, run, 4)
    assert [(outcome.kind, outcome.reason) for outcome in outcomes] == [(OutcomeKind.CUT, "cancelled")] * 4
    assert after.ledger is not None
    assert after.ledger.total.tokens_output > 0
    bodies = [record.body for index in range(4) for record in await records_of(client, run, f"arm-{index}")]
    assert any(isinstance(body, PartialGenerationRecord) and body.reason == "cut" for body in bodies)


async def test_a_second_cancel_changes_nothing(client: HeavyClient) -> None:
    run = await client.create(QUESTION, PATIENT)
    await client.cancel(run.spec.run, "first")
    after = await ended(client, run)
    await client.cancel(run.spec.run, "second")
    assert (after.state, after.cancel_reason) == (RunState.CANCELLED, "first")
    assert await client.get(run.spec.run) == after


async def test_a_caller_that_is_killed_is_waited_for_and_then_its_run_is_cancelled(
    up: Up, client: HeavyClient, engines: Engines
) -> None:
    aborts = await engines.aborts("patient")
    caller = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heavy.cli.main", "ask", QUESTION, "--server", up.address, "--width", "4"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        (run,) = await until(lambda: running(client), lambda runs: len(runs) == 1, within_s=30.0)
        await all_speak(client, run, 4)
    finally:
        caller.kill()
        await caller.wait()
    after = await asyncio.wait_for(ended(client, run), ATTACH_GRACE_S + 5.0)
    assert after.state is RunState.CANCELLED
    assert after.ended_ms is not None
    assert await engines.busy("patient") == 0
    assert await engines.aborts("patient") > aborts


async def running(client: HeavyClient) -> list[Run]:
    return [run async for run in client.list(states={RunState.RUNNING})]


async def test_streams_that_all_break_fail_the_run_with_each_arms_reason(
    client: HeavyClient, engines: Engines
) -> None:
    policy = PolicyDraft(width=2, arms=("torn",), aggregator="torn")
    after = await ended(client, await client.create(QUESTION, policy))
    assert after.state is RunState.FAILED
    assert after.failure is not None
    assert len(after.failure.outcomes) == 2
    for outcome in after.failure.outcomes:
        assert outcome.kind is OutcomeKind.FAILED
        assert outcome.reason in {"malformed_stream", "engine_unavailable"}
        assert outcome.detail
    assert await engines.busy("torn") == 0


async def test_an_engine_that_falls_silent_costs_its_own_arm_and_the_others_answer(
    client: HeavyClient, engines: Engines
) -> None:
    aborts = await engines.aborts("hanging")
    policy = PolicyDraft(
        width=4,
        arms=("patient", "patient", "patient", "hanging"),
        aggregator="patient",
        early_stop=False,
        aggregation=AggregationMode.VOTE,
        quorum=4,
    )
    run = await client.create(QUESTION, policy)
    after = await ended(client, run)
    assert after.state is RunState.COMPLETED
    *well, silent = await outcomes_of(client, run, 4)
    assert {outcome.kind for outcome in well} == {OutcomeKind.COMPLETED}
    assert silent.kind is OutcomeKind.FAILED
    assert silent.reason in {"engine_timeout", "engine_unavailable"}
    assert silent.spend.tokens_output > 0
    assert await engines.aborts("hanging") > aborts
    assert await engines.busy("hanging") == 0


async def test_a_step_whose_stream_breaks_is_tried_again(client: HeavyClient) -> None:
    policy = PolicyDraft(
        width=8,
        arms=("flaky",),
        aggregator="flaky",
        early_stop=False,
        aggregation=AggregationMode.VOTE,
        seed=3,
    )
    run = await client.create(QUESTION, policy)
    after = await ended(client, run)
    assert after.state is RunState.COMPLETED
    mended = 0
    for outcome in await outcomes_of(client, run, 8):
        failures = [
            note
            for note in notes(await records_of(client, run, outcome.trajectory))
            if note.startswith("engine failure")
        ]
        mended += bool(failures) and outcome.kind is OutcomeKind.COMPLETED
    assert mended
