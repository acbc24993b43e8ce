"""Heavy runs on Abacus itself, every token sampled; the same run on an untrained model of another kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.policy import AggregationMode
from heavy.core.records import GenerationRecord, Record, ToolResultRecord
from heavy.core.runs import AggregationMethod, Run, RunState
from workers.shipped import DEMO_QUESTIONS

from tests_support.up import Up

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

REFLECTIVE = PolicyDraft(aggregation=AggregationMode.REFLECTIVE, early_stop=False, seed=1)


@pytest.fixture(scope="module")
def abacus_up() -> Iterator[Up]:
    """`heavy up` with Abacus and with an untrained Llama whose tool calls are Hermes's."""
    running = Up(["abacus", "tiny-hermes"])
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def client(abacus_up: Up) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(abacus_up.address) as connected:
        yield connected


async def asked(client: HeavyClient, question: str, policy: PolicyDraft) -> tuple[Run, list[Record]]:
    records: list[Record] = []
    async with client.ask(question, policy, deltas=False) as stream:
        records += [event async for event in stream if isinstance(event, Record)]
    assert stream.run is not None
    return await client.get(stream.run), records


async def test_arms_disagree_and_the_aggregator_decides_rightly(client: HeavyClient) -> None:
    """The demo's question: guesses differ, the one that holds is found by checking, its arms are cited."""
    run, records = await asked(client, DEMO_QUESTIONS[1], REFLECTIVE)
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert run.result.method is AggregationMethod.REFLECTIVE
    assert len(run.result.agreement.groups) > 1
    assert run.result.short_answer == "26"
    assert run.result.citations
    thoughts = [r.body.message.reasoning for r in records if isinstance(r.body, GenerationRecord)]
    assert any("26: 5*5+1 of 1 6*4+2 of 2 yes" in thought for thought in thoughts)


async def test_python_is_called_in_a_loop_and_its_results_are_read(client: HeavyClient) -> None:
    run, records = await asked(client, DEMO_QUESTIONS[0], PolicyDraft(width=4, seed=1))
    results = [r.body for r in records if isinstance(r.body, ToolResultRecord)]
    assert {"8657", "8145"} <= {result.content.strip() for result in results}
    assert run.result is not None
    assert run.result.short_answer == "8145"


async def test_an_untrained_model_of_another_architecture_runs_the_same_way(client: HeavyClient) -> None:
    policy = PolicyDraft(arms=("tiny-hermes",), aggregator="tiny-hermes", width=3, deadline_s=120)
    run, records = await asked(client, "What is 2+2?", policy)
    assert run.state in (RunState.COMPLETED, RunState.FAILED)
    said = {r.trajectory for r in records if isinstance(r.body, GenerationRecord)}
    assert {"arm-0", "arm-1", "arm-2"} <= said
    assert run.ledger is not None
    assert run.ledger.total.tokens_output > 0


def test_the_screen_names_abacus_and_its_size(abacus_up: Up) -> None:
    command = [sys.executable, "-m", "heavy.cli.main", "ask", "--server", abacus_up.address, "--width", "2"]
    done = subprocess.run(
        [*command, "What is 37+48-19?"], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Abacus (2M parameters, INT4, CPU)" in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
