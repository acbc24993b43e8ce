"""A part of the screen that is drawn over and over, and stays whole when the terminal is resized."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from heavy.cli import keys


@contextlib.contextmanager
def steady(console: Console, read: Callable[[int], RenderableType], **options: Any) -> Iterator[Live]:
    """Draws what `read` gives for so many columns until the block ends; `options` are those of rich's `Live`.

    A terminal that becomes narrower wraps what is on it, so that the last frame takes more rows than it had:
    `Live` would leave the upper ones behind.
    """
    frame = _Frame(console, read)
    console.push_render_hook(frame)
    try:
        with keys.unseen(), Live(console=console, get_renderable=lambda: frame, **options) as live:
            yield live
    finally:
        console.pop_render_hook()


class _Frame(RenderHook):
    """What is drawn; it knows how wide its lines were when they were drawn last."""

    def __init__(self, console: Console, read: Callable[[int], RenderableType]) -> None:
        self._console = console
        self._read = read
        self._lines: list[int] = []
        self._columns = console.width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._read(options.max_width), options, pad=False)
        shown = lines[: options.size.height]
        self._lines = [Segment.get_line_length(line) for line in shown]
        self._columns = options.max_width
        for line in lines:
            yield from line
            yield Segment.line()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Takes away the rows that wrapping added, after `Live` has taken away those it knows of."""
        columns = max(1, self._console.width)
        if columns >= self._columns:
            return renderables
        wrapped = sum(max(0, line - 1) // columns for line in self._lines)
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
        return [Control(ControlType.CARRIAGE_RETURN, *(up * wrapped)), *renderables]
