"""The ledger of a run over a real log: what its trajectories reported, or else what their records say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heavy.coordinator.tally import ledger_of
from heavy.core.ids import TrajectoryId, arm
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.messages import Message, Role
from heavy.core.records import (
    CHECKPOINT,
    Entry,
    Event,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    ToolResultRecord,
)
from heavy.core.runs import Outcome, OutcomeKind
from heavy.core.tools import CacheState
from heavy.store.redis import RedisStore

from tests_support.domain import run_spec
from tests_support.entries import generation, note

COUNTS = st.integers(0, 10_000)
# Multiples of 1/8 add up exactly in binary, so that sums may be compared with ==.
MEASURES = st.integers(0, 10_000).map(lambda eighths: eighths / 8)
SPENDS = st.builds(
    Spend, COUNTS, COUNTS, COUNTS, st.integers(1, 10_000), st.just(0), MEASURES, MEASURES, MEASURES
)
LISTS = st.lists(st.tuples(st.integers(0, 3), SPENDS, MEASURES), max_size=8)


def generated(index: int, spend: Spend) -> Entry:
    entry = generation(0, index=index)
    assert isinstance(entry.body, GenerationRecord)
    return replace(entry, body=replace(entry.body, spend=spend))


def called(index: int, duration_s: float) -> Entry:
    return Entry(arm(index), 0, ToolResultRecord("c", "python", "", False, CacheState.MISS, duration_s), 0)


def checkpoint(spend: Spend, reason: str = CHECKPOINT) -> Entry:
    body = PartialGenerationRecord(Message(Role.ASSISTANT, "half"), spend.tokens_output, reason, spend)
    return Entry(arm(0), 1, body, 0)


def reported(name: TrajectoryId, spend: Spend) -> Outcome:
    return Outcome(name, OutcomeKind.CUT, "straggler", spend=spend)


def ended(outcome: Outcome) -> Entry:
    body = LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=outcome)
    return Entry(outcome.trajectory, -1, body, 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=LISTS)
async def test_without_reports_the_ledger_is_the_sum_of_the_records(
    store: RedisStore, steps: list[tuple[int, Spend, float]]
) -> None:
    entries = [e for index, spend, s in steps for e in (generated(index, spend), called(index, s))]
    found = await ledger_of_entries(store, [note(), *entries])
    for index in {index for index, _, _ in steps}:
        own = [spend + Spend(tool_calls=1, wall_s=s) for i, spend, s in steps if i == index]
        assert found[arm(index)] == sum(own, NOTHING_SPENT)
    assert set(found) == {arm(index) for index, _, _ in steps}


async def ledger_of_entries(
    store: RedisStore, entries: Sequence[Entry], outcomes: Sequence[Outcome] = ()
) -> dict[str, Spend]:
    """Per trajectory; that the total is their sum is checked on the way."""
    created = await store.log.create(run_spec(), owner="test", lease_s=30.0)
    run = created.run.spec.run
    await store.log.append(run, epoch=created.run.epoch, entries=entries)
    found = await ledger_of(store.log, run, outcomes)
    assert found.total == sum(found.trajectories.values(), NOTHING_SPENT)
    return found.trajectories


async def test_a_report_counts_the_generation_that_was_cut_and_nothing_twice(store: RedisStore) -> None:
    finished, cut = Spend(tokens_prompt=10, tokens_output=5), Spend(tokens_prompt=20, tokens_output=7)
    entries = [generated(0, finished), ended(reported(arm(0), finished + cut))]
    assert await ledger_of_entries(store, entries) == {arm(0): finished + cut}


async def test_a_generation_that_died_with_its_runner_counts_up_to_its_last_checkpoint(
    store: RedisStore,
) -> None:
    finished, early, later = (Spend(tokens_prompt=10, tokens_output=n) for n in (5, 100, 200))
    entries = [generated(0, finished), checkpoint(early), checkpoint(later)]
    assert await ledger_of_entries(store, entries) == {arm(0): finished + later}


async def test_a_checkpoint_of_a_generation_that_ended_is_not_counted_beside_it(store: RedisStore) -> None:
    early, finished, failed = (Spend(tokens_prompt=10, tokens_output=n) for n in (100, 300, 40))
    entries = [
        checkpoint(early),
        generated(0, finished),
        checkpoint(early),
        checkpoint(failed, "engine_failed"),
    ]
    assert await ledger_of_entries(store, entries) == {arm(0): finished + failed}


async def test_a_report_that_could_not_be_recorded_counts_too(store: RedisStore) -> None:
    spend = Spend(tokens_prompt=10, tokens_output=5)
    assert await ledger_of_entries(store, [note()], [reported(arm(1), spend)]) == {arm(1): spend}


async def test_what_was_made_up_for_a_lost_runner_does_not_hide_its_records(store: RedisStore) -> None:
    spend, lost = Spend(tokens_prompt=10, tokens_output=5), reported(arm(0), NOTHING_SPENT)
    entries = [generated(0, spend), ended(lost)]
    assert await ledger_of_entries(store, entries, [lost]) == {arm(0): spend}


async def test_a_runner_that_reported_after_it_was_given_up_is_believed(store: RedisStore) -> None:
    spend, late = Spend(tokens_prompt=10, tokens_output=5), Spend(tokens_prompt=30, tokens_output=9)
    silent = reported(arm(0), NOTHING_SPENT)
    entries = [generated(0, spend), ended(silent), ended(reported(arm(0), late))]
    assert await ledger_of_entries(store, entries, [silent]) == {arm(0): late}
