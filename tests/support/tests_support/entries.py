"""Log entries, endings and deltas for tests."""

from __future__ import annotations

from heavy.core import clock
from heavy.core.ids import RUN_LEVEL, TrajectoryId, arm
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.messages import FinishReason, Message, Role
from heavy.core.records import (
    Delta,
    Entry,
    Event,
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    Record,
)
from heavy.core.runs import RunFailure, RunState
from heavy.store.api import Ending


def note(text: str = "a note", trajectory: TrajectoryId = RUN_LEVEL) -> Entry:
    """A remark in a log."""
    return Entry(trajectory, -1, LifecycleRecord(Event.NOTE, detail=text), clock.now_ms())


def state_entry(state: RunState) -> Entry:
    """The entry that goes with a change of state."""
    return Entry(RUN_LEVEL, -1, LifecycleRecord(Event.RUN_STATE, state=state), clock.now_ms())


def generation(step: int, content: str = "It is 42.", index: int = 0) -> Entry:
    """A finished generation of an arm."""
    body = GenerationRecord(
        message=Message(Role.ASSISTANT, content),
        finish_reason=FinishReason.STOP,
        spend=Spend(tokens_prompt=10, tokens_output=5),
        replica="r-0",
        model="m",
        request_id="0",
        timing=GenerationTiming(0.0, 0.1, 0.2),
    )
    return Entry(arm(index), step, body, clock.now_ms())


def failure() -> Ending:
    """A run that failed."""
    return Ending(
        RunState.FAILED, None, RunFailure("test", "It failed."), Ledger(NOTHING_SPENT, {}), clock.now_ms()
    )


def delta(step: int, content: str = "It is", index: int = 0) -> Delta:
    """Fresh text of an arm."""
    return Delta(arm(index), step, content=content)


def detail(record: object) -> str:
    """The text of a note, as a log gave it back."""
    assert isinstance(record, Record)
    assert isinstance(record.body, LifecycleRecord)
    return record.body.detail
