"""PromQL in the few shapes that boards and alerts are made of.

Two rules keep sums right with several coordinators: what runs leave behind is counted once, by the one that
ended them, so it is summed; what everyone sees (replicas, runners) is the same thing several times, so its
maximum is taken.
"""

from __future__ import annotations

from typing import Final

EVERY: Final = "$__rate_interval"
"""Grafana's window for rates: at least four scrapes, however far one zooms out."""
RANGE: Final = "$__range"
"""Grafana's window for totals: what the board shows."""


def where(**labels: str) -> str:
    """A selector. A value that begins with `~` is a pattern, one that begins with `!` is excluded."""
    matchers = {"~": "=~", "!": "!="}
    parts = [
        f'{name}{matchers.get(value[:1], "=")}"{value[1:] if value[:1] in matchers else value}"'
        for name, value in labels.items()
    ]
    return "{" + ",".join(parts) + "}" if parts else ""


def rate(name: str, by: str = "", window: str = EVERY, **labels: str) -> str:
    """A counter's increase a second, summed over coordinators."""
    return _sum(f"rate({name}_total{where(**labels)}[{window}])", by)


def increase(name: str, by: str = "", window: str = RANGE, **labels: str) -> str:
    """A counter's increase over a window, summed over coordinators."""
    return _sum(f"increase({name}_total{where(**labels)}[{window}])", by)


def quantile(q: float, name: str, by: str = "", window: str = EVERY, **labels: str) -> str:
    """A quantile of a histogram over all coordinators."""
    buckets = _sum(f"rate({name}_bucket{where(**labels)}[{window}])", f"le, {by}" if by else "le")
    return f"histogram_quantile({q}, {buckets})"


def mean(name: str, by: str = "", window: str = EVERY, **labels: str) -> str:
    """A histogram's mean over all coordinators."""
    selector = where(**labels)
    total = _sum(f"rate({name}_sum{selector}[{window}])", by)
    return f"{total} / {_sum(f'rate({name}_count{selector}[{window}])', by)}"


def seen(name: str, by: str = "", **labels: str) -> str:
    """A gauge that every coordinator shows of the same thing."""
    return f"max by ({by}) ({name}{where(**labels)})" if by else f"max({name}{where(**labels)})"


def _sum(inner: str, by: str) -> str:
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"
