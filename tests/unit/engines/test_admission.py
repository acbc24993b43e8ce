"""The bounded queue in front of an engine."""

from __future__ import annotations

import pytest

from workers.engines.api.admission import Admission
from workers.engines.api.errors import QueueFull


def test_whoever_fits_starts_at_once_and_the_next_ones_wait_in_order() -> None:
    started: list[str] = []
    admission = Admission(running_max=1, waiting_max=2, tokens_max=100)
    first = admission.enter(10, lambda: started.append("first"))
    second = admission.enter(10, lambda: started.append("second"))
    admission.enter(10, lambda: started.append("third"))
    assert (started, admission.waiting) == (["first"], 2)
    admission.leave(first)
    admission.leave(second)
    assert started == ["first", "second", "third"]


def test_a_full_queue_refuses_and_says_when_to_retry() -> None:
    admission = Admission(running_max=1, waiting_max=1, tokens_max=100)
    admission.enter(1, lambda: None)
    admission.enter(1, lambda: None)
    with pytest.raises(QueueFull, match="1 generations run and 1 of 1 wait") as refused:
        admission.enter(1, lambda: None)
    assert refused.value.retry_after_s == 1


def test_tokens_are_promised_up_to_the_capacity_and_no_further() -> None:
    started: list[int] = []
    admission = Admission(running_max=9, waiting_max=9, tokens_max=100)
    tickets = [admission.enter(60, lambda number=number: started.append(number)) for number in range(2)]
    assert (started, admission.promised, admission.waiting_tokens) == ([0], 60, 60)
    admission.leave(tickets[0])
    assert (started, admission.promised) == ([0, 1], 60)


def test_a_small_one_does_not_overtake_a_large_one_that_waits() -> None:
    started: list[str] = []
    admission = Admission(running_max=9, waiting_max=9, tokens_max=100)
    admission.enter(80, lambda: started.append("running"))
    admission.enter(50, lambda: started.append("large"))
    admission.enter(10, lambda: started.append("small"))
    assert started == ["running"]


def test_one_that_is_larger_than_everything_runs_alone() -> None:
    started: list[str] = []
    admission = Admission(running_max=9, waiting_max=9, tokens_max=100)
    admission.enter(1_000, lambda: started.append("giant"))
    admission.enter(1, lambda: started.append("next"))
    assert started == ["giant"]


def test_leaving_twice_gives_the_place_back_once() -> None:
    admission = Admission(running_max=1, waiting_max=1, tokens_max=100)
    ticket = admission.enter(10, lambda: None)
    waiting = admission.enter(10, lambda: None)
    for _ in range(2):
        admission.leave(waiting)
        admission.leave(ticket)
    assert (admission.running, admission.waiting, admission.promised) == (0, 0, 0)
