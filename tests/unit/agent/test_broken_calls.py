"""A corpus of broken calls: most of what can be known is repaired, and nothing is ever guessed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.agent.hygiene import accept
from heavy.core.messages import FinishReason, Message, Role, ToolCall

from tests_support.broken_calls import (
    REQUEST,
    SCHEMAS,
    TOOLSET,
    Case,
    Fate,
    corpus,
    fate,
    generation,
    mutations,
)

GENERATED = 2_000
MAY_LOOK_WHOLE = {"cut anywhere", "a character lost", "a mark lost", "a mark too many"}
FLOOR = 0.55
"""The part of generated breakages that must be repaired; a third cannot be by anybody (cuts, losses)."""


@pytest.mark.parametrize("case", corpus(), ids=lambda case: case.kind)
async def test_each_published_class_is_repaired_or_told_as_it_should_be(case: Case) -> None:
    assert await fate(case) is (Fate.REPAIRED if case.meant else Fate.TOLD)


async def test_generated_breakages_are_repaired_in_most_cases() -> None:
    fates: Counter[Fate] = Counter()
    for case in mutations(seed=1, count=GENERATED):
        fates[await fate(case)] += 1
    assert fates[Fate.REPAIRED] / GENERATED >= FLOOR, fates


async def test_what_has_lost_its_meaning_is_not_mended_into_something_else() -> None:
    """But for one in a hundred of texts that were cut exactly behind a value, or lost or won one mark."""
    wrong: Counter[str] = Counter()
    for case in mutations(seed=2, count=GENERATED):
        wrong[case.kind] += await fate(case) is Fate.WRONG
    assert set(+wrong) <= {f"mutation: {kind}" for kind in MAY_LOOK_WHOLE}, wrong
    assert wrong.total() <= GENERATED / 100, wrong


values = st.fixed_dictionaries(
    {"query": st.text(max_size=40)},
    optional={
        "count": st.integers(),
        "fresh": st.booleans(),
        "sites": st.lists(st.text(max_size=9), max_size=3),
    },
)


@given(values, st.booleans(), st.sampled_from([None, 2]), st.sampled_from([(",", ":"), (", ", ": ")]))
@settings(max_examples=150)
async def test_nothing_valid_is_ever_changed(
    given_values: dict[str, Any], ascii_only: bool, indent: int | None, separators: tuple[str, str]
) -> None:
    text = json.dumps(given_values, ensure_ascii=ascii_only, indent=indent, separators=separators)
    call = ToolCall("functions.search:0", "search", text)
    turn = accept(replace(generation([]), tool_calls=(call,)), REQUEST, "kimi_k2")
    reading = await TOOLSET.read(turn.message.tool_calls[0])

    assert turn.message == Message(Role.ASSISTANT, tool_calls=(call,))
    assert (turn.finish_reason, turn.repairs) == (FinishReason.TOOL_CALLS, ())
    assert reading.arguments is not None
    assert (dict(reading.arguments.values), reading.repairs) == (given_values, ())


@given(st.text(max_size=200), st.sampled_from(sorted(SCHEMAS)))
async def test_any_text_is_read_within_its_schema_or_refused_with_words(text: str, name: str) -> None:
    reading = await TOOLSET.read(ToolCall("", name, text))

    assert (reading.arguments is None) == bool(reading.problem)
