"""What is drawn over and over, when the terminal becomes narrower between two frames."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from heavy.cli.live import steady

UP = "\x1b[1A"


@pytest.mark.parametrize(("columns", "rows"), [(100, 3), (60, 3), (50, 5), (40, 6), (20, 9)])
def test_every_row_that_wrapping_made_of_the_last_frame_is_taken_away(columns: int, rows: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=40, legacy_windows=False)
    lines = Text("\n".join(("a" * 60, "b" * 41, "c" * 60)))
    with steady(console, lambda _: lines, auto_refresh=False) as live:
        live.refresh()
        screen.truncate(0)
        console.width = columns
        live.refresh()
        assert screen.getvalue().count(UP) == rows - 1
