"""What models and callers get wrong in tool calls."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.agent import hygiene, k2
from heavy.agent.hygiene import accept, normalise, outgoing
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Sampling
from heavy.core.records import GenerationTiming
from heavy.core.repairs import Repair
from heavy.core.tools import Effects, ToolSpec
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationRequest, TokenUsage

PROFILE = Profile(name="k2", title="K2", engine="simulated", model="m", context_tokens=4096)
SEARCH = ToolSpec("search", "Searches.", {"type": "object"}, "1", Effects.READ, cacheable=True)
DIALECTS = ("kimi_k2", "openai")

call = st.builds(
    ToolCall,
    id=st.sampled_from(["", "a", "b", "call_0", "call_1", "functions.search:0", "functions.search:1"]),
    name=st.sampled_from(["search", "python", ""]),
    arguments=st.sampled_from(["{}", '{"q": 1}', "{", ""]),
)
ids = st.sampled_from(["", "a", "b", "call_0", "functions.search:0", "functions.python:1"])
message = st.one_of(
    st.builds(Message, st.just(Role.USER), st.text(max_size=5)),
    st.builds(Message, st.just(Role.TOOL), st.text(max_size=5), tool_call_id=ids),
    st.builds(
        Message,
        st.just(Role.ASSISTANT),
        st.text(max_size=5),
        st.text(max_size=5),
        st.lists(call, max_size=3).map(tuple),
    ),
)
conversations = st.lists(message, max_size=10)


@st.composite
def valid_conversations(draw: st.DrawFn, dialect: str) -> list[Message]:
    """Turns whose calls are numbered as the dialect wants it and answered, in any order, right away."""
    messages, count = [Message(Role.USER, "question")], 0
    for _ in range(draw(st.integers(0, 4))):
        calls = []
        for name in draw(st.lists(st.sampled_from(["search", "python"]), max_size=3)):
            given_id = k2.call_id(name, count) if dialect == "kimi_k2" else f"id-{count}"
            calls.append(ToolCall(given_id, name, "{}"))
            count += 1
        messages.append(Message(Role.ASSISTANT, "text", "reasoning", tuple(calls)))
        messages += [
            Message(Role.TOOL, "result", tool_call_id=c.id, name=draw(st.sampled_from(["", c.name])))
            for c in draw(st.permutations(calls))
        ]
        messages += draw(st.lists(st.just(Message(Role.USER, "more")), max_size=1))
    return messages


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
def test_a_valid_history_is_never_changed(dialect: str, data: st.DataObject) -> None:
    messages = data.draw(valid_conversations(dialect))

    assert normalise(messages, dialect) == tuple(messages)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(messages=conversations)
def test_any_history_becomes_one_with_unique_ids_where_calls_and_results_match(
    dialect: str, messages: list[Message]
) -> None:
    normal = normalise(messages, dialect)

    calls = [c for m in normal for c in m.tool_calls]
    answered = [m.tool_call_id for m in normal if m.role is Role.TOOL]
    assert len({c.id for c in calls}) == len(calls)
    assert sorted(answered) == sorted(c.id for c in calls)
    assert [c.name for c in calls] == [c.name for m in messages for c in m.tool_calls]
    if dialect == "kimi_k2":
        assert [c.id for c in calls] == [k2.call_id(c.name, i) for i, c in enumerate(calls)]
    assert normalise(normal, dialect) == normal


@pytest.mark.parametrize("dialect", DIALECTS)
@given(messages=conversations)
def test_results_follow_their_calls_directly_and_no_other_turn_is_lost(
    dialect: str, messages: list[Message]
) -> None:
    normal = normalise(messages, dialect)

    for index, turn in enumerate(normal):
        following = normal[index + 1 : index + 1 + len(turn.tool_calls)]
        assert {m.tool_call_id for m in following} == {c.id for c in turn.tool_calls}
    spoken = [(m.role, m.content) for m in messages if m.role is not Role.TOOL]
    assert sorted(spoken) == sorted((m.role, m.content) for m in normal if m.role is not Role.TOOL)


def test_ids_reused_in_every_turn_still_find_their_own_results() -> None:
    turn = Message(Role.ASSISTANT, tool_calls=(ToolCall("call_0", "search", "{}"),))
    first, second = (Message(Role.TOOL, text, tool_call_id="call_0") for text in ("one", "two"))

    normal = normalise([turn, first, turn, second], "kimi_k2")

    assert [(m.tool_call_id, m.content) for m in normal if m.role is Role.TOOL] == [
        ("functions.search:0", "one"),
        ("functions.search:1", "two"),
    ]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    turn = Message(Role.ASSISTANT, tool_calls=(ToolCall("a", "search", "{}"),))

    assert normalise([turn, Message(Role.USER, "and?")], "openai")[1].content == hygiene.NO_RESULT


def finished(**changes: object) -> Finished:
    base = Finished(
        content="",
        reasoning="",
        tool_calls=(),
        finish_reason=FinishReason.STOP,
        usage=TokenUsage(),
        replica="r",
        model="m",
        timing=GenerationTiming(0, 0, 0),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def request(*messages: Message, tool_choice: str = "auto") -> GenerationRequest:
    return GenerationRequest(
        "id", "k2", messages, (SEARCH,), Sampling(), tokens_max=100, deadline_ms=0, tool_choice=tool_choice
    )


EARLIER = Message(Role.ASSISTANT, tool_calls=(ToolCall("functions.search:0", "search", "{}"),))


def test_a_clean_turn_comes_in_as_it_is_without_repairs() -> None:
    calls = (ToolCall("functions.search:1", "search", '{"q": 1}'),)
    turn = accept(
        finished(tool_calls=calls, content="c", reasoning="r", finish_reason=FinishReason.TOOL_CALLS),
        request(EARLIER),
        "kimi_k2",
    )

    assert turn.message == Message(Role.ASSISTANT, "c", "r", calls)
    assert (turn.finish_reason, turn.repairs) == (FinishReason.TOOL_CALLS, ())


@pytest.mark.parametrize(
    ("where", "repair"),
    [("reasoning", Repair.SALVAGED_FROM_REASONING), ("content", Repair.SALVAGED_FROM_CONTENT)],
)
def test_k2_calls_inside_text_are_salvaged_numbered_and_reported(where: str, repair: str) -> None:
    text = "Hm. <|tool_call_begin|>functions.search:7<|tool_call_argument_begin|>{}<|tool_call_end|>"
    turn = accept(finished(**{where: text}), request(EARLIER), "kimi_k2")

    assert turn.message.tool_calls == (ToolCall("functions.search:1", "search", "{}"),)
    assert getattr(turn.message, where) == "Hm."
    assert (turn.finish_reason, turn.repairs) == (FinishReason.TOOL_CALLS, (repair,))


def test_markup_beside_calls_that_the_engine_has_read_is_removed_and_not_run_again() -> None:
    text = "<|tool_call_begin|>functions.search:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
    read = (ToolCall("functions.search:1", "search", "{}"),)
    turn = accept(finished(reasoning=text, tool_calls=read), request(EARLIER), "kimi_k2")

    assert (turn.message.tool_calls, turn.message.reasoning) == (read, "")
    assert turn.repairs == (Repair.MARKERS_REMOVED,)


def test_other_dialects_keep_text_that_looks_like_markup() -> None:
    text = "The marker is <|tool_call_begin|>."

    assert accept(finished(content=text), request(), "openai").message.content == text


@pytest.mark.parametrize(
    ("given_id", "expected", "repairs"),
    [("x", "x", ()), ("", "call_1", ()), ("functions.search:0", "call_1", (Repair.ID_REPLACED,))],
)
def test_calls_of_other_dialects_keep_good_ids_and_get_missing_or_taken_ones(
    given_id: str, expected: str, repairs: tuple[str, ...]
) -> None:
    turn = accept(finished(tool_calls=(ToolCall(given_id, "search", "{}"),)), request(EARLIER), "openai")

    assert (turn.message.tool_calls[0].id, turn.repairs) == (expected, repairs)


def test_a_wrong_k2_index_is_replaced_and_reported() -> None:
    turn = accept(finished(tool_calls=(ToolCall("call_xyz", "search", "{}"),)), request(EARLIER), "kimi_k2")

    assert turn.message.tool_calls[0].id == "functions.search:1"
    assert turn.repairs == (Repair.ID_REPLACED,)


def test_a_call_that_the_length_limit_cut_in_its_arguments_is_dropped() -> None:
    calls = (ToolCall("a", "search", '{"q": 1}'), ToolCall("b", "search", '{"q": '))
    turn = accept(finished(tool_calls=calls, finish_reason=FinishReason.LENGTH), request(), "openai")

    assert turn.message.tool_calls == calls[:1]
    assert turn.repairs == (Repair.TRUNCATED_CALL_DROPPED,)


def test_calls_are_dropped_where_none_were_allowed() -> None:
    turn = accept(
        finished(tool_calls=(ToolCall("a", "search", "{}"),), content="42"),
        request(tool_choice="none"),
        "openai",
    )

    assert turn.message == Message(Role.ASSISTANT, "42")
    assert turn.repairs == (Repair.CALLS_DROPPED,)


@pytest.mark.parametrize(
    ("said", "name"),
    [("functions.search:3", "search"), ("search", "search"), ("sea rch\n", "sea_rch"), ("", "unnamed")],
)
def test_names_are_such_that_every_server_takes_them_back(said: str, name: str) -> None:
    turn = accept(finished(tool_calls=(ToolCall("a", said, "{}"),)), request(), "openai")

    assert turn.message.tool_calls[0].name == name
    assert (turn.repairs == ()) is (said == name)


def test_reasoning_goes_back_with_tool_calls_only_and_only_where_the_profile_says_so() -> None:
    acting, speaking = replace(EARLIER, reasoning="why"), Message(Role.ASSISTANT, "answer", "why")

    assert outgoing(acting, PROFILE) is acting
    assert outgoing(speaking, PROFILE).reasoning == ""
    assert outgoing(acting, PROFILE.model_copy(update={"send_reasoning_back": False})).reasoning == ""


@given(st.text(max_size=200))
def test_arguments_that_go_back_are_always_one_json_object(text: str) -> None:
    sent = outgoing(replace(EARLIER, tool_calls=(ToolCall("a", "search", text),)), PROFILE)

    assert isinstance(json.loads(sent.tool_calls[0].arguments), dict)
