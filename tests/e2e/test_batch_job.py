"""A batch as a job of a real Ray head that dies in the middle; the model behind the server plays a script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from heavy.batch.directory import read_results
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

from tests_support.ray_head import RayHead
from tests_support.whole import Whole, whole

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

QUESTIONS, WIDTH, HELD = 40, 2, 12
WITHIN_S = 200.0


@pytest.fixture
def heads() -> Iterator[list[RayHead]]:
    started: list[RayHead] = []
    yield started
    for head in started:
        head.kill()


async def begun(heads: list[RayHead]) -> RayHead:
    head = RayHead()
    heads.append(head)
    await asyncio.to_thread(head.start)
    return head


async def batch(heavy: Whole, head: RayHead, *words: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heavy.cli.main", "batch", *map(str, words), "--address", head.address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **head.environment, "HEAVY_SERVER": heavy.address},
    )


async def test_a_job_whose_head_dies_is_submitted_again_and_nothing_is_asked_twice(
    heads: list[RayHead], store_url: str, tmp_path: Path
) -> None:
    questions, root, hold = tmp_path / "input.jsonl", tmp_path / "out", asyncio.Event()
    lines = [json.dumps({"id": f"q{n}", "question": f"What is {n} + 1?"}) for n in range(QUESTIONS)]
    questions.write_text("\n".join(lines) + "\n")

    def script(request: GenerationRequest) -> Scripted:
        number = int(request.messages[-1].content.split()[2])
        return Scripted(f"Answer: {number + 1}", hold=None if number < HELD else hold)

    submit = (
        *("submit", questions, "--out", root, "--command", f"{sys.executable} -m heavy.cli.main"),
        *("--width", WIDTH, "--concurrency", 4),
    )
    async with whole(store_url) as heavy:
        heavy.script = script
        head = await begun(heads)
        follower = await batch(heavy, head, *submit, "--job-id", "first")
        async with asyncio.timeout(WITHIN_S):
            while not (root / "results.jsonl").exists() or len(read_results(root)) < HELD:
                assert follower.returncode is None, await said(follower)
                await asyncio.sleep(0.05)
            while heavy.replica.in_flight < 4 * WIDTH:
                await asyncio.sleep(0.05)
        follower.send_signal(signal.SIGINT)
        told = await said(follower)
        assert follower.returncode == 130, told
        assert "The job goes on" in told
        assert f"heavy batch follow first --address {head.address}" in told
        assert heavy.replica.in_flight == 4 * WIDTH

        head.kill()
        lost = await batch(heavy, head, "follow", "first")
        told = await said(lost)
        assert (lost.returncode, "cannot be reached" in told) == (3, True), told

        hold.set()
        head = await begun(heads)
        again = await batch(heavy, head, *submit)
        told = await said(again)
        assert again.returncode == 0, told
        assert f"{QUESTIONS} of {QUESTIONS} answered" in told
        assert "q0  1" not in told
        assert len(read_results(root)) == QUESTIONS
        assert set(Counter(heavy.asked()).values()) == {WIDTH}

        unknown = await batch(heavy, head, "follow", "second")
        told = await said(unknown)
        assert (unknown.returncode, "has no job 'second'" in told) == (1, True), told

        stranger = RayHead()
        stranger.address = head.address
        refused = await batch(heavy, stranger, *submit)
        told = await said(refused)
        assert (refused.returncode, "RAY_AUTH_TOKEN" in told) == (4, True), told


async def said(process: asyncio.subprocess.Process) -> str:
    out, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    return out.decode()
