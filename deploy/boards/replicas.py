"""Who serves: replicas, their load and KV cache, runners, the store."""

from __future__ import annotations

from deploy.boards.board import Board, Panel, Query, Row, Variable
from deploy.boards.promql import quantile, rate, seen
from heavy.telemetry import names

CHOSEN = {"profile": "~$profile"}
EACH = "replica, profile"


def load(name: str) -> str:
    """A replica's gauge, once, however many coordinators show it."""
    return seen(name, EACH, **CHOSEN)


REPLICAS = Row(
    "Replicas",
    (
        Panel(
            "Replicas, by state",
            "ready takes generations; starting is loading its model; draining finishes what it has; "
            "failed does not answer, or ended and is being restarted: `heavy replicas` says why.",
            "short",
            (Query(seen(names.METRIC_REPLICAS, "profile, state", **CHOSEN), "{{profile}} {{state}}"),),
            "stack",
        ),
        Panel(
            "State of each replica",
            "One band a replica; a gap is a replica that announced nothing.",
            "short",
            (Query(seen(names.METRIC_REPLICA_STATE, "replica, state", **CHOSEN), "{{replica}} {{state}}"),),
            "states",
        ),
        Panel(
            "Slots in use",
            "Generations running over those it takes at once. At 1 everything else waits.",
            "percentunit",
            (
                Query(
                    f"{load(names.METRIC_REPLICA_RUNNING)} / {load(names.METRIC_REPLICA_SLOTS)}",
                    "{{replica}}",
                ),
            ),
        ),
        Panel(
            "KV cache in use",
            "Tokens in the cache over those it holds, by the engine's report. Above 0.95 the engine sets "
            "generations back and prefixes are lost: fewer slots, or more replicas.",
            "percentunit",
            (
                Query(
                    f"{load(names.METRIC_REPLICA_KV_USED)} / ({load(names.METRIC_REPLICA_KV_MAX)} > 0)",
                    "{{replica}}",
                ),
            ),
            needs="an engine reports its KV cache",
        ),
        Panel(
            "KV cache reserved",
            "What runners have reserved for generations on it, over what it holds: prompts, and a part of "
            "what may be said. Near 1 further generations go elsewhere or wait.",
            "percentunit",
            (
                Query(
                    f"{load(names.METRIC_REPLICA_KV_RESERVED)} / ({load(names.METRIC_REPLICA_KV_MAX)} > 0)",
                    "{{replica}}",
                ),
            ),
            needs="an engine reports its KV cache",
        ),
        Panel(
            "Generations running",
            "By the engine's own report, a few seconds old.",
            "short",
            (Query(load(names.METRIC_REPLICA_RUNNING), "{{replica}}"),),
            "stack",
        ),
        Panel(
            "Generations waiting in the engine",
            "Accepted by the engine and not running. More than a few: slots exceed what its memory holds.",
            "short",
            (Query(load(names.METRIC_REPLICA_WAITING), "{{replica}}"),),
            "stack",
        ),
    ),
)

THROUGHPUT = Row(
    "What they do",
    (
        Panel(
            "Output tokens a second",
            "Of all runs that ended, by profile. Counted when runs end, so long runs show late.",
            "suffix:tok/s",
            (Query(rate(names.METRIC_TOKENS, "profile", kind="output", **CHOSEN), "{{profile}}"),),
            "stack",
        ),
        Panel(
            "Wait for a replica, now",
            "How long the first in line has waited for a replica with room. 0: nobody waits. What 95 of 100 "
            "generations of ended runs waited at most stands beside it.",
            "s",
            (
                Query(seen(names.METRIC_QUEUE_NOW, "profile", **CHOSEN), "{{profile}} now"),
                Query(quantile(0.95, names.METRIC_QUEUE_SECONDS, "profile", **CHOSEN), "{{profile}} p95"),
            ),
        ),
        Panel(
            "Generations, by why they went where they went",
            "idle: nothing of the prompt counted for more; affinity: their prompt was there; lead and "
            "follow: arms that share a long prompt; moved: waiting there would have cost more; failover: "
            "a replica was lost. Much moved: more replicas, or fewer slots.",
            "suffix:/min",
            (
                Query(
                    f"60 * {rate(names.METRIC_PLACEMENTS, 'profile, reason', **CHOSEN)}",
                    "{{profile}} {{reason}}",
                ),
            ),
            "stack",
        ),
        Panel(
            "Trajectories that failed with an engine",
            "By the error's code, after retries and failover. A steady rate on one profile: read its "
            "engine's log.",
            "suffix:/min",
            (
                Query(
                    f"60 * {rate(names.METRIC_TRAJECTORIES, 'profile, reason', outcome='failed', **CHOSEN)}",
                    "{{profile}} {{reason}}",
                ),
            ),
            "stack",
            needs="a trajectory failed",
        ),
        Panel(
            "GPUs there",
            "GPUs that replicas hold, used or not.",
            "short",
            (Query(f"sum by (profile) ({load(names.METRIC_REPLICA_GPUS)})", "{{profile}}"),),
            "stack",
        ),
    ),
)

RUNNERS = Row(
    "Runners and store",
    (
        Panel(
            "Runners",
            "Processes that execute trajectories. At 0 nothing begins.",
            "short",
            (Query(seen(names.METRIC_RUNNERS)),),
            width=6,
        ),
        Panel(
            "Trajectories on runners",
            "Under way, over what all runners take. Near the limit: add runners.",
            "short",
            (
                Query(seen(names.METRIC_RUNNER_BUSY), "under way"),
                Query(seen(names.METRIC_RUNNER_SLOTS), "limit"),
            ),
            width=6,
        ),
        Panel(
            "Run store up",
            "1 while the store answers each coordinator. At 0 nothing is accepted, and runs end as "
            "unavailable.",
            "bool_on_off",
            (Query(f"min by (instance) ({names.METRIC_STORE_UP})", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Run store, time to answer",
            "p50 and p99 of a small question. Milliseconds are normal; tens of them slow every step down.",
            "s",
            (
                Query(quantile(0.5, names.METRIC_STORE_SECONDS), "p50"),
                Query(quantile(0.99, names.METRIC_STORE_SECONDS), "p99"),
            ),
            width=6,
        ),
    ),
)

BOARD = Board(
    "replicas",
    "Replicas",
    "Who serves, how loaded they are, and whether runners and the store keep up.",
    (REPLICAS, THROUGHPUT, RUNNERS),
    (Variable("profile", "Profile", names.METRIC_REPLICAS),),
)
