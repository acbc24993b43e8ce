"""Asking, listing, telling, watching and cancelling, through the real command over a whole Heavy."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator

import pytest

from heavy.core.messages import Role
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

from tests_support.terminal import CTRL_C, at_a_terminal
from tests_support.whole import Whole, calls, said, started, whole

HOSTILE = "\x1b]0;owned\x07 it is 42"


@pytest.fixture
async def server(store_url: str) -> AsyncIterator[Whole]:
    async with whole(store_url) as running:
        running.script = two_steps
        yield running


def two_steps(request: GenerationRequest) -> Scripted:
    """A tool call, then an answer."""
    if any(message.role is Role.TOOL for message in request.messages):
        return Scripted("So it is.\nAnswer: 42", reasoning=HOSTILE)
    return calls('{"x": 1}')


ASK = ("ask", "--width", 2, "--tool", "probe", "--aggregation", "vote")


async def test_events_are_every_record_and_delta_one_line_each(server: Whole) -> None:
    hold = asyncio.Event()
    server.script = lambda request: Scripted("Answer: 42", reasoning="Six sevens.", hold=hold)
    asking = await started(server.address, *ASK, "--events", "What is 6 times 7?")
    lines: list[bytes] = []
    async with asyncio.timeout(60):
        while not lines or b'"delta"' not in lines[-1]:
            lines.append(await _line(asking))
            assert lines[-1], "it ended before a delta came"
        hold.set()
        out, errors = await asking.communicate()
    assert asking.returncode == 0, errors
    events = [json.loads(line) for line in (*lines, *out.splitlines())]
    assert len({event["run"] for event in events}) == 1
    numbers = [event["record"]["number"] for event in events if "record" in event]
    assert numbers == list(range(1, len(numbers) + 1))
    assert events[-1]["record"]["body"]["state"] == "completed"


async def test_a_run_is_listed_told_and_watched_again(server: Whole) -> None:
    asked = await said(server.address, *ASK, "--json", "What is 6 times 7?")
    run = json.loads(asked.out)["spec"]["run"]
    listed, empty, told, watched, as_json = await asyncio.gather(
        said(server.address, "runs", "--state", "completed", "--since", "1h"),
        said(server.address, "runs", "--question", "no such words"),
        said(server.address, "show"),
        said(server.address, "watch", run),
        said(server.address, "show", run, "--trajectory", "arm-1", "--json"),
    )
    assert run in listed.out
    assert "What is 6 times 7?" in listed.out
    assert "No run matches" in empty.out
    for part in (run, "arm-0", "step 0", "step 1", "→ probe", '{"x": 1}', "← bypass", "Answer: 42", "2 of 2"):
        assert part in told.out
    assert "\x1b" not in told.out
    assert "�]0;owned� it is 42" in told.out
    assert "arm-1      completed  42" in watched.out
    records = json.loads(as_json.out)["records"]
    assert {record["trajectory"] for record in records} == {"arm-1"}


async def test_what_is_not_there_is_named(server: Whole) -> None:
    none, wrong, since = await asyncio.gather(
        said(server.address, "show"),
        said(server.address, "show", "run-1"),
        said(server.address, "runs", "--since", "yesterday"),
    )
    assert (none.code, "heavy ask" in none.err) == (1, True)
    assert (wrong.code, "no run id" in wrong.err) == (2, True)
    assert (since.code, "90s, 15m, 2h or 7d" in since.err) == (2, True)


async def test_a_watcher_that_leaves_leaves_the_run_alone_and_cancel_says_what_it_cost(server: Whole) -> None:
    hold = asyncio.Event()
    server.script = lambda request: Scripted("Answer: 42", hold=hold)
    asking = await started(server.address, *ASK, "What is 6 times 7?")
    watching = await started(server.address, "watch", "--events")
    async with asyncio.timeout(60):
        while server.replica.in_flight < 2:
            await asyncio.sleep(0.02)
        assert asking.stdout is not None
        while watching.returncode is not None or b"running" not in await _line(watching):
            if watching.returncode is not None:  # it came before there was a run
                watching = await started(server.address, "watch", "--events")
    watching.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(watching.communicate(), 60)
    assert watching.returncode == 130, errors
    assert server.replica.in_flight == 2
    cancelled = await said(server.address, "cancel", "--reason", "enough")
    assert cancelled.code == 0
    assert "cancelled, cost $" in cancelled.out
    out, _ = await asyncio.wait_for(asking.communicate(), 60)
    assert asking.returncode == 1
    assert b"cancelled" in out
    again = await said(server.address, "cancel")
    assert "had already ended" in again.out


@pytest.mark.parametrize("yes", ["y", CTRL_C])
async def test_at_a_terminal_ctrl_c_asks_once_and_a_yes_cancels(server: Whole, yes: str) -> None:
    server.script = lambda request: Scripted("Answer: 42", hold=asyncio.Event())
    async with at_a_terminal(server.address, *ASK, "What is 6 times 7?") as terminal:
        await terminal.until("Answer: 42")
        assert not terminal.shows_keys
        terminal.type(CTRL_C)
        assert "$0.0000 so far" in await terminal.until("Cancel the run?")
        terminal.type("n")
        await terminal.until("arm-1")
        assert server.replica.in_flight == 2
        terminal.type(CTRL_C)
        await terminal.until("Cancel the run?")
        terminal.type(yes)
        told = await terminal.until("model and tool time")
        assert "cut (cancelled)" in told
        assert await terminal.ended() == 130
        assert terminal.shows_keys
    assert server.replica.in_flight == 0


async def test_sigterm_does_not_ask_back(server: Whole) -> None:
    server.script = lambda request: Scripted("Answer: 42", hold=asyncio.Event())
    async with at_a_terminal(server.address, *ASK, "What is 6 times 7?") as terminal:
        await terminal.until("Answer: 42")
        terminal.process.terminate()
        assert "Cancel the run?" not in await terminal.until("model and tool time")
        assert await terminal.ended() == 130


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        await process.wait()
    return line
