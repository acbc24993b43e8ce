"""The HTTP client against a real server that misbehaves on command."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from heavy.core import clock
from heavy.core.errors import (
    ConfigError,
    ContextOverflow,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    HeavyError,
    MalformedStream,
)
from heavy.core.ids import arm, new_run_id, request_id
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Sampling
from heavy.replicas.api import Finished, GenerationRequest, TextDelta, TokenUsage
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import Endpoint, HttpPool
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.testing.scripted_server import (
    ABORT,
    CHAT,
    DONE,
    Act,
    Reply,
    ScriptedServer,
    answer,
    chunk,
    event,
    usage,
)

ABORT_WITHIN_S = 0.1
MESSAGES = (Message(Role.USER, "2+2?"),)


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    """A pool, and the proof that nothing is left behind when it is closed."""
    before = asyncio.all_tasks()
    pool = HttpPool(streams_max=8)
    yield pool
    session = pool.session
    await pool.close()
    assert session.closed
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0)


def request(**changes: object) -> GenerationRequest:
    values = {
        "request_id": request_id(new_run_id(), arm(0), 0, 0),
        "profile": "p",
        "messages": MESSAGES,
        "tools": (),
        "sampling": Sampling(seed=1),
        "tokens_max": 64,
        "deadline_ms": clock.now_ms() + 30_000,
    }
    return GenerationRequest(**{**values, **changes})  # type: ignore[arg-type]


def replica(
    server: ScriptedServer,
    pool: HttpPool,
    *,
    dialect: str = "sglang",
    silence_s: float = 10.0,
    key_env: str = "",
) -> HttpReplica:
    endpoint = Endpoint("r1", server.base_url, "m", dialect, key_env)  # type: ignore[arg-type]
    return HttpReplica(endpoint, pool, silence_s=silence_s)


async def collected(replica: HttpReplica, asked: GenerationRequest) -> tuple[list[TextDelta], Finished]:
    events = [one async for one in replica.generate(asked)]
    *deltas, finished = events
    assert isinstance(finished, Finished)
    return [one for one in deltas if isinstance(one, TextDelta)], finished


async def failure(replica: HttpReplica, asked: GenerationRequest) -> HeavyError:
    with pytest.raises(HeavyError) as caught:
        await collected(replica, asked)
    return caught.value


async def test_a_whole_stream_becomes_deltas_and_one_finished(pool: HttpPool) -> None:
    call = {"index": 0, "id": "functions.python:0", "type": "function", "function": {"name": "python"}}
    rest = {"index": 0, "id": None, "function": {"name": None, "arguments": '{"code":'}}
    parts = (
        chunk({"role": "assistant", "content": "", "reasoning_content": None}),
        chunk({"reasoning_content": "think"}),
        b": keep-alive\r\n\r\n",
        chunk({"content": "text"}),
        chunk({"tool_calls": [{**call, "function": {"name": "python", "arguments": ""}}]}),
        chunk({"tool_calls": [rest]}),
        chunk({"tool_calls": [{**rest, "function": {"arguments": '"1"}'}}]}),
        chunk({"reasoning_content": None}, finish="tool_calls"),
        usage(19, 31, prompt_tokens_details={"cached_tokens": 18}, reasoning_tokens=26),
        DONE,
    )
    async with ScriptedServer(Reply(parts)) as server:
        asked = request()
        deltas, finished = await collected(replica(server, pool), asked)
    assert "".join(delta.reasoning for delta in deltas) == "think"
    assert "".join(delta.content for delta in deltas) == "text"
    assert finished.tool_calls == (ToolCall("functions.python:0", "python", '{"code":"1"}'),)
    assert finished.finish_reason is FinishReason.TOOL_CALLS
    assert finished.usage == TokenUsage(prompt=19, cached=18, reasoning=26, output=31)
    assert (finished.replica, finished.model, finished.request_id) == ("r1", "m", asked.request_id)
    assert finished.timing.first_token_s > 0
    assert server.of(ABORT) == []
    sent = server.of(CHAT)[0]
    assert sent.json()["rid"] == sent.headers["x-override-rid"] == asked.request_id


@pytest.mark.parametrize("size", [1, 2, 7, 64])
async def test_the_same_bytes_in_other_pieces_are_the_same_answer(pool: HttpPool, size: int) -> None:
    stream = b"".join(part for part in answer("Größe: 4 €").parts if isinstance(part, bytes))
    pieces = tuple(stream[at : at + size] for at in range(0, len(stream), size))
    async with ScriptedServer([answer("Größe: 4 €"), Reply(pieces)]) as server:
        whole = (await collected(replica(server, pool), request()))[1]
        cut = (await collected(replica(server, pool), request()))[1]
    assert (cut.content, cut.usage, cut.finish_reason) == (whole.content, whole.usage, whole.finish_reason)


START = chunk({"content": "so"})


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (Reply((START, DONE)), MalformedStream, "without a finish reason"),
        (Reply((START,)), MalformedStream, "without a finish reason"),
        (Reply(()), MalformedStream, "without a finish reason"),
        (Reply((START, b"data: {nonsense\n\n")), MalformedStream, "is not JSON"),
        (Reply((START, b"data: [1]\n\n")), MalformedStream, "is not a JSON object"),
        (Reply((START, event({"choices": 3}))), MalformedStream, "not a list"),
        (Reply((START, b"data: \xff\xfe\n\n")), MalformedStream, "is not JSON"),
        (Reply((START, Act.DROP)), EngineUnavailable, "dropped the connection"),
        (Reply((START, b'data: {"choi', Act.DROP)), EngineUnavailable, "dropped the connection"),
        (Reply((Act.DROP,)), EngineUnavailable, "dropped the connection"),
        (
            Reply((START, event({"error": {"message": "CUDA out of memory", "code": 500}}))),
            EngineUnavailable,
            "CUDA",
        ),
        (Reply((START, b"event: error\ndata: it broke\n\n")), EngineUnavailable, "it broke"),
        (Reply((START, event({"object": "error", "message": "no", "code": 400}))), EngineRefused, "no"),
        (Reply((START, chunk(finish="content_filter"), DONE)), EngineRefused, "content filter"),
        (Reply((START, Act.STALL)), EngineTimeout, "silent for 0.2 s"),
        (Reply((Act.STALL,)), EngineTimeout, "silent for 0.2 s"),
        (Reply((b"<html>",), headers={"Content-Type": "text/html"}), MalformedStream, "base_url"),
        (Reply((b'{"error":"x"}',), headers={"Content-Type": "application/json"}), EngineUnavailable, "x"),
    ],
)
async def test_every_way_a_stream_breaks_has_its_error(
    pool: HttpPool, reply: Reply, kind: type[HeavyError], says: str
) -> None:
    async with ScriptedServer(reply) as server:
        asked, silence_s = request(), 0.2 if Act.STALL in reply.parts else 10.0
        began_s = time.monotonic()
        error = await failure(replica(server, pool, silence_s=silence_s), asked)
        assert time.monotonic() - began_s < 4.0
        assert [one.json() for one in server.of(ABORT)] == [{"rid": asked.request_id}]
    assert type(error) is kind
    assert says in str(error)
    assert error.details["replica"] == "r1"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "temperature must be a non-negative finite number", EngineRefused),
        (
            400,
            "The input (20007 tokens) is longer than the model's context length (4096 tokens).",
            ContextOverflow,
        ),
        (404, "no such model", EngineRefused),
        (500, "boom", EngineUnavailable),
        (503, "draining", EngineUnavailable),
    ],
)
async def test_refusals_have_their_errors_and_need_no_abort(
    pool: HttpPool, status: int, message: str, kind: type[HeavyError]
) -> None:
    body = b'{"object":"error","message":"' + message.encode() + b'","code":%d}' % status
    reply = Reply((body,), status, {"Content-Type": "application/json", "Retry-After": "2"})
    async with ScriptedServer(reply) as server:
        error = await failure(replica(server, pool), request())
        assert server.of(ABORT) == []
    assert type(error) is kind
    assert message in str(error)
    if isinstance(error, EngineUnavailable):
        assert error.retry_after_s == 2.0


async def test_after_the_finish_reason_nothing_can_spoil_the_answer(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((START, chunk(finish="stop"), Act.DROP))) as server:
        finished = (await collected(replica(server, pool), request()))[1]
    assert finished.content == "so"
    assert finished.usage.prompt == estimated_prompt_tokens(MESSAGES, ())
    assert finished.usage.output > 0


async def test_a_port_where_nobody_listens_is_an_unavailable_engine(pool: HttpPool) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = Endpoint("r1", f"http://127.0.0.1:{probe.getsockname()[1]}/v1", "m", "sglang")
        error = await failure(HttpReplica(endpoint, pool, silence_s=5.0), request())
    assert isinstance(error, EngineUnavailable)
    assert "cannot be reached" in str(error)


async def test_a_cancel_is_an_abort_that_the_server_sees_within_100_ms(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        asked, begun = request(), asyncio.Event()

        async def consume() -> None:
            async with aclosing(replica(server, pool).generate(asked)) as events:
                async for _ in events:
                    begun.set()

        task = asyncio.create_task(consume())
        await begun.wait()
        cancelled_s = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        [abort] = server.of(ABORT)
        assert abort.json() == {"rid": asked.request_id}
        assert abort.at_s - cancelled_s < ABORT_WITHIN_S
        await server.until(lambda: server.open == 0)


async def test_a_cancel_before_the_first_byte_is_an_abort_too(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((Act.STALL,))) as server:
        asked = request()
        task = asyncio.create_task(collected(replica(server, pool), asked))
        await server.until(lambda: server.open == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [one.json() for one in server.of(ABORT)] == [{"rid": asked.request_id}]


async def test_closing_the_generator_early_is_an_abort(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        events = replica(server, pool).generate(request())
        await anext(events)
        await events.aclose()
        assert len(server.of(ABORT)) == 1


async def test_an_abort_is_confirmed_by_the_end_of_the_stream_and_said_again_where_that_goes_on(
    pool: HttpPool, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        events = replica(server, pool).generate(request())
        await anext(events)
        await events.aclose()
        assert len(server.of(ABORT)) == 1
        assert "did not confirm" not in caplog.text
        server.on(ABORT, Reply(status=500))
        events = replica(server, pool).generate(request())
        await anext(events)
        await events.aclose()
        await server.until(lambda: server.open == 0)  # its connection was dropped at last
        assert len(server.of(ABORT)) == 3
        assert "did not confirm" in caplog.text


async def test_a_second_cancel_ends_the_wait_and_the_abort_still_arrives(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        server.on(ABORT, Reply(mute=True))
        begun = asyncio.Event()

        async def consume() -> None:
            async with aclosing(replica(server, pool).generate(request())) as events:
                async for _ in events:
                    begun.set()

        task = asyncio.create_task(consume())
        await begun.wait()
        task.cancel()
        await server.until(lambda: len(server.of(ABORT)) == 1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_abort_that_hangs_holds_the_caller_for_its_bound_at_most(
    pool: HttpPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heavy.replicas.http.STOP_WAIT_S", 0.2)
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        server.on(ABORT, Reply(mute=True))
        events = replica(server, pool).generate(request())
        await anext(events)
        began_s = time.monotonic()
        await events.aclose()
        assert 0.15 < time.monotonic() - began_s < 1.0


async def test_the_openai_dialect_aborts_by_dropping_the_connection(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        events = replica(server, pool, dialect="openai").generate(request())
        await anext(events)
        await events.aclose()
        await server.until(lambda: server.open == 0)
        assert server.of(ABORT) == []
        assert "x-override-rid" not in server.of(CHAT)[0].headers


async def test_the_deadline_ends_a_generation_that_never_falls_silent(pool: HttpPool) -> None:
    async with ScriptedServer(Reply((START, Act.STALL))) as server:
        error = await failure(replica(server, pool), request(deadline_ms=clock.now_ms() + 200))
        assert len(server.of(ABORT)) == 1
    assert isinstance(error, EngineTimeout)
    assert "deadline" in str(error)


async def test_the_key_comes_from_its_variable_and_a_missing_one_is_said(
    pool: HttpPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = Reply((b'{"error":{"message":"Incorrect API key provided: sk-123"}}',), 401)
    async with ScriptedServer([answer(), denied]) as server:
        monkeypatch.setenv("TEST_API_KEY", "sk-123")
        remote = replica(server, pool, dialect="openai", key_env="TEST_API_KEY")
        await collected(remote, request())
        assert server.of(CHAT)[0].headers["Authorization"] == "Bearer sk-123"
        error = await failure(remote, request())
        assert "TEST_API_KEY" in str(error)
        assert "sk-123" not in str(error)
        monkeypatch.delenv("TEST_API_KEY")
        assert isinstance(await failure(remote, request()), ConfigError)


async def test_only_a_well_formed_traceparent_becomes_a_header(pool: HttpPool) -> None:
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    async with ScriptedServer(answer()) as server:
        await collected(replica(server, pool), request(traceparent=good))
        await collected(replica(server, pool), request(traceparent="x\r\nInjected: 1"))
    first, second = server.of(CHAT)
    assert first.headers["traceparent"] == good
    assert "traceparent" not in second.headers


async def test_tokens_are_counted_by_the_server_and_estimated_where_it_cannot(pool: HttpPool) -> None:
    estimate = estimated_prompt_tokens(MESSAGES, ())
    async with ScriptedServer() as server:
        counter = replica(server, pool)
        server.on("/v1/tokenize", Reply((b'{"tokens":[1,2,3],"count":3}',)), Reply((b"oops",), 503))
        assert await counter.count_tokens("p", MESSAGES, ()) == 3
        assert await counter.count_tokens("p", MESSAGES, ()) == estimate
        server.on("/v1/tokenize", Reply((b'{"detail":"Not Found"}',), 404))
        assert await counter.count_tokens("p", MESSAGES, ()) == estimate
        assert await counter.count_tokens("p", MESSAGES, ()) == estimate
        assert len(server.of("/v1/tokenize")) == 3
        assert await replica(server, pool, dialect="openai").count_tokens("p", MESSAGES, ()) == estimate


async def test_load_and_health_are_bounded_and_have_their_errors(pool: HttpPool) -> None:
    async with ScriptedServer(health_generate=Reply(())) as server:
        one = replica(server, pool)
        server.on("/v1/loads", Reply((b'{"loads":[{"num_running_reqs":2}]}',)))
        assert (await one.load(1.0)).running == 2
        await one.check_health(1.0)
        server.on("/health_generate", Reply((Act.STALL,)))
        with pytest.raises(EngineTimeout):
            await one.check_health(0.1)
        server.on("/health_generate", Reply((b"draining",), 503))
        with pytest.raises(EngineUnavailable):
            await one.check_health(1.0)
        server.on("/v1/loads", Reply((b"[]",)))
        with pytest.raises(EngineRefused):
            await one.load(1.0)
