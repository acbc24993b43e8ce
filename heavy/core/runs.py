"""A run from acceptance to answer, and the trajectories it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from heavy.core.files import FileRef
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.ledger import NOTHING_SPENT, Ledger, Spend
from heavy.core.messages import Message
from heavy.core.policy import KEEP_LAST, ContextPolicy, Policy, Sampling
from heavy.core.tools import ToolSpec


class RunState(StrEnum):
    """Where a run is. The last three are final."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    AGGREGATING = "aggregating"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self in FINAL_STATES


FINAL_STATES: Final = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})

TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.ACCEPTED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {RunState.AGGREGATING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.AGGREGATING: frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What was accepted. `request_id` is the caller's and may be empty; `deadline_ms` is wall time."""

    run: RunId
    tenant: str
    request_id: str
    messages: tuple[Message, ...]
    policy: Policy
    attached: bool
    created_ms: int
    deadline_ms: int
    traceparent: str = ""
    fingerprint: str = ""
    """Digest of messages and policy as the caller sent them, before defaults: what a second use of the
    `request_id` is compared by. (A resolved policy is not the same twice: random seed, shrinking deadline.)
    """
    caller_tools: tuple[ToolSpec, ...] = ()
    """Tools that the caller executes, for the arms."""
    simulated: bool = False
    """Whether a member is served by the simulated engine: people are told wherever they see the run."""
    files: tuple[FileRef, ...] = ()
    """What the caller gave beside the conversation, for the arms' tools."""


class TrajectoryRole(StrEnum):
    """What a trajectory is for."""

    ARM = "arm"
    AGGREGATOR = "aggregator"


@dataclass(frozen=True, slots=True)
class TraceCandidate:
    """One transcript an aggregator may open, under its anonymous label."""

    label: str
    trajectory: TrajectoryId


@dataclass(frozen=True, slots=True)
class TrajectorySpec:
    """Everything a runner needs to roll out one trajectory; it crosses Ray in one call."""

    run: RunId
    trajectory: TrajectoryId
    role: TrajectoryRole
    tenant: str
    profile: str
    messages: tuple[Message, ...]
    tools: tuple[str, ...]
    sampling: Sampling
    context_policy: ContextPolicy
    steps_max: int
    tool_calls_max: int | None
    reasoning_tokens_per_step_max: int
    deadline_ms: int
    epoch: int
    """The lease epoch under which its records are appended."""
    traceparent: str = ""
    caller_tools: tuple[ToolSpec, ...] = ()
    """Tools that the caller executes, beside those of `tools`."""
    candidates: tuple[TraceCandidate, ...] = ()
    """For the aggregator: the transcripts its trace tools may open."""
    context_keep_last: int = KEEP_LAST
    files: tuple[FileRef, ...] = ()
    """The caller's files, which stand in its tools' working directory."""
    prefer_replica: str = ""
    """Where the coordinator would begin it. Its runner decides, before each step."""


class OutcomeKind(StrEnum):
    """How a trajectory ended."""

    COMPLETED = "completed"
    CUT = "cut"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one trajectory ended. `reason` is a short stable code, `detail` a sentence for people.

    `answer` is the visible content of its last message; a cut arm may have one too.
    """

    trajectory: TrajectoryId
    kind: OutcomeKind
    reason: str = ""
    detail: str = ""
    answer: str = ""
    steps: int = 0
    spend: Spend = NOTHING_SPENT
    profile: str = ""

    @property
    def usable(self) -> bool:
        """Whether the aggregation can do something with it."""
        return bool(self.answer.strip())


@dataclass(frozen=True, slots=True)
class AnswerGroup:
    """Arms whose answers are equivalent. `answer` is the first one's wording."""

    answer: str
    arms: tuple[TrajectoryId, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the arms agree. `share` is the largest group over all arms that answered, 0..1."""

    groups: tuple[AnswerGroup, ...] = ()
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Citation:
    """Where the support for an answer stands: a trajectory and, where known, one of its steps."""

    trajectory: TrajectoryId
    step: int | None = None
    note: str = ""


class AggregationMethod(StrEnum):
    """What in the end produced the answer."""

    VOTE = "vote"
    REFLECTIVE = "reflective"
    SINGLE = "single"
    """Only one usable outcome was there: it is the answer."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One answer, why, and what it cost. `abstained` says the aggregator declined to answer."""

    answer: str
    short_answer: str
    method: AggregationMethod
    agreement: Agreement
    citations: tuple[Citation, ...] = ()
    dissent: str = ""
    """Why the answer departs from the largest group, where it does."""
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run has no answer: a stable code, a sentence, and each trajectory's own reason."""

    code: str
    message: str
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """The run record: what a caller sees of a run without reading its log."""

    spec: RunSpec
    state: RunState
    epoch: int
    records: int
    """How many records its log has."""
    result: RunResult | None = None
    failure: RunFailure | None = None
    ledger: Ledger | None = None
    ended_ms: int | None = None
    cancel_reason: str = ""
    """Non-empty once a cancel has been asked for."""
