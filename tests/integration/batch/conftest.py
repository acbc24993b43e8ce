"""The command as a person calls it, over a whole Heavy in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests_support.whole import Said, Whole, said, whole

Command = Callable[..., Awaitable[Said]]


@pytest.fixture
async def heavy(store_url: str) -> AsyncIterator[Whole]:
    # Syncs to disk and the lease share one loop here, and a disk may stall: the lease must hold.
    async with whole(store_url, runs_max=8, queue_max=56, lease_s=60.0) as running:
        yield running


@pytest.fixture
def command(heavy: Whole) -> Command:
    """Calls `heavy` with some words, in a process of its own."""

    async def call(*words: object) -> Said:
        return await said(heavy.address, *words)

    return call
