"""Arms of an earlier run, aggregated anew: over a real store, with a runner that plays the aggregator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.api import CreateRequest
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.errors import InvalidRequest, NotFound
from heavy.core.ids import AGGREGATOR, RunId, TrajectoryId, arm
from heavy.core.ledger import Ledger, Spend
from heavy.core.messages import FinishReason, Message, Role
from heavy.core.policy import AggregationMode, ArmsFrom, Policy
from heavy.core.records import (
    Entry,
    Event,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    ToolResultRecord,
)
from heavy.core.runs import AggregationMethod, Outcome, OutcomeKind, Run, RunFailure, RunState
from heavy.core.tools import CacheState
from heavy.profiles.loader import load_profiles
from heavy.store.api import Ending
from heavy.store.redis import RedisStore
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.runner import SPEND, Part, ScriptedRunner

from tests_support.domain import PROFILE, policy, run_spec

PAID = Spend(tokens_prompt=1000, tokens_output=500, cost_usd=1.0)
ANSWERS = ("40", "41", "42", "43")


def entries_of(name: TrajectoryId, answer: str) -> list[Entry]:
    """What a runner records of an arm that thinks once and answers."""
    text = f"Answer: {answer}"
    said = GenerationRecord(
        Message(Role.ASSISTANT, text, reasoning=f"I counted to {answer}."),
        FinishReason.STOP,
        PAID,
        "tiny-0",
        "tiny",
        f"request-{name}",
        GenerationTiming(0.0, 0.1, 0.2),
    )
    ended = Outcome(name, OutcomeKind.COMPLETED, answer=text, steps=1, spend=PAID, profile=PROFILE)
    bodies = (
        LifecycleRecord(Event.TRAJECTORY_STARTED, profile=PROFILE),
        ToolResultRecord("functions.add:0", "add", "a result", False, CacheState.BYPASS, 2.5),
        said,
        LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=ended, profile=PROFILE),
    )
    return [Entry(name, step, body, 1) for step, body in zip((-1, 0, 1, -1), bodies, strict=True)]


async def earlier_run(store: RedisStore, *, ended: bool = True, **changes: Any) -> RunId:
    """A run of four arms that disagree, in the store."""
    spec = run_spec(policy=policy(width=4), **changes)
    created = await store.log.create(spec, owner="before", lease_s=60.0)
    entries = [entry for index, answer in enumerate(ANSWERS) for entry in entries_of(arm(index), answer)]
    await store.log.append(spec.run, epoch=created.run.epoch, entries=entries)
    if ended:
        ending = Ending(RunState.FAILED, None, RunFailure("cut", "short"), Ledger(PAID, {}), 2)
        last = Entry(TrajectoryId(""), -1, LifecycleRecord(Event.RUN_STATE, state=RunState.FAILED), 2)
        await store.log.finish(spec.run, epoch=created.run.epoch, ending=ending, entry=last)
    return spec.run


class Desk:
    """A coordinator whose runner can play an aggregator and nothing else."""

    def __init__(self, store: RedisStore, equivalence: Equivalence) -> None:
        book, settings = load_profiles(), Settings(lease_s=2.0)
        self.registry = CollectorRegistry()
        self.runner = ScriptedRunner(store.control, {AGGREGATOR: Part("Answer: 43\nCites: A, B")})
        self.service = CoordinatorService(
            Parts(store, self.runner, book, equivalence, settings.lease_s),
            PolicyDefaults(book.by_name, (PROFILE,), settings, ()),
            settings,
            RunMetrics(self.registry, ()),
            Tracing("", "test"),
            "tester",
        )

    async def ask(self, contract: Policy, text: str = "What is 6 times 7?", tenant: str = "default") -> Run:
        request = CreateRequest(
            tenant, "", (Message(Role.USER, text),), contract, False, "", fingerprint=text
        )
        run = (await self.service.create(request)).run.spec.run
        async for _ in self.service.watch(tenant, run, after=0, deltas=False):
            pass
        return await self.service.get(tenant, run)


@pytest.fixture
async def desk(store: RedisStore) -> AsyncIterator[Desk]:
    equivalence = Equivalence()
    made = Desk(store, equivalence)
    await made.service.start()
    yield made
    await made.service.stop()
    await equivalence.close()


def taking(run: RunId, *arms: int, **changes: Any) -> Policy:
    return policy(width=len(arms), arms_from=ArmsFrom(run, arms), **changes)


async def test_arms_of_an_earlier_run_are_aggregated_anew_and_none_is_rolled_out(
    desk: Desk, store: RedisStore
) -> None:
    earlier = await earlier_run(store)
    run = await desk.ask(taking(earlier, 3, 0, aggregation=AggregationMode.REFLECTIVE))
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert (run.result.method, run.result.short_answer) == (AggregationMethod.REFLECTIVE, "43")
    assert {citation.trajectory for citation in run.result.citations} == {arm(0), arm(1)}
    assert set(desk.runner.specs) == {AGGREGATOR}
    shown = desk.runner.specs[AGGREGATOR].messages[0].content
    assert "I counted to 43." in shown
    assert "I counted to 40." in shown
    assert "41" not in shown
    page = await desk.service.trajectory("default", run.spec.run, arm(0), after=0, limit=10)
    assert page.outcome is not None
    assert (page.outcome.answer, page.outcome.profile) == ("Answer: 43", PROFILE)
    assert [type(record.body) for record in page.records] == [
        LifecycleRecord,
        ToolResultRecord,
        GenerationRecord,
        LifecycleRecord,
    ]


async def test_what_was_paid_for_is_not_counted_again(desk: Desk, store: RedisStore) -> None:
    earlier = await earlier_run(store)
    run = await desk.ask(taking(earlier, 0, 1, 2, aggregation=AggregationMode.REFLECTIVE))
    assert run.ledger is not None
    assert run.ledger.total == SPEND == run.ledger.trajectories[AGGREGATOR]
    assert run.ledger.trajectories[arm(0)] == Spend(), "its tool calls neither"
    page = await desk.service.trajectory("default", run.spec.run, arm(0), after=0, limit=10)
    assert page.outcome is not None
    assert page.outcome.spend == Spend()
    assert {r.body.spend for r in page.records if isinstance(r.body, GenerationRecord)} == {Spend()}
    counted = generate_latest(desk.registry).decode()
    assert "500.0" not in counted
    assert "1500.0" not in counted


async def test_an_earlier_run_can_be_voted_on_by_some_of_its_arms(desk: Desk, store: RedisStore) -> None:
    earlier = await earlier_run(store)
    run = await desk.ask(taking(earlier, 2, aggregation=AggregationMode.VOTE))
    assert run.result is not None
    assert run.result.short_answer == "42"
    assert desk.runner.specs == {}
    assert run.ledger is not None
    assert run.ledger.total == Spend()


async def test_arms_are_taken_from_an_ended_run_that_was_asked_the_same(
    desk: Desk, store: RedisStore
) -> None:
    earlier = await earlier_run(store)
    with pytest.raises(InvalidRequest, match="answer another question"):
        await desk.ask(taking(earlier, 0), text="What is 6 times 8?")
    with pytest.raises(InvalidRequest, match="has arms 0 to 3"):
        await desk.ask(taking(earlier, 0, 5))
    with pytest.raises(NotFound):
        await desk.ask(taking(earlier, 0), tenant="somebody else")
    under_way = await earlier_run(store, ended=False)
    with pytest.raises(InvalidRequest, match="wait for its end"):
        await desk.ask(taking(under_way, 0))
    assert desk.runner.specs == {}


async def test_answers_made_up_by_the_simulated_engine_stay_so(desk: Desk, store: RedisStore) -> None:
    earlier = await earlier_run(store, simulated=True)
    run = await desk.ask(replace(taking(earlier, 1), aggregation=AggregationMode.VOTE))
    assert run.spec.simulated
