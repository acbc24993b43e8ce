"""The mistakes a simulated server makes, each with a rate per generation, drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from enum import StrEnum


class Mistake(StrEnum):
    """What can go wrong. The first four are the model's, the others the server's."""

    MALFORMED_TOOL_CALL = "malformed_tool_call"  # arguments that are not JSON
    WRONG_SCHEMA = "wrong_schema"  # JSON that the tool's schema refuses
    UNKNOWN_TOOL = "unknown_tool"  # a tool that was not declared
    MARKERS_IN_REASONING = "markers_in_reasoning"  # the call's markers inside the reasoning, and no call
    HANG = "hang"  # some tokens, then silence until it is aborted
    DISCONNECT = "disconnect"  # some tokens, then the connection closes
    ERROR_500 = "error_500"  # refused with a 500
    TRUNCATED_SSE = "truncated_sse"  # some tokens, then half an event, then the connection closes


OF_CALLS = frozenset(
    {Mistake.MALFORMED_TOOL_CALL, Mistake.WRONG_SCHEMA, Mistake.UNKNOWN_TOOL, Mistake.MARKERS_IN_REASONING}
)


def parse_rates(given: Iterable[str]) -> dict[Mistake, float]:
    """`NAME=RATE` strings as a table. Raises ValueError."""
    rates: dict[Mistake, float] = {}
    for item in given:
        name, _, rate = item.partition("=")
        try:
            mistake, value = Mistake(name), float(rate)
        except ValueError as error:
            raise ValueError(f"{item!r} is not NAME=RATE; names are {', '.join(Mistake)}") from error
        if not 0 <= value <= 1:
            raise ValueError(f"the rate in {item!r} is not between 0 and 1")
        rates[mistake] = value
    if sum(rates.values()) > 1:
        raise ValueError("the rates of all mistakes together exceed 1")
    return rates


def draw(rates: Mapping[Mistake, float], rng: random.Random) -> Mistake | None:
    """At most one mistake for a generation."""
    point = rng.random()
    for mistake, rate in rates.items():
        if point < rate:
            return mistake
        point -= rate
    return None
