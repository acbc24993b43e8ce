"""Following a run at a terminal, in a pipe, or as JSON; Ctrl-C cancels it and waits for what it cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from rich.live import Live

from heavy.cli import draw
from heavy.cli.interrupts import on_interrupt
from heavy.cli.plain import on_one_line
from heavy.cli.view import RunView, ending_of
from heavy.client import HeavyClient, RunStream
from heavy.core.codec import dump
from heavy.core.errors import HeavyError, ServerUnavailable
from heavy.core.ids import RunId
from heavy.core.records import Delta, Event, LifecycleRecord, Record, ToolResultRecord

CANCEL_WAIT_S = 20.0
"""How long the end of a cancelled run is waited for."""
REFRESH_PER_S = 8
TOOL_SAID_CHARS = 60


Show = Callable[[Record | Delta], None]
"""Takes one event to wherever it is shown."""


class Watch:
    """One run on the screen. After `follow`, `view` says how it ended and `interrupted` whether by Ctrl-C.

    Where it `cancels`, Ctrl-C cancels the run and its end is waited for, and a second one leaves at once;
    else the first one leaves, and the run goes on.
    """

    def __init__(self, client: HeavyClient, stream: RunStream, *, cancels: bool) -> None:
        self.view = RunView()
        self.interrupted = False
        self._client = client
        self._stream = stream
        self._cancels = cancels
        self._left = False
        self._say: Callable[[str], None] = lambda _: None

    @property
    def run(self) -> RunId:
        """The run's id. Raises `ServerUnavailable` when the server never said it."""
        if self._stream.run is None:
            raise ServerUnavailable("The server ended the call without saying which run it had made.")
        return self._stream.run

    async def follow(self, show: Show | None = None) -> None:
        """Until the final record, or until Ctrl-C has been obeyed. Without `show`, lanes are drawn."""
        task = asyncio.current_task()
        assert task is not None
        try:
            async with self._stream, self._interrupts(task):
                await (self._live() if show is None else self._shown(show))
        except asyncio.CancelledError:
            if not self._left or task.uncancel():
                raise

    def lines(self, line: Callable[[str], None]) -> Show:
        """Shows one plain line for each event worth one."""
        self._say = line

        def show(event: Record | Delta) -> None:
            for text in self._texts(event):
                line(text)

        return show

    def events(self, line: Callable[[str], None]) -> Show:
        """Shows every event as one JSON object: the run's id, and a `record` or a `delta`."""

        def show(event: Record | Delta) -> None:
            kind = "delta" if isinstance(event, Delta) else "record"
            line(f'{{"run":"{self.run}","{kind}":{dump(event).decode()}}}')

        return show

    async def _live(self) -> None:
        console = draw.console()
        said: list[str] = []
        self._say = said.append
        with Live(
            console=console,
            refresh_per_second=REFRESH_PER_S,
            get_renderable=lambda: draw.lanes(self.view, console.width, said[-1] if said else ""),
        ) as screen:
            async for event in self._stream:
                self._apply(event)
            said.clear()
            screen.refresh()

    async def _shown(self, show: Show) -> None:
        async for event in self._stream:
            self._apply(event)
            show(event)

    def _apply(self, event: Record | Delta) -> None:
        self.view.run = self.run
        self.view.apply(event)

    def _texts(self, event: Record | Delta) -> list[str]:
        if isinstance(event, Delta):
            return []
        match event.body:
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED):
                return [draw.lane_line(self.view.lanes[event.trajectory])]
            case LifecycleRecord(event=Event.RUN_STATE, state=state) if state is not None:
                return [f"run        {self._stream.run} {state.value}"]
            case ToolResultRecord(name=name, content=content) as result:
                said = on_one_line(content, TOOL_SAID_CHARS)
                return [f"{event.trajectory:<11}{name} ({ending_of(result)}): {said}"]
            case _:
                return []

    @contextlib.asynccontextmanager
    async def _interrupts(self, follower: asyncio.Task[None]) -> AsyncIterator[None]:
        """Within it, Ctrl-C is obeyed; the end of a cancelled run still comes through the stream."""
        told = asyncio.Event()
        watcher = asyncio.create_task(self._obey(told, follower))
        try:
            with on_interrupt(told.set):
                yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _obey(self, told: asyncio.Event, follower: asyncio.Task[None]) -> None:
        await told.wait()
        self.interrupted = True
        told.clear()
        if self._cancels:
            self._say("Cancelling the run; Ctrl-C again leaves at once.")
            if self._stream.run is not None:
                with contextlib.suppress(HeavyError):
                    await self._client.cancel(self._stream.run, "Ctrl-C at the terminal")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_WAIT_S):
                    await told.wait()
        self._left = True
        follower.cancel()
