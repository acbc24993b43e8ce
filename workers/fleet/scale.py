"""How many replicas a profile's load asks for: a pure decision with memory, between minimum and maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heavy.core.fleet import ReplicaInfo, Wanted
from heavy.profiles.schema import ScaleSection


@dataclass(frozen=True, slots=True)
class Trend:
    """Since when there have been too few or too many, and when the number last changed; None: not so."""

    few_since_ms: int | None = None
    many_since_ms: int | None = None
    changed_ms: int | None = None


def scaled(
    wanted: Wanted,
    limits: ScaleSection,
    ready: Sequence[ReplicaInfo],
    queue_wait_s: float,
    trend: Trend,
    now_ms: int,
) -> tuple[int, Trend]:
    """The number of replicas from now on, and what to remember.

    One more when the need has lasted `rise_after_s` and every replica asked for so far is ready; one less
    when the others could have carried the load for `fall_after_s`, be it one that still waits for a node.
    `queue_wait_s`: how long the first in line has waited for a replica, anywhere.
    """
    if wanted.dismissed:
        return wanted.replicas, trend
    number = max(wanted.replicas_min, min(wanted.replicas, wanted.replicas_max))
    if wanted.replicas_max <= wanted.replicas_min or not ready:
        return number, replace(trend, few_since_ms=None, many_since_ms=None)
    use = kv_use(ready)
    all_there = len(ready) >= number
    short = use > limits.kv_high or queue_wait_s > limits.queue_wait_high_s
    few = all_there and number < wanted.replicas_max and short
    many = (
        number > wanted.replicas_min
        and not queue_wait_s
        and not any(info.waiting for info in ready)
        and use * len(ready) < limits.kv_low * (number - 1)
    )
    trend = replace(
        trend,
        few_since_ms=_since(few, trend.few_since_ms, now_ms),
        many_since_ms=_since(many, trend.many_since_ms, now_ms),
    )
    if _lasted(trend.few_since_ms, limits.rise_after_s, now_ms):
        return number + 1, Trend(changed_ms=now_ms)
    rested = trend.changed_ms is None or now_ms - trend.changed_ms >= limits.fall_after_s * 1000
    if rested and _lasted(trend.many_since_ms, limits.fall_after_s, now_ms):
        return number - 1, Trend(changed_ms=now_ms)
    return number, trend


def kv_use(ready: Sequence[ReplicaInfo]) -> float:
    """The mean use of what replicas have for generations, 0 to 1: of their KV, or of their places if more."""
    uses = [
        max(
            info.kv_tokens_used / info.kv_tokens_max if info.kv_tokens_max else 0.0,
            min(1.0, (info.running + info.waiting) / info.in_flight_max),
        )
        for info in ready
    ]
    return sum(uses) / len(uses)


def _since(holds: bool, since_ms: int | None, now_ms: int) -> int | None:
    return (now_ms if since_ms is None else since_ms) if holds else None


def _lasted(since_ms: int | None, needed_s: float, now_ms: int) -> bool:
    return since_ms is not None and now_ms - since_ms >= needed_s * 1000
