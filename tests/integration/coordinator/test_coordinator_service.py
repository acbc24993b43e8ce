"""The coordinator over a real store, with runners that play parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.api import CreateRequest
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.errors import NotFound, Overloaded, RequestConflict, RunnerLost
from heavy.core.ids import AGGREGATOR, RunId, TrajectoryId, arm
from heavy.core.messages import Message, Role, ToolCall
from heavy.core.policy import AggregationMode
from heavy.core.records import (
    Entry,
    Event,
    LifecycleRecord,
    Record,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.core.runs import AggregationMethod, OutcomeKind, Run, RunState
from heavy.core.tools import Effects
from heavy.profiles.loader import ProfileBook, load_profiles
from heavy.profiles.schema import PromptsSection
from heavy.store.redis import RedisStore
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.runner import Part, ScriptedRunner

from tests_support.domain import PROFILE, policy

TENANT = "default"


@dataclass
class Desk:
    """A coordinator, its runner, and shorthands."""

    service: CoordinatorService
    runner: ScriptedRunner
    store: RedisStore
    registry: CollectorRegistry

    async def create(self, **changes: Any) -> Run:
        contract = changes.pop("policy", None) or policy(width=4)
        text = changes.pop("text", "What is 6 times 7?")
        request = CreateRequest(
            TENANT, "", (Message(Role.USER, text),), contract, False, "", fingerprint=text
        )
        return (await self.service.create(replace(request, **changes))).run

    async def ended(self, run: RunId) -> Run:
        async for _ in self.service.watch(TENANT, run, after=0, deltas=False):
            pass
        return await self.service.get(TENANT, run)

    async def records(self, run: RunId) -> list[Record]:
        return [
            r async for r in self.service.watch(TENANT, run, after=0, deltas=False) if isinstance(r, Record)
        ]


MakeDesk = Callable[..., Any]


@pytest.fixture
async def make_desk(store: RedisStore) -> AsyncIterator[MakeDesk]:
    async with AsyncExitStack() as stack:

        async def make(*parts: Part, aggregator: Part | None = None, **settings: Any) -> Desk:
            book: ProfileBook = settings.pop("profiles", None) or load_profiles()
            judge: Equivalence | None = settings.pop("equivalence", None)
            chosen = Settings(**{"lease_s": 2.0, "attach_grace_s": 0.2, **settings})
            roles: dict[TrajectoryId, Part] = {arm(i): part for i, part in enumerate(parts)}
            roles[AGGREGATOR] = aggregator or Part("Answer: 0")
            runner = ScriptedRunner(store.control, roles)
            equivalence, registry = judge or Equivalence(), CollectorRegistry()
            stack.push_async_callback(equivalence.close)
            service = CoordinatorService(
                Parts(store, runner, book, equivalence, chosen.lease_s),
                PolicyDefaults(book.by_name, (PROFILE,), chosen, ()),
                chosen,
                RunMetrics(registry, ()),
                Tracing("", "test"),
                "tester",
            )
            await service.start()
            stack.push_async_callback(service.stop)
            return Desk(service, runner, store, registry)

        yield make


def says(text: str) -> Part:
    return Part(f"I thought.\nAnswer: {text}")


HANGS = Part(hangs=True)


async def test_arms_that_agree_answer_by_vote_with_ledger_and_metrics(make_desk: MakeDesk) -> None:
    desk = await make_desk(says("42"), says("42"), says("42"), says("41"))
    run = await desk.ended((await desk.create(policy=policy(width=4, early_stop=False))).spec.run)
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert run.result.method is AggregationMethod.VOTE
    assert run.result.short_answer == "42"
    assert run.ledger is not None
    assert run.ledger.total.tokens == 4 * 15
    assert AGGREGATOR not in desk.runner.specs
    await until(
        lambda: b'heavy_runs_total{method="vote",state="completed"} 1.0' in generate_latest(desk.registry)
    )


async def test_arms_that_disagree_are_read_by_the_aggregator(make_desk: MakeDesk) -> None:
    desk = await make_desk(
        says("40"), says("41"), says("42"), says("43"), aggregator=Part("Answer: 42\nCites: A\nDissent: x")
    )
    run = await desk.ended((await desk.create()).spec.run)
    assert run.result is not None
    assert run.result.method is AggregationMethod.REFLECTIVE
    assert run.result.citations
    spec = desk.runner.specs[AGGREGATOR]
    assert {c.trajectory for c in spec.candidates} == {arm(i) for i in range(4)}
    assert "arm-" not in spec.messages[0].content


async def test_records_are_numbered_without_gaps_and_end_with_the_final_state(make_desk: MakeDesk) -> None:
    desk = await make_desk(says("1"), says("1"))
    records = await desk.records((await desk.create(policy=policy(width=2))).spec.run)
    assert [r.number for r in records] == list(range(1, len(records) + 1))
    last = records[-1].body
    assert isinstance(last, LifecycleRecord)
    assert last.state is RunState.COMPLETED
    assert last.ledger is not None


async def test_a_lost_runner_is_a_failed_outcome_and_the_rest_answer(make_desk: MakeDesk) -> None:
    lost = Part(error=RunnerLost("The runner runner-0 died."))
    desk = await make_desk(says("42"), lost, says("42"), says("42"))
    run = (await desk.create(policy=policy(width=4, early_stop=False))).spec.run
    assert (await desk.ended(run)).state is RunState.COMPLETED
    page = await desk.service.trajectory(TENANT, run, arm(1), after=0, limit=10)
    assert page.outcome is not None
    assert (page.outcome.kind, page.outcome.reason) == (OutcomeKind.FAILED, "runner_lost")


async def test_what_a_lost_runner_had_begun_to_write_is_unknown_and_said_to_be(make_desk: MakeDesk) -> None:
    begun = asyncio.Event()
    lost = Part(error=RunnerLost("The runner runner-0 died."), after=begun)
    desk = await make_desk(says("42"), lost)
    run = await desk.create(policy=policy(width=2, quorum=2, early_stop=False))
    intent = ToolIntentRecord(ToolCall("functions.send:0", "send", "{}"), Effects.WRITE)
    await desk.store.log.append(run.spec.run, epoch=run.epoch, entries=[Entry(arm(1), 0, intent, 0)])
    begun.set()
    await desk.ended(run.spec.run)
    page = await desk.service.trajectory(TENANT, run.spec.run, arm(1), after=0, limit=10)
    (result,) = [record.body for record in page.records if isinstance(record.body, ToolResultRecord)]
    assert result.unknown
    assert page.outcome is not None
    assert "send (arm-1, functions.send:0)" in page.outcome.detail


async def test_with_nothing_usable_the_run_fails_and_lists_each_reason(make_desk: MakeDesk) -> None:
    desk = await make_desk(Part(), Part(error=RunnerLost("The runner died.")))
    run = await desk.ended((await desk.create(policy=policy(width=2))).spec.run)
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert run.failure.code == "no_usable_outcome"
    assert {o.reason for o in run.failure.outcomes} == {"no_answer", "runner_lost"}


async def test_stragglers_are_cut_after_their_grace_and_keep_what_they_had(make_desk: MakeDesk) -> None:
    late = Part(hangs=True, drafted="Answer: 7")
    desk = await make_desk(says("42"), says("41"), says("40"), late, aggregator=Part("Answer: 42"))
    contract = policy(width=4, quorum=3, straggler_grace_s=0.1)
    run = await desk.ended((await desk.create(policy=contract)).spec.run)
    assert desk.runner.stopped == {arm(3): "straggler"}
    assert len(desk.runner.specs[AGGREGATOR].candidates) == 4
    assert run.state is RunState.COMPLETED


async def test_an_answer_out_of_reach_stops_the_rest_early(make_desk: MakeDesk) -> None:
    desk = await make_desk(says("42"), says("42"), says("42"), HANGS)
    run = await desk.ended((await desk.create(policy=policy(width=4))).spec.run)
    assert desk.runner.stopped == {arm(3): "early_stop"}
    assert run.result is not None
    assert run.result.short_answer == "42"


async def test_the_deadline_cuts_the_arms_and_answers_from_what_there_is(make_desk: MakeDesk) -> None:
    desk = await make_desk(says("42"), HANGS)
    contract = policy(width=2, quorum=2, deadline_s=1.0, aggregation=AggregationMode.VOTE)
    run = await desk.ended((await desk.create(policy=contract)).spec.run)
    assert desk.runner.stopped == {arm(1): "deadline"}
    assert run.result is not None
    assert run.result.method is AggregationMethod.SINGLE


async def test_an_aggregator_that_fails_leaves_the_answer_to_the_vote(make_desk: MakeDesk) -> None:
    desk = await make_desk(
        says("1"), says("1"), says("2"), says("3"), aggregator=Part(error=RunnerLost("The runner died."))
    )
    run = (await desk.create()).spec.run
    ended = await desk.ended(run)
    assert ended.result is not None
    assert ended.result.method is AggregationMethod.VOTE
    notes = [r.body.detail for r in await desk.records(run) if getattr(r.body, "event", "") == Event.NOTE]
    assert any("the vote answers" in note for note in notes)


async def test_an_aggregator_whose_prompt_cannot_be_made_leaves_the_answer_to_the_vote(
    make_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "broken.jinja").write_text("{{ no_such_variable }}", encoding="utf-8")
    broken = (
        load_profiles()
        .get(PROFILE)
        .model_copy(
            update={"directory": str(tmp_path), "prompts": PromptsSection(aggregate="./broken.jinja")}
        )
    )
    desk = await make_desk(says("1"), says("1"), says("2"), says("3"), profiles=ProfileBook([broken]))
    run = await desk.ended((await desk.create()).spec.run)
    assert run.result is not None
    assert run.result.short_answer == "1"
    page = await desk.service.trajectory(TENANT, run.spec.run, AGGREGATOR, after=0, limit=10)
    assert page.outcome is not None
    assert page.outcome.reason == "config"


async def test_a_defect_in_the_coordinator_ends_the_run_and_says_so(make_desk: MakeDesk) -> None:
    class Broken(Equivalence):
        async def same(self, left: str, right: str) -> bool:
            raise ZeroDivisionError("a defect")

    desk = await make_desk(says("1"), says("2"), equivalence=Broken())
    run = await desk.ended((await desk.create(policy=policy(width=2))).spec.run)
    assert run.state is RunState.FAILED
    assert run.failure is not None
    assert run.failure.code == "internal"
    assert "a defect" in run.failure.message


async def test_cancelling_stops_every_arm_and_says_what_it_cost(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS, HANGS, says("42"), HANGS)
    run = (await desk.create(policy=policy(width=4, early_stop=False))).spec.run
    await until(lambda: desk.runner.under_way == 3)
    await desk.service.cancel(TENANT, run, "enough")
    ended = await desk.ended(run)
    assert ended.state is RunState.CANCELLED
    assert ended.failure is not None
    assert ended.failure.message == "enough"
    assert ended.ledger is not None
    assert ended.ledger.total.tokens > 0
    assert desk.runner.under_way == 0


async def test_cancelling_during_the_aggregation_stops_it_too(make_desk: MakeDesk) -> None:
    desk = await make_desk(says("1"), says("2"), aggregator=HANGS)
    run = (await desk.create(policy=policy(width=2))).spec.run
    await until(lambda: AGGREGATOR in desk.runner.specs)
    await desk.service.cancel(TENANT, run, "enough")
    assert (await desk.ended(run)).state is RunState.CANCELLED


async def test_an_attached_run_is_cancelled_a_grace_after_its_caller_left(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS)
    run = (await desk.create(policy=policy(width=1), attached=True)).spec.run
    async with desk.service.attach(run):
        await until(lambda: desk.runner.under_way == 1)
    assert (await desk.ended(run)).state is RunState.CANCELLED


async def test_a_caller_who_comes_back_within_the_grace_keeps_the_run(make_desk: MakeDesk) -> None:
    go = asyncio.Event()
    desk = await make_desk(Part("Answer: 5", after=go), attach_grace_s=30.0)
    run = (await desk.create(policy=policy(width=1), attached=True)).spec.run
    async with desk.service.attach(run):
        pass
    async with desk.service.attach(run):
        go.set()
        assert (await desk.ended(run)).state is RunState.COMPLETED


async def test_the_same_request_id_finds_the_run_that_is_there(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS)
    first = await desk.create(policy=policy(width=1), request_id="r1")
    again = await desk.create(policy=policy(width=1), request_id="r1")
    assert again.spec.run == first.spec.run
    assert len(desk.runner.specs) <= 1
    with pytest.raises(RequestConflict):
        await desk.create(policy=policy(width=1), request_id="r1", text="Another question")


async def test_beyond_its_places_it_says_when_to_retry(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS, runs_max=1, queue_max=1)
    contract = policy(width=1)
    first = await desk.create(policy=contract)
    waiting = await desk.create(policy=contract)
    with pytest.raises(Overloaded) as refused:
        await desk.create(policy=contract)
    assert refused.value.retry_after_s > 0
    assert (await desk.service.get(TENANT, waiting.spec.run)).state is RunState.ACCEPTED
    await until(lambda: b'heavy_runs_active{state="running"} 1.0' in generate_latest(desk.registry))
    assert b'heavy_runs_active{state="accepted"} 1.0' in generate_latest(desk.registry)
    await desk.service.cancel(TENANT, first.spec.run, "")
    await desk.ended(first.spec.run)
    await until(lambda: desk.runner.under_way == 1)
    await desk.service.cancel(TENANT, waiting.spec.run, "")
    assert (await desk.ended(waiting.spec.run)).state is RunState.CANCELLED


async def test_a_run_cancelled_while_it_waits_never_starts(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS, runs_max=1, queue_max=1)
    await desk.create(policy=policy(width=1))
    waiting = (await desk.create(policy=policy(width=1))).spec.run
    await desk.service.cancel(TENANT, waiting, "never mind")
    assert (await desk.ended(waiting)).state is RunState.CANCELLED
    assert len({spec.run for spec in desk.runner.specs.values()}) == 1


async def test_another_tenants_run_is_not_found(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS)
    run = (await desk.create(policy=policy(width=1))).spec.run
    with pytest.raises(NotFound):
        await desk.service.get("somebody-else", run)
    with pytest.raises(NotFound):
        await desk.service.get(TENANT, RunId("../../etc/passwd"))


async def test_stopping_ends_runs_as_cancelled_and_admits_no_more(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS)
    run = (await desk.create(policy=policy(width=1))).spec.run
    await until(lambda: desk.runner.under_way == 1)
    await desk.service.stop()
    assert (await desk.store.log.get(run)).state is RunState.CANCELLED
    with pytest.raises(Overloaded):
        await desk.create(policy=policy(width=1))


async def test_a_run_whose_coordinator_died_is_ended_by_another(
    make_desk: MakeDesk, store: RedisStore
) -> None:
    from tests_support.domain import run_spec

    spec = run_spec(policy=policy(width=1))
    await store.log.create(spec, owner="dead", lease_s=0.1)
    desk = await make_desk(HANGS, lease_s=0.3)
    ended = await desk.ended(spec.run)
    assert ended.state is RunState.FAILED
    assert ended.failure is not None
    assert ended.failure.code == "coordinator_lost"
    # The dead one counted nothing: whoever ended the run does.
    await until(lambda: b'heavy_runs_total{method="",state="failed"} 1.0' in generate_latest(desk.registry))


async def test_a_lost_lease_ends_the_execution_and_writes_nothing_more(make_desk: MakeDesk) -> None:
    desk = await make_desk(HANGS, lease_s=0.3)
    run = await desk.create(policy=policy(width=1))
    await until(lambda: desk.runner.under_way == 1)
    await desk.store.leases.release(run.spec.run, epoch=run.epoch)
    await desk.store.leases.take(run.spec.run, owner="another", lease_s=30.0)
    await until(lambda: desk.runner.under_way == 0)
    assert (await desk.store.log.get(run.spec.run)).state is RunState.RUNNING


async def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for a condition, bounded."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)
