"""A policy as a caller gives it: every field optional. `heavy.coordinator.defaults` completes it."""

from __future__ import annotations

from dataclasses import dataclass

from heavy.core.policy import AggregationMode, ArmsFrom, ContextPolicy


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """What a caller asks for; None, and an empty name, leave the choice to the server.

    `arms` holds one profile name for all arms or one per arm. `tools` None means the profile's default
    tools, an empty tuple means none. `temperature` and `top_p` override the arms' presets; `seed` makes a
    run repeatable as far as its engines are.
    """

    width: int | None = None
    arms: tuple[str, ...] = ()
    aggregator: str = ""
    quorum: int | None = None
    straggler_grace_s: float | None = None
    deadline_s: float | None = None
    tokens_max: int | None = None
    cost_usd_max: float | None = None
    tool_calls_max: int | None = None
    steps_per_trajectory_max: int | None = None
    reasoning_tokens_per_step_max: int | None = None
    aggregation_share: float | None = None
    aggregation: AggregationMode | None = None
    vote_threshold: float | None = None
    early_stop: bool | None = None
    tools: tuple[str, ...] | None = None
    context_policy: ContextPolicy | None = None
    context_keep_last: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    arms_from: ArmsFrom | None = None
    preset: str = ""
    """A protocol of the first arm's profile: its steps, tokens and sampling, where nothing else is said."""
