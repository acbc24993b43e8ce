"""The `python` tool with a memory: one sandboxed interpreter per trajectory, its variables and its files."""

from __future__ import annotations

import base64
import codecs
import platform
from collections.abc import Mapping
from typing import Any, Final

from heavy.core.clock import monotonic_s
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.tools.python import MACHINE_DEPENDENT, STDERR_CHARS_MAX, trouble
from heavy.tools.sandbox.sandbox import Ending
from heavy.tools.sandbox.session import CellRun, Session, SessionLost, is_file_name
from heavy.tools.sandbox.sessions import Cell, Notebook, Sessions, StateGone
from heavy.tools.text import clip, fence

REVISION: Final = 1
FILES_IN_MAX: Final = 16
FILES_OUT_MAX: Final = 8


class PythonSessionTool:
    """Runs `{"code": str}` in the trajectory's own interpreter, and gives back what it printed."""

    def __init__(self, sessions: Sessions, *, timeout_s: float, attachment_bytes: int) -> None:
        self._sessions = sessions
        self._attachment_bytes = attachment_bytes
        self._spec = _spec(sessions, timeout_s, attachment_bytes)

    @property
    def spec(self) -> ToolSpec:
        """What it declares: stateful, so that only a key that holds every call before may cache it."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Run the cell. A state that is gone, exceptions, time-outs and kills are error outputs."""
        deadline_s = monotonic_s() + context.timeout_s
        cell = cell_of(arguments)
        history = None if context.history is None else [cell_of(one) for one in context.history]
        async with self._sessions.notebook((context.run, context.trajectory)) as book:
            try:
                session = await self._sessions.ready(book, history, max(0.1, deadline_s - monotonic_s()))
                wrong = [await session.put(name, text.encode()) for name, text in cell.files]
                run = await self._sessions.run(book, cell, max(0.1, deadline_s - monotonic_s()))
                wanted = arguments.get("return_files", ())[:FILES_OUT_MAX]
                files = [await self._attachment(session, name) for name in wanted] if not session.lost else []
            except StateGone as error:
                return _gone(str(error))
            except SessionLost as error:
                return _gone(str(error))
            except TimeoutError:
                text = f"All interpreters were at work for {context.timeout_s:g} s; nothing was run."
                return ToolOutput(text, is_error=True, deterministic=False, storable=False)
            return self._output(run, [*filter(None, wrong)], files, session, book, context.timeout_s)

    async def end(self, run: RunId, trajectory: TrajectoryId) -> None:
        """Forget a trajectory that is over."""
        await self._sessions.end((run, trajectory))

    async def close(self) -> None:
        """End every interpreter; safe to call twice."""
        await self._sessions.close()

    def _output(
        self,
        run: CellRun,
        wrong: list[str],
        attached: list[str],
        session: Session,
        book: Notebook,
        timeout_s: float,
    ) -> ToolOutput:
        done = run.execution
        parts = [done.stdout, clip(done.stderr, STDERR_CHARS_MAX)]
        parts.append(trouble(done, self._sessions.limits, timeout_s))
        if run.files:
            parts.append(f"[files new or changed: {', '.join(run.files.splitlines())}]")
        parts += [f"[not written: {problem}]" for problem in wrong] + attached
        if session.lost:
            parts.append(f"The session is lost ({session.lost}): its variables and files are gone.")
        return ToolOutput(
            content="\n".join(part.strip("\n") for part in parts if part.strip()) or "(no output)",
            is_error=done.ending is not Ending.FINISHED or bool(wrong),
            deterministic=done.ending not in MACHINE_DEPENDENT and not session.lost,
            storable=book.pure and not session.lost,
        )

    async def _attachment(self, session: Session, name: str) -> str:
        """A file's content, as text where it is text."""
        data, problem = await session.get(name, self._attachment_bytes)
        if problem:
            return f"[{name!r:.120} is not attached: {clip(problem, 200)}]"
        more = len(data) > self._attachment_bytes
        data = data[: self._attachment_bytes]
        label = f"{name}, the first {len(data)} bytes" if more else f"{name}, {len(data)} bytes"
        try:
            return fence(label, codecs.getincrementaldecoder("utf-8")().decode(data, final=not more))
        except UnicodeDecodeError:
            return fence(f"{label}, base64", base64.b64encode(data).decode())


def cell_of(arguments: Mapping[str, Any]) -> Cell:
    """A call's arguments as a cell; of a call that did not satisfy the schema, whatever can be read."""
    files = arguments.get("files") or {}
    return Cell(
        code=str(arguments.get("code", "")),
        files=tuple((name, str(text)) for name, text in files.items() if is_file_name(name)),
        pure=arguments.get("pure") is True,
    )


def _gone(why: str) -> ToolOutput:
    return ToolOutput(
        f"The python session is gone ({why}), with its variables and files; this code was not run. The next "
        "call starts an empty session: define again what you need.",
        is_error=True,
        deterministic=False,
        storable=False,
    )


def _spec(sessions: Sessions, timeout_s: float, attachment_bytes: int) -> ToolSpec:
    limits, libraries = sessions.limits, sessions.libraries
    versions = [f"python-{platform.python_version()}", *(f"{n}-{v}" for n, v in libraries.items())]
    bounds = f"{limits.cpu_s}s-{limits.memory_bytes >> 20}M-{limits.output_bytes}B"
    installed = f" {', '.join(libraries)} are installed." if libraries else ""
    own = f" So is what the operator added ({len(limits.packages)} directories)." if limits.packages else ""
    return ToolSpec(
        name="python",
        description=(
            f"Run Python {platform.python_version()} code in a session that keeps its variables and files "
            "from call to call. Returns what the code prints, or else the value of its last expression, and "
            f"names the files it wrote. Open matplotlib figures are saved as files.{installed}{own} No "
            f"network, no other processes, {limits.cpu_s} s CPU a call, {limits.memory_bytes >> 20} MiB "
            f"memory, {limits.tmp_bytes >> 20} MiB of files."
        ),
        parameters={
            "type": "object",
            "properties": {
                "code": {"type": "string", "description": "The Python source to run."},
                "files": {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "maxProperties": FILES_IN_MAX,
                    "description": "Text files to write before the code runs: their content by name.",
                },
                "return_files": {
                    "type": "array",
                    "items": {"type": "string"},
                    "maxItems": FILES_OUT_MAX,
                    "description": f"Names of files to show, up to {attachment_bytes >> 10} KiB of each.",
                },
                "pure": {
                    "type": "boolean",
                    "description": "True when running this code again would do the same (no randomness, no "
                    "clock): a lost session is rebuilt only from such code.",
                },
            },
            "required": ["code"],
            "additionalProperties": False,
        },
        version="+".join(["session", str(REVISION), *versions, bounds, *limits.packages]),
        effects=Effects.PURE,
        cacheable=True,
        timeout_s=timeout_s,
        stateful=True,
    )
