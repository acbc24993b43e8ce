"""Where time goes: in queues, in engines, in tools, in the aggregation."""

from __future__ import annotations

from deploy.boards.board import Board, Panel, Query, Row, Variable
from deploy.boards.promql import mean, quantile, rate
from heavy.telemetry import names

CHOSEN = {"profile": "~$profile"}


def spread(name: str, legend: str = "{{profile}}", by: str = "profile", **labels: str) -> tuple[Query, ...]:
    """The median, and what 95 of 100 stay below, by profile."""
    return tuple(
        Query(quantile(q, name, by, **labels), f"p{q * 100:g} {legend}".strip()) for q in (0.5, 0.95)
    )


RUNS = Row(
    "Runs",
    (
        Panel(
            "Where a run's time goes",
            "Seconds of the mean run, by part of its critical path; they add up to its wall time. "
            "waiting: look at the queues below. prefill: long prompts that are not cached. decode: long "
            "reasoning, or full replicas. tools: the tools board. aggregation: arms disagree, and are "
            "read.",
            "s",
            (
                Query(
                    f"{rate(names.METRIC_RUN_PATH_SECONDS, 'part')}"
                    f" / ignoring (part) group_left () {rate(names.METRIC_RUNS)}",
                    "{{part}}",
                ),
            ),
            "stack",
        ),
        Panel(
            "Share of each part",
            "The same as shares of all runs' time.",
            "percentunit",
            (
                Query(
                    f"{rate(names.METRIC_RUN_PATH_SECONDS, 'part')}"
                    f" / ignoring (part) group_left () {rate(names.METRIC_RUN_PATH_SECONDS)}",
                    "{{part}}",
                ),
            ),
            "stack",
        ),
        Panel(
            "Wall time of a run",
            "From acceptance to the last record, of runs that were answered.",
            "s",
            spread(names.METRIC_RUN_SECONDS, "", "", state="completed"),
        ),
        Panel(
            "Wait for a turn",
            "How long a run was accepted and not begun. More than a moment: every place of the "
            "coordinator is taken; add a coordinator or raise HEAVY_RUNS_MAX.",
            "s",
            spread(names.METRIC_RUN_QUEUE_SECONDS, "", ""),
        ),
    ),
)

ENGINES = Row(
    "Generations",
    (
        Panel(
            "Time to first token",
            "From when a replica had the request to its first token: the prefill, and the engine's own "
            "queue.",
            "s",
            spread(names.METRIC_FIRST_TOKEN_SECONDS, **CHOSEN),
        ),
        Panel(
            "Time between tokens",
            "The mean gap between tokens of each generation. It rises with the load of a replica.",
            "s",
            spread(names.METRIC_TOKEN_SECONDS, **CHOSEN),
        ),
        Panel(
            "Wait for a replica",
            "How long a generation waited until a replica had room. More than the time to the first "
            "token: more replicas, or more slots where KV cache is left.",
            "s",
            spread(names.METRIC_QUEUE_SECONDS, **CHOSEN),
        ),
        Panel(
            "Time of a generation",
            "First and further tokens together, without the wait for a replica.",
            "s",
            spread(names.METRIC_GENERATION_SECONDS, **CHOSEN),
        ),
        Panel(
            "Time of a step",
            "A generation, its wait and the tool calls it asked for. A trajectory has many.",
            "s",
            spread(names.METRIC_STEP_SECONDS, **CHOSEN),
        ),
        Panel(
            "Output tokens a second of one generation",
            "The speed one reader would see: one over the mean time between tokens.",
            "suffix:tok/s",
            (Query(f"1 / ({mean(names.METRIC_TOKEN_SECONDS, 'profile', **CHOSEN)})", "{{profile}}"),),
        ),
    ),
)

TOOLS = Row(
    "Tools",
    (
        Panel(
            "Time of a tool call, p95",
            "By tool; what 95 of 100 calls took at most, cached ones included.",
            "s",
            (Query(quantile(0.95, names.METRIC_TOOL_SECONDS, "tool"), "{{tool}}"),),
            needs="a tool was called",
        ),
        Panel(
            "Run store, p99",
            "A slow store delays every record of every trajectory.",
            "s",
            (Query(quantile(0.99, names.METRIC_STORE_SECONDS, "instance"), "{{instance}}"),),
        ),
    ),
)

BOARD = Board(
    "latency",
    "Latency",
    "Where the time of runs and generations goes.",
    (RUNS, ENGINES, TOOLS),
    (Variable("profile", "Profile", f"{names.METRIC_GENERATION_SECONDS}_count"),),
)
