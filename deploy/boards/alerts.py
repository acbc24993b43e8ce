"""What one is woken for, and what one should look at in the morning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import yaml

from deploy.boards.promql import increase, quantile, rate, seen
from heavy.telemetry import names

FAILED_SHARE_MAX: Final = 0.1
QUEUE_S_MAX: Final = 60
KV_SHARE_MAX: Final = 0.95
STORE_S_MAX: Final = 0.25
STRAGGLERS_SHARE_MAX: Final = 0.25
TOOL_ERRORS_SHARE_MAX: Final = 0.5
COST_FACTOR_MAX: Final = 3
COST_USD_PER_HOUR_MIN: Final = 10
"""Below this nobody is told about a rise: three times nothing is nothing."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. `page` wakes somebody, `ticket` waits for the morning; `what` and `do` are for them."""

    name: str
    expr: str
    lasting: str
    severity: Literal["page", "ticket"]
    what: str
    do: str


ALERTS: Final = (
    Alert(
        "HeavyGone",
        f"absent({names.METRIC_STORE_UP})",
        "2m",
        "page",
        "No coordinator answers: nothing is accepted.",
        "Look at the coordinators' processes and logs, and whether Prometheus reaches their HTTP port.",
    ),
    Alert(
        "HeavyStoreDown",
        f"min by (instance) ({names.METRIC_STORE_UP}) == 0",
        "1m",
        "page",
        "The run store does not answer {{ $labels.instance }}: no run is accepted, those under way end as "
        "unavailable.",
        "Look at the Redis or Valkey of HEAVY_STORE_URL: process, memory, disk, network.",
    ),
    Alert(
        "HeavyNoReadyReplica",
        f"{seen(names.METRIC_REPLICAS, 'profile', state='ready')} == 0",
        "2m",
        "page",
        "No replica of profile {{ $labels.profile }} is ready: its generations wait, then fail.",
        "`heavy replicas` says in which state they are and why; then the log of the engine.",
    ),
    Alert(
        "HeavyNoRunner",
        f"{seen(names.METRIC_RUNNERS)} == 0",
        "2m",
        "page",
        "No runner is there: nothing that is accepted begins.",
        "Look at the Ray cluster (`ray status`) and the runner actors' logs.",
    ),
    Alert(
        "HeavyRunsFail",
        f"({rate(names.METRIC_RUNS, window='10m', state='failed')} / {rate(names.METRIC_RUNS, window='10m')})"
        f" > {FAILED_SHARE_MAX} and {increase(names.METRIC_RUNS, window='10m', state='failed')} >= 3",
        "5m",
        "page",
        "{{ $value | humanizePercentage }} of the runs of the last ten minutes have no answer.",
        "The overview board shows the trajectories' reasons: engine errors lead to the replicas board.",
    ),
    Alert(
        "HeavyOverloaded",
        f"{rate(names.METRIC_REFUSED, window='5m', reason='overloaded')} > 0",
        "10m",
        "page",
        "Callers have been turned away for ten minutes: every place for a run is taken.",
        "Add a coordinator, or raise HEAVY_RUNS_MAX where replicas have room.",
    ),
    Alert(
        "HeavyRunsWait",
        f"{quantile(0.95, names.METRIC_RUN_QUEUE_SECONDS, window='10m')} > {QUEUE_S_MAX}",
        "5m",
        "ticket",
        "One run in twenty waits {{ $value | humanizeDuration }} or more for its turn.",
        "Add a coordinator, or raise HEAVY_RUNS_MAX where replicas have room.",
    ),
    Alert(
        "HeavyReplicasFull",
        f"{seen(names.METRIC_QUEUE_NOW, 'profile')} > {QUEUE_S_MAX}",
        "5m",
        "ticket",
        "Generations of profile {{ $labels.profile }} wait for a replica: the first in line has waited "
        "{{ $value | humanizeDuration }}.",
        "Add replicas, or more slots (in_flight_max) where the KV cache has room.",
    ),
    Alert(
        "HeavyKvFull",
        f"{seen(names.METRIC_REPLICA_KV_USED, 'replica, profile')}"
        f" / ({seen(names.METRIC_REPLICA_KV_MAX, 'replica, profile')} > 0) > {KV_SHARE_MAX}",
        "10m",
        "ticket",
        "The KV cache of {{ $labels.replica }} is {{ $value | humanizePercentage }} full: it sets "
        "generations back and loses prefixes.",
        "Lower in_flight_max of profile {{ $labels.profile }}, or add replicas.",
    ),
    Alert(
        "HeavyReplicaFailed",
        f"{seen(names.METRIC_REPLICAS, 'profile', state='failed')} > 0",
        "5m",
        "ticket",
        "{{ $value }} replica(s) of profile {{ $labels.profile }} have failed for five minutes.",
        "`heavy replicas` says why; then the log of the engine.",
    ),
    Alert(
        "HeavyStoreSlow",
        f"{quantile(0.99, names.METRIC_STORE_SECONDS, 'instance', '10m')} > {STORE_S_MAX}",
        "10m",
        "ticket",
        "The run store takes {{ $value | humanizeDuration }} to answer {{ $labels.instance }}: every step "
        "is slowed down.",
        "Look at the store's load, its disk (appendfsync) and its network.",
    ),
    Alert(
        "HeavyCostBurn",
        f"3600 * {rate(names.METRIC_COST_USD, window='1h')}"
        f" > {COST_FACTOR_MAX} * 3600 * {rate(names.METRIC_COST_USD, window='1d')}"
        f" and 3600 * {rate(names.METRIC_COST_USD, window='1h')} > {COST_USD_PER_HOUR_MIN}"
        f" and sum({names.METRIC_COST_USD}_total offset 1d) >= 0",  # there was a day before
        "10m",
        "page",
        '{{ $value | printf "%.0f" }} USD were spent in the last hour, more than three times the day\'s '
        "mean.",
        "The cost board shows which tenant and profile; `heavy runs` shows the runs, `heavy cancel` stops "
        "one.",
    ),
    Alert(
        "HeavyStragglers",
        f"{rate(names.METRIC_TRAJECTORIES, window='30m', role='arm', reason='straggler')}"
        f" / {rate(names.METRIC_TRAJECTORIES, window='30m', role='arm')} > {STRAGGLERS_SHARE_MAX}",
        "15m",
        "ticket",
        "{{ $value | humanizePercentage }} of all arms are cut as stragglers: what they cost is wasted.",
        "One slow replica (replicas board), or a straggler grace too short for this model.",
    ),
    Alert(
        "HeavyToolFails",
        f"({rate(names.METRIC_TOOL_CALLS, 'tool', '15m', error='true', tool='!unknown')}"
        f" / {rate(names.METRIC_TOOL_CALLS, 'tool', '15m', tool='!unknown')}) > {TOOL_ERRORS_SHARE_MAX}"
        f" and {increase(names.METRIC_TOOL_CALLS, 'tool', '15m', tool='!unknown')} >= 10",
        "10m",
        "ticket",
        "{{ $value | humanizePercentage }} of the calls of tool {{ $labels.tool }} fail.",
        "`heavy show` of a recent run has the tool's own words.",
    ),
)


def to_yaml() -> str:
    """The rules as Prometheus reads them."""
    group = {"name": "heavy", "rules": [_rule(alert) for alert in ALERTS]}
    text: str = yaml.safe_dump({"groups": [group]}, sort_keys=False, width=10_000)
    return text


def _rule(alert: Alert) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.what, "action": alert.do},
    }
