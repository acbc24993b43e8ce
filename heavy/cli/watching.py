"""Following a run at a terminal, in a pipe, or as JSON; Ctrl-C cancels it and waits for what it cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from rich.live import Live

from heavy.cli import draw
from heavy.cli.interrupts import on_interrupt
from heavy.cli.view import RunView, ending_of
from heavy.client import HeavyClient, RunStream
from heavy.core.errors import HeavyError, ServerUnavailable
from heavy.core.ids import RunId
from heavy.core.records import Delta, Event, LifecycleRecord, Record, ToolResultRecord

CANCEL_WAIT_S = 20.0
"""How long the end of a cancelled run is waited for."""
REFRESH_PER_S = 8


class Watch:
    """One run on the screen. After `follow`, `view` says how it ended and `interrupted` whether by Ctrl-C."""

    def __init__(self, client: HeavyClient, stream: RunStream) -> None:
        self.view = RunView()
        self.interrupted = False
        self._client = client
        self._stream = stream

    @property
    def run(self) -> RunId:
        """The run's id. Raises `ServerUnavailable` when the server never said it."""
        if self._stream.run is None:
            raise ServerUnavailable("The server ended the call without saying which run it had made.")
        return self._stream.run

    async def follow(self, *, live: bool, line: Callable[[str], None]) -> None:
        """Until the final record. `live` draws lanes; else `line` gets a line for each event worth one."""
        async with self._stream, self._interrupts():
            if live:
                await self._live()
            else:
                await self._lines(line)

    async def _live(self) -> None:
        console = draw.console()
        with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=False) as screen:
            async for event in self._stream:
                self.view.apply(event)
                screen.update(draw.lanes(self.view, console.width))

    async def _lines(self, line: Callable[[str], None]) -> None:
        async for event in self._stream:
            self.view.apply(event)
            for text in self._texts(event):
                line(text)

    def _texts(self, event: Record | Delta) -> list[str]:
        if isinstance(event, Delta):
            return []
        match event.body:
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED):
                return [draw.lane_line(self.view.lanes[event.trajectory])]
            case LifecycleRecord(event=Event.RUN_STATE, state=state) if state is not None:
                return [f"run        {self._stream.run} {state.value}"]
            case ToolResultRecord(name=name, content=content) as result:
                said = " ".join(content.split())[:60]
                return [f"{event.trajectory:<11}{name} ({ending_of(result)}): {said}"]
            case _:
                return []

    @contextlib.asynccontextmanager
    async def _interrupts(self) -> AsyncIterator[None]:
        """Within it, the first Ctrl-C cancels the run; its end still comes through the stream."""
        told = asyncio.Event()
        watcher = asyncio.create_task(self._cancel_when(told, asyncio.current_task()))
        try:
            with on_interrupt(told.set):
                yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _cancel_when(self, told: asyncio.Event, follower: asyncio.Task[None] | None) -> None:
        await told.wait()
        self.interrupted = True
        told.clear()
        if self._stream.run is not None:
            with contextlib.suppress(HeavyError):
                await self._client.cancel(self._stream.run, "Ctrl-C at the terminal")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT_S):
                await told.wait()
        if follower is not None:
            follower.cancel()
