"""What `heavy cache stats` shows, at any width: one line a tool."""

from __future__ import annotations

import pytest
from rich.console import Console

from heavy.cli.cache import _table
from heavy.core.caching import CacheStats, ToolCacheStats

TOOLS = (
    ToolCacheStats("python", 1_203, 410, 388, 3, 0, 12, 5123.4, 380, 1 << 20),
    ToolCacheStats("a_server_of_tools__search_everything", 12, 4, 38, 0, 2, 0, 51.2, 38, 90_000),
)


@pytest.mark.parametrize("columns", [60, 80, 110, 160])
def test_every_tool_has_one_line_and_its_figures(columns: int) -> None:
    console = Console(width=columns)
    with console.capture() as capture:
        console.print(_table(CacheStats(TOOLS, 0, 0, 0, 0, 0, 0, True), columns))
    lines = capture.get().splitlines()
    assert len(lines) == 1 + len(TOOLS)
    assert {"2004", "80%", "388", "5123"} <= set(lines[1].split())
    assert ("shared" in lines[0]) == (columns >= 110)


def test_a_cache_that_was_never_asked_says_so() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(_table(CacheStats((), 0, 0, 0, 0, 0, 0, True), 80))
    assert "Nothing was asked" in capture.get()
