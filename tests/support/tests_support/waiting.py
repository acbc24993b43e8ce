"""Waiting for a condition, bounded; the only place of the tests that polls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.02


async def until(read: Callable[[], Awaitable[T]], holds: Callable[[T], bool], within_s: float = 20.0) -> T:
    """What `read` gives once `holds` is true of it. Fails with what it gave last."""
    last: T | None = None
    try:
        async with asyncio.timeout(within_s):
            while not holds(last := await read()):
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s; the last was {last!r}") from None
    return last
