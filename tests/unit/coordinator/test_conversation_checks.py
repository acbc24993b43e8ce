"""Which conversations a run can be made of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.coordinator.conversation import (
    CONVERSATION_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGES_MAX,
    check_conversation,
    check_request_id,
)
from heavy.core.messages import Message, Role, ToolCall

ASK = Message(Role.USER, "And?")
CALLS = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "python", "{"), ToolCall("b", "python", "{}")))


def answer(call: str) -> Message:
    return Message(Role.TOOL, "4", tool_call_id=call)


def wrong(*messages: Message) -> set[str]:
    return {item.field for item in check_conversation(messages)}


def test_a_whole_conversation_with_tools_is_accepted() -> None:
    assert not wrong(Message(Role.SYSTEM, "Be brief."), ASK, CALLS, answer("b"), answer("a"), ASK)


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ((), "messages"),
        ((ASK,) * (MESSAGES_MAX + 1), "messages"),
        ((Message(Role.USER, " \n"),), "messages[0].content"),
        ((ASK, Message(Role.ASSISTANT, "Yes.")), "messages[1].role"),
        ((Message(Role.SYSTEM, "Be brief."),), "messages[0].role"),
        ((answer("a"), ASK), "messages[0].tool_call_id"),
        ((CALLS, answer("c"), ASK), "messages[1].tool_call_id"),
        ((CALLS, answer("a"), answer("a"), ASK), "messages[2].tool_call_id"),
        ((answer("a"), CALLS, ASK), "messages[0].tool_call_id"),
        ((Message(Role.USER, "x", reasoning="y"),), "messages[0].reasoning"),
        ((Message(Role.USER, "x", tool_calls=CALLS.tool_calls),), "messages[0].tool_calls"),
        ((Message(Role.USER, "x", tool_call_id="a"),), "messages[0].tool_call_id"),
        (
            (Message(Role.ASSISTANT, tool_calls=(ToolCall("", "", ""),)), ASK),
            "messages[0].tool_calls[0].name",
        ),
        ((Message(Role.USER, "ü" * (MESSAGE_BYTES_MAX // 2 + 1)),), "messages[0]"),
    ],
)
def test_what_is_wrong_is_named(messages: tuple[Message, ...], field: str) -> None:
    assert field in wrong(*messages)


def test_the_whole_is_bounded_and_not_only_its_parts() -> None:
    part = Message(Role.USER, "x" * MESSAGE_BYTES_MAX)
    fitting = CONVERSATION_BYTES_MAX // MESSAGE_BYTES_MAX
    assert not wrong(*[part] * fitting)
    assert wrong(*[part] * fitting, ASK) == {"messages"}


@pytest.mark.parametrize("given_id", ["", "a", "x" * 128, "Frage 7 – bitte"])
def test_ordinary_request_ids_are_accepted(given_id: str) -> None:
    assert not check_request_id(given_id)


@pytest.mark.parametrize("given_id", ["x" * 129, "a\nb", "\x00"])
def test_request_ids_that_are_long_or_cannot_be_printed_are_not(given_id: str) -> None:
    assert [item.field for item in check_request_id(given_id)] == ["request_id"]


@given(
    st.lists(
        st.builds(
            Message, role=st.sampled_from(Role), content=st.text(max_size=5), tool_call_id=st.text(max_size=2)
        ),
        max_size=6,
    )
)
@settings(deadline=None)
def test_every_conversation_is_judged_without_failing(messages: list[Message]) -> None:
    for item in check_conversation(messages):
        assert item.field.startswith("messages")
        assert item.problem
