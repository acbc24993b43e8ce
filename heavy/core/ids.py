"""Identifiers. Every id is opaque to callers; only this module knows how one is made.

Engines match aborts by prefix (SGLang's scheduler does), so no request id may be a prefix of another:
`request_id` therefore has a fixed width.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Final, NewType

RunId = NewType("RunId", str)
TrajectoryId = NewType("TrajectoryId", str)

ARMS_MAX: Final = 8
AGGREGATOR: Final = TrajectoryId("aggregator")
RUN_LEVEL: Final = TrajectoryId("")
"""The trajectory of a record that belongs to the run as a whole."""

_RUN_ID = re.compile(r"^run-[0-9a-f]{24}$")
_RUN_ID_START = re.compile(r"^run-[0-9a-f]{0,24}$")
_MS_DIGITS: Final = 12


def new_run_id() -> RunId:
    """A fresh run id: 48 bits of milliseconds (so ids sort by time) and 48 random bits, in hex."""
    return RunId(f"run-{time.time_ns() // 1_000_000 & (1 << 48) - 1:012x}{secrets.token_hex(6)}")


def is_run_id(text: str) -> bool:
    """Whether `text` has the shape of a run id; anything else never reaches a store key."""
    return _RUN_ID.match(text) is not None


def is_run_id_start(text: str) -> bool:
    """Whether a run id may begin with `text`, which is at least its `run-`."""
    return _RUN_ID_START.match(text) is not None


def made_between_ms(start: str) -> tuple[int, int]:
    """The earliest and the latest wall-clock millisecond at which an id that begins with `start` was made."""
    digits = start.removeprefix("run-")[:_MS_DIGITS]
    return int(digits.ljust(_MS_DIGITS, "0"), 16), int(digits.ljust(_MS_DIGITS, "f"), 16)


def arm(index: int) -> TrajectoryId:
    """The trajectory id of the arm with `index` 0..7."""
    if not 0 <= index < ARMS_MAX:
        raise ValueError(f"arm index {index} is outside 0..{ARMS_MAX - 1}")
    return TrajectoryId(f"arm-{index}")


def arm_index(trajectory: TrajectoryId) -> int | None:
    """The index of an arm, or None for the aggregator and for run-level records."""
    return int(trajectory[4:]) if trajectory.startswith("arm-") else None


def request_id(run: RunId, trajectory: TrajectoryId, step: int, attempt: int) -> str:
    """The engine-side id of one generation: fixed width, so that aborting one never ends another."""
    ordinal = arm_index(trajectory)
    slot = ARMS_MAX if ordinal is None else ordinal
    return f"{run.removeprefix('run-')}-{slot:01x}-{step:06x}-{attempt:02x}"


def run_of(request_id: str) -> RunId:
    """The run that a generation belongs to, from an id that `request_id` made."""
    return RunId(f"run-{request_id.partition('-')[0]}")


def trajectory_of(request_id: str) -> str:
    """What the ids of one trajectory's generations have in common; of any other text, all of it."""
    return _STEP.sub("", request_id)


_STEP = re.compile(r"-[0-9a-f]{6}-[0-9a-f]{2}$")
_ATTEMPT = re.compile(r"-[0-9a-f]{2}$")


def with_attempt(request_id: str, attempt: int) -> str:
    """The same generation's id under another attempt number, 0..255. Any other text gets it appended."""
    if not 0 <= attempt <= 0xFF:
        raise ValueError(f"attempt {attempt} is outside 0..255")
    return f"{_ATTEMPT.sub('', request_id)}-{attempt:02x}"


def attempt_of(request_id: str) -> int:
    """The attempt number in an id that `request_id` made; 0 in any other text."""
    return int(request_id[-2:], 16) if _ATTEMPT.search(request_id) else 0


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 31-bit seed that depends on `seed` and every part: arms differ, reruns agree."""
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") & 0x7FFFFFFF
