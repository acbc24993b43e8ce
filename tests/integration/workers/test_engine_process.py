"""Engines behind the guard: real processes, started, stopped, killed, orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heavy.core.errors import EngineUnavailable
from heavy.profiles.loader import load_profiles
from workers.engine_process import EngineProcess
from workers.launch import EngineCommand, Place, engine_command, free_port

from tests_support.up import PROFILES, alive, processes_below
from tests_support.waiting import until

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=False)
print("child", child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
async def engine() -> AsyncIterator[EngineProcess]:
    profile = load_profiles([PROFILES]).get("brisk")
    process = EngineProcess("brisk-0", engine_command(profile, Place("127.0.0.1", free_port())))
    yield process
    await process.stop()


async def test_an_engine_is_ready_when_it_answers_and_gone_when_it_is_stopped(engine: EngineProcess) -> None:
    await engine.start(30.0)
    below = processes_below(engine.pid)
    assert len(below) == 2
    await engine.stop()
    await engine.stop()
    assert engine.pid == 0
    assert alive(below) == set()


async def test_an_engine_that_is_killed_is_seen_to_end(engine: EngineProcess) -> None:
    await engine.start(30.0)
    (server,) = processes_below(engine.pid) - {engine.pid}
    os.kill(server, signal.SIGKILL)
    assert await asyncio.wait_for(engine.exited(), 10.0) == 128 + signal.SIGKILL


async def test_an_engine_that_ends_at_once_says_its_last_words() -> None:
    script = "import sys; print('no such model'); sys.exit(3)"
    process = EngineProcess("x", EngineCommand((sys.executable, "-c", script), {}, "http://127.0.0.1:9"))
    with pytest.raises(EngineUnavailable, match=r"status 3[\s\S]*no such model"):
        await process.start(20.0)


async def test_an_engine_that_never_answers_is_given_up_and_ended() -> None:
    command = EngineCommand((sys.executable, "-c", "import time; time.sleep(600)"), {}, "http://127.0.0.1:9")
    process = EngineProcess("x", command)
    with pytest.raises(EngineUnavailable, match="did not answer within"):
        await process.start(0.5)
    assert process.pid == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_the_guards_parent(tmp_path: Path, number: signal.Signals) -> None:
    """A parent that dies, in order or not, takes the engine and the engine's own children with it."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"),
        *(sys.executable, "-m", "workers.guard", sys.executable, "-c", FAMILY),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert (await asyncio.wait_for(parent.stdout.readline(), 20.0)).startswith(b"child")
    below = processes_below(parent.pid)
    assert len(below) == 4
    parent.send_signal(number)
    await parent.wait()

    async def left() -> set[int]:
        return alive(below)

    await until(left, lambda pids: not pids, within_s=25.0)


async def test_an_engine_does_not_outlive_a_guard_that_was_killed(engine: EngineProcess) -> None:
    await engine.start(30.0)
    (server,) = processes_below(engine.pid) - {engine.pid}
    os.kill(engine.pid, signal.SIGKILL)

    async def left() -> set[int]:
        return alive({server})

    await until(left, lambda pids: not pids, within_s=10.0)
