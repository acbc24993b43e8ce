"""The splitter: reasoning, content and calls, however the text is cut into pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engines.api.completion import Transcript
from workers.engines.formats.markers import (
    HERMES_CALLS,
    K2_CALLS,
    K2_REASONING,
    QWEN_REASONING,
    OutputFormat,
    choose,
)
from workers.engines.formats.splitter import HEAD_CHARACTERS_MAX, Splitter

K2 = OutputFormat(K2_REASONING, K2_CALLS)
HERMES = OutputFormat(QWEN_REASONING, HERMES_CALLS)


def split(
    output: OutputFormat, pieces: list[str], **how: object
) -> tuple[str, str, list[tuple[str, str, str]]]:
    """Content, reasoning and calls (id, name, arguments) of a text in pieces."""
    splitter, transcript = Splitter(output, **how), Transcript()
    for piece in pieces:
        for delta in splitter.feed(piece):
            transcript.add(delta)
    for delta in splitter.finish():
        transcript.add(delta)
    calls = [transcript.calls[index] for index in sorted(transcript.calls)]
    return (
        "".join(transcript.content),
        "".join(transcript.reasoning),
        [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls],
    )


def k2_call(number: int, name: str, arguments: str) -> str:
    head = f"<|tool_call_begin|>functions.{name}:{number}"
    return f"{head}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


def test_k2_text_becomes_reasoning_content_and_numbered_calls() -> None:
    text = (
        "<think>step 1\n</think>Let me see."
        "<|tool_calls_section_begin|>"
        + k2_call(0, "python", '{"code": "print(1)"}')
        + k2_call(1, "search", '{"query": "x"}')
        + "<|tool_calls_section_end|>"
    )
    content, reasoning, calls = split(K2, [text])
    assert content == "Let me see."
    assert reasoning == "step 1\n"
    assert calls == [
        ("functions.python:0", "python", '{"code": "print(1)"}'),
        ("functions.search:1", "search", '{"query": "x"}'),
    ]


def test_k2_calls_inside_the_reasoning_are_calls() -> None:
    text = "<think>I will call<|tool_calls_section_begin|>" + k2_call(0, "python", "{}")
    content, reasoning, calls = split(K2, [text])
    assert (content, reasoning) == ("", "I will call")
    assert calls == [("functions.python:0", "python", "{}")]


def test_hermes_calls_get_ids_that_count_over_the_conversation() -> None:
    text = (
        "<think>\nhm\n</think>\n\nOne moment."
        '<tool_call>\n{"name": "python", "arguments": {"code": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>'
    )
    content, reasoning, calls = split(HERMES, [text], first_index=3)
    assert (content, reasoning) == ("One moment.", "hm")
    assert calls == [
        ("functions.python:3", "python", '{"code": "é"}'),
        ("functions.search:4", "search", "{}"),
    ]


def test_a_broken_hermes_object_is_shown_as_the_arguments_of_a_call() -> None:
    _, _, calls = split(HERMES, ['<tool_call>{"name": "python", "arguments": {"code": "pri</tool_call>'])
    assert calls == [("functions.python:0", "python", '{"name": "python", "arguments": {"code": "pri')]


def test_a_hermes_object_that_never_closes_is_still_a_call() -> None:
    _, _, calls = split(HERMES, ['<tool_call>{"name": "python", "arguments": {}}'])
    assert calls == [("functions.python:0", "python", "{}")]


def test_a_thought_about_hermes_markers_stays_a_thought() -> None:
    content, reasoning, calls = split(HERMES, ["<think>use <tool_call>?</think>no"])
    assert (content, reasoning, calls) == ("no", "use <tool_call>?", [])


def test_without_tools_a_call_is_text_and_no_marker_shows() -> None:
    content, _, calls = split(
        K2, ["<|tool_calls_section_begin|>" + k2_call(0, "python", "{}")], calls_offered=False
    )
    assert (content, calls) == ("functions.python:0{}", [])


def test_a_template_that_opens_the_reasoning_needs_no_begin_marker() -> None:
    assert split(HERMES, ["so\n</think>\n\nyes"], in_reasoning=True) == ("yes", "so", [])
    assert K2.opens_reasoning("...<think>")
    assert not K2.opens_reasoning("<think>old</think>...")


def test_an_id_that_never_ends_does_not_wait_for_ever() -> None:
    endless = "<|tool_call_begin|>" + "x" * (HEAD_CHARACTERS_MAX + 500)
    splitter = Splitter(K2)
    assert len(splitter.feed(endless)) >= 1


CALL = '{"name": "f", "arguments": {"a": 1}}'
TEXTS = ("functions.python:0", CALL, "\n", "\n\n", "<", "<|", "</", "text", "é", " ", "x" * 600)
PARTS = st.sampled_from([*K2.markers, *HERMES.markers, *TEXTS])


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(PARTS, max_size=14),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    in_reasoning=st.booleans(),
    offered=st.booleans(),
)
@pytest.mark.parametrize("output", [K2, HERMES], ids=["k2", "hermes"])
def test_any_chunking_of_a_text_gives_the_same_result(
    output: OutputFormat, parts: list[str], sizes: list[int], in_reasoning: bool, offered: bool
) -> None:
    text, chunks, at, turn = "".join(parts), [], 0, 0
    while at < len(text):
        chunks.append(text[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    how = {"in_reasoning": in_reasoning, "calls_offered": offered}
    assert split(output, chunks, **how) == split(output, [text], **how)


@settings(max_examples=100, deadline=None)
@given(
    arguments=st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), said=st.text(max_size=20)
)
def test_what_is_written_in_the_format_is_read_back(arguments: dict[str, str], said: str) -> None:
    payload = json.dumps(arguments)
    if any(marker in payload + said for marker in K2.markers):
        return
    section = f"<|tool_calls_section_begin|>{k2_call(0, 'f', payload)}<|tool_calls_section_end|>"
    content, reasoning, calls = split(K2, [f"<think>{said}</think>{section}"])
    assert (content, reasoning) == ("", said)
    assert calls == [("functions.f:0", "f", payload)]


def test_the_formats_are_found_in_the_template_unless_flags_say_otherwise() -> None:
    k2 = "<|tool_call_begin|> <think></think>"
    assert choose(k2, "auto", "auto") == K2
    assert choose("<tool_call>", "auto", "auto") == OutputFormat(None, HERMES_CALLS)
    assert choose("plain", "auto", "auto") == OutputFormat(None, None)
    assert choose(k2, "none", "qwen") == OutputFormat(None, HERMES_CALLS)
    with pytest.raises(ValueError, match="no parser 'mystery'"):
        choose(k2, "mystery", "auto")
