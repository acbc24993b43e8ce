"""Spans as a real OTLP receiver gets them; what an engine gets; and receivers that are not there."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import pytest

from heavy.core import clock
from heavy.core.errors import EngineRefused, HeavyError
from heavy.core.ids import arm, new_run_id, request_id
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.core.tools import ToolContext, ToolOutput
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationRequest, Replica
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import Endpoint, HttpPool
from heavy.runner.traced import TracedReplica, TracedTool
from heavy.telemetry import names
from heavy.telemetry.tracing import CANCELLED, Tracing, trace_id_of, traceparent_of
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.testing.scripted_server import CHAT, ScriptedServer, answer
from heavy.testing.tools import ScriptedTool, SlowTool, tool_spec
from heavy.tools.api import Tool

from tests_support.otlp import ReceivedSpan, TraceReceiver

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SHUTDOWN_WITHIN_S = 8.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[TraceReceiver]:
    server = TraceReceiver()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def tracing(receiver: TraceReceiver) -> AsyncIterator[Tracing]:
    made = Tracing(receiver.endpoint, "test")
    yield made
    await asyncio.to_thread(made.shutdown)


Sent = Callable[[], Any]


@pytest.fixture
def sent(receiver: TraceReceiver, tracing: Tracing) -> Callable[[], Any]:
    """Shuts tracing down, which sends what is left; the spans that this test made."""
    before = len(receiver.spans())

    async def spans() -> list[ReceivedSpan]:
        await asyncio.to_thread(tracing.shutdown)
        return receiver.spans()[before:]

    return spans


def request(**changes: Any) -> GenerationRequest:
    values: dict[str, Any] = {
        "request_id": request_id(new_run_id(), arm(0), 0, 0),
        "profile": "p",
        "messages": (Message(Role.USER, "the question"),),
        "tools": (),
        "sampling": Sampling(seed=1),
        "tokens_max": 64,
        "deadline_ms": clock.now_ms() + 30_000,
        "traceparent": CALLER,
    }
    return GenerationRequest(**{**values, **changes})


PROFILE = Profile(name="p", title="P", engine="sglang", model="k2", context_tokens=4096)


def traced(inner: Replica, tracing: Tracing) -> TracedReplica:
    return TracedReplica(inner, tracing, {"p": PROFILE})


CONTEXT = ToolContext(new_run_id(), arm(0), 3, "default", "functions.probe:0", 5.0)


async def test_the_engine_gets_the_generations_span_as_its_parent(tracing: Tracing, sent: Sent) -> None:
    async with ScriptedServer(answer()) as server:
        pool = HttpPool(streams_max=2)
        inner = HttpReplica(Endpoint("r1", server.base_url, "m", "sglang"), pool, silence_s=5.0)
        events = [event async for event in traced(inner, tracing).generate(request())]
        await pool.close()
        (asked,) = server.of(CHAT)
    assert isinstance(events[-1], Finished)
    (span,) = await sent()
    assert asked.headers["traceparent"] == f"00-{span.trace}-{span.span}-01"
    assert (span.trace, span.parent) == (trace_id_of(CALLER), CALLER.split("-")[2])
    assert span.name == "chat k2"
    assert span.attributes["gen_ai.provider.name"] == "sglang"
    assert span.attributes["gen_ai.request.model"] == "k2"
    assert span.attributes["gen_ai.conversation.id"] == f"run-{span.attributes[names.ENGINE_REQUEST_ID][:24]}"
    assert span.attributes["gen_ai.request.seed"] == 1
    assert span.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert span.attributes[names.REPLICA] == "r1"
    assert span.attributes[names.INPUT_TOKENS] == 7
    assert span.attributes[names.FINISH_REASONS] == ("stop",)
    assert "the question" not in span.text
    assert "Answer" not in span.text


async def test_a_generation_whose_end_was_read_is_no_error_though_its_stream_is_closed(
    tracing: Tracing, sent: Sent
) -> None:
    replica = traced(ScriptedReplica([Scripted("Answer: 42")]), tracing)
    async with aclosing(replica.generate(request())) as events:
        async for event in events:
            if isinstance(event, Finished):
                break
    (span,) = await sent()
    assert span.error == ""
    assert names.ERROR_TYPE not in span.attributes
    assert span.attributes[names.OUTPUT_TOKENS] > 0


async def test_a_generation_left_early_is_marked_cancelled_and_aborted(tracing: Tracing, sent: Sent) -> None:
    inner = ScriptedReplica([Scripted("Answer: 42", hold=asyncio.Event())])
    async with aclosing(traced(inner, tracing).generate(request())) as events:
        await anext(events)
    assert len(inner.aborted) == 1
    (span,) = await sent()
    assert (span.error, span.attributes[names.ERROR_TYPE]) == (CANCELLED, CANCELLED)


async def test_an_engine_failure_is_told_by_its_code_alone(tracing: Tracing, sent: Sent) -> None:
    inner = ScriptedReplica([Scripted(error=EngineRefused("It does not like zanzibarite.", "r1"))])
    with pytest.raises(EngineRefused):
        _ = [event async for event in traced(inner, tracing).generate(request())]
    (span,) = await sent()
    assert span.error == "engine_refused"
    assert "zanzibarite" not in span.text


async def test_tool_calls_tell_neither_arguments_nor_results(tracing: Tracing, sent: Sent) -> None:
    inner: Tool = ScriptedTool(tool_spec("probe"), ["the result", ToolOutput("the failure", is_error=True)])
    tool = TracedTool(inner, tracing, CALLER)
    for _ in range(2):
        await tool.call({"password": "hunter2"}, CONTEXT)
    spans = await sent()
    assert [span.name for span in spans] == ["execute_tool probe"] * 2
    assert [span.attributes.get(names.ERROR_TYPE) for span in spans] == [None, "tool_error"]
    for span in spans:
        assert span.attributes[names.STEP] == 3
        for secret in ("hunter2", "password", "the result", "the failure"):
            assert secret not in span.text


async def test_a_tool_call_cancelled_in_the_middle_ends_its_span(tracing: Tracing, sent: Sent) -> None:
    inner = SlowTool(tool_spec("probe"))
    task = asyncio.create_task(TracedTool(inner, tracing, CALLER).call({}, CONTEXT))
    await inner.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (span,) = await sent()
    assert span.error == CANCELLED


async def test_words_of_an_engine_are_clipped(tracing: Tracing, sent: Sent) -> None:
    replica = traced(ScriptedReplica([Scripted("Answer: 42")], model="m" * 100_000), tracing)
    _ = [event async for event in replica.generate(request())]
    (span,) = await sent()
    assert len(span.attributes[names.RESPONSE_MODEL]) <= 256


async def test_an_error_outside_the_tree_is_told_by_its_type(tracing: Tracing, sent: Sent) -> None:
    with pytest.raises(KeyError), tracing.span("a", "", {}):
        raise KeyError("a secret")
    with pytest.raises(HeavyError), tracing.span("b", "", {}):
        raise HeavyError("a secret")
    spans = await sent()
    assert [span.error for span in spans] == ["KeyError", "internal"]
    assert not any("a secret" in span.text for span in spans)


def test_without_an_endpoint_nothing_is_started_and_the_callers_context_passes_through() -> None:
    before = threading.active_count()
    off = Tracing("", "test")
    with off.span("a", CALLER, {names.STEP: 1}) as span:
        assert not span.is_recording()
        assert traceparent_of(span) == CALLER
    with off.span("a", "", {}) as span:
        assert traceparent_of(span) == ""
    assert threading.active_count() == before
    off.shutdown()
    off.shutdown()


@pytest.mark.parametrize(
    "garbage", ["", "x", "00-zz-zz-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "é" * 55]
)
def test_a_garbled_context_begins_a_new_trace(tracing: Tracing, garbage: str) -> None:
    with tracing.span("a", garbage, {}) as span:
        assert len(trace_id_of(traceparent_of(span))) == 32
        assert span.get_span_context().is_valid


@pytest.mark.parametrize("answers", ["refuses", "is silent"])
def test_a_receiver_that_is_down_slows_nothing_and_the_end_is_bounded(answers: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        if answers == "refuses":
            listener.close()
        tracing = Tracing(f"http://127.0.0.1:{port}", "test")
        began_s = time.monotonic()
        for _ in range(4_000):
            with tracing.span("a", CALLER, {names.STEP: 1}):
                pass
        took_s = time.monotonic() - began_s
        began_s = time.monotonic()
        tracing.shutdown()
        tracing.shutdown()
        assert time.monotonic() - began_s < SHUTDOWN_WITHIN_S
    assert took_s / 4_000 < 0.005
    with tracing.span("after the end", CALLER, {}) as span:
        assert trace_id_of(traceparent_of(span)) == trace_id_of(CALLER)


async def test_spans_are_sent_while_the_process_goes_on(tracing: Tracing, receiver: TraceReceiver) -> None:
    before = len(receiver.spans())
    replica = traced(ScriptedReplica([Scripted("Answer: 42")]), tracing)
    _ = [event async for event in replica.generate(request())]
    async with asyncio.timeout(5):
        while len(receiver.spans()) == before:
            await asyncio.sleep(0.02)
