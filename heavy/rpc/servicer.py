"""The gRPC service: each method reads its request, asks the coordinator, and converts the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from heavy.coordinator.api import Coordinator
from heavy.core.ids import RunId
from heavy.core.records import Delta, Record
from heavy.rpc import converse, requests
from heavy.rpc.auth import current_caller
from heavy.rpc.calls import Call, closing, serving
from heavy.rpc.streams import Streams
from heavy.store.api import RunPage
from heavy.telemetry.tracing import Tracing
from heavy.v1 import heavy_pb2 as pb
from heavy.v1 import heavy_pb2_grpc
from heavy.wire.channel import PAGE_BYTES_MAX
from heavy.wire.convert_record import deltas_to_proto, record_to_proto
from heavy.wire.convert_run import outcome_to_proto, run_to_proto

Event = Record | tuple[Delta, ...]
DEFAULT_REASON: Final = "cancelled by its caller"


class HeavyServicer(heavy_pb2_grpc.HeavyServiceServicer):
    """Implements heavy.v1.HeavyService on a coordinator."""

    def __init__(self, coordinator: Coordinator, streams: Streams, tracing: Tracing) -> None:
        self._coordinator = coordinator
        self._streams = streams
        self._tracing = tracing

    async def Ask(self, request: pb.AskRequest, context: Any) -> None:
        """Create a run, or find the one this request_id created, and stay with it to its end."""
        async with self._serving(context, "Ask") as call, self._streams.open():
            wanted = requests.create_request(
                request, call, self._coordinator.policies, attached=True, deadline_s=context.time_remaining()
            )
            after = requests.after_record(request.after_record)
            created = await self._coordinator.create(wanted)
            run = created.run.spec.run
            async with self._coordinator.attach(run):
                events = self._coordinator.watch(call.tenant, run, after=after, deltas=request.deltas)
                await _send(events, run, pb.AskResponse, context)

    async def Converse(self, requests_in: AsyncIterator[pb.ConverseRequest], context: Any) -> None:
        """Ask, with tools that the caller executes."""
        async with self._serving(context, "Converse") as call, self._streams.open():
            start = await converse.started(requests_in)
            wanted = requests.create_request(
                start.ask,
                call,
                self._coordinator.policies,
                attached=True,
                deadline_s=context.time_remaining(),
                tools=start.tools,
            )
            after, held = requests.after_record(start.ask.after_record), converse.held(start)
            created = await self._coordinator.create(wanted)
            run = created.run.spec.run
            async with self._coordinator.attach(run):
                events = self._coordinator.watch(call.tenant, run, after=after, deltas=start.ask.deltas)
                async with closing(events), self._coordinator.calls(call.tenant, run, held) as calls:
                    talk = converse.Conversation(self._coordinator, call.tenant, run, context)
                    await talk.until_over(events, calls, requests_in)

    async def CreateRun(self, request: pb.CreateRunRequest, context: Any) -> pb.CreateRunResponse:
        """Create a detached run, or find the one this request_id created."""
        async with self._serving(context, "CreateRun") as call:
            self._streams.require_open()
            wanted = requests.create_request(request, call, self._coordinator.policies, attached=False)
            created = await self._coordinator.create(wanted)
            return pb.CreateRunResponse(run=run_to_proto(created.run), created=created.fresh)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> None:
        """Stream a run's records from a number on."""
        async with self._serving(context, "WatchRun") as call, self._streams.open():
            run, after = requests.run_id(request.run_id), requests.after_record(request.after_record)
            events = self._coordinator.watch(call.tenant, run, after=after, deltas=request.deltas)
            await _send(events, run, pb.WatchRunResponse, context)

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """The run record."""
        async with self._serving(context, "GetRun") as call:
            run = await self._coordinator.get(call.tenant, requests.run_id(request.run_id))
            return pb.GetRunResponse(run=run_to_proto(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """One page of the tenant's runs."""
        async with self._serving(context, "ListRuns") as call:
            states = requests.run_states(request.states)
            token = requests.page_token(request.page_token)

            async def page(size: int) -> RunPage:
                return await self._coordinator.list(
                    call.tenant, states=states, page_size=size, page_token=token
                )

            return await _fitting(page, requests.list_page_size(request.page_size))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        """Ask for a run to stop."""
        async with self._serving(context, "CancelRun") as call:
            run, reason = requests.run_id(request.run_id), requests.reason(request.reason)
            cancelled = await self._coordinator.cancel(call.tenant, run, reason or DEFAULT_REASON)
            return pb.CancelRunResponse(run=run_to_proto(cancelled))

    async def GetTrajectory(self, request: pb.GetTrajectoryRequest, context: Any) -> pb.GetTrajectoryResponse:
        """One page of a trajectory's records."""
        async with self._serving(context, "GetTrajectory") as call:
            page = await self._coordinator.trajectory(
                call.tenant,
                requests.run_id(request.run_id),
                requests.trajectory_id(request.trajectory_id),
                after=requests.after_record(request.after_record),
                limit=requests.trajectory_page_size(request.page_size),
            )
            outcome = None if page.outcome is None else outcome_to_proto(page.outcome)
            response = pb.GetTrajectoryResponse(outcome=outcome, more=page.more)
            room = PAGE_BYTES_MAX
            for record in page.records:
                converted = record_to_proto(record)
                room -= converted.ByteSize()
                if room < 0 and response.records:
                    response.more = True
                    break
                response.records.append(converted)
            return response

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> pb.GetFileResponse:
        """The content of one file of a run."""
        async with self._serving(context, "GetFile") as call:
            run, digest = requests.run_id(request.run_id), requests.file_digest(request.sha256)
            return pb.GetFileResponse(content=await self._coordinator.file(call.tenant, run, digest))

    def _serving(self, context: Any, method: str) -> AbstractAsyncContextManager[Call]:
        return serving(context, method, current_caller.get(), self._tracing)


async def _send(
    events: AsyncIterator[Event],
    run: RunId,
    response: type[pb.AskResponse] | type[pb.WatchRunResponse],
    context: Any,
) -> None:
    """Write events one by one. Each write waits for a slow reader, so nothing piles up here."""
    async with closing(events):
        async for event in events:
            if isinstance(event, Record):
                await context.write(response(run_id=run, record=record_to_proto(event)))
            else:
                await context.write(response(run_id=run, deltas=deltas_to_proto(event)))


async def _fitting(page: Callable[[int], Awaitable[RunPage]], size: int) -> pb.ListRunsResponse:
    """A page that every client can read: half as many runs until their conversations fit."""
    while True:
        found = await page(size)
        response = pb.ListRunsResponse(runs=map(run_to_proto, found.runs), next_page_token=found.next_token)
        if size == 1 or response.ByteSize() <= PAGE_BYTES_MAX:
            return response
        size = max(1, size // 2)
