"""Writes that must not be lost to a cancel: they are seen through, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_GIVE_UP_S = 0.25
"""How long a write that overran its bound may take to obey its own cancellation."""


async def see_through(write: Coroutine[Any, Any, T], bound_s: float) -> T:
    """Run `write` to its end even when the caller is cancelled meanwhile.

    After a cancel the write has `bound_s` seconds left; then it is cancelled too. `CancelledError` is
    always raised again, whatever came of the write; further cancels do not shorten the bound. Without a
    cancel this is a plain await: the write's result or error is the caller's.
    """
    task = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _ended(task, bound_s)
        if not task.done():
            task.cancel()
            await _ended(task, _GIVE_UP_S)
        if task.done() and not task.cancelled():
            task.exception()  # Marks it as seen: the cancel is the error that counts.
        raise


async def _ended(task: asyncio.Future[Any], bound_s: float) -> None:
    """Wait for `task` at most `bound_s`; a cancel on top of the one being handled changes nothing."""
    loop = asyncio.get_running_loop()
    until = loop.time() + bound_s
    while not task.done() and (left := until - loop.time()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError:
            continue
