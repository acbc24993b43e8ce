"""`heavy eval` as a person calls it, over a whole Heavy in this process whose model plays a script."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heavy.batch.directory import read_results
from heavy.core.ids import ARMS_MAX
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

from tests_support.datasets import write_jsonl
from tests_support.whole import Whole, said, started, whole

pytestmark = pytest.mark.timeout(300)

QUESTIONS, WIDTH = 6, 4
ASKED = re.compile(r"What is (\d+) \+ 1\?")


@pytest.fixture
async def heavy(store_url: str) -> AsyncIterator[Whole]:
    async with whole(store_url, runs_max=8, queue_max=56) as running:
        yield running


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rows = [{"id": f"q{n}", "question": f"What is {n} + 1?", "answer": n + 1, "odd": n % 2} for n in range(6)]
    return write_jsonl(tmp_path / "sums.jsonl", rows)


def slot(request: GenerationRequest) -> int:
    """The index of the arm that asks; `ARMS_MAX` for the aggregator."""
    return int(request.request_id.split("-")[1], 16)


def plays(request: GenerationRequest) -> Scripted:
    """Arm a of question n is right where 3 divides a + n, none wrong alike; n = 3 fools the aggregator."""
    found = ASKED.search(request.messages[-1].content)
    assert found
    n, place = int(found[1]), slot(request)
    if place == ARMS_MAX:
        return Scripted(f"I checked.\nAnswer: {n + 1 if n != 3 else 0}\nCites: A\nConfidence: 80%")
    right = (n + place) % 3 == 0
    return Scripted(f"Answer: {n + 1 if right else 100 + place}\nConfidence: {90 if right else 40}%")


def ways(report: dict[str, Any]) -> dict[str, float]:
    return {way["name"]: round(way["accuracy"]["value"], 4) for way in report["findings"]["ways"]}


async def test_killed_in_the_middle_it_goes_on_pays_nothing_twice_and_reports_from_its_logs_alone(
    heavy: Whole, dataset: Path, tmp_path: Path
) -> None:
    hold = asyncio.Event()

    def half(request: GenerationRequest) -> Scripted:
        found = ASKED.search(request.messages[-1].content)
        assert found
        played = plays(request)
        return Scripted(played.content, hold=hold if int(found[1]) >= 3 else None)

    heavy.script = half
    out = tmp_path / "out"
    words = ["eval", dataset, "--out", out, "--width", WIDTH, "--aggregation", "reflective", "--greedy"]
    words += ["--heavy-at", "2,3", "--concurrency", 2]
    process = await started(heavy.address, *words)
    async with asyncio.timeout(60):
        while len(read_results(out / "heavy")) < 3:
            await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    hold.set()

    done = await said(heavy.address, *words, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["scored"], report["missing"], report["ungraded"]) == (QUESTIONS, 0, 0)
    generated = Counter(slot(request) for request in heavy.replica.requests)
    assert generated == {0: 2 * QUESTIONS, 1: 6, 2: 6, 3: 6, ARMS_MAX: 3 * QUESTIONS}, (
        "each once, and no arm anew"
    )

    assert ways(report) == {
        "greedy": round(2 / 6, 4),
        "single": round(8 / 24, 4),
        "vote@4": round(2 / 6, 4),
        "heavy": round(5 / 6, 4),
        "any@4": 1.0,
    }
    found = report["findings"]
    assert found["decisions"]["heavy_alone_right"] == 4
    assert found["decisions"]["vote_alone_right"] == 1
    assert round(found["decisions"]["gap_won"]["value"], 4) == 0.75
    curve = {point["k"]: point for point in found["curve"]}
    assert [round(curve[k]["heavy"]["value"], 4) for k in (2, 3, 4)] == [round(5 / 6, 4)] * 3
    assert curve[1]["heavy"] is None
    assert curve[2]["heavy_cost"] < curve[3]["heavy_cost"] < curve[4]["heavy_cost"]
    assert found["price"]["cost_unit"] == "usd"
    spent = sum(result.spend.cost_usd for result in read_results(out / "heavy")) / QUESTIONS
    assert found["price"]["heavy"] == pytest.approx(spent, rel=1e-5)
    assert found["price"]["premium"]["value"] > 4
    assert found["calibration"]["single"]["stated"] == QUESTIONS * WIDTH
    assert [row["values"] for row in found["groups"][0]["rows"]] == [["0"], ["1"]]
    assert report["asked"]["simulated"], "a scripted model is a simulated one"

    for name in ("report.json", "report.md", "report.html", "verdicts.jsonl"):
        (out / name).unlink()
    again = await said("127.0.0.1:1", "eval", "report", out, "--json")
    assert (again.code, again.out) == (0, done.out)
    assert (out / "report.json").read_text() == done.out
    assert "SIMULATED" in (out / "report.md").read_text()
    assert "<svg" in (out / "report.html").read_text()

    lost = next((out / "heavy" / "logs").iterdir())
    lost.unlink()
    without = await said("127.0.0.1:1", "eval", "report", out)
    assert (without.code, without.err.count("\n")) == (78, 1), without.err
    assert f"{lost} cannot be read" in without.err


async def test_a_judge_that_fails_leaves_answers_ungraded_and_no_arm_is_asked_again(
    heavy: Whole, dataset: Path, tmp_path: Path
) -> None:
    verdicts = ["I would rather not say."]

    def judged(request: GenerationRequest) -> Scripted:
        text = request.messages[-1].content
        return Scripted(verdicts[-1]) if "true answer" in text else plays(request)

    heavy.script = judged
    out = tmp_path / "out"
    words = ["eval", dataset, "--out", out, "--width", 2, "--aggregation", "vote", "--limit", 2, "--json"]
    words += ["--grader", "judge", "--judge-profile", "scripted", "--judge-attempts", 1]
    failed = await said(heavy.address, *words)
    report = json.loads(failed.out)
    assert (failed.code, report["scored"], report["ungraded"], report["findings"]) == (1, 0, 2, None)
    assert "correct: yes" in report["unscored"][0]["reason"]
    asked = [
        request for request in heavy.replica.requests if "true answer" not in request.messages[-1].content
    ]

    verdicts.append("They are the same.\ncorrect: yes")
    mended = await said(heavy.address, *words)
    assert (mended.code, ways(json.loads(mended.out))["heavy"]) == (0, 1.0), mended.err
    again = [
        request for request in heavy.replica.requests if "true answer" not in request.messages[-1].content
    ]
    assert again == asked

    verdicts.append("correct: no")
    kept = await said(heavy.address, *words)
    assert kept.out == mended.out, "what was judged is not judged again"


async def test_a_judge_whose_key_is_not_set_is_said_before_anything_is_asked(
    heavy: Whole, dataset: Path, tmp_path: Path
) -> None:
    words = ["eval", dataset, "--out", tmp_path / "out", "--grader", "judge", "--judge-url"]
    words += ["http://127.0.0.1:1/v1", "--judge-model", "m", "--judge-key-env", "NO_KEY_OF_A_JUDGE"]
    refused = await said(heavy.address, *words)
    assert (refused.code, heavy.replica.requests) == (78, [])
    assert "NO_KEY_OF_A_JUDGE, which is not set" in refused.err


async def test_a_budget_ends_the_asking_and_what_was_answered_is_reported(
    heavy: Whole, dataset: Path, tmp_path: Path
) -> None:
    heavy.script = plays
    out = tmp_path / "out"
    words = [
        "eval",
        dataset,
        "--out",
        out,
        "--width",
        2,
        "--aggregation",
        "vote",
        "--json",
        "--concurrency",
        1,
        "--greedy",
    ]
    short = await said(heavy.address, *words, "--budget", "0.00001")
    report = json.loads(short.out)
    assert short.code == 5
    assert 0 < report["scored"] < QUESTIONS
    assert report["missing"] == QUESTIONS - report["scored"]
    assert report["unscored"][0]["reason"] == "it has not been asked yet"
    assert report["greedy_waiting"] == report["scored"]
    assert list(ways(report)) == ["single", "vote@2", "heavy", "any@2"]
    assert f"left out: {report['scored']} questions are still to be asked" in (out / "report.md").read_text()
    rest = await said(heavy.address, *words)
    assert (rest.code, json.loads(rest.out)["scored"]) == (0, QUESTIONS)
    assert list(ways(json.loads(rest.out))) == ["greedy", "single", "vote@2", "heavy", "any@2"]
