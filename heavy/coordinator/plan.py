"""What a policy means for a run's trajectories: pure functions to specs, deadlines and failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heavy.core.ids import arm
from heavy.core.policy import AggregationMode, Policy, Sampling
from heavy.core.runs import Outcome, RunFailure, RunSpec, TrajectoryRole, TrajectorySpec
from heavy.profiles.schema import Profile

AGGREGATION_DEADLINE_SHARE = 0.2
AGGREGATION_DEADLINE_MAX_S = 120.0
"""How much of a run's deadline is kept for the aggregation: a share, and at most so many seconds."""
STEP_SHARE = 0.25
"""The part of an arm's fair share of a token budget that one step may generate."""
STEP_TOKENS_MIN = 128


def arms_deadline_ms(run: RunSpec) -> int:
    """When the arms must have ended, so that the aggregation has its part of the deadline. Wall time."""
    if run.policy.aggregation is AggregationMode.VOTE or run.policy.width == 1:
        return run.deadline_ms
    total_s = (run.deadline_ms - run.created_ms) / 1000
    reserve_s = min(total_s * AGGREGATION_DEADLINE_SHARE, AGGREGATION_DEADLINE_MAX_S)
    return run.deadline_ms - int(reserve_s * 1000)


def arm_spec(run: RunSpec, index: int, profile: Profile, epoch: int) -> TrajectorySpec:
    """The trajectory of the arm with `index`. Its seed is the run's; the agent derives one per generation."""
    policy = run.policy
    preset = profile.sampling.arm
    chosen = policy.sampling or Sampling(preset.temperature, preset.top_p)
    return TrajectorySpec(
        run=run.run,
        trajectory=arm(index),
        role=TrajectoryRole.ARM,
        tenant=run.tenant,
        profile=profile.name,
        messages=run.messages,
        tools=policy.tools,
        caller_tools=run.caller_tools,
        files=run.files,
        sampling=replace(chosen, seed=policy.seed),
        context_policy=policy.context_policy or profile.context_policy,
        context_keep_last=policy.context_keep_last or profile.context_keep_last,
        steps_max=min(policy.budget.steps_per_trajectory_max, profile.limits.steps_max),
        tool_calls_max=policy.budget.tool_calls_max,
        reasoning_tokens_per_step_max=step_tokens_max(policy),
        deadline_ms=arms_deadline_ms(run),
        epoch=epoch,
        traceparent=run.traceparent,
    )


def step_tokens_max(policy: Policy) -> int:
    """What one step of an arm may generate: the policy's cap, and at most a part of its fair share.

    Generations reserve the most they can cost. Without this the first arms to start would hold a small
    budget between them and the rest would be cut before their first step.
    """
    budget = policy.budget
    if budget.tokens_max is None:
        return budget.reasoning_tokens_per_step_max
    fair_share = budget.tokens_max * (1 - budget.aggregation_share) / policy.width
    part = max(STEP_TOKENS_MIN, int(fair_share * STEP_SHARE))
    return min(budget.reasoning_tokens_per_step_max, part)


def alone(policy: Policy) -> Policy:
    """The policy under which the one aggregator trajectory is waited for."""
    return replace(policy, width=1, quorum=1, early_stop=False)


def nothing_usable(outcomes: Sequence[Outcome]) -> RunFailure:
    """The failure of a run none of whose arms has an answer: each reason, after those that had it."""
    arms: dict[str, list[str]] = {}
    for o in outcomes:
        reason = o.reason or o.kind.value
        arms.setdefault(f"{reason} ({o.detail})" if o.detail else reason, []).append(o.trajectory)
    told = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in arms.items())
    return RunFailure("no_usable_outcome", f"No trajectory came to an answer. {told}", tuple(outcomes))
