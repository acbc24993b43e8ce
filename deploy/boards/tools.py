"""Tool calls: how many, how fast, from where, and how well models write them."""

from __future__ import annotations

from deploy.boards.board import Board, Panel, Query, Row, Variable
from deploy.boards.promql import quantile, rate
from heavy.core.repairs import Handling
from heavy.telemetry import names

CHOSEN = {"tool": "~$tool"}
CALLS = rate(names.METRIC_TOOL_CALLS, "tool", **CHOSEN)
FAILED = rate(names.METRIC_TOOL_CALLS, "tool", error="true", **CHOSEN)
SAVED = rate(names.METRIC_TOOL_CALLS, "tool", cache="~hit|coalesced|stale", **CHOSEN)
CALLED = "a tool was called"

EXECUTED = Row(
    "Calls",
    (
        Panel(
            "Calls, by tool",
            "Tool calls of runs that ended. unknown: names that models made up.",
            "suffix:/min",
            (Query(f"60 * {CALLS}", "{{tool}}"),),
            "stack",
            needs=CALLED,
        ),
        Panel(
            "Calls that failed, by tool",
            "Share of calls whose result is an error. The model sees it and goes on, but a tool at 1 is "
            "down.",
            "percentunit",
            (
                Query(
                    f"({FAILED} or 0 * {CALLS}) / {CALLS}",
                    "{{tool}}",
                ),
            ),
            needs=CALLED,
        ),
        Panel(
            "Time of a call, by tool",
            "p50 and p95. Cached results count, with the time they took.",
            "s",
            tuple(
                Query(quantile(q, names.METRIC_TOOL_SECONDS, "tool", **CHOSEN), f"p{q * 100:g} {{{{tool}}}}")
                for q in (0.5, 0.95)
            ),
            needs=CALLED,
        ),
        Panel(
            "Calls a run",
            "Tool calls of the mean run, all arms together.",
            "short",
            (Query(f"{rate(names.METRIC_TOOL_CALLS)} / {rate(names.METRIC_RUNS)}"),),
            needs=CALLED,
        ),
    ),
)

CACHE = Row(
    "Cache",
    (
        Panel(
            "Where results come from",
            "hit: stored before. coalesced: another arm was asking the same. miss: executed and stored. "
            "bypass: not cacheable, or the cache is down. stale: past its time, because the tool failed.",
            "suffix:/min",
            (Query(f"60 * {rate(names.METRIC_TOOL_CALLS, 'cache', **CHOSEN)}", "{{cache}}"),),
            "stack",
            needs=CALLED,
        ),
        Panel(
            "Calls that executed nothing",
            "Share of calls answered by the cache or by another arm's call: work and money saved.",
            "percentunit",
            (
                Query(
                    f"({SAVED} or 0 * {CALLS}) / {CALLS}",
                    "{{tool}}",
                ),
            ),
            needs=CALLED,
        ),
    ),
)

WRITTEN = Row(
    "How well models write calls",
    (
        Panel(
            "Clean generations",
            "Share of generations with tool calls in which nothing had to be mended. A fall after a "
            "change of engine or parser: the parser.",
            "percentunit",
            (
                Query(
                    f"{rate(names.METRIC_CALL_REPAIRS, 'profile', handling=Handling.CLEAN.value)}"
                    f" / ({rate(names.METRIC_CALL_REPAIRS, 'profile')} > 0)",
                    "{{profile}}",
                ),
            ),
            needs=CALLED,
        ),
        Panel(
            "What had to be mended",
            "By kind. told: the model had to write the call again; constrained: under a grammar.",
            "suffix:/min",
            (
                Query(
                    f"60 * {rate(names.METRIC_CALL_REPAIRS, 'kind, handling', handling='!clean')}",
                    "{{kind}} ({{handling}})",
                ),
            ),
            "stack",
            needs="a call had to be mended",
        ),
    ),
)

BOARD = Board(
    "tools",
    "Tools",
    "Tool calls and their cache, and how well models write calls.",
    (EXECUTED, CACHE, WRITTEN),
    (Variable("tool", "Tool", f"{names.METRIC_TOOL_CALLS}_total"),),
)
