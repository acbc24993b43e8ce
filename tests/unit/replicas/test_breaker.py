"""The breaker's state machine."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from heavy.replicas.breaker import Breaker, BreakerLimits, BreakerState

LIMITS = BreakerLimits(failures_max=3, cool_down_s=1.0, cool_down_max_s=8.0, jitter_share=0.5)


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def broken(clock: Clock, failures: int = 3) -> Breaker:
    breaker = Breaker(LIMITS, now_s=clock, jitter=lambda: 0.0)
    for _ in range(failures):
        breaker.failed()
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    assert broken(Clock(), 2).state is BreakerState.CLOSED
    breaker = broken(Clock(), 3)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.admits


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = broken(Clock(), 2)
    breaker.succeeded()
    breaker.failed()
    assert breaker.state is BreakerState.CLOSED


def test_after_the_cool_down_one_trial_is_let_in_and_closes_it() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.s += 1.0
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.enter()
    assert not breaker.admits
    breaker.answered()
    assert breaker.state is BreakerState.CLOSED


def test_after_a_first_sign_of_life_one_more_failure_opens_it_again() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.s += 1.0
    breaker.enter()
    breaker.answered()
    breaker.failed()
    assert breaker.state is BreakerState.OPEN


def test_each_failed_trial_doubles_the_cool_down_up_to_its_maximum() -> None:
    clock = Clock()
    breaker = broken(clock)
    waits = []
    for _ in range(5):
        clock.s += breaker.opens_in_s
        breaker.enter()
        breaker.failed()
        waits.append(breaker.opens_in_s)
    assert waits == [2.0, 4.0, 8.0, 8.0, 8.0]


def test_an_abandoned_trial_lets_another_one_in() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.s += 1.0
    breaker.enter()
    breaker.abandoned()
    assert breaker.admits


def test_the_time_a_server_names_opens_at_once_and_so_long() -> None:
    clock = Clock()
    breaker = Breaker(LIMITS, now_s=clock, jitter=lambda: 1.0)
    breaker.failed(retry_after_s=5.0)
    assert (breaker.state, breaker.opens_in_s) == (BreakerState.OPEN, 5.0)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens: never more than one trial, never open beyond the longest cool-down."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(LIMITS, now_s=self.clock)
        self.trials = 0

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.clock.s += seconds

    @precondition(lambda self: self.breaker.admits)
    @rule()
    def someone_enters(self) -> None:
        if self.breaker.enter():
            self.trials += 1
        assert self.trials <= 1

    @rule(after=st.none() | st.floats(0, 10))
    def someone_fails(self, after: float | None) -> None:
        half_open = self.breaker.state is BreakerState.HALF_OPEN
        self.breaker.failed(after)
        if half_open:
            assert self.breaker.state is BreakerState.OPEN
        if self.breaker.state is BreakerState.OPEN:
            self.trials = 0

    @rule()
    def someone_answers(self) -> None:
        self.breaker.answered()
        if self.breaker.state is BreakerState.CLOSED:
            self.trials = 0

    @rule()
    def someone_succeeds(self) -> None:
        self.breaker.succeeded()
        if self.breaker.state is BreakerState.CLOSED:
            self.trials = 0

    @invariant()
    def it_always_opens_again_in_bounded_time(self) -> None:
        assert self.breaker.opens_in_s <= max(LIMITS.cool_down_max_s * 1.5, 10.0) + 1e-6


TestAnyHistory = AnyHistory.TestCase
