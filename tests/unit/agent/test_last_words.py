"""Writes that are seen through a cancel."""

from __future__ import annotations

import asyncio

import pytest

from heavy.agent.last_words import see_through


async def test_without_a_cancel_result_and_error_are_the_callers() -> None:
    async def fine() -> int:
        return 7

    async def broken() -> None:
        raise KeyError("gone")

    assert await see_through(fine(), 1.0) == 7
    with pytest.raises(KeyError, match="gone"):
        await see_through(broken(), 1.0)


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_write_ends_although_its_caller_is_cancelled(cancels: int) -> None:
    go, written = asyncio.Event(), []

    async def write() -> None:
        await go.wait()
        written.append("record")

    caller = asyncio.create_task(see_through(write(), 5.0))
    for _ in range(cancels):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert written == ["record"]


async def test_a_write_that_hangs_is_given_up_after_its_bound_and_leaves_no_task() -> None:
    caller = asyncio.create_task(see_through(asyncio.Event().wait(), 0.01))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_write_that_fails_after_the_cancel_does_not_hide_the_cancel() -> None:
    go = asyncio.Event()

    async def broken() -> None:
        await go.wait()
        raise KeyError("gone")

    caller = asyncio.create_task(see_through(broken(), 5.0))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
