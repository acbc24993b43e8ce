"""What a tool declares and what a call gives back. Tool failures are values, never exceptions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from heavy.core.files import File, FileRef
from heavy.core.ids import RunId, TrajectoryId


class Effects(StrEnum):
    """What a call does to the world: nothing, reads it, or changes it."""

    PURE = "pure"
    READ = "read"
    WRITE = "write"


class CacheState(StrEnum):
    """How a result was come by: cached, from another's call in flight, executed and stored, or uncached.

    `STALE` is a result past its time, given because the tool failed and the operator allows it.
    """

    HIT = "hit"
    COALESCED = "coalesced"
    MISS = "miss"
    BYPASS = "bypass"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model and the cache see it. `parameters` is a JSON schema of an object.

    `stateful`: a result depends on the calls of this tool before it in the same trajectory. `untrusted`: what
    it says was written by others, and is shown to the model as their data.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    version: str
    effects: Effects
    cacheable: bool
    timeout_s: float = 30.0
    stateful: bool = False
    untrusted: bool = False


@dataclass(frozen=True, slots=True)
class ToolContext:
    """For whom a call is made. `timeout_s` bounds it and is never more than the run has left.

    `history`: for a stateful tool, the arguments of this trajectory's earlier calls of it, oldest first,
    whoever answered them (a cache, another runner). A tool whose state is behind it catches up where it
    safely can, or says that the state is gone. None: nobody kept one; the tool goes by what it saw.
    """

    run: RunId
    trajectory: TrajectoryId
    step: int
    tenant: str
    call_id: str
    timeout_s: float
    history: tuple[Mapping[str, Any], ...] | None = None
    files: tuple[FileRef, ...] = ()
    """The caller's files. What a stateful tool says may depend on them."""

    @property
    def idempotency_key(self) -> str:
        """One text for this call and no other, the same however often it is delivered: 32 hex digits.

        A tool that changes the world passes it on, so that what receives a call twice acts once.
        """
        text = f"{self.run}/{self.trajectory}/{self.step}/{self.call_id}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The value of a call. `is_error` marks a failure that the model should see and act on."""

    content: str
    is_error: bool = False
    cache: CacheState = CacheState.BYPASS
    duration_s: float = 0.0
    deterministic: bool = True
    """Whether an error would come again (bad arguments) or might pass (time-out)."""
    unknown: bool = False
    """Whether it is open if the call took effect: a write was begun and its end was not seen."""
    storable: bool = True
    """Whether this one result may be cached, where the tool's results may be at all."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """`source`: where untrusted text comes from; `repair`: what was mended in the arguments."""
    files: tuple[File, ...] = ()
    """What the call made for the caller, kept with the run. A result that has any is not storable."""


def fate_unknown(tool: str, why: str) -> ToolOutput:
    """The value of a write whose end was not seen: what the model and the caller must know of it."""
    text = (
        f"{tool}: it is UNKNOWN whether this call took effect: {why}. It is not repeated. "
        "Find out whether it did before you call it again."
    )
    return ToolOutput(text, is_error=True, deterministic=False, unknown=True, storable=False)
