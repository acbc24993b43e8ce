"""A batch over a whole Heavy: real gRPC, coordinator, agent loop and store; the model plays a script."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heavy.batch.budget import BatchBudget
from heavy.batch.directory import BatchDirectory, read_log, read_results
from heavy.batch.questions import Question
from heavy.batch.results import Asked, BatchResult, ResultState, latest, of_refusal
from heavy.batch.runner import Batch, BatchEnd, BatchPlan, EndReason
from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.errors import CannotWrite, ConfigError, EngineRefused, ServerUnavailable
from heavy.core.ids import arm
from heavy.core.policy import AggregationMode
from heavy.core.records import GenerationRecord
from heavy.core.runs import OutcomeKind, RunState
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted

from tests_support.whole import Whole, whole

WIDTH = 2
POLICY = PolicyDraft(width=WIDTH, aggregation=AggregationMode.VOTE, early_stop=False, seed=1)
COST_MIN = 0.001


@pytest.fixture
async def client(heavy: Whole) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(heavy.address, patience_s=0.3) as connected:
        yield connected


def questions(count: int) -> list[Question]:
    return [Question.of_text(f"q{n}", f"What is {n} + 1?", gold=n + 1) for n in range(count)]


def sums(request: GenerationRequest) -> Scripted:
    """What an arm says to "What is N + 1?"."""
    return Scripted(f"Answer: {int(request.messages[-1].content.split()[2]) + 1}")


async def sit(client: HeavyClient, root: Path, count: int, **plan: object) -> BatchEnd:
    return await Batch(client, questions(count), root, BatchPlan(**{"policy": POLICY, **plan})).run()  # type: ignore[arg-type]


async def test_every_question_is_answered_once_and_written_down_whole(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    heavy.script = sums
    seen: list[BatchResult] = []
    plan = BatchPlan(POLICY, concurrency_max=5, logs=True)
    ended = await Batch(client, questions(12), tmp_path, plan, seen.append).run()
    assert ended.reason is EndReason.COMPLETE
    assert (ended.progress.answered, ended.progress.failed, ended.progress.here) == (12, 0, 12)
    results = read_results(tmp_path)
    assert results == seen
    assert {one.id: one.short_answer for one in results} == {f"q{n}": str(n + 1) for n in range(12)}
    assert heavy.replica.in_flight_peak <= 5 * WIDTH
    assert set(Counter(heavy.asked()).values()) == {WIDTH}
    one = results[0]
    assert one.metadata == {"gold": int(one.short_answer)}
    assert one.simulated
    assert one.agreement is not None
    assert one.agreement.share == 1.0
    assert [outcome.trajectory for outcome in one.outcomes] == [arm(0), arm(1)]
    assert {outcome.kind for outcome in one.outcomes} == {OutcomeKind.COMPLETED}
    assert one.ledger is not None
    assert one.spend.cost_usd == pytest.approx(sum(o.spend.cost_usd for o in one.outcomes))
    assert ended.progress.cost_usd == pytest.approx(sum(r.spend.cost_usd for r in results))
    records = list(read_log(tmp_path, one))
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert sum(isinstance(record.body, GenerationRecord) for record in records) == WIDTH


async def test_a_batch_that_was_killed_goes_on_without_asking_anything_twice(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    """The kill comes when some are written, some have ended unheard and some are under way."""
    hold = asyncio.Event()

    def script(request: GenerationRequest) -> Scripted:
        held = request.messages[-1].content.split()[2] in ("4", "5")
        return Scripted(sums(request).content, hold=hold if held else None)

    heavy.script = script
    batch = Batch(client, questions(10), tmp_path, BatchPlan(POLICY, concurrency_max=3))
    sitting = asyncio.create_task(batch.run())
    async with asyncio.timeout(20):
        while batch.progress.answered < 5 or heavy.replica.in_flight < 2 * WIDTH:
            await asyncio.sleep(0.005)
    sitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sitting
    written = len(read_results(tmp_path))
    assert 5 <= written < 10
    hold.set()
    ended = await sit(client, tmp_path, 10, concurrency_max=3)
    assert ended.reason is EndReason.COMPLETE
    assert ended.progress.answered == 10
    assert ended.progress.here == 10 - written
    assert set(Counter(heavy.asked()).values()) == {WIDTH}
    assert len(read_results(tmp_path)) == 10
    again = await sit(client, tmp_path, 10)
    assert again.progress.here == 0


async def test_another_input_or_policy_is_refused_and_changes_nothing(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    await sit(client, tmp_path, 2)
    asked = len(heavy.replica.requests)
    with pytest.raises(ConfigError, match="other questions"):
        await sit(client, tmp_path, 3)
    with pytest.raises(ConfigError, match="another policy"):
        await sit(client, tmp_path, 2, policy=PolicyDraft(width=1))
    assert len(heavy.replica.requests) == asked


async def test_failures_are_written_with_their_reason_and_asked_again_on_request_alone(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    heavy.script = lambda request: Scripted(error=EngineRefused("no such model"))
    ended = await sit(client, tmp_path, 2)
    assert (ended.progress.answered, ended.progress.failed) == (0, 2)
    failed = read_results(tmp_path)[0]
    assert failed.state is ResultState.FAILED
    assert failed.failure is not None
    assert failed.failure.code == "no_usable_outcome"
    assert "no such model" in failed.outcomes[0].detail
    heavy.script = sums
    assert (await sit(client, tmp_path, 2)).progress.failed == 2
    spared = await sit(client, tmp_path, 2, retry_failed=True, retriable=lambda result: result.id == "q0")
    assert (spared.progress.answered, spared.progress.failed) == (1, 1)
    mended = await sit(client, tmp_path, 2, retry_failed=True)
    assert (mended.progress.answered, mended.progress.failed) == (2, 0)
    assert {one.attempt for one in latest(read_results(tmp_path)).values()} == {2}


async def test_a_run_that_went_out_of_sight_is_found_again_and_not_asked_again(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    heavy.script = sums
    await sit(client, tmp_path, 2)
    with BatchDirectory(tmp_path) as directory:
        for one in read_results(tmp_path):
            asked = Asked(one.id, one.attempt, one.request_id, one.metadata)
            directory.append(of_refusal(asked, EngineRefused("watching broke off"), 0, one.run_id))
    found = await sit(client, tmp_path, 2, retry_failed=True)
    assert (found.progress.here, found.progress.answered) == (2, 2)
    assert set(Counter(heavy.asked()).values()) == {WIDTH}


async def test_a_question_that_the_server_refuses_is_that_questions_failure(
    client: HeavyClient, tmp_path: Path
) -> None:
    asked = [questions(1)[0], Question("bad", questions(1)[0].messages, PolicyDraft(width=9))]
    ended = await Batch(client, asked, tmp_path, BatchPlan(POLICY)).run()
    assert (ended.progress.answered, ended.progress.failed) == (1, 1)
    bad = latest(read_results(tmp_path))["bad"]
    assert bad.state is ResultState.REFUSED
    assert bad.failure is not None
    assert bad.failure.code == "invalid_request"
    assert "policy.width" in bad.failure.message


async def test_a_policy_that_the_server_refuses_stops_the_batch_at_once(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"policy\.width"):
        await sit(client, tmp_path, 50, policy=PolicyDraft(width=9))
    assert read_results(tmp_path) == []
    assert heavy.replica.requests == []


async def test_the_batch_stops_asking_when_its_budget_is_reached_and_goes_on_with_a_larger_one(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    first = await sit(client, tmp_path / "price", 1)
    price = first.progress.cost_usd
    assert price > COST_MIN
    budget = BatchBudget(cost_usd_max=price * 3.5)
    ended = await sit(client, tmp_path / "b", 10, budget=budget)
    assert ended.reason is EndReason.BUDGET
    assert ended.progress.cost_usd <= price * 3.5
    assert ended.progress.answered == 3
    more = await sit(client, tmp_path / "b", 10, budget=BatchBudget(cost_usd_max=price * 100))
    assert more.progress.answered == 10


async def test_a_full_server_is_waited_for_and_nothing_is_lost(store_url: str, tmp_path: Path) -> None:
    async with whole(store_url, runs_max=1, queue_max=1) as heavy, HeavyClient(heavy.address) as client:
        release = asyncio.Event()
        heavy.script = lambda request: Scripted(sums(request).content, hold=release)
        batch = Batch(client, questions(4), tmp_path, BatchPlan(POLICY, concurrency_max=4))
        sitting = asyncio.create_task(batch.run())
        async with asyncio.timeout(20):
            while batch.progress.limit == 4:
                await asyncio.sleep(0.01)
        release.set()
        ended = await asyncio.wait_for(sitting, 60)
        assert ended.progress.answered == 4
        assert set(Counter(heavy.asked()).values()) == {WIDTH}


async def test_stopping_lets_what_is_out_end_and_asks_no_more(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    hold = asyncio.Event()
    heavy.script = lambda request: Scripted(sums(request).content, hold=hold)
    batch = Batch(client, questions(10), tmp_path, BatchPlan(POLICY, concurrency_max=3))
    sitting = asyncio.create_task(batch.run())
    async with asyncio.timeout(20):
        while heavy.replica.in_flight < 3 * WIDTH:
            await asyncio.sleep(0.005)
    batch.stop()
    hold.set()
    ended = await asyncio.wait_for(sitting, 20)
    assert ended.reason is EndReason.STOPPED
    assert len(read_results(tmp_path)) == 3


async def test_a_server_that_is_gone_stops_the_batch_and_the_next_sitting_ends_it(
    store_url: str, tmp_path: Path
) -> None:
    async with whole(store_url) as heavy, HeavyClient(heavy.address, patience_s=0.3) as client:
        heavy.script = sums
        await sit(client, tmp_path, 4, budget=BatchBudget(tokens_max=1))
        written = len(read_results(tmp_path))
    async with HeavyClient(heavy.address, patience_s=0.3) as client:
        with pytest.raises(ServerUnavailable):
            await sit(client, tmp_path, 4)
    async with whole(store_url) as heavy, HeavyClient(heavy.address) as client:
        heavy.script = sums
        ended = await sit(client, tmp_path, 4)
    assert written == 1
    assert (ended.progress.answered, ended.progress.here) == (4, 3)


async def test_a_run_that_somebody_cancels_is_a_failure_that_says_so(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    heavy.script = lambda request: Scripted("x", hold=asyncio.Event())
    sitting = asyncio.create_task(sit(client, tmp_path, 1))
    async with asyncio.timeout(20):
        while not (running := [run async for run in client.list(states={RunState.RUNNING})]):
            await asyncio.sleep(0.01)
    await client.cancel(running[0].spec.run, "by the operator")
    await asyncio.wait_for(sitting, 20)
    (result,) = read_results(tmp_path)
    assert result.state is ResultState.CANCELLED
    assert result.failure is not None
    assert (result.failure.code, result.failure.message) == ("cancelled", "by the operator")


async def test_a_disk_that_fills_stops_the_batch_in_order_and_nothing_is_asked_again(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    heavy.script = sums
    with small_disk(4_000), pytest.raises(CannotWrite, match=r"File too large.*run the same command again"):
        await sit(client, tmp_path, 8)
    written = len(read_results(tmp_path))
    assert 0 < written < 8
    ended = await sit(client, tmp_path, 8)
    assert (ended.progress.answered, ended.progress.here) == (8, 8 - written)
    assert set(Counter(heavy.asked()).values()) == {WIDTH}


async def test_a_log_that_does_not_fit_stops_the_batch_and_is_no_question_s_failure(
    heavy: Whole, client: HeavyClient, tmp_path: Path
) -> None:
    heavy.script = sums
    with small_disk(800), pytest.raises(CannotWrite, match=r"logs/run-.*File too large"):
        await sit(client, tmp_path, 4, logs=True)
    assert read_results(tmp_path) == []
    ended = await sit(client, tmp_path, 4, logs=True)
    assert (ended.progress.answered, ended.progress.failed) == (4, 0)
    assert all(list(read_log(tmp_path, result)) for result in read_results(tmp_path))
    assert set(Counter(heavy.asked()).values()) == {WIDTH}


@contextmanager
def small_disk(bytes_max: int) -> Iterator[None]:
    """The kernel's limit on the size of files stands for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
