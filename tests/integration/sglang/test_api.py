"""What a real SGLang 0.5.23 server says over HTTP: the shapes noted in `workers/engines/sglang/API_SEEN.md`.

The client and our own engine servers are written against that page, so a release of SGLang that says
something else fails here first. In short:

- A stream: a role chunk; deltas of `reasoning_content`, `content` or `tool_calls`; one with `finish_reason`;
  a chunk without choices but with `usage`; `[DONE]`. `id` is the `rid` of the request.
- `/v1/loads`: `loads[0]` has `num_running_reqs`, `num_waiting_reqs`, `num_used_tokens` and more.
- `/metrics`: `sglang:num_requests_total`, `sglang:num_aborted_requests_total`, `sglang:prompt_tokens_total`,
  `sglang:generation_tokens_total`, `sglang:cached_tokens_total`.
- A refusal: `{"object":"error","message":...,"type":"BadRequestError","param":null,"code":400}`, not nested.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.engines.client import Client, client, until

from .server import CONTEXT_TOKENS, LIMITS, NAME, Running

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]

QUESTION = [{"role": "user", "content": "What is 37+48-19?"}]
TOOL_QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "Use python: 4821*37-512"}]
PYTHON: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs Python code and returns what it printed.",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
    },
}
ONE_OF_TWO = {
    "type": "object",
    "properties": {"code": {"enum": ["print(1)", "print(2)"]}},
    "required": ["code"],
    "additionalProperties": False,
}
USAGE = {
    "prompt_tokens",
    "total_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "reasoning_tokens",
    "completion_tokens_details",
}
LOAD = {
    "timestamp",
    "dp_rank",
    "num_running_reqs",
    "num_waiting_reqs",
    "num_waiting_uncached_tokens",
    "num_used_tokens",
    "num_total_tokens",
    "max_total_num_tokens",
    "max_running_requests",
    "token_usage",
    "gen_throughput",
    "cache_hit_rate",
    "utilization",
    "memory",
    "queues",
}
ABORTED = "sglang:num_aborted_requests_total"


@pytest.fixture
async def http(url: str) -> AsyncIterator[Client]:
    async with client(url) as session:
        yield session


async def all_of(http: Client, **body: Any) -> list[dict[str, Any]]:
    return [chunk async for chunk in http.chunks(**{"messages": QUESTION, **body})]


async def refusal(http: Client, **body: Any) -> dict[str, Any]:
    """The answer to a request that is refused with 400, which has one shape."""
    status, answer, _ = await http.post("/v1/chat/completions", {"messages": QUESTION, **body})
    assert status == 400
    assert set(answer) == {"object", "message", "type", "param", "code"}
    assert (answer["object"], answer["param"], answer["code"]) == ("error", None, 400)
    return dict(answer)


async def test_a_log_of_a_start_reads_from_loading_to_ready(server: Running) -> None:
    assert server.signs[-1].state == "ready"
    shares = [sign.loaded for sign in server.signs if sign.loaded is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert {sign.state for sign in server.signs[:-1]} == {"starting"}


async def test_a_stream_begins_with_the_role_and_ends_with_reason_and_usage(http: Client) -> None:
    rid = uuid.uuid4().hex
    chunks = await all_of(http, rid=rid, max_tokens=8, ignore_eos=True)
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert first["choices"][0]["delta"] == {"reasoning_content": None, "role": "assistant", "content": ""}
    assert {chunk["id"] for chunk in chunks} == {rid}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert last["choices"][0] == {
        "index": 0,
        "delta": {"reasoning_content": None},
        "logprobs": None,
        "finish_reason": "length",
        "matched_stop": None,
    }
    assert usage["choices"] == []
    assert set(usage["usage"]) == USAGE
    assert usage["usage"]["completion_tokens"] == 8


async def test_thinking_streams_as_reasoning_content_without_its_tags(http: Client) -> None:
    chunks = await all_of(http, max_tokens=40, ignore_eos=True)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert thought
    assert "<think>" not in thought
    assert "</think>" not in thought
    assert 0 < chunks[-1]["usage"]["reasoning_tokens"] <= 40


async def test_calls_stream_as_a_header_and_pieces_of_the_arguments(http: Client) -> None:
    chunks = await all_of(http, messages=TOOL_QUESTION, tools=[PYTHON], temperature=0, max_tokens=256)
    parts = [p for chunk in chunks for c in chunk["choices"] for p in c["delta"].get("tool_calls") or ()]
    assert parts[0] == {
        "id": "functions.python:0",
        "index": 0,
        "type": "function",
        "function": {"name": "python", "arguments": ""},
    }
    assert len(parts) > 3
    assert all(part["id"] is None and part["function"]["name"] is None for part in parts[1:])
    arguments = json.loads("".join(part["function"]["arguments"] for part in parts))
    assert "print(" in arguments["code"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_call_follows_the_thinking_and_its_result_goes_on_in_the_cache(http: Client) -> None:
    asked, how = list(TOOL_QUESTION), {"tools": [PYTHON], "temperature": 0, "max_tokens": 256}
    said = await http.stream(messages=asked, **how)
    assert (said.finish, bool(said.reasoning), said.content) == ("tool_calls", True, "")
    (call,) = said.calls
    asked += [
        {"role": "assistant", "content": "", "reasoning_content": said.reasoning, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "178377\n"},
    ]
    again = await http.stream(messages=asked, **how)
    # Prompt and generation come from the cache: the template renders a turn as the model wrote it.
    known = said.usage["prompt_tokens"] + said.usage["completion_tokens"]
    assert known - 4 <= again.usage["prompt_tokens_details"]["cached_tokens"] < again.usage["prompt_tokens"]
    assert [one["id"] for one in again.calls] in ([], ["functions.python:1"])


async def test_a_named_tool_is_called(http: Client) -> None:
    other = {"type": "function", "function": {"name": "search", "parameters": ONE_OF_TWO}}
    choice = {"type": "function", "function": {"name": "python"}}
    how = {"tools": [other, PYTHON], "tool_choice": choice, "temperature": 0, "max_tokens": 400}
    said = await http.say(messages=TOOL_QUESTION, **how)
    assert {call["function"]["name"] for call in said.calls} == {"python"}


async def test_arguments_keep_to_their_schema_where_the_function_is_strict(http: Client) -> None:
    strict = {**PYTHON["function"], "strict": True, "parameters": ONE_OF_TWO}
    tools = [{"type": "function", "function": strict}]
    how = {"tools": tools, "tool_choice": "required", "temperature": 0, "max_tokens": 400}
    said = await http.say(messages=TOOL_QUESTION, **how)
    assert json.loads(said.calls[0]["function"]["arguments"])["code"] in ("print(1)", "print(2)")


async def test_a_full_queue_refuses_with_503_or_in_the_stream(http: Client) -> None:
    stem = uuid.uuid4().hex
    first, second = ([f"{stem}-{kind}-{n:02}" for n in range(count)] for kind, count in LIMITS.items())
    async with asyncio.TaskGroup() as group:
        for rids, holds in ((first, runs), (second, waits)):
            for rid in rids:
                group.create_task(all_of(http, rid=rid, max_tokens=3_000, ignore_eos=True))
            await until(lambda holds=holds, rids=rids: holds(http, len(rids)), "they run, or wait")  # type: ignore[misc]
        status, whole, headers = await http.post("/v1/chat/completions", {"messages": QUESTION})
        refused, usage = await all_of(http)
        await http.post("/abort_request", {"abort_all": True})
    full = {"object": "error", "message": "The request queue is full.", "param": None, "code": 503}
    assert (status, whole) == (503, {**full, "type": whole["type"]})
    assert refused == {"error": {**full, "type": refused["error"]["type"]}}
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 0)
    assert "Retry-After" not in headers
    await until(lambda: runs(http, 0), "none runs")


async def test_a_repeated_prompt_is_cached_but_for_its_last_token(http: Client) -> None:
    fresh = [{"role": "user", "content": f"{uuid.uuid4().hex} and more of it " * 8}]
    first = await http.say(messages=fresh, max_tokens=1)
    again = await http.say(messages=fresh, max_tokens=1)
    assert first.usage["prompt_tokens_details"]["cached_tokens"] < 16
    assert again.usage["prompt_tokens_details"]["cached_tokens"] == again.usage["prompt_tokens"] - 1
    assert await http.metric("sglang:cached_tokens_total") >= again.usage["prompt_tokens"] - 1


async def test_the_temperature_zero_repeats_while_a_seed_alone_need_not(http: Client) -> None:
    one, other = [await http.say(messages=QUESTION, temperature=0, max_tokens=24) for _ in range(2)]
    assert one.words == other.words
    seeded = await http.say(messages=QUESTION, temperature=1.0, seed=7, max_tokens=4)
    assert seeded.usage["completion_tokens"] <= 4


async def test_max_tokens_ends_a_generation_with_length(http: Client) -> None:
    said = await http.say(messages=QUESTION, max_tokens=5, ignore_eos=True)
    assert (said.finish, said.usage["completion_tokens"]) == ("length", 5)


async def test_an_abort_ends_every_request_whose_id_begins_with_one_in_flight(http: Client) -> None:
    before = await http.metric(ABORTED)
    stem = uuid.uuid4().hex
    streams = [http.chunks(rid=f"{stem}-{n}", max_tokens=3_000, ignore_eos=True) for n in ("1", "10", "2")]
    for stream in streams:
        await anext(stream)
    await until(lambda: runs(http, 3), "three run")
    await http.post("/abort_request", {"rid": stem})  # the beginning of three ids, the id of none: ignored
    async with http.session.post(f"{http.url}/abort_request", json={"rid": f"{stem}-1"}) as response:
        assert (response.status, await response.read()) == (200, b"")
    assert [await reason(stream) for stream in streams[:2]] == ["abort", "abort"]
    await until(lambda: runs(http, 1), "the third runs on")
    await http.post("/abort_request", {"rid": f"{stem}-2"})
    assert await reason(streams[2]) == "abort"
    await until(lambda: runs(http, 0), "none runs")
    assert await http.metric(ABORTED) == before + 2  # aborts that were asked for, not requests that ended


async def test_an_abort_of_nothing_is_no_error(http: Client) -> None:
    for body in ({"rid": uuid.uuid4().hex}, {}):
        assert (await http.post("/abort_request", body))[0] == 200


async def test_a_request_id_in_flight_is_refused_a_second_time(http: Client) -> None:
    rid = uuid.uuid4().hex
    running = http.chunks(rid=rid, max_tokens=3_000, ignore_eos=True)
    await anext(running)
    answer = await refusal(http, rid=rid, max_tokens=1)
    assert answer["message"] == f"Duplicate request ID detected: {rid}"
    await http.post("/abort_request", {"rid": rid})
    assert await reason(running) == "abort"


async def test_the_load_report_has_its_shape_and_follows_the_load(http: Client) -> None:
    rid = uuid.uuid4().hex
    running = http.chunks(rid=rid, max_tokens=3_000, ignore_eos=True)
    await anext(running)
    await until(lambda: runs(http, 1), "it runs")
    report = await http.get("/v1/loads")
    assert set(report) == {"timestamp", "version", "accelerator", "num_accelerators", "loads"}
    (rank,) = report["loads"]
    assert set(rank) >= LOAD
    assert 0 < rank["num_used_tokens"] < rank["max_total_num_tokens"] == 65_536
    core = (await http.get("/v1/loads?include=core"))["loads"][0]
    assert "memory" not in core
    assert set(core) >= LOAD - {"memory", "queues"}
    await http.post("/abort_request", {"rid": rid})
    await reason(running)
    await until(lambda: runs(http, 0), "none runs")
    assert (await http.load())["num_used_tokens"] == 0


async def test_health_answers_with_nothing_but_its_status(http: Client) -> None:
    for path in ("/health", "/ready", "/health_generate"):
        async with http.session.get(http.url + path) as response:
            assert (response.status, await response.read()) == (200, b""), path


async def test_tokenize_counts_a_text_and_a_conversation(http: Client) -> None:
    _, text, _ = await http.post("/v1/tokenize", {"prompt": "<think>12"})
    assert set(text) == {"tokens", "count", "max_model_len"}
    assert text["count"] == len(text["tokens"]) == 3
    assert text["max_model_len"] == CONTEXT_TOKENS
    _, asked, _ = await http.post("/v1/tokenize", {"messages": QUESTION})
    assert asked["count"] == (await http.say(messages=QUESTION, max_tokens=1)).usage["prompt_tokens"]


async def test_what_overflows_the_context_is_refused_with_the_numbers(http: Client) -> None:
    long = [{"role": "user", "content": "1+" * CONTEXT_TOKENS}]
    answer = await refusal(http, messages=long)
    assert answer["type"] == "BadRequestError"
    assert f"longer than the model's context length ({CONTEXT_TOKENS} tokens)" in answer["message"]
    answer = await refusal(http, max_tokens=CONTEXT_TOKENS)
    assert f"maximum context length of {CONTEXT_TOKENS} tokens" in answer["message"]
    answer = await refusal(http, messages=long, stream=True)
    assert answer["type"] == "BadRequestError"


async def test_other_refusals_have_the_same_shape(http: Client) -> None:
    assert (await refusal(http, messages=[]))["message"] == "Messages cannot be empty."
    assert "temperature" in (await refusal(http, temperature=-1))["message"]
    assert (await refusal(http, messages="text"))["type"] == "Bad Request"


async def test_the_served_model_is_named_and_another_name_is_answered_too(http: Client) -> None:
    (card,) = (await http.get("/v1/models"))["data"]
    assert (card["id"], card["max_model_len"]) == (NAME, CONTEXT_TOKENS)
    status, answer, _ = await http.post(
        "/v1/chat/completions", {"model": "another", "messages": QUESTION, "max_tokens": 1}
    )
    assert (status, answer["model"]) == (200, "another")


async def test_eight_at_once_share_the_prefix_of_the_first(http: Client) -> None:
    fresh = [{"role": "user", "content": f"{uuid.uuid4().hex} one plus two " * 16}]
    await http.say(messages=fresh, max_tokens=1)
    arms = await asyncio.gather(
        *(http.stream(messages=fresh, max_tokens=16, ignore_eos=True, seed=n) for n in range(8))
    )
    for arm in arms:
        assert arm.usage["prompt_tokens_details"]["cached_tokens"] == arm.usage["prompt_tokens"] - 1
    assert len({arm.reasoning for arm in arms}) > 1


async def runs(http: Client, count: int) -> bool:
    return bool((await http.load())["num_running_reqs"] == count)


async def waits(http: Client, count: int) -> bool:
    return bool((await http.load())["num_waiting_reqs"] == count)


async def reason(stream: AsyncIterator[dict[str, Any]]) -> str | None:
    """How a stream ends, read to its end."""
    found = [choice["finish_reason"] async for chunk in stream for choice in chunk["choices"]]
    return found[-1]
