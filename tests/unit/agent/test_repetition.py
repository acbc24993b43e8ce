"""Telling work from circles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.agent.limits import StuckLimits
from heavy.agent.repetition import Reminder, RepetitionWatch, Verdict, call_key
from heavy.core.messages import ToolCall
from heavy.core.records import ToolResultRecord
from heavy.core.tools import CacheState


def act(
    watch: RepetitionWatch, arguments: str, result: str, *, error: bool = False, copies: int = 1
) -> Verdict:
    calls = [ToolCall(f"id-{i}", "search", arguments) for i in range(copies)]
    results = [ToolResultRecord(c.id, c.name, result, error, CacheState.MISS, 0.1) for c in calls]
    return watch.observe(calls, results)


def test_the_same_call_is_reminded_of_at_3_5_and_8_and_stopped_at_12() -> None:
    watch = RepetitionWatch(StuckLimits())
    verdicts = [act(watch, '{"q": 1}', f"result {i}") for i in range(12)]

    assert [i + 1 for i, verdict in enumerate(verdicts) if verdict.reminders] == [3, 5, 8]
    assert verdicts[2].reminders == (Reminder("search", 3),)
    assert [i + 1 for i, verdict in enumerate(verdicts) if verdict.stuck] == [12]


def test_other_calls_between_do_not_hide_a_repeated_one() -> None:
    watch = RepetitionWatch(StuckLimits())
    verdicts = []
    for i in range(12):
        act(watch, f'{{"other": {i}}}', f"other {i}")
        verdicts.append(act(watch, '{"q": 1}', f"result {i}"))

    assert verdicts[-1].stuck
    assert not any(verdict.stuck for verdict in verdicts[:-1])


def test_the_same_action_with_the_same_result_is_stuck_at_4() -> None:
    watch = RepetitionWatch(StuckLimits())

    assert [bool(act(watch, "{}", "same").stuck) for _ in range(4)] == [False, False, False, True]


def test_the_same_error_is_stuck_at_3_whatever_the_arguments() -> None:
    watch = RepetitionWatch(StuckLimits())

    assert [bool(act(watch, f'{{"q": {i}}}', "down", error=True).stuck) for i in range(3)] == [
        False,
        False,
        True,
    ]


def test_a_success_between_errors_starts_their_count_anew() -> None:
    watch = RepetitionWatch(StuckLimits())
    for i in range(6):
        assert not act(watch, f'{{"q": {i}}}', "down", error=True).stuck
        assert not act(watch, f'{{"ok": {i}}}', f"fine {i}").stuck


def test_an_alternating_pair_is_stuck_after_6_steps() -> None:
    watch = RepetitionWatch(StuckLimits())
    verdicts = [act(watch, f'{{"q": {i % 2}}}', f"result {i % 2}") for i in range(6)]

    assert [bool(verdict.stuck) for verdict in verdicts] == [False] * 5 + [True]


def test_copies_of_a_call_within_one_step_count_once() -> None:
    watch = RepetitionWatch(StuckLimits())

    assert act(watch, "{}", "result", copies=20) == Verdict()


@given(st.lists(st.integers(0, 3), max_size=40))
def test_counts_and_reminders_follow_a_plain_recount(choices: list[int]) -> None:
    """With results that never repeat only the count of each call matters."""
    watch = RepetitionWatch(StuckLimits())
    for index, choice in enumerate(choices):
        verdict = act(watch, f'{{"q": {choice}}}', f"result {index}")
        count = choices[: index + 1].count(choice)
        assert [r.count for r in verdict.reminders] == ([count] if count in (3, 5, 8) else [])
        assert bool(verdict.stuck) is (count >= 12)


@given(st.lists(st.integers(0, 1), max_size=30))
def test_action_patterns_follow_a_plain_look_back(choices: list[int]) -> None:
    limits = StuckLimits(same_call_remind_at=(), same_call_stop_at=1000)
    watch = RepetitionWatch(limits)
    for end, choice in enumerate(choices, start=1):
        seen = choices[:end]
        same = end >= 4 and len(set(seen[-4:])) == 1
        pair = end >= 6 and seen[-6:] in ([0, 1] * 3, [1, 0] * 3)
        assert bool(act(watch, f'{{"q": {choice}}}', f"result {choice}").stuck) is (same or pair)


@given(st.lists(st.uuids(), unique=True, max_size=30))
def test_work_that_never_repeats_is_left_alone(questions: list[object]) -> None:
    watch = RepetitionWatch(StuckLimits())

    assert all(act(watch, f'{{"q": "{q}"}}', f"result {q}") == Verdict() for q in questions)


def test_spacing_and_order_of_arguments_make_no_other_call() -> None:
    one, same = ToolCall("", "f", '{"a": 1, "b": 2}'), ToolCall("", "f", '{"b":2,"a":1}')

    assert call_key(one) == call_key(same)
    assert call_key(one) != call_key(ToolCall("", "f", '{"a": 1, "b": 3}'))


def test_large_integers_stay_different() -> None:
    one, other = (ToolCall("", "f", f'{{"n": {10**30 + i}}}') for i in range(2))

    assert call_key(one) != call_key(other)


@pytest.mark.parametrize("field", ["same_call_stop_at", "same_action_stop_at", "alternating_stop_at"])
def test_limits_that_mean_nothing_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        StuckLimits(**{field: 0})
