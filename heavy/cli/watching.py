"""Following a run at a terminal, in a pipe, or as JSON; Ctrl-C cancels it and waits for what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable

from heavy.cli import draw, keys
from heavy.cli.interrupts import on_interrupt
from heavy.cli.live import steady
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
HEARD_MAX = 4
"""How many signals and keys may wait to be obeyed; more are the same said again."""
TERMINATE = "SIGTERM"
YES = (keys.CTRL_C, TERMINATE, "y", "Y")


Show = Callable[[Record | Delta], None]
"""Takes one event to wherever it is shown."""


class Watch:
    """One run on the screen. After `follow`, `view` says how it ended and `interrupted` whether by Ctrl-C.

    Where it `cancels`, Ctrl-C cancels the run and its end is waited for, and one more leaves at once; whoever
    sees lanes is asked first, once. Else Ctrl-C leaves, and the run goes on.
    """

    def __init__(self, client: HeavyClient, stream: RunStream, *, cancels: bool) -> None:
        self.view = RunView()
        self.interrupted = False
        self._client = client
        self._stream = stream
        self._cancels = cancels
        self._left = False
        self._drawn = False
        self._hint = ""
        self._say: Callable[[str], None] = self._show_hint

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

    def _show_hint(self, text: str) -> None:
        self._hint = text

    async def _live(self) -> None:
        self._drawn = True
        with steady(
            draw.console(),
            lambda columns: draw.lanes(self.view, columns, self._hint),
            refresh_per_second=REFRESH_PER_S,
        ):
            async for event in self._stream:
                self._apply(event)
            self._hint = ""

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
        heard: asyncio.Queue[str] = asyncio.Queue(HEARD_MAX)
        watcher = asyncio.create_task(self._obey(heard, follower))
        hear = functools.partial(keys.put, heard)
        try:
            with on_interrupt(lambda: hear(keys.CTRL_C), on_terminate=lambda: hear(TERMINATE)):
                yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _obey(self, heard: asyncio.Queue[str], follower: asyncio.Task[None]) -> None:
        while not await self._meant(heard):
            pass
        self.interrupted = True
        if self._cancels:
            self._say("Cancelling the run; Ctrl-C again leaves at once.")
            if self._stream.run is not None:
                with contextlib.suppress(HeavyError):
                    await self._client.cancel(self._stream.run, "Ctrl-C at the terminal")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_WAIT_S):
                    await heard.get()
        self._left = True
        follower.cancel()

    async def _meant(self, heard: asyncio.Queue[str]) -> bool:
        """Whether Ctrl-C is meant: whoever watches the lanes of a run of theirs is asked, once."""
        word = await heard.get()
        if word == keys.CTRL_C and self._cancels and self._drawn and keys.person_there():
            spent = draw.cost_text(self.view.spent)
            self._hint = f"Cancel the run? {spent} so far. y or Ctrl-C: cancel it   any other key: go on"
            with keys.one_key(heard):
                word = await heard.get()
            self._hint = ""
        return word in YES
