"""A trajectory's hand on the run store: implements `heavy.agent.journal.Journal`."""

from __future__ import annotations

from collections.abc import Sequence

from heavy.core import clock
from heavy.core.files import File, FileRef
from heavy.core.records import CHECKPOINT, Entry, PartialGenerationRecord, RecordBody
from heavy.core.runs import TrajectoryRole, TrajectorySpec
from heavy.replicas.api import TextDelta
from heavy.runner.deltas import Deltas
from heavy.store.api import Amount, Store


class StoreJournal:
    """Appends under the trajectory's lease epoch; reserves and counts against its run's budget."""

    def __init__(self, store: Store, spec: TrajectorySpec, deltas: Deltas) -> None:
        self._store = store
        self._spec = spec
        self._deltas = deltas

    async def record(self, step: int, body: RecordBody) -> None:
        """Append one record, durably. Raises `LeaseLost`, `StoreUnavailable`."""
        spec = self._spec
        if isinstance(body, PartialGenerationRecord) and body.reason != CHECKPOINT:
            self._deltas.forget(spec.run, spec.trajectory, step)
        entry = Entry(trajectory=spec.trajectory, step=step, body=body, at_ms=clock.now_ms())
        await self._store.log.append(spec.run, epoch=spec.epoch, entries=[entry])

    async def keep(self, files: Sequence[File]) -> tuple[FileRef, ...]:
        """Keep what a tool made for the caller. Raises `StoreUnavailable`."""
        return await self._store.files.keep(self._spec.run, files)

    def delta(self, step: int, delta: TextDelta) -> None:
        """Show fresh text; never waits, may be lost."""
        self._deltas.add(self._spec.run, self._spec.trajectory, step, delta.reasoning, delta.content)

    async def reserve(self, request_id: str, amount: Amount) -> None:
        """Set aside what a generation may cost. Raises `BudgetExhausted`, `LeaseLost`."""
        await self._store.budgets.reserve(
            self._spec.run,
            epoch=self._spec.epoch,
            request_id=request_id,
            amount=amount,
            aggregation=self._spec.role is TrajectoryRole.AGGREGATOR,
        )

    async def settle(self, request_id: str, spent: Amount) -> None:
        """Return the reservation and book what was spent."""
        await self._store.budgets.settle(self._spec.run, request_id=request_id, spent=spent)

    async def count_tool_calls(self, calls: int) -> None:
        """Count calls against the run's cap. Raises `BudgetExhausted`."""
        await self._store.budgets.count_tool_calls(self._spec.run, calls=calls)
