"""An interpreter that keeps its state: cells and files, one request at a time, until it is ended or lost.

Whatever comes out of it is the code's word alone: it may forge answers, so every length is bounded here, and
nothing that it says concerns more than its own session.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

from heavy.core.files import is_file_name
from heavy.tools.sandbox import bootstrap, cells
from heavy.tools.sandbox.child import START_TIMEOUT_S, Child
from heavy.tools.sandbox.jail import Jail, SandboxLimits
from heavy.tools.sandbox.output import Output
from heavy.tools.sandbox.sandbox import CODE_BYTES_MAX, Ending, Execution

INTERRUPT_GRACE_S: Final = 2.0
"""How long an interrupted cell may take to end before its session is killed, unless told otherwise."""
NOTES_BYTES_MAX: Final = 16_384
_ANSWER_LINE_MAX: Final = 64

_ENDINGS: Final = {
    cells.FINISHED: Ending.FINISHED,
    cells.FAILED: Ending.EXCEPTION,
    cells.CELL_OUT_OF_MEMORY: Ending.MEMORY,
    cells.CELL_CPU: Ending.CPU,
    cells.CELL_TIMEOUT: Ending.TIMEOUT,
}


class SessionLost(Exception):
    """The interpreter is gone, with its variables and files. Says why."""


@dataclass(frozen=True, slots=True)
class CellRun:
    """What a cell wrote and how it ended; `files` names those it left new or changed, one a line."""

    execution: Execution
    files: str = ""


class Session:
    """One sandboxed interpreter. `open` makes one; `end` must be called. Not for use by two at once."""

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._child = Child(limits)
        self._lost = ""

    @classmethod
    async def open(cls, jail: Jail, limits: SandboxLimits) -> Session:
        """Start an interpreter. Raises `SessionLost` when it does not come up."""
        assert jail.session
        session = cls(limits)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await session._child.start(jail)
                await session._child.take_charge()
                ready = await session._child.stdout.read(1)
            if ready != bootstrap.READY:
                said = (await session._child.stderr.read(1_000)).decode("utf-8", "replace").strip()
                raise SessionLost(f"the sandbox did not come up: {said or 'it said nothing'}")
        except BaseException as error:
            await session.end()
            if isinstance(error, OSError | TimeoutError):
                raise SessionLost(f"the sandbox could not be started: {error!r}") from error
            raise
        return session

    @property
    def lost(self) -> str:
        """Why it is gone; empty while it lives."""
        return self._lost

    async def run(self, code: str, *, timeout_s: float, grace_s: float = INTERRUPT_GRACE_S) -> CellRun:
        """Run a cell. One out of time is interrupted; where that does not help within `grace_s`, all is lost.

        Raises `SessionLost` only for a session that was lost before; when the cell itself ends it, the
        cell's execution says how and `lost` why.
        """
        self._living()
        source = code.encode("utf-8", "replace")
        if len(source) > CODE_BYTES_MAX:
            said = f"The code is longer than {CODE_BYTES_MAX} bytes."
            return CellRun(Execution(Ending.BROKEN, "", said))
        reading = _Reading(self._child, self._limits)
        marker = f"\x00{secrets.token_hex(16)}\x00".encode()
        head = f"run {len(source)} {int(timeout_s * 1000)} {marker.decode()}\n".encode()
        try:
            async with asyncio.timeout(timeout_s + grace_s):
                code_of_end, notes = await reading.cell(head + source, marker)
        except TimeoutError:
            self._lose("it did not react when its time was over")
            return CellRun(reading.execution(Ending.TIMEOUT))
        except SessionLost as error:
            self._lose(str(error))
            return CellRun(reading.execution(Ending.FLOOD if reading.flooded else Ending.KILLED))
        except BaseException:
            self._lose("the call that used it was cancelled")
            raise
        return CellRun(reading.execution(_ENDINGS.get(code_of_end, Ending.EXCEPTION)), notes)

    async def put(self, name: str, data: bytes) -> str:
        """Write a file into the working directory; what went wrong, or empty."""
        if not is_file_name(name):
            return f"{name!r:.80} is not a plain file name"
        if len(data) > self._limits.file_bytes:
            return f"{name} has more than {self._limits.file_bytes >> 20} MiB"
        code, said = await self._ask(f"put {len(data)} {name}\n".encode() + data, NOTES_BYTES_MAX)
        return "" if code == cells.FINISHED else said.decode("utf-8", "replace")

    async def get(self, name: str, bytes_max: int) -> tuple[bytes, str]:
        """Up to `bytes_max` of a file, one more where there is more; or what went wrong."""
        if not is_file_name(name):
            return b"", f"{name!r:.80} is not a plain file name"
        code, data = await self._ask(f"get {bytes_max} {name}\n".encode(), bytes_max + NOTES_BYTES_MAX)
        return (data, "") if code == cells.FINISHED else (b"", data.decode("utf-8", "replace"))

    async def end(self) -> None:
        """Kill it and wait until it is gone; safe to call twice."""
        self._lost = self._lost or "it was ended"
        await self._child.end()

    async def _ask(self, request: bytes, bytes_max: int) -> tuple[int, bytes]:
        self._living()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _send(self._child, request)
                return await _answer(self._child.control, bytes_max)
        except (SessionLost, TimeoutError) as error:
            self._lose(str(error) or "it did not answer")
            raise SessionLost(self._lost) from error
        except BaseException:
            self._lose("the call that used it was cancelled")
            raise

    def _living(self) -> None:
        if not self._lost and self._child.status is not None:
            self._lose("its process ended")
        if self._lost:
            raise SessionLost(self._lost)

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._child.kill()


class _Reading:
    """What one cell writes, until the marker that ends it or the end of everything."""

    def __init__(self, child: Child, limits: SandboxLimits) -> None:
        self._child = child
        self._flood_bytes = limits.flood_bytes
        self._outputs = Output(limits.output_bytes), Output(limits.output_bytes)
        self.flooded = False

    async def cell(self, request: bytes, marker: bytes) -> tuple[int, str]:
        """How the cell ended, and its notes. Raises `SessionLost`."""
        stdout, stderr = self._outputs
        child = self._child
        await _send(child, request)
        marked = await asyncio.gather(
            stdout.fill_until(child.stdout, marker, self._count),
            stderr.fill_until(child.stderr, marker, self._count),
        )
        if self.flooded:
            raise SessionLost("it printed too much")
        if not all(marked):
            raise SessionLost(f"its process ended with status {await child.wait()}")
        code, notes = await _answer(child.control, NOTES_BYTES_MAX)
        return code, notes.decode("utf-8", "replace")

    def execution(self, ending: Ending) -> Execution:
        """What was read so far."""
        stdout, stderr = self._outputs
        return Execution(ending, stdout.text(), stderr.text(), self._child.status)

    def _count(self) -> None:
        if sum(output.total for output in self._outputs) > self._flood_bytes and not self.flooded:
            self.flooded = True
            self._child.kill()


async def _send(child: Child, request: bytes) -> None:
    try:
        child.stdin.write(request)
        await child.stdin.drain()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise SessionLost("its process ended") from error


async def _answer(control: asyncio.StreamReader, bytes_max: int) -> tuple[int, bytes]:
    """One answer. Raises `SessionLost` for anything that is none."""
    try:
        line = (await control.readline())[:_ANSWER_LINE_MAX]
        code, length = (int(word) for word in line.split())
        if not 0 <= length <= bytes_max:
            raise SessionLost("its answers cannot be trusted any more")
        return code, await control.readexactly(length)
    except (ValueError, asyncio.IncompleteReadError) as error:
        raise SessionLost("it stopped answering") from error
