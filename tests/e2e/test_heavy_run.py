"""One heavy run through gRPC, Ray, Redis, the sandbox and a model server of its own process."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.errors import InvalidRequest, RequestConflict
from heavy.core.ids import AGGREGATOR
from heavy.core.policy import AggregationMode
from heavy.core.records import Delta, GenerationRecord, Record, ToolIntentRecord, ToolResultRecord
from heavy.core.runs import AggregationMethod, OutcomeKind, RunState
from heavy.core.tools import CacheState

from tests_support.up import Up

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUESTION = "What is 6 times 7?"


async def test_eight_trajectories_call_a_real_tool_and_one_answer_comes_out(client: HeavyClient) -> None:
    records: list[Record] = []
    deltas = 0
    async with client.ask(QUESTION, PolicyDraft(early_stop=False)) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                deltas += 1
            else:
                records.append(event)
    assert stream.run is not None
    run = await client.get(stream.run)
    assert run.state is RunState.COMPLETED
    assert [r.number for r in records] == list(range(1, len(records) + 1))
    assert deltas > 0
    assert {r.trajectory for r in records if r.trajectory.startswith("arm-")} == {
        f"arm-{i}" for i in range(8)
    }
    of_arms = [r for r in records if r.trajectory.startswith("arm-")]
    intents = [r for r in of_arms if isinstance(r.body, ToolIntentRecord)]
    results = [r.body for r in of_arms if isinstance(r.body, ToolResultRecord)]
    assert len(results) == len(intents) >= 16
    assert not any(r.is_error for r in results)
    assert run.ledger is not None
    generated = [r.body.spend for r in records if isinstance(r.body, GenerationRecord)]
    assert run.ledger.total.tokens_output == sum(s.tokens_output for s in generated)
    assert run.ledger.total.tokens_cached > 0
    assert run.ledger.total.cost_usd == pytest.approx(
        (run.ledger.total.tokens_prompt + 2 * run.ledger.total.tokens_output) / 1e6
    )


async def test_the_reflective_pass_reads_the_arms_and_is_shown(client: HeavyClient) -> None:
    run = await client.answer(QUESTION, PolicyDraft(width=4, aggregation=AggregationMode.REFLECTIVE))
    assert run.result is not None
    assert run.result.method is AggregationMethod.REFLECTIVE
    transcript = await client.trajectory(run.spec.run, AGGREGATOR)
    assert transcript.outcome is not None
    assert transcript.outcome.kind is OutcomeKind.COMPLETED


async def test_what_was_watched_can_be_watched_again_from_any_record(client: HeavyClient) -> None:
    run = await client.answer(QUESTION, PolicyDraft(width=2))
    async with client.watch(run.spec.run, after=3, deltas=False) as stream:
        numbers = [event.number async for event in stream if isinstance(event, Record)]
    assert numbers == list(range(4, run.records + 1))


async def test_the_same_request_id_attaches_to_the_run_that_is_there(client: HeavyClient) -> None:
    first = await client.answer(QUESTION, PolicyDraft(width=1), request_id="once")
    again = await client.answer(QUESTION, PolicyDraft(width=1), request_id="once")
    assert again.spec.run == first.spec.run
    with pytest.raises(RequestConflict):
        await client.answer("Another question?", PolicyDraft(width=1), request_id="once")


async def test_a_run_repeated_with_its_seed_finds_its_tool_results_in_the_cache(client: HeavyClient) -> None:
    """The brisk engine draws its calls from the seed; one run repeated with its seed asks the same again."""
    policy = PolicyDraft(width=2, seed=11, early_stop=False)
    await client.answer(QUESTION, policy)
    run = await client.answer(QUESTION, policy)
    async with client.watch(run.spec.run, deltas=False) as stream:
        bodies = [event.body async for event in stream if isinstance(event, Record)]
    states = [body.cache for body in bodies if isinstance(body, ToolResultRecord)]
    assert states
    assert set(states) == {CacheState.HIT}


async def test_a_budget_is_kept(client: HeavyClient) -> None:
    run = await client.answer(QUESTION, PolicyDraft(width=4, tokens_max=6_000, early_stop=False))
    assert run.ledger is not None
    assert run.ledger.total.tokens <= 6_000
    assert run.state.final


async def test_cancelling_ends_the_generations_in_the_engine(client: HeavyClient) -> None:
    run = (await client.create(QUESTION, PolicyDraft(width=8))).spec.run
    async with client.watch(run, deltas=True) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                await client.cancel(run, "enough")
                break
    async with client.watch(run, deltas=False) as stream:
        async for _ in stream:
            pass
    ended = await client.get(run)
    assert ended.state is RunState.CANCELLED
    assert ended.ledger is not None


async def test_eight_invalid_fields_are_all_named(client: HeavyClient) -> None:
    draft = PolicyDraft(
        width=9,
        arms=("no-such-profile",),
        quorum=99,
        deadline_s=-1.0,
        tokens_max=-5,
        vote_threshold=2.0,
        temperature=9.0,
        tools=("no-such-tool",),
    )
    with pytest.raises(InvalidRequest) as refused:
        await client.answer(QUESTION, draft)
    named = {violation.field for violation in refused.value.violations}
    assert len(named) >= 8


def test_the_command_prints_one_json_object(up: Up) -> None:
    done = ask(up, "--json", "--width", "2", QUESTION)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["state"] == "completed"
    assert run["ledger"]["total"]["tokens_output"] > 0


def test_the_command_in_a_pipe_prints_lines_and_the_story(up: Up) -> None:
    done = ask(up, "--width", "2", QUESTION)
    assert done.returncode == 0, done.stderr
    for part in ("arm-0", "python", "agreement", "cost", "answers are made up"):
        assert part in done.stdout


def test_ctrl_c_cancels_the_run_and_says_what_it_cost(up: Up) -> None:
    command = [sys.executable, "-m", "heavy.cli.main", "ask", "--server", up.address, QUESTION]
    asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert asked.stdout is not None
    first = asked.stdout.readline()
    asked.send_signal(signal.SIGINT)
    said, errors = asked.communicate(timeout=60)
    assert asked.returncode == 130, errors
    assert "cancelled" in first + said
    assert "cost" in said


def test_a_server_that_is_not_there_is_said_to_be(up: Up) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "heavy.cli.main",
            "ask",
            "--server",
            "127.0.0.1:1",
            "--patience",
            "0.5",
            QUESTION,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_the_page_and_its_api_are_served_at_the_servers_own_address(up: Up) -> None:
    with urllib.request.urlopen(up.http, timeout=10) as response:
        assert b"/page/main.js" in response.read()
    with urllib.request.urlopen(f"{up.http}/api/v1/fleet", timeout=10) as response:
        fleet = json.load(response)
    assert fleet["replicas"]
    assert fleet["runners"]


def test_metrics_tell_of_runs_tokens_and_tools(up: Up) -> None:
    with urllib.request.urlopen(f"{up.http}/metrics", timeout=10) as response:
        text = response.read().decode()
    for name in ("heavy_runs_total", "heavy_tokens_total", "heavy_tool_calls_total", "heavy_cost_usd_total"):
        assert name in text


async def test_many_runs_at_once_all_end(client: HeavyClient) -> None:
    runs = await asyncio.gather(*(client.answer(QUESTION, PolicyDraft(width=2)) for _ in range(6)))
    assert {run.state for run in runs} == {RunState.COMPLETED}


def ask(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "heavy.cli.main", "ask", "--server", up.address, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
