"""A generation that goes on elsewhere."""

from __future__ import annotations

from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.replicas.api import GenerationRequest, TextDelta
from heavy.replicas.said import Said

REQUEST = GenerationRequest("r", "p", (Message(Role.USER, "hello"),), (), Sampling(), 100, 0)


def test_what_was_said_before_counts_towards_the_cap_of_what_is_said_after() -> None:
    said = Said()
    assert said.begin(REQUEST) == REQUEST
    said.hear(TextDelta(reasoning="x" * 90))
    said.hear(TextDelta(content="y" * 30))
    again = said.begin(REQUEST)
    assert (again.said_reasoning, again.said_content) == ("x" * 90, "y" * 30)
    assert again.tokens_max == 60
    said.hear(TextDelta(content="y" * 1_000))
    assert said.begin(REQUEST).tokens_max == 1
