"""The per-run contract. A `Policy` in the domain is complete: defaults have been filled in at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from heavy.core.ids import RunId, TrajectoryId, arm_index

KEEP_LAST_MAX: Final = 1_000
KEEP_LAST: Final = 8
"""Tool outputs that the policy of that name keeps where nobody says how many."""


class AggregationMode(StrEnum):
    """How outcomes become one answer. `AUTO`: the vote where answers agree, else the reflective pass."""

    AUTO = "auto"
    VOTE = "vote"
    REFLECTIVE = "reflective"


class ContextPolicy(StrEnum):
    """What gives way when a request would pass the context length."""

    HIDE_TOOL_OUTPUTS = "hide_tool_outputs"
    """Earlier tool outputs are hidden from the model."""
    KEEP_LAST = "keep_last"
    """All tool outputs but the last few are hidden."""
    DISCARD_ALL = "discard_all"
    """Every turn but the last is dropped; what failed stays known."""
    SUMMARISE = "summarise"
    """The model writes down what it has; then every turn but the last is dropped."""
    FAIL = "fail"
    """Nothing: the trajectory fails."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling of one role. `temperature` 0 is greedy. `seed` None lets the engine choose."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps. None means no cap of that kind; the server's own limits still hold."""

    tokens_max: int | None = None
    cost_usd_max: float | None = None
    tool_calls_max: int | None = None
    steps_per_trajectory_max: int = 120
    reasoning_tokens_per_step_max: int = 48_000
    aggregation_share: float = 0.15
    """Part of `tokens_max` and `cost_usd_max` that only the aggregator may spend."""


@dataclass(frozen=True, slots=True)
class Members:
    """Which profile serves which arm, by index, and which the aggregator."""

    arms: tuple[str, ...]
    aggregator: str

    def profile_of(self, trajectory: TrajectoryId) -> str:
        """The profile name that serves `trajectory`."""
        index = arm_index(trajectory)
        return self.aggregator if index is None else self.arms[index]


@dataclass(frozen=True, slots=True)
class ArmsFrom:
    """Arms of an earlier run, by index, that a run aggregates anew in place of rolling arms out.

    The first becomes arm 0. What they cost was paid for by the earlier run.
    """

    run: RunId
    arms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Width, members, quorum, grace, deadline, budget, aggregation, tools, context policy, sampling.

    `quorum` counts completed arms; once it is reached, arms still out get `straggler_grace_s` more.
    `vote_threshold` is the share of arms that must agree for `AUTO` to answer by vote.
    `early_stop` cuts arms that can no longer change the leading answer.
    """

    width: int
    members: Members
    quorum: int
    straggler_grace_s: float
    deadline_s: float
    budget: Budget
    aggregation: AggregationMode
    vote_threshold: float
    early_stop: bool
    tools: tuple[str, ...]
    context_policy: ContextPolicy | None
    """None: each member's profile says."""
    sampling: Sampling | None
    """Overrides the profiles' presets for arms where given."""
    seed: int
    """From which the seed of every generation is derived."""
    context_keep_last: int | None = None
    """How many tool outputs `KEEP_LAST` keeps; None: each member's profile says."""
    preset: str = ""
    """The protocol of the profile that filled in what the caller left open."""
    arms_from: ArmsFrom | None = None
    """Where given, no arm is rolled out."""
