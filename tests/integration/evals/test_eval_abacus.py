"""`heavy eval` on a real model: Abacus, INT4, on its own engine; killed in the middle and gone on with."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import workers.abacus
from heavy.batch.directory import read_results
from heavy.client import HeavyClient
from heavy.profiles.loader import load_profiles
from heavy.profiles.schema import Profile
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import Endpoint, HttpPool
from workers.abacus.tasks import make_problem

from tests_support.datasets import write_jsonl
from tests_support.whole import Whole, said, started, whole

pytestmark = pytest.mark.timeout(300)

ABACUS = Path(workers.abacus.__file__).parent
QUESTIONS, WIDTH = 12, 4


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profiles([ABACUS]).get("abacus")


@pytest.fixture(scope="module")
def engine(profile: Profile) -> Iterator[str]:
    """The address of a real OpenVINO server with Abacus."""
    command = [
        sys.executable,
        "-m",
        "workers.engines.openvino",
        "--model-path",
        str(ABACUS / "weights" / "int4"),
    ]
    command += ["--threads", "1", "--served-model-name", profile.model, "--die-with-parent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield f"http://{ready['host']}:{ready['port']}"
        process.terminate()


@pytest.fixture
async def heavy(store_url: str, engine: str, profile: Profile) -> AsyncIterator[Whole]:
    pool = HttpPool(streams_max=32)
    replica = HttpReplica(Endpoint.of("abacus-0", engine, profile), pool, silence_s=60.0)
    async with whole(store_url, profile=profile, replica=replica, runs_max=8, queue_max=56) as running:
        yield running
    await pool.close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Chains and totals, some of which it gets right."""
    rows = []
    for index in range(QUESTIONS):
        family = ("chains", "totals")[index % 2]
        problem = make_problem(family, 4, "test", index)
        row = {"id": f"{family}-{index}", "question": problem.question, "answer": problem.answer}
        rows.append(row | {"family": family, "level": 4})
    return write_jsonl(tmp_path / "problems.jsonl", rows)


async def test_a_real_model_is_scored_every_way_after_a_death_with_each_question_asked_once(
    heavy: Whole, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["eval", dataset, "--out", out, "--width", WIDTH, "--aggregation", "reflective", "--greedy"]
    words += ["--heavy-at", "2", "--concurrency", 2, "--group-by", "family", "--json"]
    process = await started(heavy.address, *words)
    async with asyncio.timeout(100):
        while len(read_results(out / "heavy")) < 2:
            assert process.returncode is None
            await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    assert len(read_results(out / "heavy")) < QUESTIONS

    done = await said(heavy.address, *words)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["scored"], report["missing"], report["ungraded"]) == (QUESTIONS, 0, 0)
    assert not report["asked"]["simulated"]
    async with HeavyClient(heavy.address) as client:
        asked = Counter([run.spec.messages[0].content async for run in client.list()])
    assert set(asked.values()) == {3}, "once in heavy mode, once greedily, once from two of its arms"

    ways = {way["name"]: way for way in report["findings"]["ways"]}
    assert list(ways) == ["greedy", "single", "vote@4", "heavy", "any@4"]
    assert 0 < ways["single"]["accuracy"]["value"] < 1
    assert ways["any@4"]["accuracy"]["value"] >= ways["vote@4"]["accuracy"]["value"]
    assert ways["heavy"]["tokens"] > ways["vote@4"]["tokens"] > ways["single"]["tokens"] > 0
    assert 0 < ways["single"]["latency_s"] <= ways["vote@4"]["latency_s"] < ways["heavy"]["latency_s"]
    curve = {point["k"]: point for point in report["findings"]["curve"]}
    assert ways["single"]["tokens"] < curve[2]["heavy_cost"] < ways["heavy"]["tokens"]
    assert [row["values"] for row in report["findings"]["groups"][0]["rows"]] == [["chains"], ["totals"]]

    again = await said("127.0.0.1:1", "eval", "report", out, "--group-by", "family", "--json")
    assert again.out == done.out
