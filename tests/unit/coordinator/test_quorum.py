from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heavy.coordinator.quorum import (
    ALL_ENDED,
    DEADLINE,
    EARLY_STOP,
    STRAGGLER,
    Standing,
    Stop,
    Wait,
    decide,
    quorum_reached,
)
from heavy.core.ids import arm
from heavy.core.policy import AggregationMode
from heavy.core.runs import Agreement, AnswerGroup

from tests_support.domain import policy


def agreement(*sizes: int) -> Agreement:
    groups, at = [], 0
    for index, size in enumerate(sizes):
        groups.append(AnswerGroup(str(index), tuple(arm(i) for i in range(at, at + size))))
        at += size
    return Agreement(tuple(groups), sizes[0] / at if sizes else 0.0)


def standing(
    completed: int = 0,
    out: int = 8,
    of: Agreement | None = None,
    now_s: float = 10.0,
    quorum_since_s: float | None = None,
    deadline_at_s: float = 100.0,
) -> Standing:
    return Standing(completed, out, of or Agreement(), now_s, quorum_since_s, deadline_at_s)


def test_it_waits_until_the_deadline_while_the_quorum_is_out() -> None:
    assert decide(policy(), standing()) == Wait(90.0)


def test_it_stops_when_all_have_ended() -> None:
    assert decide(policy(), standing(completed=5, out=0)) == Stop(ALL_ENDED)


def test_it_stops_at_the_deadline() -> None:
    assert decide(policy(), standing(now_s=100.0)) == Stop(DEADLINE)


def test_stragglers_get_their_grace_and_no_more() -> None:
    contract = policy(straggler_grace_s=30.0)
    assert decide(contract, standing(completed=6, out=2, quorum_since_s=0.0)) == Wait(20.0)
    late = standing(completed=6, out=2, quorum_since_s=0.0, now_s=30.0)
    assert decide(contract, late) == Stop(STRAGGLER)


def test_it_stops_early_when_enough_arms_agree() -> None:
    agreed = standing(completed=6, out=2, of=agreement(6))
    assert decide(policy(vote_threshold=0.75), agreed) == Stop(EARLY_STOP)
    assert isinstance(decide(policy(vote_threshold=0.8), agreed), Wait)
    assert isinstance(decide(policy(early_stop=False), agreed), Wait)


def test_a_vote_stops_early_only_when_the_leader_is_out_of_reach() -> None:
    contract = policy(aggregation=AggregationMode.VOTE)
    assert decide(contract, standing(completed=6, out=2, of=agreement(4, 1))) == Stop(EARLY_STOP)
    assert isinstance(decide(contract, standing(completed=6, out=2, of=agreement(4, 2))), Wait)


def test_a_reflection_wants_every_arm() -> None:
    contract = policy(aggregation=AggregationMode.REFLECTIVE)
    assert isinstance(decide(contract, standing(completed=7, out=1, of=agreement(7))), Wait)


def test_a_quorum_out_of_reach_is_lowered_to_what_can_be_reached() -> None:
    contract = policy(quorum=6)
    assert not quorum_reached(contract, completed=5, out=3)
    assert not quorum_reached(contract, completed=3, out=1)
    assert quorum_reached(contract, completed=4, out=0)
    assert not quorum_reached(contract, completed=0, out=0)


@given(
    st.integers(0, 8), st.integers(0, 8), st.floats(0, 200), st.none() | st.floats(0, 200), st.integers(1, 8)
)
def test_a_wait_is_never_longer_than_what_is_left(
    completed: int, out: int, now_s: float, since_s: float | None, quorum: int
) -> None:
    decision = decide(policy(quorum=quorum), standing(completed, out, now_s=now_s, quorum_since_s=since_s))
    if isinstance(decision, Wait):
        assert 0 < decision.seconds <= 100.0 - now_s
