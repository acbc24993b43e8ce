"""Counting, and what gives way when the context is full."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from heavy.agent.context import ContextWindow
from heavy.agent.failures import FailureLedger
from heavy.agent.relief import HIDDEN, Relief
from heavy.core.errors import ContextOverflow, EngineUnavailable
from heavy.core.messages import Message, Role, ToolCall
from heavy.core.policy import ContextPolicy
from heavy.profiles.schema import Profile


@dataclass
class Tokenizer:
    """A server that counts a token for every four characters of content."""

    counted: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    down: bool = False

    continues = False

    async def count_tokens(self, profile: str, messages: tuple[Message, ...], tools: object) -> int:
        if self.down:
            raise EngineUnavailable("down", "r")
        self.counted.append(len(messages))
        self.tokens.append(sum(len(message.content) for message in messages) // 4)
        return self.tokens[-1]


def window(context_tokens: int, tokenizer: Tokenizer, policy: ContextPolicy | None = None) -> ContextWindow:
    profile = Profile(name="p", title="P", engine="simulated", model="m", context_tokens=context_tokens)
    replica: Any = tokenizer
    relief = Relief(policy or ContextPolicy.HIDE_TOOL_OUTPUTS, 8, profile, FailureLedger(8))
    return ContextWindow(profile, replica, (), relief, 0.15)


def turn(index: int, output: str) -> tuple[Message, Message]:
    call = ToolCall(f"functions.f:{index}", "f", "{}")
    return Message(Role.ASSISTANT, tool_calls=(call,)), Message(Role.TOOL, output, tool_call_id=call.id)


QUESTION = Message(Role.USER, "question")


async def test_far_from_the_limit_nobody_is_asked_to_count() -> None:
    tokenizer = Tokenizer()

    fit = await window(100_000, tokenizer).fit((QUESTION,), room_tokens=100, wish_tokens=1_000)

    assert tokenizer.counted == []
    assert fit.room_tokens + fit.prompt_tokens == 100_000
    assert fit.prompt_tokens >= len("question")


async def test_near_the_limit_the_servers_own_count_decides() -> None:
    tokenizer = Tokenizer()
    messages = (QUESTION, *turn(0, "x" * 3_000))

    fit = await window(4_096, tokenizer).fit(messages, room_tokens=500, wish_tokens=2_000)

    assert tokenizer.counted == [3]
    assert fit.prompt_tokens == (3_000 + len("question")) // 4
    assert fit.messages == messages


async def test_what_the_engine_has_counted_needs_no_second_count() -> None:
    tokenizer = Tokenizer()
    context = window(4_096, tokenizer)
    messages = (QUESTION, *turn(0, "x" * 3_000))
    context.learn(2, 40)

    fit = await context.fit((*messages[:2], QUESTION), room_tokens=500, wish_tokens=2_000)

    assert tokenizer.counted == []
    assert 40 < fit.prompt_tokens < 100


async def test_earlier_outputs_are_hidden_first_and_the_latest_turns_stay() -> None:
    messages = (QUESTION, *turn(0, "a" * 8_000), *turn(1, "b" * 4_000))

    fit = await window(3_000, Tokenizer()).fit(messages, room_tokens=500, wish_tokens=1_000)

    assert [m.content for m in fit.messages if m.role is Role.TOOL] == [HIDDEN, "b" * 4_000]
    assert fit.hidden == 1
    assert fit.room_tokens >= 500


async def test_the_latest_outputs_are_hidden_too_when_that_is_not_enough() -> None:
    messages = (QUESTION, *turn(0, "a" * 8_000), *turn(1, "b" * 12_000))

    fit = await window(3_000, Tokenizer()).fit(messages, room_tokens=500, wish_tokens=1_000)

    assert [m.content for m in fit.messages if m.role is Role.TOOL] == [HIDDEN, HIDDEN]
    assert fit.hidden == 2


async def test_outputs_are_hidden_before_the_context_is_full() -> None:
    messages = (QUESTION, *turn(0, "a" * 10_500), *turn(1, "b"))

    fit = await window(3_000, Tokenizer()).fit(messages, room_tokens=100, wish_tokens=1_000)

    assert fit.hidden == 1


async def test_a_question_that_is_too_long_by_itself_overflows_truthfully() -> None:
    messages = (Message(Role.USER, "x" * 20_000), *turn(0, "a" * 400))

    with pytest.raises(ContextOverflow) as overflow:
        await window(3_000, Tokenizer()).fit(messages, room_tokens=500, wish_tokens=1_000)

    assert overflow.value.details["allowed"] == 3_000
    assert overflow.value.details["used"] > 5_000


async def test_the_fail_policy_hides_nothing() -> None:
    messages = (QUESTION, *turn(0, "a" * 14_000), *turn(1, "b"))
    context = window(3_000, Tokenizer(), ContextPolicy.FAIL)

    with pytest.raises(ContextOverflow):
        await context.fit(messages, room_tokens=500, wish_tokens=1_000)


async def test_after_the_engine_refused_a_fit_the_next_hides_more_or_gives_up() -> None:
    context = window(100_000, Tokenizer())
    messages = (QUESTION, *turn(0, "a" * 500), *turn(1, "b" * 500))
    hidden = []
    for _ in range(2):
        context.refuse()
        fit = await context.fit(messages, room_tokens=500, wish_tokens=1_000)
        messages = fit.messages
        hidden.append(fit.hidden)
    context.refuse()

    assert hidden == [1, 1]
    with pytest.raises(ContextOverflow):
        await context.fit(messages, room_tokens=500, wish_tokens=1_000)


async def test_without_a_tokenizer_the_bound_decides() -> None:
    fit = await window(3_000, Tokenizer(down=True)).fit((QUESTION,), room_tokens=500, wish_tokens=3_000)

    assert len("question") <= fit.prompt_tokens < 200


async def test_near_the_limit_only_what_is_new_is_counted_again() -> None:
    """Steps near the limit cost the tokenizer their own text, not the whole conversation."""
    tokenizer = Tokenizer()
    context = window(40_000, tokenizer)
    messages = (QUESTION, *turn(0, "x" * 60_000))
    context.learn(len(messages), 15_000)
    for index in range(1, 6):
        messages = (*messages, *turn(index, "y" * 4_000))
        fit = await context.fit(messages, room_tokens=500, wish_tokens=22_000)
        assert fit.hidden == 0
        assert 15_000 + 1_000 * index <= fit.prompt_tokens <= 15_000 + 1_200 * index

    assert tokenizer.counted == [1] * len(tokenizer.counted)
    assert sum(tokenizer.tokens) < 5 * 1_200


async def test_what_was_counted_before_hiding_does_not_count_after_it() -> None:
    context = window(3_000, Tokenizer(down=True))
    messages = (QUESTION, *turn(0, "a" * 8_000), *turn(1, "b"))
    context.learn(len(messages), 2_900)

    fit = await context.fit(messages, room_tokens=500, wish_tokens=500)

    assert (fit.hidden, fit.room_tokens >= 500) == (1, True)
