"""The plots of a report, as SVG text that takes its ink from the page it stands in."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from heavy.evals.findings import Findings, Grouping
from heavy.evals.intervals import Estimate

INK: Final = "#123456"
"""What text and axes are drawn in; `currentColor` takes its place, so that they are readable on any page."""
COLOURS: Final = {
    "single": "#8a8f98",
    "greedy": "#c86fc9",
    "vote": "#4c8dff",
    "any": "#2aa876",
    "heavy": "#e5851a",
}
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def plots_of(found: Findings) -> list[tuple[str, str]]:
    """Title and SVG of every plot there is something to draw for."""
    plots: list[tuple[str, Callable[[Axes], None]]] = [
        ("Accuracy against cost", lambda axes: _against_cost(axes, found)),
        ("Accuracy by number of arms", lambda axes: _against_arms(axes, found)),
        ("Agreement against correctness", lambda axes: _agreement(axes, found)),
    ]
    if found.calibration:
        plots.append(("Reliability of stated confidences", lambda axes: _reliability(axes, found)))
    plots += [(f"Accuracy by {', '.join(grouping.labels)}", _by_group(grouping)) for grouping in found.groups]
    return [(title, _svg(title, draw)) for title, draw in plots]


def _svg(title: str, draw: Callable[[Axes], None]) -> str:
    # The salt makes ids the same each time, and no two plots of a page share one.
    with rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def _against_cost(axes: Axes, found: Findings) -> None:
    costs = [point.cost for point in found.curve]
    _band(axes, costs, [point.vote for point in found.curve], "vote", "vote@k")
    _line(axes, costs, [point.any for point in found.curve], "any", "any@k")
    for point in found.curve:
        axes.annotate(
            f"{point.k}", (point.cost, point.vote.value), (0, -12), textcoords="offset points", ha="center"
        )
    heavy = [(p.heavy_cost, p.heavy, p.k) for p in found.curve if p.heavy is not None and p.heavy_cost]
    arms = ", ".join(str(k) for _, _, k in heavy)
    _dots(axes, [cost for cost, _, _ in heavy], [one for _, one, _ in heavy], "heavy", f"heavy, {arms} arms")
    for way in found.ways:
        if way.name == "greedy":
            at = way.cost_usd if found.price.cost_unit == "usd" else way.tokens
            _dot(axes, at, way.accuracy, "greedy", "greedy, one arm")
    axes.set_xlabel("cost per question, US$" if found.price.cost_unit == "usd" else "tokens per question")
    _finish(axes)


def _against_arms(axes: Axes, found: Findings) -> None:
    arms = [float(point.k) for point in found.curve]
    _band(axes, arms, [point.vote for point in found.curve], "vote", "vote@k")
    _line(axes, arms, [point.any for point in found.curve], "any", "any@k")
    heavy = [(float(p.k), p.heavy) for p in found.curve if p.heavy is not None]
    _dots(axes, [k for k, _ in heavy], [one for _, one in heavy], "heavy", "heavy")
    axes.set_xlabel("arms (k)")
    axes.set_xticks(arms)
    _finish(axes)


def _agreement(axes: Axes, found: Findings) -> None:
    at = [float(one.leading) for one in found.agreement]
    _dots(axes, [x - 0.08 for x in at], [one.vote for one in found.agreement], "vote", f"vote@{found.width}")
    _dots(axes, [x + 0.08 for x in at], [one.heavy for one in found.agreement], "heavy", "heavy")
    for x, one in zip(at, found.agreement, strict=True):
        axes.annotate(f"n={one.questions}", (x, 1.03), ha="center", fontsize=8)
    axes.set_xlabel(f"arms that agree, of {found.width}")
    axes.set_xticks(at)
    _finish(axes)


def _reliability(axes: Axes, found: Findings) -> None:
    axes.plot([0, 1], [0, 1], linestyle=":", color=INK, linewidth=1)
    for name, one in sorted(found.calibration.items()):
        at = [b.confidence for b in one.bins]
        label = f"{name} (ECE {one.ece:.2f})"
        axes.plot(at, [b.accuracy for b in one.bins], marker="o", color=COLOURS[name], label=label)
    axes.set_xlabel("stated confidence")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    _finish(axes)


def _by_group(grouping: Grouping) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        rows = grouping.rows
        for step, name in enumerate(("single", "vote", "heavy", "any")):
            at = [index + (step - 1.5) * 0.16 for index in range(len(rows))]
            _dots(axes, at, [getattr(row, name) for row in rows], name, name)
        named = [", ".join(row.values) or "-" for row in rows]
        axes.set_xticks(range(len(rows)), named, rotation=45 if max(map(len, named)) > 8 else 0)
        _finish(axes)

    return draw


def _finish(axes: Axes) -> None:
    axes.set_ylabel("right")
    axes.set_ylim(0, 1.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="best", fontsize=8)


def _values(estimates: Sequence[Estimate]) -> tuple[list[float], list[float], list[float]]:
    """Values, and how far down and up their intervals reach."""
    values = [one.value for one in estimates]
    down = [max(0.0, one.value - (one.value if one.low is None else one.low)) for one in estimates]
    up = [max(0.0, (one.value if one.high is None else one.high) - one.value) for one in estimates]
    return values, down, up


def _band(axes: Axes, at: Sequence[float], estimates: Sequence[Estimate], name: str, label: str) -> None:
    values, down, up = _values(estimates)
    low = [value - d for value, d in zip(values, down, strict=True)]
    high = [value + u for value, u in zip(values, up, strict=True)]
    axes.fill_between(at, low, high, color=COLOURS[name], alpha=0.18, linewidth=0)
    axes.plot(at, values, marker="o", color=COLOURS[name], label=label)


def _line(axes: Axes, at: Sequence[float], estimates: Sequence[Estimate], name: str, label: str) -> None:
    values, _, _ = _values(estimates)
    axes.plot(at, values, marker="o", markersize=3, linestyle="--", color=COLOURS[name], label=label)


def _dots(axes: Axes, at: Sequence[float], estimates: Sequence[Estimate], name: str, label: str) -> None:
    values, down, up = _values(estimates)
    style: dict[str, Any] = {"fmt": "o", "capsize": 3, "color": COLOURS[name], "label": label}
    axes.errorbar(at, values, yerr=[down, up], **style)


def _dot(axes: Axes, at: float, estimate: Estimate, name: str, label: str) -> None:
    _dots(axes, [at], [estimate], name, label)
