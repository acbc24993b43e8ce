"""Tool-call markup that leaked into text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.agent import k2
from heavy.core.repairs import Repair

SECTION = "<|tool_calls_section_begin|>"
SECTION_END = "<|tool_calls_section_end|>"


def markup(name: str, arguments: str, index: int = 0, end: str = "<|tool_call_end|>") -> str:
    return f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{arguments}{end}"


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,20}(\.[a-z_]{1,8})?", fullmatch=True)
prose = st.text(max_size=60).filter(lambda text: "<|" not in text)
arguments = st.dictionaries(prose, st.integers() | prose, max_size=3).map(json.dumps)


@given(st.text())
def test_text_without_markup_comes_back_untouched(text: str) -> None:
    if "<|tool_c" not in text:
        assert k2.salvage(text) == k2.Salvaged(text)


@given(prose, st.lists(st.tuples(names, arguments), min_size=1, max_size=4), prose, st.booleans())
def test_every_complete_call_is_found_and_the_prose_around_it_stays(
    before: str, calls: list[tuple[str, str]], after: str, sectioned: bool
) -> None:
    body = "".join(markup(name, text, index) for index, (name, text) in enumerate(calls))
    found = k2.salvage(before + (SECTION + body + SECTION_END if sectioned else body) + after)

    assert [(call.name, call.arguments) for call in found.calls] == calls
    assert found.text == (before + after).rstrip()
    assert found.repairs == ()


@given(names, arguments, st.integers(min_value=0, max_value=400))
def test_a_generation_cut_anywhere_never_yields_half_a_call(name: str, text: str, cut: int) -> None:
    whole = f"Let me see.{SECTION}{markup(name, text)}{markup(name, text, 1)}{SECTION_END}"
    found = k2.salvage(whole[:cut])

    assert all((call.name, call.arguments) == (name, text) for call in found.calls)
    assert len(found.calls) <= 2
    # A marker's first few characters could be anything; they stay.
    assert whole.startswith(found.text[:11])
    assert len(found.text) < 11 + len("<|tool_c")


@given(st.lists(st.sampled_from([*k2._MARKERS, "functions.f:0", "{}", '{"a": 1', " ", "text"]), max_size=12))
def test_any_sequence_of_markers_is_read_without_an_error_and_leaves_none_behind(pieces: list[str]) -> None:
    found = k2.salvage("".join(pieces))

    assert not any(marker in found.text for marker in k2._MARKERS)
    assert all(call.name for call in found.calls)


def test_a_section_cut_after_a_whole_call_keeps_that_call_and_says_so() -> None:
    whole, half = markup("search", '{"q": 1}'), markup("search", '{"q": ', 1, end="")
    found = k2.salvage(f"Thinking.{SECTION}{whole}{half}")

    assert [call.arguments for call in found.calls] == ['{"q": 1}']
    assert found.repairs == (Repair.TRUNCATED_SECTION, Repair.TRUNCATED_CALL_DROPPED)


def test_a_last_call_whose_end_marker_is_missing_counts_when_its_arguments_are_whole() -> None:
    found = k2.salvage(SECTION + markup("search", '{"q": 1}', end="<|tool_ca"))

    assert [call.name for call in found.calls] == ["search"]
    assert found.repairs == (Repair.TRUNCATED_SECTION,)


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        (SECTION_END, Repair.MARKERS_REMOVED),
        ("<|tool_call_end|>", Repair.MARKERS_REMOVED),
        ("<|tool_call_begin|>functions.f:0<|tool_call_end|>", Repair.UNREADABLE_CALL_DROPPED),
        (markup("", "{}"), Repair.UNREADABLE_CALL_DROPPED),
    ],
)
def test_markup_that_holds_no_call_is_removed_and_reported(text: str, repair: str) -> None:
    found = k2.salvage(f"before {text}")

    assert (found.text, found.calls) == ("before", ())
    assert repair in found.repairs


def test_singular_section_markers_and_a_bare_name_are_understood() -> None:
    call = "<|tool_call_begin|> search <|tool_call_argument_begin|> {} <|tool_call_end|>"
    found = k2.salvage(f"<|tool_call_section_begin|>{call}<|tool_call_section_end|>")

    assert [(call.name, call.arguments) for call in found.calls] == [("search", "{}")]
