"""A sandbox cut at any moment of its start is gone at once, all of it."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterator

import pytest

from heavy.core.clock import monotonic_s
from heavy.tools.sandbox.sandbox import Sandbox

from tests_support.up import alive, processes_below

PR_SET_CHILD_SUBREAPER = 36
STARTS = 40
APART_S = 0.0015


@pytest.fixture
def adopting() -> Iterator[None]:
    """Orphans among our descendants become our children, so that they are seen."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


async def test_a_sandbox_cut_while_it_starts_leaves_no_process_and_takes_no_time(adopting: None) -> None:
    sandbox = Sandbox()
    await sandbox.probe()
    before = processes_below(os.getpid())
    for number in range(STARTS):
        running = asyncio.create_task(sandbox.run("print(1)", timeout_s=10.0))
        await asyncio.sleep(number * APART_S)
        cut_s = monotonic_s()
        running.cancel()
        await asyncio.wait({running})
        assert monotonic_s() - cut_s < 3.0
        assert alive(processes_below(os.getpid()) - before) == set()
