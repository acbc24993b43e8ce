"""A runner's host over a real store: what it records, and every way in which it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from heavy.core import clock
from heavy.core.errors import EngineRefused, EngineUnavailable, HeavyError, Overloaded, RunnerLost
from heavy.core.ids import RUN_LEVEL, arm
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.records import (
    Event,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    RecordBody,
    ToolResultRecord,
)
from heavy.core.runs import Outcome, OutcomeKind, TrajectorySpec
from heavy.runner.host import TrajectoryHost
from heavy.store.api import Control, ControlKind
from heavy.store.redis import RedisStore
from heavy.testing.replicas import Scripted
from heavy.testing.tools import SlowTool, tool_spec
from heavy.tools.registry import ToolBox

from tests_support.servers import StoreServer
from tests_support.waiting import until

MakeDesk = Callable[..., Any]
LEASE_S = 1.0


def hangs(request: object) -> Scripted:
    """Streams its text and then says nothing more."""
    return Scripted("Half of an answer", reasoning="I think.", hold=asyncio.Event())


def events(bodies: list[RecordBody]) -> list[Event]:
    return [body.event for body in bodies if isinstance(body, LifecycleRecord)]


def ended(bodies: list[RecordBody]) -> list[Outcome]:
    return [b.outcome for b in bodies if isinstance(b, LifecycleRecord) and b.outcome is not None]


async def cut(
    desk: Any, spec: TrajectorySpec, kind: str = ControlKind.CUT, reason: str = "straggler"
) -> None:
    trajectory = spec.trajectory if kind == ControlKind.CUT else RUN_LEVEL
    await desk.store.control.send(spec.run, Control(kind, trajectory, reason))


async def test_how_a_trajectory_begins_and_ends_is_recorded_once(
    make_desk: MakeDesk, calls: Callable[..., Scripted]
) -> None:
    desk = make_desk()
    script = iter([calls('{"n": 1}'), Scripted("Answer: 42")])
    desk.script = lambda request: next(script)
    spec = await desk.accept()
    outcome = await desk.host.run(spec)
    bodies = await desk.bodies(spec.run)
    assert outcome.kind is OutcomeKind.COMPLETED
    assert events(bodies) == [Event.TRAJECTORY_STARTED, Event.TRAJECTORY_ENDED]
    assert ended(bodies) == [outcome]
    assert [type(b) for b in bodies[1:-1]].count(GenerationRecord) == 2
    assert {r.trajectory for r in await desk.records(spec.run)} == {arm(0)}


async def test_what_an_outcome_reports_is_the_sum_of_its_records(
    make_desk: MakeDesk, calls: Callable[..., Scripted]
) -> None:
    desk = make_desk()
    script = iter([calls('{"n": 1}', '{"n": 2}', '{"n": 1}'), Scripted("Answer: 42")])
    desk.script = lambda request: next(script)
    spec = await desk.accept()
    outcome = await desk.host.run(spec)
    total = NOTHING_SPENT
    for body in await desk.bodies(spec.run):
        if isinstance(body, GenerationRecord):
            total += body.spend
        elif isinstance(body, ToolResultRecord):
            total += Spend(tool_calls=1, wall_s=body.duration_s)
    assert replace(outcome.spend, wall_s=0.0) == replace(total, wall_s=0.0)
    assert outcome.spend.wall_s == pytest.approx(total.wall_s)


async def test_a_cut_arm_keeps_its_partial_transcript_and_says_what_it_cost(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = hangs
    spec = await desk.accept()
    running = asyncio.create_task(desk.host.run(spec))
    await desk.generating()
    await cut(desk, spec)
    outcome = await running
    assert (outcome.kind, outcome.reason) == (OutcomeKind.CUT, "straggler")
    assert outcome.answer == "Half of an answer"
    assert outcome.spend.tokens_prompt > 0
    assert outcome.spend.tokens_output > 0
    bodies = await desk.bodies(spec.run)
    partial = [b for b in bodies if isinstance(b, PartialGenerationRecord)]
    assert [p.message.content for p in partial] == ["Half of an answer"]
    assert ended(bodies) == [outcome]
    assert len(desk.replica.aborted) == 1


async def test_a_cut_of_another_arm_is_not_for_this_one(make_desk: MakeDesk) -> None:
    desk = make_desk()
    go = asyncio.Event()
    desk.script = lambda request: Scripted("Answer: 42", hold=go)
    spec = await desk.accept(width=2)
    running = asyncio.create_task(desk.host.run(spec))
    await desk.generating()
    await desk.store.control.send(spec.run, Control(ControlKind.CUT, arm(1), "straggler"))
    async with desk.store.control.listen(spec.run) as controls:
        assert (await anext(controls)).trajectory == arm(1)
    go.set()
    assert (await running).kind is OutcomeKind.COMPLETED


async def test_a_cancel_stops_every_arm_of_the_run(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = hangs
    spec = await desk.accept(width=3)
    running = [asyncio.create_task(desk.host.run(replace(spec, trajectory=arm(i)))) for i in range(3)]
    await desk.generating(3)
    asked_s = clock.monotonic_s()
    await cut(desk, spec, ControlKind.CANCEL, "enough")
    outcomes = await asyncio.gather(*running)
    assert clock.monotonic_s() - asked_s < 1.0
    assert {(o.kind, o.reason, o.detail) for o in outcomes} == {(OutcomeKind.CUT, "cancelled", "enough")}
    assert len(desk.replica.aborted) == 3


async def test_a_cancel_noted_before_the_start_is_found(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = hangs
    spec = await desk.accept()
    await cut(desk, spec, ControlKind.CANCEL, "too late")
    assert (await desk.host.run(spec)).reason == "cancelled"


async def test_a_cancel_ends_a_tool_under_way(make_desk: MakeDesk, calls: Callable[..., Scripted]) -> None:
    tool = SlowTool(tool_spec("probe"))
    desk = make_desk(tools={"box": ToolBox([tool], {}, None)})
    desk.script = lambda request: calls("{}")
    spec = await desk.accept()
    running = asyncio.create_task(desk.host.run(spec))
    await asyncio.wait_for(tool.started.wait(), 10)
    await cut(desk, spec, ControlKind.CANCEL, "enough")
    outcome = await running
    assert outcome.kind is OutcomeKind.CUT
    assert tool.cancelled == 1
    assert outcome.spend.tokens_output > 0


@pytest.mark.parametrize("lost_to", ["nobody", "another"])
async def test_without_the_lease_the_generation_is_aborted_and_nothing_more_is_written(
    make_desk: MakeDesk, lost_to: str
) -> None:
    desk = make_desk()
    desk.script = hangs
    spec = await desk.accept()
    running = asyncio.create_task(desk.host.run(spec))
    await desk.generating()
    before = await desk.records(spec.run)
    lost_s = clock.monotonic_s()
    await desk.store.leases.release(spec.run, epoch=spec.epoch)
    if lost_to == "another":
        await desk.store.leases.take(spec.run, owner="another", lease_s=30.0)
    outcome = await running
    assert clock.monotonic_s() - lost_s < LEASE_S
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "lease_lost")
    assert outcome.answer == "Half of an answer"
    assert desk.replica.in_flight == 0
    assert await desk.records(spec.run) == before


async def test_an_expired_lease_stops_a_trajectory_at_its_next_record(
    make_desk: MakeDesk, calls: Callable[..., Scripted]
) -> None:
    desk = make_desk(lease_s=600.0)
    go = asyncio.Event()
    desk.script = lambda request: replace(calls("{}"), hold=go)
    spec = await desk.accept(lease_s=0.2)
    running = asyncio.create_task(desk.host.run(spec))
    await desk.generating()
    await until(lambda: desk.store.leases.held(spec.run, epoch=spec.epoch), lambda held: not held)
    go.set()
    outcome = await running
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "lease_lost")
    assert len(desk.replica.requests) == 1


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_lost_store_ends_every_trajectory_within_the_lease(
    make_desk: MakeDesk, own_server: StoreServer, own_store: RedisStore, how: str
) -> None:
    desk = make_desk(own_store)
    desk.script = hangs
    spec = await desk.accept(width=4)
    running = [asyncio.create_task(desk.host.run(replace(spec, trajectory=arm(i)))) for i in range(4)]
    await desk.generating(4)
    lost_s = clock.monotonic_s()
    getattr(own_server, how)()
    await desk.generating(0)
    assert clock.monotonic_s() - lost_s < LEASE_S + 0.5
    outcomes = await asyncio.gather(*running)
    assert clock.monotonic_s() - lost_s < LEASE_S + 4.0
    assert {o.kind for o in outcomes} == {OutcomeKind.FAILED}
    assert {o.reason for o in outcomes} == {"store_unavailable"}
    assert {o.answer for o in outcomes} == {"Half of an answer"}
    assert all(o.spend.tokens_output for o in outcomes)


async def test_a_store_lost_while_an_arm_ends_loses_neither_answer_nor_spend(
    make_desk: MakeDesk, own_server: StoreServer, own_store: RedisStore
) -> None:
    desk = make_desk(own_store, lease_s=30.0)
    go = asyncio.Event()
    desk.script = lambda request: Scripted("Answer: 42", hold=go)
    running = asyncio.create_task(desk.host.run(await desk.accept()))
    await desk.generating()
    own_server.kill()
    go.set()
    outcome = await running
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "store_unavailable")
    assert outcome.answer == "Answer: 42"
    assert outcome.spend.tokens_output > 0


async def test_a_short_outage_is_survived(
    make_desk: MakeDesk, own_server: StoreServer, own_store: RedisStore
) -> None:
    desk = make_desk(own_store, lease_s=30.0)
    go = asyncio.Event()
    desk.script = lambda request: Scripted("Answer: 42", hold=go)
    running = asyncio.create_task(desk.host.run(await desk.accept()))
    await desk.generating()
    own_server.freeze()
    own_server.thaw()
    go.set()
    assert (await running).kind is OutcomeKind.COMPLETED


async def test_beyond_its_room_it_says_so_and_begins_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk(in_flight_max=1)
    desk.script = hangs
    first, second = await desk.accept(), await desk.accept()
    running = asyncio.create_task(desk.host.run(first))
    await desk.generating()
    with pytest.raises(Overloaded):
        await desk.host.run(second)
    assert await desk.records(second.run) == []
    await cut(desk, first)
    await running
    desk.script = lambda request: Scripted("Answer: 42")
    assert (await desk.host.run(second)).kind is OutcomeKind.COMPLETED


async def test_stopping_cancels_everything_says_so_and_takes_nothing_more(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = hangs
    spec = await desk.accept(width=3)
    running = [asyncio.create_task(desk.host.run(replace(spec, trajectory=arm(i)))) for i in range(3)]
    await desk.generating(3)
    await desk.host.stop()
    assert desk.replica.in_flight == 0
    assert len(desk.replica.aborted) == 3
    for problem in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(problem, RunnerLost)
    partial = [b for b in await desk.bodies(spec.run) if isinstance(b, PartialGenerationRecord)]
    assert len(partial) == 3
    with pytest.raises(RunnerLost):
        await desk.host.run(spec)
    await desk.host.stop()


async def test_cancelling_the_caller_ends_its_trajectory_before_it_returns(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = hangs
    running = asyncio.create_task(desk.host.run(await desk.accept()))
    await desk.generating()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert desk.replica.in_flight == 0
    assert desk.host.in_flight == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"tools": ("no-such-tool",)}, "config"), ({"profile": "no-such-profile"}, "not_found")],
)
async def test_what_cannot_be_put_together_is_a_failed_outcome_with_its_reason(
    make_desk: MakeDesk, change: dict[str, Any], reason: str
) -> None:
    desk = make_desk()
    spec = await desk.accept(**change)
    outcome = await desk.host.run(spec)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, reason)
    assert "no-such" in outcome.detail
    bodies = await desk.bodies(spec.run)
    assert events(bodies) == [Event.TRAJECTORY_STARTED, Event.TRAJECTORY_ENDED]
    assert ended(bodies) == [outcome]


async def test_a_missing_tool_is_a_failed_outcome_that_says_what_would_mend_it(make_desk: MakeDesk) -> None:
    desk = make_desk(tools={"box": ToolBox([], {"probe": HeavyError("Install bubblewrap.")}, None)})
    outcome = await desk.host.run(await desk.accept())
    assert (outcome.kind, outcome.detail) == (OutcomeKind.FAILED, "Install bubblewrap.")


async def test_a_defect_in_the_loop_is_a_failed_outcome_too(make_desk: MakeDesk) -> None:
    desk = make_desk()

    def broken(request: object) -> Scripted:
        raise KeyError("a defect")

    desk.script = broken
    spec = await desk.accept()
    outcome = await desk.host.run(spec)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "internal")
    assert "KeyError" in outcome.detail
    assert ended(await desk.bodies(spec.run)) == [outcome]


async def test_a_cancel_that_nobody_asked_for_is_a_failed_outcome(make_desk: MakeDesk) -> None:
    desk = make_desk()

    def cancelled(request: object) -> Scripted:
        raise asyncio.CancelledError

    desk.script = cancelled
    outcome = await desk.host.run(await desk.accept())
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "internal")


async def test_an_engine_that_refuses_is_a_failed_outcome_recorded_once(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = lambda request: Scripted(error=EngineRefused("It does not like the request.", "r-0"))
    spec = await desk.accept()
    outcome = await desk.host.run(spec)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "engine_refused")
    assert ended(await desk.bodies(spec.run)) == [outcome]


async def test_attempts_that_failed_in_the_middle_are_paid_for_too(make_desk: MakeDesk) -> None:
    desk = make_desk()
    lost = Scripted("Some text that was streamed.", error=EngineUnavailable("It died.", "r-0"))
    script = iter([lost, Scripted("Answer: 42")])
    desk.script = lambda request: next(script)
    spec = await desk.accept()
    outcome = await desk.host.run(spec)
    generations = [b.spend for b in await desk.bodies(spec.run) if isinstance(b, GenerationRecord)]
    assert outcome.kind is OutcomeKind.COMPLETED
    assert len(generations) == 1
    assert outcome.spend.tokens_prompt > generations[0].tokens_prompt
    assert (await desk.store.budgets.spent(spec.run)).tokens == outcome.spend.tokens


async def test_a_run_that_is_gone_is_a_failed_outcome(make_desk: MakeDesk, store_server: StoreServer) -> None:
    desk = make_desk()
    desk.script = lambda request: Scripted("Answer: 42")
    spec = await desk.accept()
    store_server.flush()
    outcome = await desk.host.run(spec)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "not_found")
    assert desk.replica.requests == []


class LostChannel:
    """A store whose control channel breaks once a trajectory listens; everything else is the real one."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.control = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def listen(self, run: str) -> Any:
        return self

    async def __aenter__(self) -> AsyncIterator[Control]:
        return self._messages()

    async def __aexit__(self, *_: object) -> None:
        pass

    async def _messages(self) -> AsyncIterator[Control]:
        no_messages: tuple[Control, ...] = ()
        for message in no_messages:
            yield message
        await asyncio.sleep(0.05)
        raise HeavyError("The channel broke.")


async def test_a_trajectory_that_could_not_be_cut_any_more_ends(make_desk: MakeDesk) -> None:
    desk = make_desk()
    desk.script = hangs
    desk.host._store = LostChannel(desk.store)
    assert isinstance(desk.host, TrajectoryHost)
    outcome = await desk.host.run(await desk.accept())
    assert (outcome.kind, outcome.detail) == (OutcomeKind.FAILED, "The channel broke.")
    assert outcome.answer == "Half of an answer"
