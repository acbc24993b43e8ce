"""The traceback of a failing line of arithmetic, word for word as Heavy's `python` tool hands it back."""

from __future__ import annotations

import linecache
import traceback
from typing import Any

FILENAME = "<code>"


def text(code: str) -> str:
    """What comes back for `code`, which must be arithmetic that raises: it is run here, with no names known.

    Raises `ValueError` where it does not fail.
    """
    names: dict[str, Any] = {"__builtins__": {"print": lambda *_: None}}
    try:
        exec(compile(code, FILENAME, "exec"), names)  # noqa: S102 - our own generator's line of arithmetic
    except Exception as error:
        linecache.cache[FILENAME] = (len(code), None, [code], FILENAME)
        report = traceback.TracebackException.from_exception(error)
        report.stack[:] = [frame for frame in report.stack if frame.filename == FILENAME]
        return "".join(report.format()).strip("\n")
    raise ValueError(f"{code!r} does not fail")
