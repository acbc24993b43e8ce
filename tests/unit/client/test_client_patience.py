"""What a client can be asked, and how long it goes on trying."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heavy import client as module
from heavy.client import conversation
from heavy.core.errors import Overloaded, ServerUnavailable, StoreUnavailable
from heavy.core.messages import Message, Role


def test_a_question_may_be_text_a_message_or_a_conversation() -> None:
    asked = Message(Role.USER, "Why?")
    assert conversation("Why?") == (asked,)
    assert conversation(asked) == (asked,)
    assert conversation([Message(Role.SYSTEM, "Be brief."), asked])[1] == asked


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only when somebody waits; the pauses that were made."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(module, "monotonic_s", lambda: sum(made))
    monkeypatch.setattr(module.random, "uniform", lambda _low, high: high)
    return made


async def wear_out(patience: Any) -> None:
    for _ in range(1_000):
        await patience.wait(ServerUnavailable("gone"))


async def test_pauses_grow_and_end_within_the_time_given(pauses: list[float]) -> None:
    with pytest.raises(ServerUnavailable):
        await wear_out(module._Patience(10, None))
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(pauses) <= 3
    assert sum(pauses) <= 10


async def test_an_answer_restores_patience(pauses: list[float]) -> None:
    patience = module._Patience(1, None)
    for _ in range(20):
        await patience.wait(StoreUnavailable("slow"))
        patience.restore()
    assert pauses == [0.1] * 20


async def test_what_trying_again_will_not_help_is_raised_at_once(pauses: list[float]) -> None:
    with pytest.raises(Overloaded):
        await module._Patience(10, None).wait(Overloaded("full", 1))
    assert not pauses
