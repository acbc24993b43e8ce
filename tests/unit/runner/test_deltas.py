"""Fresh text on its way out: coalesced, bounded, lossy, never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from heavy.core.errors import HeavyError, StoreUnavailable
from heavy.core.ids import RunId, arm
from heavy.core.records import Delta
from heavy.runner import deltas as module
from heavy.runner.deltas import Deltas
from heavy.store.api import RunLog

RUN, OTHER = RunId("run-" + "0" * 24), RunId("run-" + "1" * 24)
INTERVAL_S = 0.01


class Log:
    """The publishing part of a run log: remembers, waits at its gate, fails for runs that it is told."""

    def __init__(self) -> None:
        self.published: list[tuple[RunId, tuple[Delta, ...]]] = []
        self.failing: dict[RunId, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0

    async def publish(self, run: RunId, deltas: Sequence[Delta]) -> None:
        self.under_way += 1
        try:
            await self.gate.wait()
            if run in self.failing:
                raise self.failing[run]
            self.published.append((run, tuple(deltas)))
        finally:
            self.under_way -= 1

    def text(self, run: RunId = RUN) -> str:
        return "".join(d.content for r, ds in self.published if r == run for d in ds)

    async def shows(self, text: str, run: RunId = RUN) -> None:
        async with asyncio.timeout(5):
            while self.text(run) != text:
                await asyncio.sleep(0.001)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def deltas(log: Log) -> AsyncIterator[Deltas]:
    made = Deltas(cast(RunLog, log), INTERVAL_S)
    made.start()
    yield made
    await made.stop()
    assert log.under_way == 0


def say(deltas: Deltas, content: str, run: RunId = RUN) -> None:
    deltas.add(run, arm(0), 0, "", content)


async def test_what_comes_close_together_is_shown_together(deltas: Deltas, log: Log) -> None:
    for letter in "abcdef":
        say(deltas, letter)
        deltas.add(RUN, arm(1), 3, letter.upper(), "")
    await log.shows("abcdef")
    assert log.published == [
        (RUN, (Delta(arm(0), 0, "", "abcdef"), Delta(arm(1), 3, "ABCDEF", ""))),
    ]


async def test_each_run_gets_its_own_text(deltas: Deltas, log: Log) -> None:
    say(deltas, "mine")
    say(deltas, "theirs", OTHER)
    await log.shows("mine")
    await log.shows("theirs", OTHER)


async def test_text_of_a_step_that_begins_anew_is_not_shown_after_its_record(
    deltas: Deltas, log: Log
) -> None:
    say(deltas, "half")
    say(deltas, "other", OTHER)
    deltas.forget(RUN, arm(0), 0)
    say(deltas, "whole")
    await log.shows("whole")
    await log.shows("other", OTHER)


async def test_nothing_is_published_while_nothing_is_said(deltas: Deltas, log: Log) -> None:
    deltas.add(RUN, arm(0), 0, "", "")
    say(deltas, "a")
    await log.shows("a")
    assert len(log.published) == 1


@pytest.mark.parametrize(
    "error", [StoreUnavailable("The store is away."), HeavyError("It failed."), ValueError("A defect.")]
)
async def test_a_failed_publication_loses_its_text_and_nothing_else(
    deltas: Deltas, log: Log, error: Exception
) -> None:
    log.failing[RUN] = error
    say(deltas, "lost")
    say(deltas, "shown", OTHER)
    await log.shows("shown", OTHER)
    del log.failing[RUN]
    say(deltas, "later")
    await log.shows("later")


async def test_a_slow_store_holds_nobody_up_and_memory_is_bounded(
    deltas: Deltas, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_CHARS_MAX", 1_000)
    log.gate.clear()
    say(deltas, "first")
    async with asyncio.timeout(5):
        while not log.under_way:
            await asyncio.sleep(0.001)
    for _ in range(10_000):
        say(deltas, "x" * 68)
    assert sum(len(p[1]) for pieces in deltas._pending.values() for p in pieces) <= 1_000
    log.gate.set()
    await log.shows("first" + "x" * 68 * 10)
    say(deltas, "again")
    await log.shows("first" + "x" * 680 + "again")


async def test_many_tiny_pieces_count_for_more_than_their_text(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING_CHARS_MAX", 1_000)
    idle = Deltas(cast(RunLog, log), INTERVAL_S)
    for _ in range(10_000):
        say(idle, "x")
        idle.add(RUN, arm(0), 0, "", "")
    assert sum(len(pieces) for pieces in idle._pending.values()) <= 1_000 // module.PIECE_CHARS


async def test_stopping_ends_a_publication_under_way(log: Log) -> None:
    deltas = Deltas(cast(RunLog, log), INTERVAL_S)
    deltas.start()
    deltas.start()
    log.gate.clear()
    say(deltas, "never")
    async with asyncio.timeout(5):
        while not log.under_way:
            await asyncio.sleep(0.001)
    await deltas.stop()
    await deltas.stop()
    assert log.under_way == 0
    others: set[asyncio.Task[Any]] = asyncio.all_tasks() - {cast(Any, asyncio.current_task())}
    assert others == set()
