from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from heavy.cli import draw, exits
from heavy.cli.main import cli
from heavy.cli.options import policy_of
from heavy.cli.view import RunView
from heavy.core.errors import (
    ConfigError,
    FieldViolation,
    HeavyError,
    InvalidRequest,
    Overloaded,
    ServerUnavailable,
    StoreUnavailable,
    Unauthenticated,
)
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, TrajectoryId, arm
from heavy.core.ledger import Ledger, Spend
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode
from heavy.core.records import (
    Delta,
    Event,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    RecordBody,
    ToolResultRecord,
)
from heavy.core.runs import (
    AggregationMethod,
    Agreement,
    AnswerGroup,
    Citation,
    Outcome,
    OutcomeKind,
    RunFailure,
    RunResult,
    RunState,
)
from heavy.core.tools import CacheState

SPEND = Spend(
    tokens_prompt=100, tokens_cached=40, tokens_output=20, tool_calls=1, cost_usd=0.0125, wall_s=2.0
)
RESULT = RunResult(
    "It is 42.",
    "42",
    AggregationMethod.REFLECTIVE,
    Agreement((AnswerGroup("41", (arm(0), arm(2))), AnswerGroup("42", (arm(1),))), 2 / 3),
    (Citation(arm(1), 3),),
    "two slipped a digit",
)


def record(number: int, trajectory: TrajectoryId, body: RecordBody) -> Record:
    return Record(number, trajectory, 0, 0, body)


@pytest.fixture
def view() -> RunView:
    """A run of one arm and an aggregator, from its first record to its last."""
    seen = RunView()
    ended = Outcome(arm(0), OutcomeKind.COMPLETED, answer="Answer: 41", spend=SPEND)
    final = LifecycleRecord(
        Event.RUN_STATE, state=RunState.COMPLETED, result=RESULT, ledger=Ledger(SPEND, {"arm-0": SPEND})
    )
    for event in (
        record(1, RUN_LEVEL, LifecycleRecord(Event.RUN_STATE, state=RunState.RUNNING)),
        record(2, AGGREGATOR, LifecycleRecord(Event.TRAJECTORY_STARTED, "Reader (1T)")),
        record(3, arm(0), LifecycleRecord(Event.TRAJECTORY_STARTED, "Thinker (1T)")),
        Delta(arm(0), 0, reasoning="let me see"),
        record(4, arm(0), ToolResultRecord("c", "python", "41\n", False, CacheState.COALESCED, 0.1)),
        record(5, arm(0), LifecycleRecord(Event.TRAJECTORY_ENDED, outcome=ended)),
        record(6, RUN_LEVEL, final),
    ):
        seen.apply(event)
    return seen


@pytest.mark.parametrize(("reason", "shown"), [("checkpoint", "half of it"), ("engine_failed", " of it")])
def test_a_step_that_begins_anew_is_not_shown_twice(reason: str, shown: str) -> None:
    seen = RunView()
    partial = PartialGenerationRecord(Message(Role.ASSISTANT, "half"), 1, reason, SPEND)
    for event in (
        Delta(arm(0), 0, content="half"),
        record(1, arm(0), partial),
        Delta(arm(0), 0, content=" of it"),
    ):
        seen.apply(event)
    assert seen.lanes[arm(0)].saying == shown


def drawn(view: RunView, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw.lanes(view, width))
    console.print(draw.ending(view))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_run_is_drawn_whole_at_any_width(view: RunView, width: int) -> None:
    text = drawn(view, width)
    flat = " ".join(text.split())
    for part in ("arm-0", "It is 42.", "2 of 3", "two slipped a digit", "arm-1 step 3", "$0.0125", "Thinker"):
        assert part in flat
    assert max(len(line) for line in text.splitlines()) <= width


def test_lanes_are_ordered_with_the_aggregator_last(view: RunView) -> None:
    assert [lane.trajectory for lane in view.ordered] == [arm(0), AGGREGATOR]
    assert view.lanes[arm(0)].tool == "python coalesced"


def test_a_failed_run_says_why_and_what_it_cost() -> None:
    seen = RunView(
        state=RunState.FAILED, failure=RunFailure("x", "No trajectory came to an answer."), total=SPEND
    )
    text = drawn(seen, 80)
    assert "No trajectory came to an answer." in text
    assert "$0.0125" in text


def test_a_run_that_goes_on_says_what_it_has_cost_so_far(view: RunView) -> None:
    view.state, view.result = RunState.RUNNING, None
    view.lanes[AGGREGATOR].spend = SPEND
    text = drawn(view, 80)
    assert "heavy watch" in text
    assert "$0.0250" in text


def test_in_a_pipe_the_answer_has_neither_frames_nor_a_width(view: RunView) -> None:
    view.result = replace(RESULT, answer=f"First.\n{'long ' * 60}end.")
    lines = list(draw.ending_lines(view))
    assert lines[:3] == ["answer, by the reflective pass:", "First.", f"{'long ' * 60}end."]
    assert "evidence   arm-1 step 3" in lines
    assert any(line.startswith("cost       $0.0125") for line in lines)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest((FieldViolation("policy.width", "is 9"),)), exits.USAGE),
        (ConfigError("x"), exits.CONFIG),
        (Overloaded("x", 1.0), exits.REFUSED),
        (Unauthenticated("x"), exits.REFUSED),
        (StoreUnavailable("x"), exits.UNAVAILABLE),
        (ServerUnavailable("x"), exits.UNAVAILABLE),
        (HeavyError("x"), exits.FAILED),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error: HeavyError, code: int) -> None:
    assert exits.of_error(error) == code
    assert f"\n  {code} " in (cli.epilog or "")


def test_flags_that_were_not_given_are_the_servers_to_choose() -> None:
    given = {"width": 4, "aggregation": "vote", "tools": (), "no_tools": False, "arms": (), "seed": None}
    draft = policy_of(given)
    assert (draft.width, draft.aggregation, draft.tools, draft.seed) == (4, AggregationMode.VOTE, None, None)
    assert policy_of({**given, "no_tools": True}).tools == ()


def test_a_hint_says_what_to_do_unless_the_error_has_said_it() -> None:
    assert "heavy up" in exits.hint_of(ServerUnavailable("x"))
    assert exits.hint_of(ServerUnavailable("x", complete=True)) == ""
    assert exits.hint_of(HeavyError("x")) == ""
