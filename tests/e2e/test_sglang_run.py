"""A heavy run on a real SGLang server: started by the replica actor, and the same server as `remote`."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.fleet import ReplicaInfo
from heavy.core.policy import AggregationMode
from heavy.core.records import Delta, GenerationRecord, Record, ToolResultRecord
from heavy.core.runs import Run, RunState
from heavy.store.redis import connect
from heavy.telemetry import names
from heavy.telemetry.tracing import trace_id_of

from tests_support.otlp import ReceivedSpan, TraceReceiver
from tests_support.servers import StoreServer
from tests_support.up import Up
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.sglang, pytest.mark.timeout(600)]

QUESTION = "Use python: start with 787, multiply by 11, subtract 512."
EIGHT = PolicyDraft(early_stop=False, aggregation=AggregationMode.VOTE)


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    server = StoreServer("valkey", tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def receiver() -> Iterator[TraceReceiver]:
    """Where all spans go, the engine's own among them."""
    server = TraceReceiver()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sglang_up(own_store: StoreServer, receiver: TraceReceiver) -> Iterator[Up]:
    """`heavy up` with one SGLang replica."""
    env = {"HEAVY_STORE_URL": own_store.url, "HEAVY_OTLP_ENDPOINT": receiver.endpoint}
    running = Up(["abacus-sglang"], env=env)
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def client(sglang_up: Up) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(sglang_up.address) as connected:
        yield connected


@pytest.fixture
async def replica(sglang_up: Up, own_store: StoreServer) -> ReplicaInfo:
    """The replica as it is announced."""
    store = await connect(own_store.url, Settings())
    try:
        return (await store.directory.replicas())[0]
    finally:
        await store.close()


async def test_eight_arms_run_on_sglang_with_streams_tools_and_cached_tokens(client: HeavyClient) -> None:
    run, records, deltas = await watched(client, EIGHT)
    assert run.state is RunState.COMPLETED
    assert deltas > 0
    generations = [r for r in records if isinstance(r.body, GenerationRecord)]
    assert {r.trajectory for r in generations} == {f"arm-{i}" for i in range(8)}
    assert any(r.body.message.reasoning for r in generations if isinstance(r.body, GenerationRecord))
    assert any(isinstance(r.body, ToolResultRecord) and not r.body.is_error for r in records)
    assert run.ledger is not None
    assert run.ledger.total.tokens_cached > 0
    assert 0 < run.ledger.total.tokens_reasoning < run.ledger.total.tokens_output


async def test_the_spans_of_sglang_itself_are_in_the_runs_trace(
    client: HeavyClient, receiver: TraceReceiver
) -> None:
    run, records, _ = await watched(client, PolicyDraft(width=2, early_stop=False))
    generations = sum(isinstance(record.body, GenerationRecord) for record in records)

    async def read() -> list[ReceivedSpan]:
        return receiver.spans(trace_id_of(run.spec.traceparent))

    def below_generations(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        chats = {span.span for span in spans if span.attributes.get(names.OPERATION) == names.CHAT}
        return [span for span in spans if span.parent in chats and span.service == "heavy-engine"]

    spans = await until(read, lambda spans: len(below_generations(spans)) >= generations, within_s=60.0)
    assert {"prefill_forward", "decode_forward"} <= {span.name for span in spans}
    assert all("subtract 512" not in span.text for span in spans)


async def test_a_cancel_is_seen_as_aborts_in_the_servers_own_metrics(
    client: HeavyClient, replica: ReplicaInfo
) -> None:
    before = metric(replica, "num_aborted_requests_total")
    run = (await client.create(QUESTION, EIGHT)).spec.run
    async with client.watch(run, deltas=True) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                break
    await client.cancel(run, "enough")
    async with client.watch(run, deltas=False) as stream:
        async for _ in stream:
            pass
    assert (await client.get(run)).state is RunState.CANCELLED

    async def aborted() -> float:
        return metric(replica, "num_aborted_requests_total") - before

    assert await until(aborted, lambda count: count >= 1) >= 1

    async def running() -> float:
        return metric(replica, "num_running_reqs")

    await until(running, lambda count: count == 0)


@pytest.mark.parametrize("dialect", ["sglang", "openai"])
async def test_the_same_server_serves_the_same_run_as_remote(
    replica: ReplicaInfo, tmp_path: Path, dialect: str
) -> None:
    (tmp_path / "remote.toml").write_text(
        f"""
        name = "far"
        title = "Abacus (2M parameters, bf16), remote"
        engine = "remote"
        model = "abacus"
        context_tokens = 4096
        tool_call_dialect = "kimi_k2"
        default_tools = ["python"]
        [remote]
        base_url = "{replica.base_url}/v1"
        dialect = "{dialect}"
        [limits]
        steps_max = 6
        output_tokens_per_step_max = 512
        answer_tokens_reserved = 256
        """,
        encoding="utf-8",
    )
    up = Up(["far"], "--profiles-dir", str(tmp_path))
    up.start()
    try:
        async with HeavyClient(up.address) as client:
            run, records, _ = await watched(client, EIGHT)
    finally:
        up.stop()
    assert run.state is RunState.COMPLETED
    assert any(isinstance(r.body, ToolResultRecord) for r in records)
    assert run.ledger is not None
    assert run.ledger.total.tokens_cached > 0


async def watched(client: HeavyClient, policy: PolicyDraft) -> tuple[Run, list[Record], int]:
    """A run followed to its end: the run, its records, and how many deltas were seen."""
    records: list[Record] = []
    deltas = 0
    async with client.ask(QUESTION, policy) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                deltas += 1
            else:
                records.append(event)
    assert stream.run is not None
    return await client.get(stream.run), records, deltas


def metric(replica: ReplicaInfo, name: str) -> float:
    """A counter or gauge of the server, summed over its labels; 0 while it has not counted."""
    with urllib.request.urlopen(f"{replica.base_url}/metrics", timeout=10) as response:
        text = response.read().decode()
    return sum(float(value) for value in re.findall(rf"^sglang:{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE))
