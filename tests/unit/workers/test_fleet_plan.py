"""The controller's decisions, carried out on a cluster on paper."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from heavy.core.fleet import Member, Phase
from workers.fleet.plan import (
    QUARANTINE_AFTER,
    SILENT_S,
    STEADY_S,
    Drain,
    Erase,
    Launch,
    Leave,
    Sweep,
    Tell,
    backoff_s,
)

from tests_support.fleet_world import World, want


def test_as_many_replicas_as_are_wanted_come_up_and_stay() -> None:
    world = World(wanted={"p": want(number=3)})
    world.settle(10)
    assert len(world.ready()) == 3
    assert world.step() == []


def test_a_replica_whose_process_is_gone_is_replaced_under_another_name() -> None:
    world = World(wanted={"p": want(number=2)})
    world.settle(10)
    victim = world.ready()[0]
    world.kill(victim)
    world.settle(10)
    assert len(world.ready()) == 2
    assert victim not in world.members
    assert victim not in world.groups
    assert world.failures["p"].count == 1


def test_a_streak_ends_when_a_replica_has_been_ready_for_long() -> None:
    world = World(wanted={"p": want(number=1)})
    world.settle(10)
    world.kill(world.ready()[0])
    world.settle(10)
    assert "p" in world.failures
    world.settle(int(STEADY_S) + 2)
    assert "p" not in world.failures


def test_a_replica_that_was_ready_all_along_does_not_excuse_one_that_always_fails() -> None:
    world = World(room=8, wanted={"p": want(number=1)})
    world.settle(int(STEADY_S) + 10)
    world.doomed_names = {f"p-{number}" for number in range(1, 20)}
    world.wanted["p"] = want(number=2)
    world.settle(150)
    assert world.ready() == ["p-0"]
    assert world.failures["p"].quarantined
    assert world.numbers == 1 + QUARANTINE_AFTER


def test_a_replica_that_has_long_served_and_is_silent_for_a_moment_stays() -> None:
    world = World(wanted={"p": want(number=1)})
    world.settle(2 * int(SILENT_S))
    (old,) = world.ready()
    world.muted.add(old)
    world.settle(int(SILENT_S) - 5)
    assert world.members[old].phase is Phase.SERVING
    world.muted.clear()
    world.settle(2)
    assert world.ready() == [old]
    world.muted.add(old)
    world.settle(int(SILENT_S) + 5)
    assert old not in world.members


def test_a_replica_that_waited_long_for_its_place_has_its_time_to_start() -> None:
    world = World(room=0, wanted={"p": want(number=1)})
    world.settle(2 * int(SILENT_S))
    (late,) = world.members
    world.muted.add(late)
    world.room = 1
    world.settle(int(SILENT_S) - 5)
    world.muted.clear()
    world.settle(2)
    assert world.ready() == [late]


def test_what_always_fails_is_tried_ever_more_slowly_and_then_quarantined_with_its_reason() -> None:
    wanted = want(number=1)
    world = World(wanted={"p": wanted}, doomed={wanted.revision})
    world.settle(120)
    assert world.failures["p"].count == QUARANTINE_AFTER
    assert world.failures["p"].quarantined
    assert world.failures["p"].reason == "no such model"
    assert world.members == {}
    assert world.groups == {}
    assert [backoff_s(count) for count in range(6)] == [0, 1, 2, 4, 8, 16]
    assert backoff_s(50) == 300


def test_a_quarantined_profile_is_started_again_when_it_changes() -> None:
    bad, good = want(number=1), want(number=1, definition='{"mended": true}')
    world = World(wanted={"p": bad}, doomed={bad.revision})
    world.settle(120)
    world.wanted["p"] = good
    world.settle(10)
    assert world.revisions() == {good.revision}


def test_what_failed_before_it_was_asked_for_again_is_history() -> None:
    bad = want(number=1)
    world = World(wanted={"p": bad}, doomed={bad.revision})
    world.settle(120)
    assert world.failures["p"].quarantined
    world.doomed.clear()
    world.wanted["p"] = replace(bad, asked_ms=world.now_ms)
    world.settle(10)
    assert len(world.ready()) == 1


def test_an_administrators_restart_is_another_revision() -> None:
    assert want().revision != replace(want(), restarts=1).revision
    assert want().revision == replace(want(), replicas=7, drained=("p-0",)).revision


def test_an_update_with_room_for_one_more_never_has_fewer_ready_than_wanted() -> None:
    world = World(room=4, wanted={"p": want(number=3)})
    world.settle(10)
    after = want(number=3, definition='{"new": true}')
    world.wanted["p"] = after
    for _ in range(60):
        world.step()
        assert len(world.ready()) >= 3
    assert world.revisions() == {after.revision}
    assert len(world.members) == 3


def test_an_update_without_room_goes_one_by_one() -> None:
    world = World(room=3, wanted={"p": want(number=3)})
    world.settle(10)
    after = want(number=3, definition='{"new": true}')
    world.wanted["p"] = after
    for _ in range(120):
        world.step()
        assert len(world.ready()) >= 2
    assert world.revisions() == {after.revision}
    assert len(world.ready()) == 3


def test_an_update_of_a_single_replica_without_room_waits_instead_of_serving_nothing() -> None:
    world = World(room=1, wanted={"p": want(number=1)})
    world.settle(10)
    world.wanted["p"] = want(number=1, definition='{"new": true}')
    for _ in range(60):
        world.step()
        assert len(world.ready()) == 1
    world.room = 2
    world.settle(30)
    assert world.revisions() == {world.wanted["p"].revision}


def test_an_update_without_room_keeps_its_only_replica_though_it_is_silent_for_a_moment() -> None:
    world = World(room=1, wanted={"p": want(number=1)})
    world.settle(10)
    (only,) = world.ready()
    world.wanted["p"] = want(number=1, definition='{"new": true}')
    world.settle(30)
    world.muted.add(only)
    world.settle(5)
    world.muted.clear()
    world.settle(5)
    assert world.ready() == [only]


def test_an_update_that_fails_leaves_the_old_ones_serving() -> None:
    world = World(room=8, wanted={"p": want(number=2)})
    world.settle(10)
    before = world.revisions()
    bad = want(number=2, definition='{"typo": true}')
    world.doomed.add(bad.revision)
    world.wanted["p"] = bad
    for _ in range(120):
        world.step()
        assert len(world.ready()) >= 2
    assert world.revisions() == before
    assert world.failures["p"].quarantined


def test_a_draining_replica_leaves_when_it_has_nothing_in_flight_or_its_time_is_over() -> None:
    world = World(wanted={"p": want(number=2)})
    world.settle(10)
    busy, idle = world.ready()
    world.busy.add(busy)
    world.wanted["p"] = replace(world.wanted["p"], drained=(busy, idle))
    world.settle(10)
    assert idle not in world.members
    assert world.members[busy].phase is Phase.DRAINING
    assert len(world.ready()) == 2
    world.settle(30)
    assert busy not in world.members


def test_a_draining_replica_that_still_accepts_work_is_told_again_and_does_not_leave_before() -> None:
    world = World(wanted={"p": want(number=1)})
    world.settle(10)
    (deaf,) = world.ready()
    world.deaf.add(deaf)
    world.wanted["p"] = replace(world.wanted["p"], drained=(deaf,))
    world.settle(10)
    assert Tell(world.members[deaf]) in world.step()
    world.deaf.clear()
    world.settle(10)
    assert deaf not in world.members


def test_a_draining_replica_that_is_silent_is_not_taken_for_idle() -> None:
    world = World(wanted={"p": want(number=1)})
    world.settle(10)
    (busy,) = world.ready()
    world.busy.add(busy)
    world.wanted["p"] = replace(world.wanted["p"], drained=(busy,))
    world.settle(3)
    world.muted.add(busy)
    world.settle(10)
    assert world.members[busy].phase is Phase.DRAINING


def test_fewer_wanted_drains_the_least_busy() -> None:
    world = World(wanted={"p": want(number=3)})
    world.settle(10)
    first, second, third = world.ready()
    world.busy |= {first, third}
    world.settle(2)
    world.wanted["p"] = want(number=2)
    assert [a.member.replica for a in world.step() if isinstance(a, Drain)] == [second]


def test_groups_and_actors_of_nobody_are_swept_and_those_of_members_are_not() -> None:
    world = World(wanted={"p": want(number=1)})
    world.settle(5)
    world.actors.add("stray-0")
    world.groups["stray-1"] = "CREATED"
    assert {a.replica for a in world.step() if isinstance(a, Sweep)} == {"stray-0", "stray-1"}
    world.settle(5)
    assert len(world.ready()) == 1


def test_a_member_noted_by_a_controller_that_died_is_launched_by_the_next() -> None:
    wanted = want(number=1)
    member = Member("p-7", "p", wanted.revision, "{}", 0)
    world = World(wanted={"p": wanted}, members={"p-7": member})
    assert world.step() == [Launch(member)]


def test_a_leaving_member_is_erased_however_often_it_takes() -> None:
    member = Member("p-0", "p", "r", "{}", 0, launched=True, phase=Phase.LEAVING)
    world = World(members={"p-0": member})
    assert world.step() == [Erase(member)]


def test_dismissed_replicas_go_at_once_and_busy_ones_too() -> None:
    world = World(wanted={"p": want(number=2)})
    world.settle(10)
    world.busy |= set(world.ready())
    world.wanted["p"] = replace(world.wanted["p"], dismissed=True)
    assert sum(isinstance(a, Leave) for a in world.step()) == 2
    world.settle(3)
    assert world.members == {}


events = st.lists(
    st.one_of(
        st.tuples(st.just("steps"), st.integers(1, 5)),
        st.tuples(st.just("kill"), st.integers(0, 5)),
        st.tuples(st.just("number"), st.integers(0, 4)),
        st.tuples(st.just("update"), st.integers(0, 3)),
        st.tuples(st.just("unwant"), st.just(0)),
        st.tuples(st.just("stray"), st.integers(0, 9)),
    ),
    max_size=25,
)


@given(events, st.integers(1, 6))
def test_whatever_happens_what_is_wanted_is_there_in_the_end_and_nothing_else(
    happened: list[tuple[str, int]], room: int
) -> None:
    world = World(room=room, wanted={"p": want(number=1)})
    for event, value in happened:
        current = world.wanted.get("p") or want(number=1)
        if event == "steps":
            world.settle(value)
        elif event == "kill" and world.actors:
            world.kill(sorted(world.actors)[value % len(world.actors)])
        elif event == "number":
            world.wanted["p"] = replace(current, replicas=value, replicas_min=value, replicas_max=value)
        elif event == "update":
            world.wanted["p"] = replace(current, definition=f'{{"n": {value}}}')
        elif event == "unwant":
            world.wanted.pop("p", None)
        elif event == "stray":
            world.groups[f"stray-{value}"] = "CREATED"
    if world.failures.get("p"):
        world.failures.clear()  # a quarantine is another test's
    world.settle(200)
    wanted = world.wanted.get("p")
    number = min(wanted.replicas, room) if wanted else 0
    if wanted and wanted.replicas > 1 and room == 1 and len(world.revisions()) > 1:
        raise AssertionError("two revisions on one place")
    assert len(world.ready()) == number
    assert set(world.groups) == set(world.members)
    assert world.actors == set(world.members)
