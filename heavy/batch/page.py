"""A batch's summary as one HTML page: nothing but itself is loaded, light and dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import jinja2
from markupsafe import Markup

from heavy.batch.summary import BatchSummary
from heavy.core.errors import ConfigError

ANSWERS_SHOWN: Final = 2_000
BINS: Final = 24

_INK, _BAR = "#010203", "#040506"
"""Colours that stand in the drawing for the page's own: replaced by CSS variables, so both themes work."""


def page(summary: BatchSummary) -> str:
    """The page. Raises `ConfigError` where matplotlib, which draws its plots, is not installed."""
    template = _environment().from_string(
        resources.files("heavy.batch").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    answers = summary.answers
    plots = [
        ("Agreement", _histogram([a.agreement for a in answers], "share of arms", (0.0, 1.0))),
        ("Cost", _histogram([a.cost_usd for a in answers], "US$ a question")),
        ("Latency", _histogram([a.latency_s for a in answers], "seconds a question")),
        ("Tokens", _histogram([a.tokens for a in answers], "tokens a question")),
    ]
    if summary.failures:
        plots.append(("Failures", _bars([(kind.code, kind.count) for kind in summary.failures])))
    return template.render(
        summary=summary,
        plots=[(title, Markup(svg)) for title, svg in plots],
        answers=answers[:ANSWERS_SHOWN],
        more=max(0, len(answers) - ANSWERS_SHOWN),
        created=datetime.fromtimestamp(summary.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def _histogram(values: Sequence[float], unit: str, span: tuple[float, float] | None = None) -> str:
    figure, axes = _figure(2.4)
    if values and span is None and min(values) == max(values):
        span = (0.0, 2 * values[0] or 1.0)  # one value says nothing of a range, and none of ours is negative
    if values:
        axes.hist(values, bins=BINS, range=span, color=_BAR)
    axes.set_xlabel(unit)
    axes.set_ylabel("questions")
    return _svg(figure)


def _bars(counts: Sequence[tuple[str, int]]) -> str:
    figure, axes = _figure(0.6 + 0.3 * len(counts))
    axes.barh([code for code, _ in counts], [count for _, count in counts], color=_BAR)
    axes.invert_yaxis()
    axes.set_xlabel("questions")
    return _svg(figure)


def _figure(height_inches: float) -> tuple[Any, Any]:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ConfigError(
            "The page's plots are drawn by matplotlib, which is not installed: pip install 'heavy[reports]'"
        ) from error
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {**dict.fromkeys(inked, _INK), "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.6, height_inches), layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.patch.set_alpha(0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=False))
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    drawn = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "heavy", "font.size": 9}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    return text.replace(_INK, "currentColor").replace(_BAR, "var(--accent)")
