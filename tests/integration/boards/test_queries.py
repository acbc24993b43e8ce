"""Every query of every board and alert, asked of a real Prometheus that has scraped real runs."""

from __future__ import annotations

import math

import pytest

from deploy.boards.__main__ import BOARDS
from deploy.boards.alerts import ALERTS, Alert
from heavy.core.ledger import NOTHING_SPENT
from heavy.core.runs import AggregationMethod, RunState
from heavy.telemetry import names
from heavy.telemetry.timeline import Part

from .conftest import Watched

pytestmark = pytest.mark.timeout(300)

WINDOW = "5m"
FILLED_IN = {
    "$__rate_interval": WINDOW,
    "$__range": WINDOW,
    "$tenant": ".*",
    "$profile": ".*",
    "$tool": ".*",
}
QUERIES = [
    pytest.param(query.expr, panel.needs, id=f"{board.uid}: {panel.title}: {query.legend or query.expr[:40]}")
    for board in BOARDS
    for panel in board.panels
    for query in panel.queries
]


def filled_in(expr: str) -> str:
    """The query as Grafana sends it, with every choice at All."""
    for variable, value in FILLED_IN.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return expr


@pytest.mark.parametrize(("expr", "needs"), QUERIES)
def test_a_boards_query_gives_what_an_answered_run_left(watched: Watched, expr: str, needs: str) -> None:
    values = watched.values(filled_in(expr))
    if not needs:
        assert values
        assert not any(map(math.isnan, values)), values


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_is_understood_and_silent_on_a_healthy_server(watched: Watched, alert: Alert) -> None:
    assert [value for value in watched.values(alert.expr) if not math.isnan(value)] == []


def test_the_alerts_are_loaded_and_none_fires(watched: Watched) -> None:
    (group,) = watched.prometheus.get("rules")["groups"]
    assert {rule["name"] for rule in group["rules"]} == {alert.name for alert in ALERTS}
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert watched.values("ALERTS") == []


def test_metrics_ledgers_and_records_agree_to_the_cent(watched: Watched) -> None:
    assert all(run.state is RunState.COMPLETED for run in watched.runs)
    total = sum((run.ledger.total for run in watched.runs if run.ledger), NOTHING_SPENT)
    assert total.cost_usd > 0
    assert watched.logged.tokens == total.tokens
    assert watched.logged.cost_usd == pytest.approx(total.cost_usd)
    assert watched.logged.wall_s == pytest.approx(total.wall_s)
    assert watched.values(f"sum({names.METRIC_COST_USD}_total)") == [pytest.approx(total.cost_usd)]
    assert watched.values(f"sum({names.METRIC_GPU_SECONDS}_total)") == [pytest.approx(total.gpu_seconds)]
    assert watched.values(f"sum({names.METRIC_TOOL_CALLS}_total)") == [total.tool_calls]
    for kind, tokens in (
        ("prompt", total.tokens_prompt),
        ("cached", total.tokens_cached),
        ("reasoning", total.tokens_reasoning),
        ("output", total.tokens_output),
    ):
        assert watched.values(f'sum({names.METRIC_TOKENS}_total{{kind="{kind}"}})') == [tokens]


def test_the_critical_path_of_all_runs_is_their_wall_time(watched: Watched) -> None:
    wall_s = sum((run.ended_ms or 0) - run.spec.created_ms for run in watched.runs) / 1000
    assert watched.values(f"sum({names.METRIC_RUN_PATH_SECONDS}_total)") == [pytest.approx(wall_s)]
    parts = {part: watched.values(f'{names.METRIC_RUN_PATH_SECONDS}_total{{part="{part}"}}') for part in Part}
    assert all(seconds > 0 for (seconds,) in parts.values()), parts


def test_the_premium_is_that_of_the_ledgers(watched: Watched) -> None:
    assert {run.result.method for run in watched.runs if run.result} == {AggregationMethod.REFLECTIVE}
    (mean,) = watched.values(f"{names.METRIC_PREMIUM}_sum / {names.METRIC_PREMIUM}_count")
    # Three arms and an aggregator that reads them.
    assert mean > 3
