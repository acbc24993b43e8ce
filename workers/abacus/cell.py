"""What a cell of arithmetic comes back with, word for word as Heavy's `python` tool words it.

Standard library alone, and run as a program by `interpreter.py`: cells as lines of JSON in, results out.
"""

from __future__ import annotations

import io
import json
import linecache
import sys
import traceback
from functools import partial

FILENAME = "<code>"


def told(code: str) -> str:
    """What `code`, which must be arithmetic, prints when it is run with no names known; or its traceback."""
    out = io.StringIO()
    try:
        exec(compile(code, FILENAME, "exec"), {"__builtins__": {"print": partial(print, file=out)}})  # noqa: S102
    except Exception as error:
        linecache.cache[FILENAME] = (len(code), None, [code], FILENAME)
        report = traceback.TracebackException.from_exception(error)
        report.stack[:] = [frame for frame in report.stack if frame.filename == FILENAME]
        return "".join(report.format()).strip("\n")
    return out.getvalue().strip("\n") or "(no output)"


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(told(json.loads(line))), flush=True)
