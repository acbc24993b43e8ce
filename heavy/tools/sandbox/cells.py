"""What a session's interpreter runs: cells and files, one request after the other, until its stdin ends.

Read as text behind `bootstrap` and handed to the interpreter. Requests come on stdin as a line and as many
bytes as it says; answers go to a pipe of their own in the same form. After each cell a marker that the
request named is written to stdout and stderr, so that whoever reads them knows that all has come.

Nothing here keeps the code from forging answers: they concern its own session alone, and whoever reads them
bounds them.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import sys
import time
from types import ModuleType
from typing import Any

from heavy.tools.sandbox.bootstrap import READY, Stdout, explain, prepare, run

WORKING_DIRECTORY = "/tmp/work"
FINISHED = 0
FAILED = 1
CELL_OUT_OF_MEMORY = 2
CELL_CPU = 3
CELL_TIMEOUT = 4

FILES_SHOWN_MAX = 50
FIGURES_MAX = 8
SOURCES_MAX = 100
"""Cells whose lines a traceback can show."""
FIGURE_NOTE_CHARS_MAX = 700
PARTS_MAX = 6
"""Axes of a figure, and lines of one axes, that are described."""


class Interrupted(BaseException):
    """Raised inside the code when its time is up; the session goes on."""


class Session:
    """One interpreter's variables and files, and the pipe to whoever asks."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.cpu_s = limits["cpu_s"]
        self.control = limits["control"]
        self.requests = os.fdopen(os.dup(0), "rb")
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)  # the code's input() must not eat requests
        os.close(nothing)
        self.stdout = Stdout(sys.stdout.buffer, encoding="utf-8", errors="backslashreplace")
        self.stderr = sys.stderr
        self.main = ModuleType("__main__")
        self.sources: dict[str, str] = {}
        self.cells = 0
        self.figures = 0
        self.seen: dict[str, tuple[int, int]] = {}

    def serve(self) -> None:
        """Answer requests until there are no more."""
        while line := self.requests.readline():
            kind, length, *rest = line.decode("ascii").split()
            if kind == "run":
                body = self.requests.read(int(length))
                code = self.run(body.decode("utf-8", "replace"), int(rest[0]) / 1000)
                self.flush(rest[1].encode())
                self.answer(code, self.notes())
            elif kind == "put":
                self.answer(*attempt(put, rest[0], self.requests.read(int(length))))
            else:
                self.answer(*attempt(get, rest[0], int(length)))

    def run(self, source: str, timeout_s: float) -> int:
        """Run a cell with the variables of those before it; how it ended."""
        self.cells += 1
        name = f"<cell {self.cells}>"
        self.sources[name] = source
        self.sources.pop(f"<cell {self.cells - SOURCES_MAX}>", None)
        sys.stdout, sys.stderr = self.stdout, self.stderr
        sys.modules["__main__"] = self.main
        self.stdout.used = False
        try:
            self.limit(timeout_s)
            try:
                run(source, name, self.stdout, self.main)
                self.save_figures()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted as stop:
            return int(stop.args[0])
        except MemoryError as error:
            error.__traceback__ = None  # its frames hold what filled the memory
            return CELL_OUT_OF_MEMORY
        except BaseException as error:
            explain(error, self.sources)
            return FAILED
        return FINISHED

    def limit(self, timeout_s: float) -> None:
        """Interrupt the code, again and again, once its seconds are over, by the clock or of the CPU."""
        signal.signal(signal.SIGALRM, interrupt)
        signal.signal(signal.SIGXCPU, interrupt)
        _, hard_s = resource.getrlimit(resource.RLIMIT_CPU)
        soft_s = min(math.ceil(time.process_time()) + self.cpu_s, hard_s)
        resource.setrlimit(resource.RLIMIT_CPU, (soft_s, hard_s))
        signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 0.001), 1.0)

    def flush(self, marker: bytes) -> None:
        """Everything the cell wrote, then the marker, on both streams."""
        for stream, descriptor in ((self.stdout, 1), (self.stderr, 2)):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # the code may have closed it
                stream.flush()
            write_all(descriptor, marker)

    def notes(self) -> bytes:
        """Files that are new or changed, one a line: name, size."""
        now: dict[str, tuple[int, int]] = {}
        for folder, _, names in os.walk(WORKING_DIRECTORY):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                now[os.path.relpath(path, WORKING_DIRECTORY)] = (status.st_size, status.st_mtime_ns)
        fresh = [name for name in sorted(now) if self.seen.get(name) != now[name]]
        self.seen = now
        lines = [f"{name!r} ({now[name][0]} bytes)" for name in fresh[:FILES_SHOWN_MAX]]
        if len(fresh) > FILES_SHOWN_MAX:
            lines.append(f"and {len(fresh) - FILES_SHOWN_MAX} more")
        return "\n".join(lines).encode("utf-8", "backslashreplace")

    def save_figures(self) -> None:
        """Plots that are open become files; what they show is said, for a reader who sees no pictures."""
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        for number in pyplot.get_fignums()[:FIGURES_MAX] if pyplot is not None else ():
            figure = pyplot.figure(number)
            self.figures += 1
            name = f"figure-{self.figures}.png"
            figure.savefig(name)
            width, height = (int(side) for side in figure.get_size_inches() * figure.dpi)
            note = f"[{name}: {width} x {height} pixels; " + "; ".join(describe(figure))
            pyplot.close(figure)
            self.stdout.write(note[:FIGURE_NOTE_CHARS_MAX] + "]\n")

    def answer(self, code: int, body: bytes) -> None:
        """Send an answer: how it went, and its bytes."""
        write_all(self.control, f"{code} {len(body)}\n".encode() + body)


def interrupt(number: int, _: object) -> None:
    """The handler of both signals."""
    raise Interrupted(CELL_CPU if number == signal.SIGXCPU else CELL_TIMEOUT)


def describe(figure: Any) -> list[str]:
    """What a figure's axes show, in words."""
    found = []
    for axes in figure.axes[:PARTS_MAX]:
        parts = [f"title {axes.get_title()!r}"] if axes.get_title() else []
        parts += [f"x {axes.get_xlabel()!r}"] if axes.get_xlabel() else []
        parts += [f"y {axes.get_ylabel()!r}"] if axes.get_ylabel() else []
        for line in axes.get_lines()[:PARTS_MAX]:
            parts.append(f"line {line.get_label()!r} of {len(line.get_xdata())} points")
        others = len(axes.collections) + len(axes.patches) + len(axes.images)
        parts += [f"{others} other shapes"] if others else []
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        found.append(", ".join([*parts, f"x from {left:.4g} to {right:.4g}, y from {low:.4g} to {high:.4g}"]))
    return found or ["empty"]


def attempt(what: Any, *arguments: Any) -> tuple[int, bytes]:
    """An answer, whatever happens."""
    try:
        return FINISHED, what(*arguments)
    except (OSError, MemoryError) as error:
        return FAILED, str(error).encode("utf-8", "backslashreplace")


def put(name: str, data: bytes) -> bytes:
    """Write a file."""
    with open(os.path.join(WORKING_DIRECTORY, name), "wb") as file:
        file.write(data)
    return b""


def get(name: str, bytes_max: int) -> bytes:
    """Read a file; one byte more than asked for tells that there is more."""
    with open(os.path.join(WORKING_DIRECTORY, name), "rb") as file:
        return file.read(bytes_max + 1)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a reader that is gone ends the session."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def serve() -> None:
    """Confine, say so, and answer."""
    limits = prepare()
    os.mkdir(WORKING_DIRECTORY)
    os.chdir(WORKING_DIRECTORY)
    session = Session(limits)
    os.write(1, READY)
    session.serve()
