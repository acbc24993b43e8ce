"""What bounds a trajectory, beyond its own spec: frozen; a profile may change it in its `[agent]` table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from heavy.profiles.schema import AgentSection


@dataclass(frozen=True, slots=True)
class StuckLimits:
    """When repetition counts as being stuck.

    The defaults are those of agent loops known to survive hundreds of steps. `same_call_remind_at` and
    `same_call_stop_at` count one call over the whole trajectory, whatever it returned; the others look at
    the latest steps in a row and compare calls together with what they returned.
    """

    same_call_remind_at: tuple[int, ...] = (3, 5, 8)
    same_call_stop_at: int = 12
    same_action_stop_at: int = 4
    same_error_stop_at: int = 3
    alternating_stop_at: int = 6
    """Steps of the pattern A B A B ..., counted in steps, not in pairs."""

    def __post_init__(self) -> None:
        if min(self.same_call_stop_at, self.same_action_stop_at, self.same_error_stop_at) < 1:
            raise ValueError("every stop limit must be at least 1")
        if self.alternating_stop_at < 4:
            raise ValueError("alternating_stop_at must be at least 4: fewer steps are no pattern")


@dataclass(frozen=True, slots=True)
class LadderLimits:
    """How far calls that cannot be used are followed up, in a row and over a whole trajectory."""

    told_max: int = 2
    """Generations in a row that the model is told of before a grammar is asked for."""
    constrained_max: int = 1
    """Generations after those that may still fail before an answer is forced."""
    constrained_per_trajectory_max: int = 100
    broken_per_trajectory_max: int = 200

    def __post_init__(self) -> None:
        if self.told_max < 1 or self.constrained_max < 0:
            raise ValueError("told_max must be at least 1 and constrained_max at least 0")


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Every bound of the loop that is not part of a run's policy or of a model's profile."""

    checkpoint_tokens: int = 4_000
    """A generation is checkpointed each time this many more tokens have been streamed, ..."""
    checkpoint_s: float = 30.0
    """... or when this long has passed and there is fresh text."""
    flush_s: float = 1.0
    """How long a last append or settlement may take after a cancel."""
    calls_per_step_max: int = 32
    """Further calls of one generation are refused, as a result the model sees."""
    calls_at_once_max: int = 8
    engine_attempts_max: int = 3
    """Attempts at one generation on engine errors, the first included."""
    backoff_s: float = 0.5
    """Wait before the second attempt; doubles each time, up to `backoff_max_s`."""
    backoff_max_s: float = 8.0
    empty_retries_max: int = 1
    """Generations with neither text nor calls that are simply tried again."""
    answer_reserve_s: float = 30.0
    """Time kept for a forced final answer before the deadline, ..."""
    answer_reserve_share: float = 0.2
    """... but never more than this share of the time the trajectory had at its start."""
    deadline_margin_s: float = 0.5
    """A forced answer ends this long before the deadline, so that it is flushed in time."""
    completion_tokens_min: int = 256
    """The smallest completion worth asking for; smaller contexts scale it down."""
    context_headroom_share: float = 0.15
    """The context policy makes room once less than this share is free; then twice as much is made."""
    summaries_max: int = 64
    """Summaries of one trajectory; after them turns are dropped unread."""
    summary_tokens_max: int = 4_096
    """How long a summary may be; contexts below eight times as much scale it down."""
    failures_kept_max: int = 32
    """Distinct failed calls that the model is reminded of when it loses sight of them."""
    stuck: StuckLimits = field(default_factory=StuckLimits)
    ladder: LadderLimits = field(default_factory=LadderLimits)

    def __post_init__(self) -> None:
        if not 1 <= self.engine_attempts_max <= 16:
            raise ValueError("engine_attempts_max must be from 1 to 16: request ids tell no more apart")
        if min(self.calls_at_once_max, self.calls_per_step_max, self.checkpoint_tokens) < 1:
            raise ValueError("calls_at_once_max, calls_per_step_max and checkpoint_tokens must be at least 1")

    def changed(self, section: AgentSection) -> AgentLimits:
        """These limits with what a profile says otherwise."""
        given = section.model_dump(exclude_none=True)
        stuck, ladder = replace(self.stuck, **given.pop("stuck")), replace(self.ladder, **given.pop("ladder"))
        return replace(self, **given, stuck=stuck, ladder=ladder)
