"""What the sandbox's interpreter runs first: give up privileges, set limits, run the code on stdin.

Read as text and handed to the interpreter; it runs alone, so it imports nothing of Heavy, and little of
anything else, because every import is paid for on each call (`json` and `ast` would double its time). It
says `READY` on stdout before it reads the code: whoever started it sends nothing to a sandbox that was
not complete yet.
"""

from __future__ import annotations

import _ast
import _ctypes
import io
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

READY = b"R"
EXCEPTION = 120
OUT_OF_MEMORY = 121
FILENAME = "<code>"
PR_SET_DUMPABLE = 4


class Stdout(io.TextIOWrapper):
    """Standard output that knows whether anything was written to it."""

    used = False

    def write(self, text: str, /) -> int:
        """Write, and remember it."""
        self.used = self.used or bool(text)
        return super().write(text)


def confine(limits: dict[str, int]) -> None:
    """Drop what bwrap left open, be first in line when the host runs out of memory, be nobody, be bounded."""
    control = limits.get("control", 2)
    os.closerange(3, control)
    os.closerange(control + 1, 1 << 30)
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(limits["uid"], limits["uid"], limits["uid"])
        os.setresuid(limits["uid"], limits["uid"], limits["uid"])
    close_own_files()
    cpu_s = limits["cpu_s"]
    hard_s = limits["session_cpu_s"] if "control" in limits else cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, hard_s + 1))
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["threads"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def close_own_files() -> None:
    """Take from the code what /proc/self lets an owner write, such as its place in the line above.

    What is not dumpable belongs to root there, and the filter keeps the code from changing that back. Called
    through `_ctypes` because importing `ctypes` would double what a call takes to start.
    """
    libc = _ctypes.dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]
    if _ctypes.call_function(_ctypes.dlsym(libc, "prctl"), (PR_SET_DUMPABLE, 0)) != 0:
        raise OSError("the process cannot be made undumpable")


def run(source: str, name: str, stdout: Stdout, main: ModuleType) -> None:
    """Execute in `main`; show the value of a last expression when nothing was printed, as a prompt would."""
    tree: Any = compile(source, name, "exec", _ast.PyCF_ONLY_AST)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    exec(compile(tree, name, "exec"), main.__dict__)  # noqa: S102 - what the sandbox is for
    if last is None:
        return
    value = eval(compile(_ast.Expression(last.value), name, "eval"), main.__dict__)  # noqa: S307
    if value is not None and not stdout.used:
        stdout.write(f"{value!r}\n")


def explain(error: BaseException, sources: dict[str, str]) -> None:
    """Write the traceback, with the frames of the code alone: that of `sources`, by file name."""
    import linecache
    import traceback

    for name, text in sources.items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)

    report = traceback.TracebackException.from_exception(error, limit=-200)
    waiting: list[traceback.TracebackException | None] = [report]
    while waiting:
        part = waiting.pop()
        if part is not None:
            part.stack[:] = [frame for frame in part.stack if frame.filename in sources]
            waiting += [part.__cause__, part.__context__, *(part.exceptions or ())]
    sys.__stderr__.write("".join(report.format()))  # type: ignore[union-attr]


def prepare() -> dict[str, int]:
    """Confine, and find the libraries. The limits, by name."""
    limits = {name: int(value) for name, value in (pair.split("=") for pair in sys.argv[1:])}
    confine(limits)
    sys.argv[:] = [""]
    sys.path.append("/python/site")
    sys.path += [f"/python/own-{number}" for number in range(limits["packages"])]
    return limits


def main() -> int:
    """Run one program; the exit status: 0, the code's own, or one of the two above."""
    prepare()
    os.write(1, READY)
    source = sys.stdin.buffer.read().decode("utf-8", "replace")
    stdout = Stdout(sys.stdout.buffer, encoding="utf-8", errors="backslashreplace")
    sys.stdout = stdout
    module = sys.modules["__main__"] = type(sys)("__main__")
    try:
        run(source, FILENAME, stdout, module)
    except SystemExit:
        raise
    except MemoryError as error:
        error.__traceback__ = None  # its frames hold what filled the memory
        os.write(2, b"MemoryError\n")
        return OUT_OF_MEMORY
    except BaseException as error:
        explain(error, {FILENAME: source})
        return EXCEPTION
    return 0
