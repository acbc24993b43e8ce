"""The breaker before the cache: opens for failures and for slowness, rests, and lets one try for all."""

from __future__ import annotations

import pytest

from heavy.tools.cache_breaker import SAMPLES_MIN, Breaker, BreakerLimits

REST_S = 2.0


class Clock:
    now_s = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("heavy.tools.cache_breaker.monotonic_s", lambda: clock.now_s)
    return clock


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerLimits(failures_max=3, slow_s=0.2, rest_s=REST_S))


def opened(breaker: Breaker) -> Breaker:
    assert [breaker.failed() for _ in range(3)] == [False, False, True]
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not_let_it_come_to_that(
    breaker: Breaker,
) -> None:
    for _ in range(4):
        breaker.failed()
        breaker.failed()
        breaker.answered(0.01)
    assert breaker.allows()
    opened(breaker)
    assert not breaker.allows()


def test_answers_that_come_slowly_again_and_again_open_it(breaker: Breaker) -> None:
    told = [breaker.answered(0.3) for _ in range(SAMPLES_MIN)]
    assert told == [False] * (SAMPLES_MIN - 1) + [True]
    assert not breaker.allows()


def test_one_slow_answer_among_quick_ones_does_not(breaker: Breaker) -> None:
    for _ in range(20):
        breaker.answered(0.001)
    assert not breaker.answered(0.5)
    assert breaker.allows()


def test_after_its_rest_one_command_tries_for_all(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now_s += REST_S
    assert [breaker.allows() for _ in range(5)] == [True] + [False] * 4
    breaker.answered(0.01)
    assert breaker.allows()


@pytest.mark.parametrize("slowly", [True, False])
def test_a_try_that_fails_or_is_slow_opens_it_for_another_rest(
    breaker: Breaker, clock: Clock, slowly: bool
) -> None:
    opened(breaker)
    clock.now_s += REST_S
    assert breaker.allows()
    assert not (breaker.answered(0.3) if slowly else breaker.failed())  # that is no news
    clock.now_s += REST_S / 2
    assert not breaker.allows()
    clock.now_s += REST_S / 2
    assert breaker.allows()


def test_a_try_that_nobody_reports_on_is_followed_by_another(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now_s += REST_S
    assert breaker.allows()
    clock.now_s += REST_S
    assert breaker.allows()


def test_an_answer_to_what_was_sent_before_does_not_close_it(breaker: Breaker) -> None:
    opened(breaker).answered(0.01)
    assert not breaker.allows()
