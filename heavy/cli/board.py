"""The parts of a bring-up on the screen: a table that moves while they start, and is calm once they serve."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final, Self

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from heavy.cli import draw
from heavy.cli.live import steady
from heavy.cli.plain import plain
from heavy.core import clock

REFRESH_PER_S: Final = 4
STYLES: Final = {"ready": "green", "starting": "yellow", "lost": "yellow"}
"""Of a part's state; any other is trouble."""


@dataclass(slots=True)
class Part:
    """A part, its state, and since when it has been starting."""

    state: str
    detail: str
    began_s: float
    took_s: float | None = None


class Board:
    """Call it with (part, state, detail). At a terminal it draws a table until `settle`; else, and after
    that, a line a change. Use it as a context manager, so that the screen is given back whatever happens.
    """

    def __init__(self) -> None:
        self._console = draw.console()
        self._parts: dict[str, Part] = {}
        self._drawing = contextlib.ExitStack()
        self._drawn = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._drawing.enter_context(
                steady(self._console, lambda _: self._table(), refresh_per_second=REFRESH_PER_S)
            )
            self._drawn = True
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()

    def __call__(self, part: str, state: str, detail: str) -> None:
        """A part changed."""
        now_s = clock.monotonic_s()
        known = self._parts.setdefault(part, Part(state, detail, now_s))
        known.state, known.detail = state, detail
        known.took_s = now_s - known.began_s if state == "ready" else None
        if not self._drawn:
            line = Text.assemble(
                f"{part:<16} ", (f"{state:<9}", STYLES.get(state, "red")), " ", plain(detail)
            )
            self._console.print(line, no_wrap=True, overflow="ellipsis")

    def settle(self) -> None:
        """Everything serves, or is over: the table stays as it is. Safe to call twice."""
        self._drawn = False
        self._drawing.close()

    def _table(self) -> RenderableType:
        now_s = clock.monotonic_s()
        table = Table.grid(padding=(0, 2), expand=True)
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")  # what gives way where it is narrow
        for name, part in self._parts.items():
            took_s = now_s - part.began_s if part.took_s is None else part.took_s
            seconds = f"{took_s:.0f} s" if took_s >= 1 else ""
            state = Text(part.state, style=STYLES.get(part.state, "red"))
            table.add_row(name, state, Text(seconds, style="dim", justify="right"), plain(part.detail))
        return table
