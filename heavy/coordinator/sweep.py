"""Ending runs whose coordinator died: nobody else would, and a run always ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from heavy.coordinator.earlier import taken_over
from heavy.coordinator.left_open import left_open, told
from heavy.coordinator.tally import ledger_of, outcomes_of
from heavy.core import clock
from heavy.core.errors import LeaseLost
from heavy.core.ids import RUN_LEVEL
from heavy.core.records import Entry, Event, LifecycleRecord
from heavy.core.runs import Run, RunFailure, RunState
from heavy.store.api import Ending, Store

ORPHANS_PER_SWEEP = 16
MESSAGE = "The coordinator that owned the run is gone; what the run had done is in its log. Ask again."


async def end_orphans(store: Store, owner: str, lease_s: float) -> AsyncGenerator[Run]:
    """Take over and end runs without an owner, a bounded number at a time; those that were ended."""
    for run in await store.leases.expired(ORPHANS_PER_SWEEP):
        try:
            epoch = await store.leases.take(run.spec.run, owner=owner, lease_s=lease_s)
        except LeaseLost:
            continue
        if await _end(store, run, epoch):
            yield await store.log.get(run.spec.run)


async def _end(store: Store, run: Run, epoch: int) -> bool:
    """Whether it was not ended already."""
    left = await left_open(store.log, run.spec.run)
    if left:
        await store.log.append(run.spec.run, epoch=epoch, entries=[call.entry() for call in left])
    outcomes = await outcomes_of(store.log, run.spec.run)
    ledger = await ledger_of(store.log, run.spec.run, (), taken_over(run.spec.policy))
    failure = RunFailure("coordinator_lost", f"{MESSAGE} {told(left)}".strip(), outcomes)
    body = LifecycleRecord(Event.RUN_STATE, state=RunState.FAILED, failure=failure, ledger=ledger)
    entry = Entry(trajectory=RUN_LEVEL, step=-1, body=body, at_ms=clock.now_ms())
    ending = Ending(RunState.FAILED, None, failure, ledger, clock.now_ms())
    return await store.log.finish(run.spec.run, epoch=epoch, ending=ending, entry=entry)
