"""The sessions of one runner: one interpreter per trajectory, bounded in number, idle time and age.

What a session ran is remembered while its trajectory lasts. One that is gone is rebuilt only when every cell
of it was declared pure; else its owner is told that the state is gone.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from heavy.core.clock import monotonic_s
from heavy.core.files import File
from heavy.tools.sandbox import jail
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.session import INTERRUPT_GRACE_S, CellRun, Session, SessionLost

Key = tuple[str, str]
"""Run and trajectory."""
Given = Callable[[], Awaitable[Sequence[File]]]
"""Gets the files with which a trajectory's sessions begin."""

REBUILD_CELLS_MAX: Final = 200
REBUILD_BYTES_MAX: Final = 4 << 20
SWEEP_S: Final = 5.0
NOTEBOOKS_MAX: Final = 10_000
"""Trajectories whose cells are remembered; beyond, those unused for longest are forgotten, as state lost."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Code, the files it was given, and whether its author declared that running it again does no harm."""

    code: str
    files: tuple[tuple[str, str], ...] = ()
    pure: bool = False


class StateGone(Exception):
    """The session was lost and cannot be rebuilt. Nothing was run. Says why it was lost."""


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """How many sessions live at once and for how long; `computing_max` of them run a cell at once."""

    sessions_max: int = 64
    idle_s: float = 900.0
    lifetime_s: float = 4 * 3600.0
    computing_max: int = field(default_factory=lambda: 2 * (os.cpu_count() or 1))


@dataclass(eq=False, slots=True)
class Notebook:
    """What one trajectory's interpreter is, or was. `dirty`: more was run than `cells` tells."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: Session | None = None
    born_s: float = 0.0
    used_s: float = 0.0
    cells: list[Cell] = field(default_factory=list)
    ran: int = 0
    """How many calls the trajectory made, so that a history that others kept can be compared."""
    dirty: bool = False
    lost: str = ""

    @property
    def pure(self) -> bool:
        """Whether running `cells` again gives the same state."""
        return not self.dirty and all(cell.pure for cell in self.cells)

    def remember(self, cell: Cell) -> None:
        """Note a cell that was run."""
        self.ran += 1
        self.cells.append(cell)
        size = sum(len(one.code) + sum(len(text) for _, text in one.files) for one in self.cells)
        if len(self.cells) > REBUILD_CELLS_MAX or size > REBUILD_BYTES_MAX:
            self.cells.clear()
            self.dirty = True

    def forget(self) -> None:
        """A fresh interpreter, whose state is that of no cell."""
        self.cells.clear()
        self.dirty, self.lost = False, ""


class Sessions:
    """Opens, keeps, rebuilds and ends sessions. `close` ends all; safe to call twice."""

    def __init__(self, limits: SandboxLimits, bounds: SessionBounds) -> None:
        self.limits = limits
        self._bounds = bounds
        self._jail = jail.build(limits, session=True)
        self._notebooks: OrderedDict[Key, Notebook] = OrderedDict()
        self._computing = asyncio.Semaphore(bounds.computing_max)
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def libraries(self) -> dict[str, str]:
        """Names and versions of what is installed inside."""
        return self._jail.libraries

    @property
    def alive(self) -> int:
        """Interpreters that live."""
        return sum(book.session is not None for book in self._notebooks.values())

    @asynccontextmanager
    async def notebook(self, key: Key) -> AsyncIterator[Notebook]:
        """The trajectory's notebook, for one call at a time."""
        book = self._notebooks.setdefault(key, Notebook())
        self._notebooks.move_to_end(key)
        self._sweeper = self._sweeper or asyncio.create_task(self._sweep_forever())
        async with book.lock:
            try:
                yield book
            finally:
                book.used_s = monotonic_s()
                if book.session is not None and book.session.lost:
                    await self._drop(book, book.session.lost)

    async def ready(
        self, book: Notebook, history: Sequence[Cell] | None, timeout_s: float, given: Given | None = None
    ) -> Session:
        """The living session with the state of all calls before, catching up where that is safe.

        `history`: every call the trajectory made, where somebody else kept count. Raises `StateGone`, and
        what `given` does.
        """
        if book.session is None:
            await self._revive(book, timeout_s, await given() if given is not None else ())
        assert book.session is not None
        for cell in history[book.ran :] if history is not None else ():
            if not cell.pure:
                raise StateGone("calls of this conversation were answered elsewhere")
            await self._replay(book, cell, timeout_s)
            book.remember(cell)
        return book.session

    async def run(self, book: Notebook, cell: Cell, timeout_s: float) -> CellRun:
        """Run a cell in the notebook's living session, and remember it."""
        assert book.session is not None
        deadline_s = monotonic_s() + timeout_s
        async with asyncio.timeout(timeout_s):
            await self._computing.acquire()
        try:
            left_s = deadline_s - monotonic_s()
            # The rest is for interrupting it, which keeps the session where the code lets itself be stopped.
            code_s = max(left_s / 2, left_s - INTERRUPT_GRACE_S)
            run = await book.session.run(cell.code, timeout_s=code_s, grace_s=left_s - code_s)
        except asyncio.CancelledError:
            book.dirty = True
            raise
        finally:
            self._computing.release()
        book.remember(cell)
        if book.session.lost:
            await self._drop(book, book.session.lost)
            book.forget()  # its owner hears of it with this very result
        return run

    async def end(self, key: Key) -> None:
        """The trajectory is over: nothing of it is kept."""
        book = self._notebooks.pop(key, None)
        if book is not None and book.session is not None:
            await self._drop(book, "its trajectory ended")

    async def close(self) -> None:
        """End every session."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        await asyncio.gather(*(self.end(key) for key in tuple(self._notebooks)))

    async def _revive(self, book: Notebook, timeout_s: float, given: Sequence[File]) -> None:
        """A new interpreter with what was given; where it is not the first, with what its pure cells make."""
        if book.lost and not book.pure:
            why = book.lost
            book.forget()
            raise StateGone(why)
        await self._make_room()
        try:
            book.session = await Session.open(self._jail, self.limits)
        except SessionLost as error:
            raise StateGone(str(error)) from error
        book.born_s = monotonic_s()
        await self._hand_in(book, given)
        for cell in tuple(book.cells):
            await self._replay(book, cell, timeout_s)
        book.lost = ""

    async def _hand_in(self, book: Notebook, given: Sequence[File]) -> None:
        """Write the files a session begins with; all of them, or there is no session."""
        assert book.session is not None
        problem = ""
        for file in given:
            try:
                problem = problem or await book.session.put(file.name, file.data)
            except SessionLost as error:
                problem = str(error)
        if problem:
            await self._drop(book, problem)
            raise StateGone(f"its files could not be put into it: {problem}")

    async def _replay(self, book: Notebook, cell: Cell, timeout_s: float) -> None:
        assert book.session is not None
        try:
            for name, text in cell.files:
                await book.session.put(name, text.encode())
            async with self._computing:
                await book.session.run(cell.code, timeout_s=timeout_s)
            lost = book.session.lost
        except SessionLost as error:
            lost = str(error)
        if lost:
            await self._drop(book, lost)
            book.forget()
            raise StateGone(f"it could not be rebuilt: {lost}")

    async def _make_room(self) -> None:
        """End the session that is idle for longest, where there are too many; one at work is never ended."""
        while self.alive >= self._bounds.sessions_max:
            idle = [b for b in self._notebooks.values() if b.session is not None and not b.lock.locked()]
            if not idle:
                raise StateGone(f"all {self._bounds.sessions_max} sessions of this server are at work")
            oldest = min(idle, key=lambda b: b.used_s)
            async with oldest.lock:
                await self._drop(oldest, "the server needed room for others")

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_S, self._bounds.idle_s / 4))
            await self._sweep()

    async def _sweep(self) -> None:
        now_s, bounds = monotonic_s(), self._bounds
        for book in tuple(self._notebooks.values()):
            if book.session is None or book.lock.locked():
                continue
            if now_s - max(book.used_s, book.born_s) > bounds.idle_s:
                await self._retire(book, f"it was idle for {bounds.idle_s:g} s")
            elif now_s - book.born_s > bounds.lifetime_s:
                await self._retire(book, f"it was {bounds.lifetime_s:g} s old")
        while len(self._notebooks) > NOTEBOOKS_MAX:
            key = next(iter(self._notebooks))
            await self.end(key)

    async def _retire(self, book: Notebook, why: str) -> None:
        async with book.lock:
            await self._drop(book, why)

    @staticmethod
    async def _drop(book: Notebook, why: str) -> None:
        session, book.session, book.lost = book.session, None, why
        if session is not None:
            with suppress(OSError):
                await session.end()
