"""An engine server's own spans, received over OTLP/gRPC: below whoever asked, stage by stage, no texts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from heavy.telemetry import names
from heavy.telemetry.tracing import CANCELLED, Tracing
from workers.engines.api.server import EngineServer
from workers.engines.simulated.engine import SimulatedEngine
from workers.engines.simulated.profile import PROFILES

from tests_support.otlp import ReceivedSpan, TraceReceiver
from tests_support.waiting import until

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = [names.STAGE_QUEUE, names.STAGE_PREFILL, names.STAGE_DECODE]
SERVER = "chat sim"


@pytest.fixture
def receiver() -> Iterator[TraceReceiver]:
    server = TraceReceiver()
    server.start()
    yield server
    server.stop()


@asynccontextmanager
async def traced(receiver: TraceReceiver, **changes: Any) -> AsyncIterator[str]:
    """A simulated engine that sends its spans; where it answers."""
    profile = PROFILES["k2-8xh200"].with_overrides({"ttft_s": 0.02, "itl_s": 0.001, "jitter": 0.0, **changes})
    tracing = Tracing(receiver.endpoint, "heavy-engine")
    server = EngineServer(SimulatedEngine(profile, seed=1, name="sim"), tracing)
    port = await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop()
        await asyncio.to_thread(tracing.shutdown)


async def ask(url: str, **changes: Any) -> None:
    body = {"messages": [{"role": "user", "content": "where is the zanzibarite"}], "stream": True, **changes}
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response,
    ):
        await response.read()


async def servers(receiver: TraceReceiver, count: int) -> list[ReceivedSpan]:
    """The spans of so many generations, in the order of their ends."""

    async def read() -> list[ReceivedSpan]:
        return [span for span in receiver.spans(TRACE) if span.name == SERVER]

    found = await until(read, lambda spans: len(spans) >= count)
    return sorted(found, key=lambda span: span.end_ns)


def stages(receiver: TraceReceiver, server: ReceivedSpan) -> list[ReceivedSpan]:
    below = [span for span in receiver.spans(TRACE) if span.parent == server.span]
    return sorted(below, key=lambda span: span.start_ns)


async def test_a_generation_is_a_span_below_its_caller_with_its_stages_and_tokens(
    receiver: TraceReceiver,
) -> None:
    async with traced(receiver) as url:
        await ask(url)
        (server,) = await servers(receiver, 1)
    assert (server.parent, server.service, server.error) == (CALLER, "heavy-engine", "")
    assert server.attributes[names.OPERATION] == names.CHAT
    assert server.attributes[names.PROVIDER] == "simulated"
    assert server.attributes[names.REQUEST_MODEL] == "sim"
    assert server.attributes[names.INPUT_TOKENS] > 0
    assert server.attributes[names.OUTPUT_TOKENS] > 0
    below = stages(receiver, server)
    assert {span.name for span in below} >= {names.STAGE_PREFILL, names.STAGE_DECODE}
    # They lie side by side and fill the whole of it.
    assert (below[0].start_ns, below[-1].end_ns) == (server.start_ns, server.end_ns)
    assert all(one.end_ns == other.start_ns for one, other in itertools.pairwise(below))
    known = {value for name, value in vars(names).items() if name.isupper()}
    for span in receiver.spans():
        assert set(span.attributes) <= known
        assert "zanzibarite" not in span.text


async def test_who_waits_for_another_has_a_queue_as_long_as_the_others_work(receiver: TraceReceiver) -> None:
    async with traced(receiver, running_max=1) as url:
        await asyncio.gather(ask(url), ask(url))
        first, second = await servers(receiver, 2)
    queue = next(span for span in stages(receiver, second) if span.name == names.STAGE_QUEUE)
    assert queue.end_ns - queue.start_ns >= 0.9 * (first.end_ns - second.start_ns)


async def test_an_aborted_generation_says_so(receiver: TraceReceiver) -> None:
    async with traced(receiver, itl_s=1.0) as url:
        asking = asyncio.create_task(ask(url))
        async with aiohttp.ClientSession() as session:

            async def aborted() -> int:
                async with session.post(f"{url}/abort_request", json={"abort_all": True}) as response:
                    return int((await response.json())["aborted"])

            await until(aborted, bool)
        await asking
        (server,) = await servers(receiver, 1)
    assert server.error == CANCELLED
    assert server.attributes[names.FINISH_REASONS] == ("abort",)


async def test_without_an_endpoint_nothing_is_sent_and_everything_works(receiver: TraceReceiver) -> None:
    server = EngineServer(SimulatedEngine(PROFILES["k2-8xh200"], seed=1, name="sim"))
    port = await server.start()
    try:
        await ask(f"http://127.0.0.1:{port}", max_tokens=1)
    finally:
        await server.stop()
    assert receiver.spans() == []
