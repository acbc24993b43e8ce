"""Boards are written from the metric names in the code, and tell an operator what they show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.boards.__main__ import BOARDS, DASHBOARDS, drifted, files
from deploy.boards.alerts import ALERTS
from deploy.boards.board import Board, Panel
from heavy.telemetry import names

METRICS = {value for name, value in vars(names).items() if name.startswith("METRIC_")}
EXPRESSIONS = [q.expr for board in BOARDS for panel in board.panels for q in panel.queries]
EXPRESSIONS += [alert.expr for alert in ALERTS]
PANELS = [pytest.param(p, id=f"{b.uid}: {p.title}") for b in BOARDS for p in b.panels]


def metrics_in(expression: str) -> set[str]:
    """The metric names of an expression, without what Prometheus' library appends to them."""
    found = set(re.findall(r"heavy_\w+", expression))
    return {name if name in METRICS else re.sub(r"_(total|bucket|sum|count)$", "", name) for name in found}


def test_what_is_committed_is_what_the_code_gives() -> None:
    assert drifted(DASHBOARDS) == []


def test_drift_is_seen_in_every_direction(tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert drifted(tmp_path) == []
    (tmp_path / "cost.json").write_text(files()["cost.json"].replace("heavy_cost", "heavy_costs"))
    (tmp_path / "tools.json").unlink()
    (tmp_path / "by-hand.json").write_text("{}")
    assert drifted(tmp_path) == ["by-hand.json", "cost.json", "tools.json"]


def test_every_metric_there_is_can_be_seen_somewhere_and_nothing_else_is_asked_for() -> None:
    assert set().union(*map(metrics_in, EXPRESSIONS)) == METRICS


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_a_unit(panel: Panel) -> None:
    assert panel.title
    assert panel.unit
    assert len(panel.description) >= 20
    assert panel.description.endswith((".", "time"))
    assert panel.queries


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafanas_json_has_every_panel_in_a_place_of_its_own(board: Board) -> None:
    loaded: dict[str, Any] = json.loads(files()[f"{board.uid}.json"])
    assert loaded["uid"] == f"heavy-{board.uid}"
    assert loaded["schemaVersion"] >= 36
    assert {v["name"] for v in loaded["templating"]["list"]} == {
        "datasource",
        *(variable.name for variable in board.variables),
    }
    panels = loaded["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert [panel["title"] for panel in shown] == [panel.title for panel in board.panels]
    for panel in shown:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["expr"] for target in panel["targets"])


SEEN_BY_ALL = {m for m in METRICS if re.match(r"heavy_(replica|runner|profile|queue)", m)}
SEEN_BY_EACH = {m for m in METRICS if re.match(r"heavy_store", m)}


def joined_by(word: str, metric: str, expression: str) -> bool:
    """Whether an aggregation is applied to a metric, or to its rate, directly."""
    pattern = rf"\b{word}(?: by \([^)]*\) )?\((?:rate\(|increase\()?{metric}(?:_total|_bucket|_sum|_count)?\b"
    return re.search(pattern, expression) is not None


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafanas_own_schema_reads_the_board_and_loses_nothing_of_it(board: Board) -> None:
    text = files()[f"{board.uid}.json"]
    read = Dashboard.from_json(json.loads(text))
    assert json.loads(JSONEncoder().encode(read)) == json.loads(text)


def test_what_every_coordinator_sees_is_never_added_up() -> None:
    for expression in EXPRESSIONS:
        for metric in metrics_in(expression) & SEEN_BY_ALL:
            assert not joined_by("sum", metric, expression), expression
            assert joined_by("max", metric, expression), expression


def test_what_one_coordinator_counted_is_added_up() -> None:
    for expression in EXPRESSIONS:
        for metric in metrics_in(expression) - SEEN_BY_ALL - SEEN_BY_EACH:
            assert joined_by("sum", metric, expression), expression
            assert not any(joined_by(word, metric, expression) for word in ("max", "min", "avg"))


def test_alerts_say_what_happened_and_what_to_do() -> None:
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert len(alert.what) >= 20
        assert len(alert.do) >= 20
