"""When to stop waiting for arms: a pure decision over where a fan-out stands."""

from __future__ import annotations

from dataclasses import dataclass

from heavy.aggregation.vote import overtakable, threshold_reached
from heavy.core.policy import AggregationMode, Policy
from heavy.core.runs import Agreement


@dataclass(frozen=True, slots=True)
class Standing:
    """A fan-out at one instant. Times are seconds on one monotonic clock."""

    completed: int
    out: int
    """Arms that have not ended."""
    agreement: Agreement
    now_s: float
    quorum_since_s: float | None
    """When the quorum was reached; None while it has not been."""
    deadline_at_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Keep waiting, and look again after `seconds` at the latest."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Cut the arms still out, for this reason; nothing to cut when all have ended."""

    reason: str


Decision = Wait | Stop

ALL_ENDED = "all_ended"
EARLY_STOP = "early_stop"
STRAGGLER = "straggler"
DEADLINE = "deadline"


def quorum_reached(policy: Policy, completed: int, out: int) -> bool:
    """Whether enough arms completed. What can no longer be reached is lowered to what can."""
    return completed >= min(policy.quorum, completed + out) and completed > 0


def decide(policy: Policy, standing: Standing) -> Decision:
    """What to do next, in order: all ended, deadline, early stop, stragglers, wait."""
    if standing.out == 0:
        return Stop(ALL_ENDED)
    if standing.now_s >= standing.deadline_at_s:
        return Stop(DEADLINE)
    if policy.early_stop and settled(policy, standing.agreement, standing.out):
        return Stop(EARLY_STOP)
    until_deadline = standing.deadline_at_s - standing.now_s
    if standing.quorum_since_s is None:
        return Wait(until_deadline)
    grace_left = standing.quorum_since_s + policy.straggler_grace_s - standing.now_s
    return Stop(STRAGGLER) if grace_left <= 0 else Wait(min(grace_left, until_deadline))


def settled(policy: Policy, agreement: Agreement, out: int) -> bool:
    """Whether the arms still out can no longer change the answer."""
    match policy.aggregation:
        case AggregationMode.VOTE:
            return not overtakable(agreement, out)
        case AggregationMode.AUTO:
            return threshold_reached(agreement, width=policy.width, threshold=policy.vote_threshold)
        case AggregationMode.REFLECTIVE:
            return False
