"""The `python` tool with a memory: one sandboxed interpreter per trajectory, its variables and its files."""

from __future__ import annotations

import codecs
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from heavy.core.clock import monotonic_s
from heavy.core.files import File, FileReader, is_file_name, listed, ref_of
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.tools.python import MACHINE_DEPENDENT, STDERR_CHARS_MAX, trouble
from heavy.tools.sandbox import jail
from heavy.tools.sandbox.sandbox import Ending
from heavy.tools.sandbox.session import CellRun, Session, SessionLost
from heavy.tools.sandbox.sessions import Cell, Notebook, Sessions, StateGone
from heavy.tools.text import clip, fence

REVISION: Final = 2
FILES_IN_MAX: Final = 16
FILES_OUT_MAX: Final = 8
OWN_CHARS_MAX: Final = 1_000
"""How much of the names of the operator's packages a model is told."""
_PICTURE: Final = re.compile(
    r"^'([^'/]+\.(?:png|svg|jpe?g|pdf))' \(\d+ bytes\)$", re.MULTILINE | re.IGNORECASE
)
"""What the caller gets without anybody asking, in the notes of what a cell left new or changed."""
_UTF_8: Final = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A file that came out: what the model is shown of it, and itself where the caller gets it."""

    shown: str
    file: File | None = None


class PythonSessionTool:
    """Runs `{"code": str}` in the trajectory's own interpreter, and gives back what it printed.

    The caller's files, read through `files`, stand in the working directory. Pictures that the code makes and
    files the model asks for go back to the caller, of up to `kept_bytes` each; of text the model is shown
    `attachment_bytes`.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        timeout_s: float,
        attachment_bytes: int,
        kept_bytes: int,
        files: FileReader | None = None,
    ) -> None:
        self._sessions = sessions
        self._attachment_bytes = attachment_bytes
        self._kept_bytes = kept_bytes
        self._files = files
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
                left_s = max(0.1, deadline_s - monotonic_s())
                session = await self._sessions.ready(book, history, left_s, lambda: self._given(context))
                wrong = [await session.put(name, text.encode()) for name, text in cell.files]
                run = await self._sessions.run(book, cell, max(0.1, deadline_s - monotonic_s()))
                taken = await self._taken(session, run, arguments.get("return_files", ()))
            except StateGone as error:
                return _gone(str(error))
            except SessionLost as error:
                return _gone(str(error))
            except TimeoutError:
                text = f"All interpreters were at work for {context.timeout_s:g} s; nothing was run."
                return ToolOutput(text, is_error=True, deterministic=False, storable=False)
            return self._output(run, [*filter(None, wrong)], taken, session, book, context.timeout_s)

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
        taken: Sequence[_Taken],
        session: Session,
        book: Notebook,
        timeout_s: float,
    ) -> ToolOutput:
        done = run.execution
        parts = [done.stdout, clip(done.stderr, STDERR_CHARS_MAX)]
        parts.append(trouble(done, self._sessions.limits, timeout_s))
        if run.files:
            parts.append(f"[files new or changed: {', '.join(run.files.splitlines())}]")
        parts += [f"[not written: {problem}]" for problem in wrong] + [one.shown for one in taken]
        files = tuple(one.file for one in taken if one.file is not None)
        if files:
            parts.append(f"[given to the user: {listed(tuple(map(ref_of, files)))}]")
        if session.lost:
            parts.append(f"The session is lost ({session.lost}): its variables and files are gone.")
        return ToolOutput(
            content="\n".join(part.strip("\n") for part in parts if part.strip()) or "(no output)",
            is_error=done.ending is not Ending.FINISHED or bool(wrong),
            deterministic=done.ending not in MACHINE_DEPENDENT and not session.lost,
            storable=book.pure and not session.lost and not files,
            files=files,
        )

    async def _given(self, context: ToolContext) -> list[File]:
        """The caller's files. Raises what reading them does."""
        if self._files is None:
            return []
        return [File(ref.name, await self._files.read(context.run, ref.digest)) for ref in context.files]

    async def _taken(self, session: Session, run: CellRun, wanted: Sequence[str]) -> list[_Taken]:
        """The files the model asks for, as text where they are text, and the pictures that are new."""
        if session.lost:
            return []
        wanted = list(dict.fromkeys(wanted[:FILES_OUT_MAX]))
        pictures = [name for name in _PICTURE.findall(run.files) if is_file_name(name) and name not in wanted]
        taken = [await self._take(session, name) for name in wanted]
        return taken + [
            replace(await self._take(session, name), shown="") for name in pictures[:FILES_OUT_MAX]
        ]

    async def _take(self, session: Session, name: str) -> _Taken:
        data, problem = await session.get(name, self._kept_bytes)
        if problem:
            return _Taken(f"[{name!r:.120} is not attached: {clip(problem, 200)}]")
        file = File(name, data) if len(data) <= self._kept_bytes else None
        head = data[: self._attachment_bytes]
        more = len(head) < len(data)
        label = f"{name}, the first {len(head)} bytes" if more else f"{name}, {len(head)} bytes"
        try:
            return _Taken(fence(label, _UTF_8().decode(head, final=not more)), file)
        except UnicodeDecodeError:
            return _Taken(f"[{name} is no text, so it is not shown]", file)


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
        "call starts a session with nothing but the user's files: define again what you need.",
        is_error=True,
        deterministic=False,
        storable=False,
    )


def _spec(sessions: Sessions, timeout_s: float, attachment_bytes: int) -> ToolSpec:
    limits, libraries = sessions.limits, sessions.libraries
    versions = [f"python-{platform.python_version()}", *(f"{n}-{v}" for n, v in libraries.items())]
    bounds = f"{limits.cpu_s}s-{limits.memory_bytes >> 20}M-{limits.output_bytes}B"
    installed = f" {', '.join(libraries)} are installed." if libraries else ""
    names = jail.importable(limits.packages)
    own = f" So are, from the operator: {clip(', '.join(names), OWN_CHARS_MAX)}." if names else ""
    return ToolSpec(
        name="python",
        description=(
            f"Run Python {platform.python_version()} code in a session that keeps its variables and files "
            "from call to call. Returns what the code prints, or else the value of its last expression, and "
            "names the files it wrote. Open matplotlib figures are saved as files, and pictures are given to "
            f"the user.{installed}{own} No network, no other processes, {limits.cpu_s} s CPU a call, "
            f"{limits.memory_bytes >> 20} MiB memory, {limits.tmp_bytes >> 20} MiB of files."
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
                    "description": "Names of files to give to the user; of text, up to "
                    f"{attachment_bytes >> 10} KiB of each are shown to you.",
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
