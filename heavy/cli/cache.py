"""`heavy cache`: what the tool cache holds, how it does, and taking results out of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.table import Table
from rich.text import Text

from heavy.admin import CacheClient
from heavy.cli import draw
from heavy.cli.options import connected, server_flags
from heavy.core.caching import CacheItem, CachePurge, CacheQuery, CacheStats, ToolCacheStats

T = TypeVar("T")

WIDE_COLUMNS = 110
SHOWN_CHARS_MAX = 4_000
"""How much of a stored content is shown; --json has all of it."""

json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")


@click.group()
def cache() -> None:
    """The tool cache of a server: for administrators (a `tenant:token:admin` line in its tokens file)."""


@cache.command(short_help="How the cache does.")
@json_flag
@server_flags()
def stats(as_json: bool, server: str, token: str | None, patience: float) -> None:
    """Hits, executions and seconds saved of each tool since the cache was empty, and what is stored."""
    found = _asked(server, token, patience, lambda client: client.stats())
    _say(as_json, found, lambda: _show(found))


@cache.command(short_help="Show one stored result.")
@click.argument("key", required=False)
@click.option("--tool", help="Instead of a key: the tool ...")
@click.option("--arguments", default="{}", help="... and the call's arguments, as JSON.")
@click.option("--tenant", default="", help="Whose result, where they are kept per tenant.  [default: yours]")
@click.option("--run", default="", help="Which run's, where they are kept per run.")
@json_flag
@server_flags()
def get(
    key: str | None,
    tool: str | None,
    arguments: str,
    tenant: str,
    run: str,
    as_json: bool,
    server: str,
    token: str | None,
    patience: float,
) -> None:
    """The result stored under KEY, or for a call of a tool:

    heavy cache get --tool python --arguments '{"code": "print(1)"}'
    """
    if bool(key) == bool(tool):
        raise click.UsageError("give either a KEY, or --tool with --arguments")
    query = CacheQuery(key=key or "", tool=tool or "", arguments=arguments, tenant=tenant, run=run)
    item = _asked(server, token, patience, lambda client: client.get(query))
    _say(as_json, item, lambda: click.echo(_item(item)))


@cache.command(short_help="Remove stored results.")
@click.argument("key", required=False)
@click.option("--tool", default="", help="Everything of a tool.")
@click.option("--tenant", default="", help="Everything of a tenant; with --tool, only that.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@json_flag
@server_flags()
def purge(
    key: str | None,
    tool: str,
    tenant: str,
    everything: bool,
    as_json: bool,
    server: str,
    token: str | None,
    patience: float,
) -> None:
    """Remove the result under KEY, or what --tool, --tenant or --all say.

    Calls under way finish, but what they give is not stored.
    """
    if not (key or tool or tenant or everything):
        raise click.UsageError("say what to remove: a KEY, --tool, --tenant or --all")
    wanted = CachePurge(key=key or "", tool=tool, tenant=tenant, all=everything)
    purged = _asked(server, token, patience, lambda client: client.purge(wanted))
    text = f"Removed {purged.entries} results; {purged.leases} calls under way will not be stored."
    _say(as_json, purged, lambda: click.echo(text))


def _asked(
    server: str, token: str | None, patience: float, question: Callable[[CacheClient], Awaitable[T]]
) -> T:
    return connected(server, token, patience, lambda client: question(CacheClient(client)))


def _say(as_json: bool, value: Any, show: Callable[[], None]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(value), ensure_ascii=False) + "\n")
    else:
        show()


def _show(stats: CacheStats) -> None:
    console = draw.console()
    console.print(_table(stats, console.width), _server(stats), sep="\n")


def _table(stats: CacheStats, columns: int) -> Table | Text:
    """One line a tool, whatever the width; narrow terminals get fewer columns."""
    if not stats.tools:
        return Text("Nothing was asked of the tool cache yet.")
    wide = columns >= WIDE_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tool", no_wrap=True, overflow="ellipsis", max_width=24 if wide else 16)
    for name, always, _ in _COLUMNS:
        if always or wide:
            table.add_column(name, justify="right", no_wrap=True)
    for tool in stats.tools:
        shown = [show(tool) for _, always, show in _COLUMNS if always or wide]
        table.add_row(tool.tool or "(others)", *shown)
    return table


def _server(stats: CacheStats) -> Text:
    most = f" of {_size(stats.memory_bytes_max)}" if stats.memory_bytes_max else ""
    parts = [
        f"{_size(stats.memory_bytes)}{most} in use",
        f"{stats.bodies} large contents ({_size(stats.body_bytes)})",
        f"{stats.leases} calls under way",
        f"{stats.evicted} evicted",
    ]
    if not stats.complete:
        parts.append("too much to look at: sizes are of a part")
    return Text(", ".join(parts), style="dim")


def _item(item: CacheItem) -> str:
    content = item.content
    if len(content) > SHOWN_CHARS_MAX:
        content = f"{content[:SHOWN_CHARS_MAX]}\n... {len(content) - SHOWN_CHARS_MAX} more; --json has all"
    lines = [
        f"key      {item.key}",
        f"tool     {item.tool or 'not known by name'}",
        f"result   {'error' if item.is_error else 'ok'}, {_size(item.bytes)}, took {item.cost_s:.2f} s",
        f"stored   {_time(item.stored_ms)}",
        f"fresh    until {_time(item.fresh_until_ms)}",
        f"kept     until {_time(item.expires_ms)}",
    ]
    return "\n".join([*lines, "", content])


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _size(count: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count} B"


_COLUMNS: tuple[tuple[str, bool, Callable[[ToolCacheStats], str]], ...] = (
    ("calls", True, lambda tool: str(tool.calls)),
    ("not run", True, lambda tool: f"{tool.hit_share:.0%}" if tool.calls else "-"),
    ("hits", False, lambda tool: str(tool.hits)),
    ("shared", False, lambda tool: str(tool.coalesced)),
    ("run", True, lambda tool: str(tool.misses)),
    ("uncached", True, lambda tool: str(tool.bypassed)),
    ("stale", False, lambda tool: str(tool.stale)),
    ("saved", True, lambda tool: f"{tool.saved_s:.0f} s"),
    ("stored", False, lambda tool: str(tool.entries)),
    ("size", True, lambda tool: _size(tool.bytes)),
)
"""Name, whether it is shown at any width, and what it says."""
