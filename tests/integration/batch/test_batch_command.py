from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heavy.batch.directory import read_results
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

from tests_support.whole import Whole, started

Command = Callable[..., Awaitable[Any]]


def sums(request: GenerationRequest) -> Scripted:
    return Scripted(f"Answer: {int(request.messages[-1].content.split()[2]) + 1}")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "input.jsonl"
    lines = [json.dumps({"id": f"q{n}", "question": f"What is {n} + 1?"}) for n in range(6)]
    file.write_text("\n".join([*lines, "{broken"]) + "\n")
    return file


async def test_a_batch_from_its_file_to_its_page(
    heavy: Whole, command: Command, questions: Path, tmp_path: Path
) -> None:
    heavy.script = sums
    root = tmp_path / "out"
    first = await command(
        "batch", "run", questions, "--out", root, "--width", 2, "--logs", "--concurrency", 3
    )
    assert first.code == 1, first.err
    assert "line 7: is not JSON" in first.err
    assert "q3  4  [100% agree" in first.out
    assert "6 of 6 answered" in first.out
    assert "made up by the simulated engine" in first.out
    assert len(list((root / "logs").iterdir())) == 6
    summary = json.loads((root / "summary.json").read_text())
    assert {one["id"]: one["short_answer"] for one in summary["answers"]} == {
        f"q{n}": str(n + 1) for n in range(6)
    }
    assert "<svg" in (root / "summary.html").read_text()
    again = await command("batch", "run", questions, "--out", root, "--width", 2)
    assert "q3" not in again.out
    assert set(Counter(heavy.asked()).values()) == {2}
    shown = await command("batch", "show", root, "--json")
    assert json.loads(shown.out) == summary


async def test_wrong_use_is_told_before_anything_is_asked(
    heavy: Whole, command: Command, questions: Path, tmp_path: Path
) -> None:
    root = tmp_path / "out"
    strict = await command("batch", "run", questions, "--out", root, "--strict")
    assert (strict.code, "line 7" in strict.err) == (78, True)
    missing = await command("batch", "run", tmp_path / "no.jsonl", "--out", root)
    assert (missing.code, "cannot be read" in missing.err) == (78, True)
    empty = await command("batch", "show", tmp_path)
    assert (empty.code, "holds no batch" in empty.err) == (78, True)
    wrong = await command("batch", "submit", questions, "--out", root, "--widht", 3)
    assert (wrong.code, "--widht" in wrong.err) == (2, True)
    assert heavy.replica.requests == []


async def test_ctrl_c_waits_for_what_is_out_and_a_second_one_leaves_it_to_be_found(
    heavy: Whole, questions: Path, tmp_path: Path
) -> None:
    hold = asyncio.Event()
    heavy.script = lambda request: Scripted(sums(request).content, hold=hold)
    root = tmp_path / "out"
    words = ("batch", "run", questions, "--out", root, "--width", 2, "--concurrency", 2)

    process = await started(heavy.address, *words)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while heavy.replica.in_flight < 4:
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        while b"waiting for 2 runs" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        said = await process.stdout.read()
        assert await process.wait() == 130, said
    assert b"0 of 6 answered" in said
    assert b"Traceback" not in said
    hold.set()
    process = await started(heavy.address, *words)
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert b"6 of 6 answered" in said
    assert len(read_results(root)) == 6
    assert set(Counter(heavy.asked()).values()) == {2}
