"""A caller with tools of its own: records and calls go out, results come in, on one stream.

What a caller sends after its start is never a reason to end the run: a result that does not fit any call
gets a receipt that says so. What breaks the protocol itself ends the stream; the run is then in its grace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from heavy.coordinator.api import Coordinator
from heavy.core.calling import CallerCall, Receipt, Withdrawn
from heavy.core.errors import FieldViolation, HeavyError, InvalidRequest
from heavy.core.ids import RunId
from heavy.core.records import Delta, Record
from heavy.v1 import heavy_pb2 as pb
from heavy.wire import convert_calling as convert
from heavy.wire.convert_record import deltas_to_proto, record_to_proto

START_S: Final = 30.0
"""How long a caller may take to send its first message."""
HELD_MAX: Final = 10_000
ID_CHARS_MAX: Final = 128

DETAILS: Final = {
    Receipt.TAKEN: "",
    Receipt.DUPLICATE: "this call has a result already; the first one counts",
    Receipt.OVER: "nobody waits for this call any more",
    Receipt.NO_SUCH_CALL: "this run never made such a call",
    Receipt.TOO_LARGE: "the result is too large; the model was told so instead",
}


async def started(requests: AsyncIterator[pb.ConverseRequest]) -> pb.ConverseStart:
    """The first message of a conversation. Raises `InvalidRequest` when it is none, or does not come."""
    try:
        async with asyncio.timeout(START_S):
            first = await anext(requests, None)
    except TimeoutError:
        raise _invalid("start", f"did not come within {START_S:g} s") from None
    if first is None or first.WhichOneof("message") != "start":
        raise _invalid("start", "must be the first message, and was not")
    return first.start


def held(start: pb.ConverseStart) -> frozenset[str]:
    """The calls a caller says it has. Raises `InvalidRequest` for more than a run can have made."""
    if len(start.calls_held) > HELD_MAX:
        raise _invalid("start.calls_held", f"has {len(start.calls_held)} ids; at most {HELD_MAX} are read")
    return frozenset(start.calls_held)


class Conversation:
    """One attached caller's stream after its start."""

    def __init__(self, coordinator: Coordinator, tenant: str, run: RunId, context: Any) -> None:
        self._coordinator = coordinator
        self._tenant = tenant
        self._run = run
        self._context = context
        self._turn = asyncio.Lock()
        self._answered: set[str] = set()

    async def until_over(
        self,
        events: AsyncIterator[Record | tuple[Delta, ...]],
        calls: AsyncIterator[CallerCall | Withdrawn],
        requests: AsyncIterator[pb.ConverseRequest],
    ) -> None:
        """Send events and calls and take results, until the run's final record is sent.

        Raises `InvalidRequest` for a second start, and what the coordinator raises.
        """
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._send_calls(calls)),
                    group.create_task(self._take_results(requests)),
                ]
                await self._send_events(events)
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures

    async def _send_events(self, events: AsyncIterator[Record | tuple[Delta, ...]]) -> None:
        async for event in events:
            if isinstance(event, Record):
                await self._write(pb.ConverseResponse(record=record_to_proto(event)))
            else:
                await self._write(pb.ConverseResponse(deltas=deltas_to_proto(event)))

    async def _send_calls(self, calls: AsyncIterator[CallerCall | Withdrawn]) -> None:
        async for call in calls:
            if isinstance(call, CallerCall):
                await self._write(pb.ConverseResponse(call=convert.call_to_proto(call)))
            elif call.id in self._answered:
                self._answered.discard(call.id)
            else:
                await self._write(pb.ConverseResponse(receipt=convert.receipt_to_proto(call.id, None)))

    async def _take_results(self, requests: AsyncIterator[pb.ConverseRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("message") != "result":
                raise _invalid("message", "must be a result: the conversation has started already")
            result = convert.result_from_proto(request.result)
            receipt = Receipt.NO_SUCH_CALL
            if len(result.id) <= ID_CHARS_MAX:
                receipt = await self._coordinator.answer(self._tenant, self._run, result)
            if receipt in (Receipt.TAKEN, Receipt.TOO_LARGE):
                self._answered.add(result.id)
            answer = convert.receipt_to_proto(result.id[:ID_CHARS_MAX], receipt, DETAILS[receipt])
            await self._write(pb.ConverseResponse(receipt=answer))

    async def _write(self, response: pb.ConverseResponse) -> None:
        """One message at a time. Each write waits for a slow reader, so nothing piles up here."""
        response.run_id = self._run
        async with self._turn:
            await self._context.write(response)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a conversation: one that callers understand, where there is one."""
    leaves = [e for e in failures.exceptions if not isinstance(e, BaseExceptionGroup)]
    return next((e for e in leaves if isinstance(e, HeavyError)), leaves[0] if leaves else failures)


def _invalid(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, problem),))
