"""JSON of OpenAI-compatible servers, out and in."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Sampling
from heavy.core.tools import Effects, ToolSpec
from heavy.profiles.schema import RequestSection
from heavy.replicas.api import GenerationRequest, TextDelta, TokenUsage
from heavy.replicas.assembly import CALLS_MAX, Assembly
from heavy.replicas.openai_json import (
    CallPart,
    Chunk,
    WireError,
    WireUsage,
    estimated_prompt_tokens,
    estimated_tokens,
    read_chunk,
    read_load,
    read_token_count,
    request_body,
)

TOOL = ToolSpec("python", "Runs code.", {"type": "object"}, "1", Effects.PURE, True)
KEYS = (
    *("choices", "delta", "tool_calls", "function", "index", "id", "name", "arguments", "usage", "error"),
    *("content", "reasoning", "finish_reason", "message", "code", "prompt_tokens", "cached_tokens"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


def request(*messages: Message, **changes: object) -> GenerationRequest:
    values = {
        "request_id": "0123-0-000000-00",
        "profile": "p",
        "messages": messages or (Message(Role.USER, "2+2?"),),
        "tools": (),
        "sampling": Sampling(),
        "tokens_max": 64,
        "deadline_ms": 0,
    }
    return GenerationRequest(**{**values, **changes})  # type: ignore[arg-type]


def body(asked: GenerationRequest, dialect: str = "sglang") -> dict[str, object]:
    loaded: dict[str, object] = orjson.loads(request_body(asked, "m", dialect))  # type: ignore[arg-type]
    return loaded


def chunk_of(delta: dict[str, object], **choice: object) -> Chunk:
    read = read_chunk(orjson.dumps({"choices": [{"delta": delta, **choice}]}))
    assert isinstance(read, Chunk)
    return read


def test_a_request_carries_the_conversation_its_limits_and_the_engine_side_id() -> None:
    call = ToolCall("functions.python:0", "python", '{"code": "1"}')
    sent = body(
        request(
            Message(Role.USER, "hi"),
            Message(Role.ASSISTANT, "", "thinking", (call,)),
            Message(Role.TOOL, "1", tool_call_id=call.id, name="python"),
            tools=(TOOL,),
            sampling=Sampling(0.5, 0.9, 11),
            stop=("END",),
        )
    )
    assert sent["messages"] == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "thinking",
            "tool_calls": [
                {
                    "id": "functions.python:0",
                    "type": "function",
                    "function": {"name": "python", "arguments": '{"code": "1"}'},
                }
            ],
        },
        {"role": "tool", "content": "1", "tool_call_id": "functions.python:0", "name": "python"},
    ]
    assert (sent["rid"], sent["seed"], sent["max_tokens"], sent["stop"]) == (
        "0123-0-000000-00",
        11,
        64,
        ["END"],
    )
    assert (sent["tool_choice"], sent["stream"]) == ("auto", True)


def test_earlier_reasoning_goes_back_under_the_name_that_its_server_reads() -> None:
    thought = request(Message(Role.ASSISTANT, "four", "two and two"))
    shape = RequestSection(reasoning_field="reasoning")
    (sent,) = json.loads(request_body(thought, "m", "openai", shape))["messages"]
    assert (sent["reasoning"], "reasoning_content" in sent) == ("two and two", False)


def test_only_sglang_is_asked_to_hold_arguments_to_their_schema() -> None:
    """OpenAI's own servers refuse `strict` beside schemas that leave anything open."""
    asked = request(tools=(TOOL,), tool_choice="required", strict_calls=True)
    strict = [body(asked, dialect)["tools"][0]["function"].get("strict") for dialect in ("sglang", "openai")]  # type: ignore[index]
    assert strict == [True, None]
    assert body(asked, "openai")["tool_choice"] == "required"
    assert "strict" not in json.dumps(body(replace(asked, strict_calls=False)))


def test_the_openai_dialect_sends_nothing_of_sglangs_and_no_choice_without_tools() -> None:
    sent = body(request(tool_choice="none"), "openai")
    assert not {"rid", "separate_reasoning", "stream_reasoning", "tool_choice", "tools", "seed"} & set(sent)


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=20))
def test_every_text_can_be_sent_half_surrogate_pairs_included(text: str) -> None:
    sent = body(request(Message(Role.USER, text)))
    assert isinstance(sent["messages"], list)


def test_integers_beyond_64_bits_in_a_schema_can_be_sent() -> None:
    spec = ToolSpec("t", "", {"maximum": 2**70}, "1", Effects.PURE, False)
    asked = request_body(request(tools=(spec,)), "m", "openai")
    assert json.loads(asked)["tools"][0]["function"]["parameters"] == {"maximum": 2**70}


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("abort", FinishReason.ABORT),
        ({"type": "abort", "message": "by request"}, FinishReason.ABORT),
        ("eos_of_some_other_server", FinishReason.STOP),
        (None, None),
        ("", None),
    ],
)
def test_finish_reasons_are_understood(wire: object, reason: FinishReason | None) -> None:
    assert chunk_of({}, finish_reason=wire, matched_stop=151645).finish is reason


def test_reasoning_is_read_under_either_name_and_once_where_both_are_sent() -> None:
    assert chunk_of({"reasoning_content": "a"}).reasoning == "a"
    assert chunk_of({"reasoning": "b", "content": None}).reasoning == "b"
    assert chunk_of({"reasoning_content": "c", "reasoning": "c"}).reasoning == "c"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4}, WireUsage(9, 4, 0, None)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 8},
                "reasoning_tokens": 3,
            },
            WireUsage(9, 4, 8, 3),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "cached_tokens": 7,
                "completion_tokens_details": {"reasoning_tokens": 2},
                "prompt_tokens_details": None,
            },
            WireUsage(9, 4, 7, 2),
        ),
        ({"prompt_tokens": -1, "completion_tokens": True}, WireUsage(0, 0, 0, None)),
    ],
)
def test_usage_is_read_in_every_known_form(usage: dict[str, object], expected: WireUsage) -> None:
    read = read_chunk(orjson.dumps({"choices": [], "usage": usage}))
    assert isinstance(read, Chunk)
    assert read.usage == expected
    assert chunk_of({}, usage=usage).usage == expected


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        ({"error": {"message": "m", "code": "c", "type": "t"}}, WireError("m", "c", 0)),
        ({"error": {"message": "m", "code": 503, "type": "t"}}, WireError("m", "t", 503)),
        ({"error": {"message": "m", "code": "400"}}, WireError("m", "", 400)),
        ({"error": "plain"}, WireError("plain", "", 0)),
        (
            {"object": "error", "message": "m", "type": "BadRequestError", "code": 400},
            WireError("m", "BadRequestError", 400),
        ),
        ({"detail": "Not Found"}, WireError("Not Found", "", 0)),
    ],
)
def test_errors_are_read_in_every_known_form(wire: object, error: WireError) -> None:
    assert read_chunk(orjson.dumps(wire)) == error


@given(JSON)
def test_any_json_is_a_chunk_an_error_or_a_value_error(value: object) -> None:
    try:
        read = read_chunk(json.dumps(value).encode())
        if isinstance(read, Chunk):
            Assembly().add([read])
    except ValueError:
        pass


@given(st.binary(max_size=60))
def test_any_bytes_are_a_chunk_an_error_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_chunk(data)


def test_halves_of_a_surrogate_pair_in_two_chunks_make_one_character() -> None:
    assembly = Assembly()
    for half in (rb"\ud83d", rb"\ude00"):
        read = read_chunk(b'{"choices":[{"delta":{"content":"' + half + b'"}}]}')
        assert isinstance(read, Chunk)
        delta = assembly.add([read])
        assert delta == TextDelta(content="\ufffd")
    assert assembly.content == "\U0001f600"


def assembled(*parts: CallPart) -> tuple[ToolCall, ...]:
    assembly = Assembly()
    for part in parts:
        assembly.add([Chunk(calls=(part,))])
    return assembly.calls()


@pytest.mark.parametrize(
    "parts",
    [
        (CallPart(0, "a", "f", '{"x"'), CallPart(0, arguments=":1}"), CallPart(1, "b", "g", "{}")),
        (CallPart(0, "a", "f", '{"x":1}'), CallPart(1, "b", "g"), CallPart(1, arguments="{}")),
        (CallPart(None, "a", "f", '{"x"'), CallPart(None, arguments=":1}"), CallPart(None, "b", "g", "{}")),
        (
            CallPart(0, "a"),
            CallPart(0, name="f"),
            CallPart(0, arguments='{"x":1}'),
            CallPart(1, "b", "g", "{}"),
        ),
        (CallPart(0, "a", "f", '{"x":1}'), CallPart(0, "b", "g", "{}")),
        (CallPart(0, "a", "f", '{"x"'), CallPart(0, "a", "f", ":1}"), CallPart(2, "b", "g", "{}")),
        (CallPart(1, "b", "g", "{}"), CallPart(0, "a", "f", '{"x":1}'))[::-1],
    ],
    ids=["pieces", "late arguments", "no index", "name later", "always index 0", "id repeated", "gaps"],
)
def test_calls_are_put_together_however_they_are_cut(parts: tuple[CallPart, ...]) -> None:
    assert assembled(*parts) == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"))


def test_calls_without_ids_keep_empty_ones_and_are_told_apart_by_their_names() -> None:
    calls = assembled(CallPart(None, name="f", arguments="{}"), CallPart(None, name="g", arguments="{}"))
    assert calls == (ToolCall("", "f", "{}"), ToolCall("", "g", "{}"))


def test_arguments_that_come_as_an_object_become_its_json() -> None:
    part = {"index": 0, "function": {"name": "f", "arguments": {"x": 1}}}
    assert chunk_of({"tool_calls": [part]}).calls == (CallPart(0, "", "f", '{"x":1}'),)


def test_more_calls_than_anyone_means_are_refused() -> None:
    with pytest.raises(ValueError, match=f"more than {CALLS_MAX}"):
        assembled(*(CallPart(index) for index in range(CALLS_MAX + 1)))


def usage_of(reported: WireUsage | None, reasoning: str, content: str) -> TokenUsage:
    assembly = Assembly()
    assembly.add([Chunk(reasoning=reasoning), Chunk(content=content), Chunk(usage=reported)])
    return assembly.usage((Message(Role.USER, "q"),), ())


def test_reasoning_that_nobody_counted_is_its_share_of_the_text() -> None:
    assert usage_of(WireUsage(5, 40, 0, None), "r" * 30, "c" * 10) == TokenUsage(5, 0, 30, 40)
    assert usage_of(WireUsage(5, 40, 0, 0), "r" * 30, "c" * 10).reasoning == 30
    assert usage_of(WireUsage(5, 40, 0, 12), "r" * 30, "c" * 10).reasoning == 12


def test_usage_never_counts_a_part_larger_than_its_whole() -> None:
    assert usage_of(WireUsage(5, 4, 9, 7), "r", "c") == TokenUsage(5, 5, 4, 4)


def test_usage_that_never_came_is_estimated_from_the_text() -> None:
    used = usage_of(None, "r" * 9, "c" * 6)
    assert (used.output, used.reasoning, used.prompt > 0) == (5, 3, True)


def test_estimates_count_bytes_messages_and_tools() -> None:
    assert estimated_tokens("abcd") == 2
    plain = estimated_prompt_tokens((Message(Role.USER, "q" * 300),), ())
    assert 100 <= plain <= 120
    assert estimated_prompt_tokens((Message(Role.USER, "q" * 300),), (TOOL,)) > plain


def test_loads_are_summed_over_the_data_parallel_ranks() -> None:
    rank = {"num_running_reqs": 2, "num_waiting_reqs": 1, "num_used_tokens": 10, "max_total_num_tokens": 50}
    load = read_load(orjson.dumps({"loads": [rank, rank, "junk"]}))
    assert (load.running, load.waiting, load.kv_tokens_used, load.kv_tokens_max) == (4, 2, 20, 100)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"", b'{"loads": 1}', b'{"count": -1}'])
def test_other_answers_are_no_load_and_no_count(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_load(data)
    with pytest.raises(ValueError):
        read_token_count(data)


def test_a_server_that_wants_it_differently_gets_it_differently() -> None:
    shape = RequestSection(
        tokens_field="max_completion_tokens",
        omit=("temperature", "top_p"),
        extra={"chat_template_kwargs": {"thinking": True}, "model": "another", "stream": False},
    )
    sent = orjson.loads(request_body(request(), "m", "openai", shape))
    assert sent["max_completion_tokens"] == 64
    assert not {"max_tokens", "temperature", "top_p"} & set(sent)
    assert sent["chat_template_kwargs"] == {"thinking": True}
    assert (sent["model"], sent["stream"]) == ("m", True), "what is ours to say stays ours"
