"""The command as a person calls it, over a whole Heavy in this process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests_support.whole import Whole, whole

Command = Callable[..., Awaitable["Said"]]


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
async def heavy(store_url: str) -> AsyncIterator[Whole]:
    async with whole(store_url, runs_max=8, queue_max=56) as running:
        yield running


@pytest.fixture
def command(heavy: Whole) -> Command:
    """Calls `heavy` with some words, in a process of its own."""

    async def call(*words: object) -> Said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "heavy.cli.main", *map(str, words)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HEAVY_SERVER": heavy.address, "COLUMNS": "120"},
        )
        out, err = await asyncio.wait_for(process.communicate(), 100)
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    return call
