"""What the sandbox's interpreter runs first: give up privileges, set limits, run the code on stdin.

Read as text and handed to the interpreter; it runs alone, so it imports nothing of Heavy, and little of
anything else, because every import is paid for on each call (`json` and `ast` would double its time). It
says `READY` on stdout before it reads the code: whoever started it sends nothing to a sandbox that was
not complete yet.
"""

import _ast
import io
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READY = b"R"
EXCEPTION = 120
OUT_OF_MEMORY = 121
FILENAME = "<code>"


class Stdout(io.TextIOWrapper):
    """Standard output that knows whether anything was written to it."""

    used = False

    def write(self, text: str, /) -> int:
        """Write, and remember it."""
        self.used = self.used or bool(text)
        return super().write(text)


def confine(limits: dict[str, int]) -> None:
    """Drop what bwrap left open, be first in line when the host runs out of memory, be nobody, be bounded."""
    os.closerange(3, 1 << 30)
    with open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(limits["uid"], limits["uid"], limits["uid"])
        os.setresuid(limits["uid"], limits["uid"], limits["uid"])
    cpu_s = limits["cpu_s"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
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


def run(source: str, stdout: Stdout) -> None:
    """Execute; show the value of a last expression when nothing else was printed, as a prompt would."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    tree: Any = compile(source, FILENAME, "exec", _ast.PyCF_ONLY_AST)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    exec(compile(tree, FILENAME, "exec"), main.__dict__)  # noqa: S102 - what the sandbox is for
    if last is None:
        return
    value = eval(compile(_ast.Expression(last.value), FILENAME, "eval"), main.__dict__)  # noqa: S307
    if value is not None and not stdout.used:
        stdout.write(f"{value!r}\n")


def explain(error: BaseException, source: str) -> None:
    """Write the traceback, with the frames of the code alone."""
    import linecache
    import traceback

    linecache.cache[FILENAME] = (len(source), None, source.splitlines(keepends=True), FILENAME)
    report = traceback.TracebackException.from_exception(error, limit=-200)
    waiting: list[traceback.TracebackException | None] = [report]
    while waiting:
        part = waiting.pop()
        if part is not None:
            part.stack[:] = [frame for frame in part.stack if frame.filename == FILENAME]
            waiting += [part.__cause__, part.__context__, *(part.exceptions or ())]
    sys.__stderr__.write("".join(report.format()))  # type: ignore[union-attr]


def main() -> int:
    """The exit status: 0, the code's own, or one of the two above."""
    confine({name: int(value) for name, value in (pair.split("=") for pair in sys.argv[1:])})
    os.write(1, READY)
    source = sys.stdin.buffer.read().decode("utf-8", "replace")
    sys.argv[:] = [""]
    sys.path.append("/python/site")
    stdout = Stdout(sys.stdout.buffer, encoding="utf-8", errors="backslashreplace")
    sys.stdout = stdout
    try:
        run(source, stdout)
    except SystemExit:
        raise
    except MemoryError as error:
        error.__traceback__ = None  # its frames hold what filled the memory
        os.write(2, b"MemoryError\n")
        return OUT_OF_MEMORY
    except BaseException as error:
        explain(error, source)
        return EXCEPTION
    return 0


if __name__ == "__main__":
    sys.exit(main())
