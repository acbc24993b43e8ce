"""The entries of a run's log. Appended once, numbered by the store, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from heavy.core.files import FileRef
from heavy.core.ids import TrajectoryId
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.messages import FinishReason, Message, ToolCall
from heavy.core.runs import Outcome, RunFailure, RunResult, RunState
from heavy.core.tools import CacheState, Effects


@dataclass(frozen=True, slots=True)
class GenerationTiming:
    """Seconds: waiting for a replica, to the first token, and from there to the last."""

    queue_s: float
    first_token_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One finished generation, recorded before its tools run."""

    message: Message
    finish_reason: FinishReason
    spend: Spend
    replica: str
    model: str
    request_id: str
    timing: GenerationTiming
    repairs: tuple[str, ...] = ()
    """What had to be mended in its tool calls, by name; empty for a clean generation."""
    placed: str = ""
    """Why it was generated on that replica: `idle`, `affinity`, `lead`, `follow`, `moved` or `failover`."""
    kind: Literal["generation"] = "generation"


CHECKPOINT: Final = "checkpoint"
"""The reason of a partial generation that goes on; every other reason is how it ended."""


@dataclass(frozen=True, slots=True)
class PartialGenerationRecord:
    """What there is of a generation that has not ended (a checkpoint) or never will (a cut, a failure).

    `spend` is what it has cost from its beginning on, estimated: engines count at the end. A later record of
    the same generation replaces it, so of a generation only its last record counts.
    """

    message: Message
    tokens_output: int
    reason: str
    spend: Spend = NOTHING_SPENT
    kind: Literal["partial_generation"] = "partial_generation"


@dataclass(frozen=True, slots=True)
class ToolIntentRecord:
    """A tool call about to be made. An intent without a result is a call whose fate is unknown."""

    call: ToolCall
    effects: Effects
    kind: Literal["tool_intent"] = "tool_intent"


@dataclass(frozen=True, slots=True)
class ToolResultRecord:
    """What a tool call gave back, failures included."""

    call_id: str
    name: str
    content: str
    is_error: bool
    cache: CacheState
    duration_s: float
    unknown: bool = False
    """Whether it is open if the call took effect: a write whose end was not seen. It is not repeated."""
    files: tuple[FileRef, ...] = ()
    """What it made for the caller."""
    kind: Literal["tool_result"] = "tool_result"


class Event(StrEnum):
    """What a lifecycle record reports."""

    RUN_STATE = "run_state"
    TRAJECTORY_STARTED = "trajectory_started"
    TRAJECTORY_ENDED = "trajectory_ended"
    NOTE = "note"
    """A decision worth reading later: early stop, quorum reached, context hidden, forced answer."""


ARMS_ENDED: Final = "arms_ended: "
"""How the note begins that says why a fan-out waited no more."""


@dataclass(frozen=True, slots=True)
class LifecycleRecord:
    """A change of state. `result`, `failure` and `ledger` come with the run's final state."""

    event: Event
    detail: str = ""
    state: RunState | None = None
    outcome: Outcome | None = None
    result: RunResult | None = None
    failure: RunFailure | None = None
    ledger: Ledger | None = None
    profile: str = ""
    kind: Literal["lifecycle"] = "lifecycle"


RecordBody = Annotated[
    GenerationRecord | PartialGenerationRecord | ToolIntentRecord | ToolResultRecord | LifecycleRecord,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record before it has a number: what a writer hands to the store. `step` counts from 0; -1 is none."""

    trajectory: TrajectoryId
    step: int
    body: RecordBody
    at_ms: int


@dataclass(frozen=True, slots=True)
class Record:
    """An entry of a run's log. `number` counts from 1 without gaps within one run."""

    number: int
    trajectory: TrajectoryId
    step: int
    at_ms: int
    body: RecordBody


@dataclass(frozen=True, slots=True)
class Delta:
    """Fresh text of a generation in progress: unnumbered and lossy; the record that follows has it all."""

    trajectory: TrajectoryId
    step: int
    reasoning: str = ""
    content: str = ""
