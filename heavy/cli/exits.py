"""Exit codes, and how an error becomes one."""

from __future__ import annotations

from heavy.core.errors import (
    ConfigError,
    Forbidden,
    HeavyError,
    InvalidDataset,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerUnavailable,
    StoreUnavailable,
    Unauthenticated,
)
from heavy.core.runs import RunState

ANSWERED = 0
FAILED = 1
"""The run ended without an answer."""
USAGE = 2
"""A wrong flag, or a request the server called invalid."""
UNAVAILABLE = 3
"""No server, or one without its store."""
REFUSED = 4
"""The server is full, or the token is wrong: its message says when or how to try again."""
BUDGET = 5
"""The budget of a batch was reached before every question was asked."""
CONFIG = 78
"""A setting or a profile that cannot work (EX_CONFIG)."""
INTERRUPTED = 130
"""Ctrl-C; what had been spent was said."""

_BY_ERROR: tuple[tuple[type[HeavyError], int], ...] = (
    (InvalidRequest, USAGE),
    (InvalidDataset, USAGE),
    (ConfigError, CONFIG),
    (Overloaded, REFUSED),
    (Unauthenticated, REFUSED),
    (Forbidden, REFUSED),
    (StoreUnavailable, UNAVAILABLE),
    (ServerUnavailable, UNAVAILABLE),
)


_HINTS: tuple[tuple[type[HeavyError], str], ...] = (
    (
        ServerUnavailable,
        "`heavy up` serves on this machine; --server or HEAVY_SERVER says where another one is.",
    ),
    (StoreUnavailable, "`heavy doctor`, where the server runs, says whether its store answers."),
    (
        Unauthenticated,
        "--token or HEAVY_TOKEN gives a token; the server's HEAVY_TOKENS_FILE lists those it knows.",
    ),
    (NotFound, "`heavy runs`, `heavy replicas` and `heavy profiles` list what is there."),
)


def hint_of(error: HeavyError) -> str:
    """What a person at a terminal may do about an error.

    Empty where its message says all there is, as errors do that carry the detail `complete`.
    """
    if error.details.get("complete"):
        return ""
    return next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")


def of_error(error: HeavyError) -> int:
    """The exit code of an error that ended a command."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), FAILED)


def of_run(state: RunState, *, interrupted: bool) -> int:
    """The exit code of a run that was followed to its end."""
    if interrupted:
        return INTERRUPTED
    return ANSWERED if state is RunState.COMPLETED else FAILED
