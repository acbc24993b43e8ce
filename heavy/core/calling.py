"""Calls of tools that the caller executes: from a trajectory to whoever asked, and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from heavy.core.ids import TrajectoryId
from heavy.core.tools import Effects


@dataclass(frozen=True, slots=True)
class CallerCall:
    """One call on its way to the caller. `id` is unique within the run; `arguments` are JSON text that
    satisfies the tool's schema; whatever receives it twice acts once by `id`.
    """

    id: str
    trajectory: TrajectoryId
    step: int
    name: str
    arguments: str
    effects: Effects
    deadline_ms: int
    """Wall time until which the trajectory waits for the result."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A call that nobody waits for any more: it was cut, or its time is over."""

    id: str


@dataclass(frozen=True, slots=True)
class CallerResult:
    """What the caller says a call gave. `unknown`: it cannot say whether a write took effect."""

    id: str
    content: str
    is_error: bool = False
    unknown: bool = False


class Receipt(StrEnum):
    """What became of a result that the caller sent."""

    TAKEN = "taken"
    DUPLICATE = "duplicate"
    """The call has a result already."""
    OVER = "over"
    """Nobody waits for it any more."""
    NO_SUCH_CALL = "no_such_call"
    TOO_LARGE = "too_large"
    """The model was told so instead."""
