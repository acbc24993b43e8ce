"""Where an agent writes and what may stop it: its only view of the run it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heavy.core.files import File, FileRef
from heavy.core.records import RecordBody
from heavy.replicas.api import TextDelta
from heavy.store.api import Amount


class Journal(Protocol):
    """One trajectory's hand on the run's log, its deltas and its budget."""

    async def record(self, step: int, body: RecordBody) -> None:
        """Append one record, durably. Raises `LeaseLost`, `StoreUnavailable`."""
        ...

    async def keep(self, files: Sequence[File]) -> tuple[FileRef, ...]:
        """Keep what a tool made for the caller; what there is no room for has no digest.

        Raises `StoreUnavailable`.
        """
        ...

    def delta(self, step: int, delta: TextDelta) -> None:
        """Show fresh text; never waits, may be lost."""
        ...

    async def reserve(self, request_id: str, amount: Amount) -> None:
        """Set aside what a generation may cost. Raises `BudgetExhausted`, `LeaseLost`."""
        ...

    async def settle(self, request_id: str, spent: Amount) -> None:
        """Return the reservation and book what was spent."""
        ...

    async def count_tool_calls(self, calls: int) -> None:
        """Count calls against the run's cap. Raises `BudgetExhausted`."""
        ...
