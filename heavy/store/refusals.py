"""What the store's parts raise when a script says no: worded once."""

from __future__ import annotations

from heavy.core.errors import LeaseLost, NotFound
from heavy.core.ids import RunId


def not_found(run: RunId) -> NotFound:
    """There is no such run."""
    return NotFound(f"There is no run {run}: it was never created, or its retention has ended.")


def lease_lost(run: RunId, epoch: int) -> LeaseLost:
    """Someone else owns the run, or nobody."""
    return LeaseLost(
        f"The lease of {run} (epoch {epoch}) has expired, moved on or been given up; stop writing."
    )
