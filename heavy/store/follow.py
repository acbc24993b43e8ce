"""Following one run's log: records as they come, fresh text between them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from heavy.core.ids import RunId, TrajectoryId
from heavy.core.records import Delta, Event, GenerationRecord, LifecycleRecord, Record
from heavy.core.runs import FINAL_STATES
from heavy.store.keys import RunKeys
from heavy.store.link import Link
from heavy.store.refusals import not_found
from heavy.store.stream import Item, deltas_of, record_of

RECORDS_PER_READ: Final = 100


class Following:
    """One watcher's place in a log and in its stream of deltas."""

    def __init__(self, link: Link, run: RunId, after: int, deltas: bool) -> None:
        self._link = link
        self._run = run
        self._keys = RunKeys(run)
        self._after = after
        self._deltas = deltas
        self._deltas_after = "0-0"
        self._generated: dict[TrajectoryId, int] = {}

    async def items(self) -> AsyncGenerator[Record | tuple[Delta, ...]]:
        """Deltas, then the records they lead up to; ends after the final record."""
        async with self._link.watcher():
            if await self._begin():
                return
            while True:
                records, deltas = await self._next()
                if not records and not deltas and not await self._there():
                    raise not_found(self._run)
                fresh = tuple(delta for delta in deltas if self._is_fresh(delta))
                if fresh:
                    yield fresh
                for record in records:
                    self._note(record)
                    yield record
                    if is_final(record):
                        return

    async def _begin(self) -> bool:
        """Find out where fresh text begins; whether the log has ended at or before `after`."""

        async def read(client: Any) -> tuple[list[bytes | None], list[Item]]:
            pipeline = client.pipeline(transaction=False)
            pipeline.hmget(self._keys.run, "state", "records")
            pipeline.xrevrange(self._keys.deltas, count=1)
            run, newest = await pipeline.execute()
            return run, newest

        (state, records), newest = await self._link.call(f"open the log of {self._run}", read)
        if state is None or records is None:
            raise not_found(self._run)
        if newest:
            self._deltas_after = newest[0][0].decode()
        return state.decode() in FINAL_STATES and self._after >= int(records)

    async def _next(self) -> tuple[list[Record], list[Delta]]:
        """What is new; both empty when nothing came for as long as one read blocks."""
        places = {self._keys.log: f"{self._after}-0"}
        if self._deltas:
            places[self._keys.deltas] = self._deltas_after

        async def read(client: Any) -> list[tuple[bytes, list[Item]]]:
            found: list[tuple[bytes, list[Item]]] = await client.xread(
                places, count=RECORDS_PER_READ, block=int(self._link.block_s * 1000)
            )
            return found

        records: list[Record] = []
        deltas: list[Delta] = []
        for key, items in await self._link.wait(f"follow the log of {self._run}", read):
            if key.decode() == self._keys.log:
                records = [record_of(item) for item in items]
                self._after = records[-1].number
            else:
                deltas = [delta for item in items for delta in deltas_of(item)]
                self._deltas_after = items[-1][0].decode()
        return records, deltas

    async def _there(self) -> bool:
        async def read(client: Any) -> int:
            found: int = await client.exists(self._keys.run)
            return found

        return bool(await self._link.call(f"look {self._run} up", read))

    def _is_fresh(self, delta: Delta) -> bool:
        """Whether the generation that this text belongs to has not been recorded yet."""
        return delta.step > self._generated.get(delta.trajectory, -1)

    def _note(self, record: Record) -> None:
        if isinstance(record.body, GenerationRecord):
            self._generated[record.trajectory] = record.step


def is_final(record: Record) -> bool:
    """Whether nothing follows this record in its log."""
    body = record.body
    return (
        isinstance(body, LifecycleRecord)
        and body.event is Event.RUN_STATE
        and body.state is not None
        and body.state.final
    )
