"""Where a run's time went: five parts that add up to its wall time, whatever its log and its clocks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.core.ids import AGGREGATOR, RUN_LEVEL, TrajectoryId, arm
from heavy.core.ledger import Spend
from heavy.core.messages import FinishReason, Message, Role
from heavy.core.records import (
    CHECKPOINT,
    Event,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    RecordBody,
    ToolResultRecord,
)
from heavy.core.runs import Outcome, OutcomeKind, RunState
from heavy.core.tools import CacheState
from heavy.telemetry.timeline import Part, Timeline

SAID = Message(Role.ASSISTANT, "It is 42.")
T0 = 1_000_000


def generated(queue_s: float, first_s: float, decode_s: float) -> GenerationRecord:
    timing = GenerationTiming(queue_s, first_s, decode_s)
    return GenerationRecord(SAID, FinishReason.STOP, Spend(), "r", "m", "0", timing)


def state(which: RunState) -> LifecycleRecord:
    return LifecycleRecord(Event.RUN_STATE, state=which)


def partial(reason: str) -> PartialGenerationRecord:
    return PartialGenerationRecord(SAID, 1, reason)


CALLED = ToolResultRecord("c", "python", "", False, CacheState.MISS, 1.0)
STARTED = LifecycleRecord(Event.TRAJECTORY_STARTED)
ENDED = LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=Outcome(arm(0), OutcomeKind.COMPLETED))


def timeline(*entries: tuple[float, TrajectoryId, RecordBody]) -> Timeline:
    """A timeline of records at so many seconds after acceptance."""
    line = Timeline(T0)
    for number, (at_s, trajectory, body) in enumerate(entries, 1):
        line.take(Record(number, trajectory, 0, T0 + round(at_s * 1000), body))
    line.end()
    return line


def path(line: Timeline, ended_s: float) -> dict[str, float]:
    return {part.value: seconds for part, seconds in line.path(T0 + round(ended_s * 1000)).items() if seconds}


def test_the_path_is_that_of_the_arm_which_ended_last() -> None:
    line = timeline(
        (1, RUN_LEVEL, state(RunState.RUNNING)),
        (2, arm(0), STARTED),
        (2, arm(1), STARTED),
        (4, arm(1), generated(0, 1, 1)),
        (4, arm(1), ENDED),
        (8, arm(0), generated(1, 2, 3)),
        (13, arm(0), CALLED),
        (11, arm(0), CALLED),
        (20, arm(0), generated(0, 1, 5)),
        (20, arm(0), ENDED),
        (21, RUN_LEVEL, state(RunState.AGGREGATING)),
        (24, AGGREGATOR, generated(0, 1, 2)),
        (24, AGGREGATOR, ENDED),
    )
    # waiting: 1 for its turn, 1 for a runner, 1 for a replica, 1 between the attempts, 1 at the end.
    assert path(line, 25) == {"waiting": 5, "prefill": 3, "decode": 8, "tools": 5, "aggregation": 4}
    assert line.queued_s == 1
    assert sorted(line.steps) == [(AGGREGATOR, 3), (arm(0), 6), (arm(0), 11), (arm(1), 2)]


def test_a_generation_that_was_cut_is_decoding_and_a_checkpoint_is_part_of_its_generation() -> None:
    line = timeline(
        (0, RUN_LEVEL, state(RunState.RUNNING)),
        (0, arm(0), STARTED),
        (3, arm(0), partial(CHECKPOINT)),
        (6, arm(0), generated(0, 2, 4)),
        (9, arm(0), partial(CHECKPOINT)),
        (10, arm(0), partial("cut")),
        (10, arm(0), ENDED),
    )
    assert path(line, 10) == {"prefill": 2, "decode": 8}


def test_a_run_that_never_began_waited() -> None:
    assert path(timeline(), 7) == {"waiting": 7}
    assert timeline().queued_s is None


def test_an_arm_whose_clock_is_ahead_does_not_make_the_run_longer() -> None:
    line = timeline(
        (0, RUN_LEVEL, state(RunState.RUNNING)),
        (50, arm(0), generated(0, 10, 40)),
        (50, arm(0), ENDED),
        (10, RUN_LEVEL, state(RunState.AGGREGATING)),
    )
    assert path(line, 12) == {"prefill": 2, "decode": 8, "aggregation": 2}


def test_what_an_arm_records_after_the_arms_had_ended_changes_nothing() -> None:
    line = timeline(
        (0, RUN_LEVEL, state(RunState.RUNNING)),
        (5, arm(0), generated(0, 1, 4)),
        (5, arm(0), ENDED),
        (5, RUN_LEVEL, state(RunState.AGGREGATING)),
        (9, arm(1), generated(0, 1, 8)),
        (9, arm(1), ENDED),
    )
    assert path(line, 6) == {"prefill": 1, "decode": 4, "aggregation": 1}


SECONDS = st.floats(-5, 100)
BODIES = st.one_of(
    st.builds(generated, SECONDS, SECONDS, SECONDS),
    st.sampled_from([CALLED, STARTED, ENDED, partial("cut"), partial(CHECKPOINT)]),
    st.sampled_from([RunState.RUNNING, RunState.AGGREGATING, RunState.COMPLETED]).map(state),
)
ENTRIES = st.tuples(SECONDS, st.sampled_from([RUN_LEVEL, arm(0), arm(1), AGGREGATOR]), BODIES)


@given(st.lists(ENTRIES, max_size=30), st.floats(0, 100))
def test_the_parts_are_never_negative_and_add_up_to_the_wall_time(
    entries: list[tuple[float, TrajectoryId, RecordBody]], ended_s: float
) -> None:
    parts = timeline(*entries).path(T0 + round(ended_s * 1000))
    assert set(parts) == set(Part)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(round(ended_s * 1000) / 1000, abs=1e-6)
