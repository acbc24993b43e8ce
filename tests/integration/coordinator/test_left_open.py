"""Writes that a lost runner or coordinator left open: said to be unknown in the log and to the caller."""

from __future__ import annotations

from heavy.coordinator.left_open import left_open, told
from heavy.coordinator.sweep import end_orphans
from heavy.core import clock
from heavy.core.ids import arm
from heavy.core.messages import ToolCall
from heavy.core.records import Entry, ToolIntentRecord, ToolResultRecord
from heavy.core.runs import Run
from heavy.core.tools import CacheState, Effects
from heavy.store.redis import RedisStore

from tests_support.domain import policy, run_spec
from tests_support.waiting import until


def intent(index: int, call: str, effects: Effects = Effects.WRITE) -> Entry:
    return Entry(arm(index), 3, ToolIntentRecord(ToolCall(call, "send", "{}"), effects), clock.now_ms())


def result(index: int, call: str) -> Entry:
    body = ToolResultRecord(call, "send", "sent", False, CacheState.BYPASS, 0.1)
    return Entry(arm(index), 3, body, clock.now_ms())


LOG = (
    intent(0, "a"),
    intent(0, "b"),
    intent(1, "a"),
    result(0, "a"),
    intent(1, "c", Effects.READ),
)


async def test_only_writes_without_a_result_are_left_open_each_in_its_trajectory(store: RedisStore) -> None:
    spec = run_spec(policy=policy(width=2))
    created = await store.log.create(spec, owner="me", lease_s=30.0)
    await store.log.append(spec.run, epoch=created.run.epoch, entries=LOG)
    left = await left_open(store.log, spec.run)
    assert [(write.trajectory, write.call.id) for write in left] == [(arm(0), "b"), (arm(1), "a")]
    assert [write.call.id for write in await left_open(store.log, spec.run, arm(1))] == ["a"]
    assert "send (arm-0, b)" in told(left)
    assert told(()) == ""


async def test_a_sweep_says_which_writes_of_a_dead_coordinators_run_are_unknown(store: RedisStore) -> None:
    spec = run_spec(policy=policy(width=2))
    created = await store.log.create(spec, owner="dead", lease_s=0.5)
    await store.log.append(spec.run, epoch=created.run.epoch, entries=LOG)

    async def sweep() -> list[Run]:
        return [run async for run in end_orphans(store, "heir", 5.0)]

    assert [run.spec.run for run in await until(sweep, bool)] == [spec.run]
    run = await store.log.get(spec.run)
    assert run.failure is not None
    assert "send (arm-1, a)" in run.failure.message
    records = await store.log.read(spec.run, after=0, limit=100)
    unknown = [r for r in records if isinstance(r.body, ToolResultRecord) and r.body.unknown]
    assert [(r.trajectory, r.step) for r in unknown] == [(arm(0), 3), (arm(1), 3)]
    assert await left_open(store.log, spec.run) == ()
