"""What a board is, and how it becomes Grafana's JSON: the only module that knows Grafana."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase
from typing import Final, Literal

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

Unit = Literal[
    "short", "s", "percentunit", "currencyUSD", "bool_on_off", "suffix:/min", "suffix:tok/s", "suffix:x"
]
"""Grafana's ids of units."""
Kind = Literal["lines", "stack", "number", "states"]
Builder = stat.Panel | timeseries.Panel | statetimeline.Panel

_SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT: Final[dict[Kind, int]] = {"number": 4}
_HEIGHT_ELSE: Final = 8


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called; `{{label}}` is replaced by a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `description` tells an operator what it is and what to do when it looks wrong.

    `needs` says what must have happened before it shows anything; empty for what any answered run fills.
    """

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    needs: str = ""
    width: int = 12


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a board: the values of a metric's label, all of them at first."""

    name: str
    label: str
    metric: str


@dataclass(frozen=True, slots=True)
class Board:
    """One page. `uid` is its address and its file's name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of its panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def to_json(board: Board) -> str:
    """The board as Grafana imports it; the same text for the same board."""
    built = (
        dashboard_builder.Dashboard(f"Heavy / {board.title}")
        .uid(f"heavy-{board.uid}")
        .description(board.description)
        .tags(["heavy"])
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .variables([_source(), *map(_variable, board.variables)])
        .link(_other_boards())
    )
    numbers = count(1)
    for row in board.rows:
        built = built.with_row(dashboard_builder.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            built = built.with_panel(_panel(panel, next(numbers)))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _source() -> dashboard_builder.DatasourceVariable:
    return dashboard_builder.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _variable(variable: Variable) -> dashboard_builder.QueryVariable:
    everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard_builder.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(_SOURCE)
        .query(f"label_values({variable.metric}, {variable.name})")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _other_boards() -> dashboard_builder.DashboardLink:
    return (
        dashboard_builder.DashboardLink("Heavy")
        .type(dashboard.DashboardLinkType.DASHBOARDS)
        .tags(["heavy"])
        .as_dropdown(True)
        .keep_time(True)
    )


def _panel(panel: Panel, number: int) -> Builder:
    described = f"{panel.description} Empty until {panel.needs}." if panel.needs else panel.description
    built = (
        _drawn(panel.kind)
        .id(number)
        .title(panel.title)
        .description(described)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .no_value("nothing yet")
        .span(panel.width)
        .height(_HEIGHT.get(panel.kind, _HEIGHT_ELSE))
    )
    if panel.unit in ("percentunit", "bool_on_off"):
        built = built.min(0).max(1)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).ref_id(letter).datasource(_SOURCE)
        built = built.with_target(target.legend_format(query.legend or "__auto"))
    return built


def _drawn(kind: Kind) -> Builder:
    match kind:
        case "number":
            reduced = common_builder.ReduceDataOptions().calcs(["lastNotNull"])
            return stat.Panel().reduce_options(reduced).graph_mode(common.BigValueGraphMode.AREA)
        case "states":
            return statetimeline.Panel()
    lines = (
        timeseries.Panel()
        .line_width(1)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builder.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["mean", "lastNotNull"])
        )
        .tooltip(
            common_builder.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if kind == "stack":
        stacked = common_builder.StackingConfig().mode(common.StackingMode.NORMAL)
        return lines.stacking(stacked).fill_opacity(40).min(0)
    return lines.fill_opacity(8)
