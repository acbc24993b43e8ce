"""What a line of SGLang's log says about its start: how far it is, that it is ready, or why it failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "ready", "failed"]
Cause = Literal[
    "",
    "port_taken",
    "model_missing",
    "out_of_memory",
    "unknown_argument",
    "bad_argument",
    "not_installed",
    "crashed",
]


@dataclass(frozen=True, slots=True)
class Sign:
    """What one line means. Only the first `failed` of a start counts: what follows it is often untrue."""

    state: State
    detail: str
    """For people: what happens, or what to do about the failure."""
    loaded: float | None = None
    """Share of the weights that has been read, 0 to 1, where the line tells."""
    cause: Cause = ""
    """Why it failed, for machines."""


WEIGHTS = re.compile(
    r"loading (?:safetensors checkpoint |pt checkpoint )?shards:\s+(\d{1,3})% Completed", re.I
)
"""Progress bars share a line; the last figure in it is the newest."""
STAGES = (
    ("Init parallel begin", "joining the other ranks"),
    ("Init torch distributed begin", "joining the other ranks"),
    ("Load weight begin", "loading weights"),
    ("Load weight end", "weights loaded"),
    ("KV Cache is allocated", "KV cache allocated"),
    ("Capture cuda graph begin", "capturing CUDA graphs"),
    ("Uvicorn running on", "warming up"),
)
FAILURES: tuple[tuple[re.Pattern[str], Cause, str], ...] = (
    (re.compile(r"address already in use", re.I), "port_taken", "Its port is taken; choose another."),
    (
        re.compile(r"unrecognized arguments: (.+)"),
        "unknown_argument",
        "The engine has no such argument: {0}. Correct the profile's args.",
    ),
    (
        re.compile(r"error: argument (.+?): (?:invalid|expected)"),
        "bad_argument",
        "The value of {0} is not one that the engine takes. Correct the profile's args.",
    ),
    (
        re.compile(
            r"OutOfMemoryError|CUDA out of memory|Not enough memory|can(?:'t|not) allocate memory", re.I
        ),
        "out_of_memory",
        "Memory ran out: lower --mem-fraction-static or the context, or use more GPUs.",
    ),
    (
        re.compile(r"Repo id must be in the form|is not a local folder and is not a valid model identifier"),
        "model_missing",
        "The model is not where model_path says.",
    ),
    (
        re.compile(r"Error: .*does not appear to have a file named|Cannot find any model weights", re.I),
        "model_missing",
        "The model's directory is incomplete.",
    ),
    (
        re.compile(r"No module named '?sglang"),
        "not_installed",
        "SGLang is not installed in that environment.",
    ),
    (
        re.compile(r"Subprocess (\S+) .*crashed with exit code (-?\d+)"),
        "crashed",
        "{0} crashed with exit code {1}; the lines before it say why.",
    ),
    (re.compile(r"Scheduler hit an exception"), "crashed", "The scheduler crashed; the next lines say why."),
)
READY = "The server is fired up and ready to roll!"


def classify(line: str) -> Sign | None:
    """What a line of the log means for the start of the server; None for most lines.

    Sources: logs of SGLang 0.5.23 on the CPU; its source for CUDA's out-of-memory and graph capture.
    """
    for pattern, cause, mend in FAILURES:
        if found := pattern.search(line):
            return Sign("failed", mend.format(*(group.strip() for group in found.groups())), cause=cause)
    if READY in line:
        return Sign("ready", "ready")
    if shares := WEIGHTS.findall(line):
        share = min(int(shares[-1]), 100) / 100
        return Sign("starting", f"loading weights: {share:.0%}", loaded=share)
    for sign, detail in STAGES:
        if sign in line:
            return Sign("starting", detail)
    return None
