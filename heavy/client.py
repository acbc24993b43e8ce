"""The async Python client: hides the stubs, reconnects, resumes.

    async with HeavyClient("127.0.0.1:50051") as heavy:
        run = await heavy.answer("What is 17 * 23?")
        print(run.result.answer if run.result else run.failure)

A lost connection is no lost run: calls are tried again for `patience_s`, streams go on after the last
record they gave, and every request has a `request_id`, so that trying again finds the run that is there.

Everything goes in and comes out as `heavy.core` types. Errors are those of `heavy.core.errors`:
`InvalidRequest`, `Unauthenticated`, `NotFound`, `RequestConflict`, `Overloaded`, `LimitExceeded` (when a
call's own `timeout_s` has passed), and `ServerUnavailable` or `StoreUnavailable` once patience is over.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import grpc

from heavy.caller import ClientTool, ConverseCall, Executions, ahead
from heavy.core.clock import monotonic_s
from heavy.core.draft import PolicyDraft
from heavy.core.errors import HeavyError, LimitExceeded, ServerUnavailable
from heavy.core.files import File, FileRef
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.messages import Message, Role
from heavy.core.records import Delta, Record
from heavy.core.runs import Outcome, Run, RunState
from heavy.v1 import heavy_pb2 as pb
from heavy.v1 import heavy_pb2_grpc
from heavy.wire import enums
from heavy.wire.channel import CLIENT_OPTIONS
from heavy.wire.convert_files import files_to_proto
from heavy.wire.convert_policy import draft_to_proto, messages_to_proto
from heavy.wire.convert_record import deltas_from_proto, record_from_proto
from heavy.wire.convert_run import outcome_from_proto, run_from_proto
from heavy.wire.status import from_rpc_error, passing

Conversation = str | Message | Sequence[Message]
"""What can be asked: a question, one message, or all of a conversation with the user's turn last."""

DEFAULTS: Final = PolicyDraft()
PATIENCE_S: Final = 30.0
CALL_TIMEOUT_S: Final = 30.0
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 3.0


@dataclass(frozen=True, slots=True)
class Transcript:
    """The records of one trajectory so far, and its outcome once it has ended."""

    records: tuple[Record, ...]
    outcome: Outcome | None


class RunStream(AsyncIterator[Record | Delta]):
    """The records of a run as they come, and fresh text between them; ends after the final record.

    Every record comes once and in order, across reconnections. `run` is known from the first event on,
    `last_record` is the number to resume from with `HeavyClient.watch`. Close it when leaving early
    (`async with`, or `aclose`): the server takes that as the caller of an attached run going away.
    """

    def __init__(
        self,
        connect: Callable[[int, float | None], Any],
        patience: _Patience,
        after: int,
        executions: Executions | None = None,
    ) -> None:
        self._executions = executions
        self.run: RunId | None = None
        self.last_record = after
        self._connect = connect
        self._patience = patience
        self._events = self._follow() if executions is None else ahead(self._follow())

    async def __anext__(self) -> Record | Delta:
        event = await anext(self._events)
        if isinstance(event, Record):
            self.last_record = event.number
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the call, and what it had this process execute. Safe to call twice."""
        await self._events.aclose()
        if self._executions is not None:
            await self._executions.close()

    async def _follow(self) -> AsyncGenerator[Record | Delta, None]:
        last = self.last_record
        while True:
            timeout_s = self._patience.remaining_s()
            call = self._connect(last, timeout_s)
            try:
                while (message := await _translated(call.read(), timeout_s)) is not grpc.aio.EOF:
                    self._patience.restore()
                    for event in self._events_of(message):
                        last = event.number if isinstance(event, Record) else last
                        yield event
                return
            except HeavyError as error:
                failure = error
            finally:
                call.cancel()
            await self._patience.wait(failure)

    def _events_of(
        self, message: pb.AskResponse | pb.WatchRunResponse | pb.ConverseResponse
    ) -> Iterable[Record | Delta]:
        self.run = RunId(message.run_id)
        match message.WhichOneof("event"):
            case "record":
                return (record_from_proto(message.record),)
            case "deltas":
                return deltas_from_proto(message.deltas)
        return ()


class HeavyClient:
    """A connection to a Heavy server. Use it as a context manager; one serves any number of tasks.

    `tls` is False for plain text (loopback, or behind something that encrypts), True for the system's
    certificate authorities, or the PEM text of one's own.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        tls: bool | bytes = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._tls = tls
        self._patience_s = patience_s
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = self._open_channel()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection and every call on it. Safe to call twice."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def ask(
        self,
        messages: Conversation,
        policy: PolicyDraft = DEFAULTS,
        *,
        tools: Sequence[ClientTool] = (),
        files: Sequence[File] = (),
        request_id: str | None = None,
        deltas: bool = True,
        timeout_s: float | None = None,
        traceparent: str = "",
    ) -> RunStream:
        """Ask, and watch the run that answers. It is cancelled when this stream is closed early.

            async with heavy.ask("Is 8191 prime?", PolicyDraft(width=4)) as stream:
                async for event in stream:
                    if isinstance(event, Delta):
                        print(event.content, end="")

        With a `request_id` of one's own, asking again attaches to the same run. `timeout_s` also caps the
        run's deadline. `tools` are functions that the arms may call and that run here, from the first event
        until the stream is closed, also while its reader is busy (see `heavy.caller.tool`). `files` stand in
        the working directory of each arm's python session.
        """
        request = pb.AskRequest(
            messages=messages_to_proto(conversation(messages)),
            policy=draft_to_proto(policy),
            request_id=request_id or uuid.uuid4().hex,
            deltas=deltas,
            files=files_to_proto(files),
        )
        metadata = self._with_trace(traceparent)
        executions = Executions.of(tools) if tools else None

        def connect(after: int, remaining_s: float | None) -> Any:
            request.after_record = after
            if executions is None:
                return self._stub.Ask(request, metadata=metadata, timeout=remaining_s)
            method = partial(self._stub.Converse, metadata=metadata, timeout=remaining_s)
            return ConverseCall(method, request, executions)

        return RunStream(connect, _Patience(self._patience_s, timeout_s), 0, executions)

    async def answer(
        self,
        messages: Conversation,
        policy: PolicyDraft = DEFAULTS,
        *,
        tools: Sequence[ClientTool] = (),
        files: Sequence[File] = (),
        request_id: str | None = None,
        timeout_s: float | None = None,
        traceparent: str = "",
    ) -> Run:
        """Ask, wait, and return the ended run: with a `result`, or with the `failure` that says why not.

        run = await heavy.answer("What is 17 * 23?", PolicyDraft(width=3, tokens_max=50_000))

        `tools` are functions that the arms may call and that run here (see `heavy.caller.tool`), `files` what
        stands in the working directory of their python sessions.
        """
        stream = self.ask(
            messages,
            policy,
            tools=tools,
            files=files,
            request_id=request_id,
            deltas=False,
            timeout_s=timeout_s,
            traceparent=traceparent,
        )
        async with stream:
            async for _ in stream:
                pass
        if stream.run is None:
            raise ServerUnavailable("The server ended the call without saying which run it had made")
        return await self.get(stream.run)

    async def create(
        self,
        messages: Conversation,
        policy: PolicyDraft = DEFAULTS,
        *,
        files: Sequence[File] = (),
        request_id: str | None = None,
        traceparent: str = "",
    ) -> Run:
        """Create a detached run and return at once. It lives until it ends, its deadline, or `cancel`.

        run = await heavy.create("Prove it.", request_id="homework-7")
        async for event in heavy.watch(run.spec.run): ...
        """
        request = pb.CreateRunRequest(
            messages=messages_to_proto(conversation(messages)),
            policy=draft_to_proto(policy),
            request_id=request_id or uuid.uuid4().hex,
            files=files_to_proto(files),
        )
        response = await self._call("CreateRun", request, traceparent)
        return run_from_proto(response.run)

    def watch(self, run: RunId, *, after: int = 0, deltas: bool = True) -> RunStream:
        """Follow a run from a record number on; closing the stream leaves the run alone."""

        def connect(last: int, remaining_s: float | None) -> Any:
            request = pb.WatchRunRequest(run_id=run, after_record=last, deltas=deltas)
            return self._stub.WatchRun(request, metadata=self._metadata, timeout=remaining_s)

        return RunStream(connect, _Patience(self._patience_s, None), after)

    async def get(self, run: RunId) -> Run:
        """The run record."""
        response = await self._call("GetRun", pb.GetRunRequest(run_id=run))
        return run_from_proto(response.run)

    async def list(self, *, states: Iterable[RunState] = (), page_size: int = 0) -> AsyncIterator[Run]:
        """The tenant's runs, newest first, fetched page by page as one goes on; no `states` means all.

        async for run in heavy.list(states={RunState.RUNNING}): ...
        """
        request = pb.ListRunsRequest(page_size=page_size, states=map(enums.RUN_STATE.to_proto, states))
        while True:
            response = await self._call("ListRuns", request)
            for run in response.runs:
                yield run_from_proto(run)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def cancel(self, run: RunId, reason: str = "") -> Run:
        """Ask a run to stop; the run as it was when that was noted. Harmless when it has ended."""
        response = await self._call("CancelRun", pb.CancelRunRequest(run_id=run, reason=reason))
        return run_from_proto(response.run)

    async def trajectory(self, run: RunId, trajectory: str, *, after: int = 0) -> Transcript:
        """All records of one trajectory ("arm-0" to "arm-7", "aggregator") with numbers above `after`."""
        request = pb.GetTrajectoryRequest(
            run_id=run, trajectory_id=TrajectoryId(trajectory), after_record=after
        )
        records: list[Record] = []
        while True:
            response = await self._call("GetTrajectory", request)
            records += map(record_from_proto, response.records)
            if not response.more or not response.records:
                break
            request.after_record = records[-1].number
        outcome = outcome_from_proto(response.outcome) if response.HasField("outcome") else None
        return Transcript(tuple(records), outcome)

    async def file(self, run: RunId, file: FileRef) -> File:
        """A file of a run: one of `run.spec.files`, or of those of a tool's result. Raises `NotFound`."""
        response = await self._call("GetFile", pb.GetFileRequest(run_id=run, sha256=file.digest))
        return File(file.name, response.content)

    async def call(self, stub: Callable[[grpc.aio.Channel], Any], method: str, request: Any) -> Any:
        """One call of another of the server's services, tried as those of this one are.

        response = await heavy.call(CacheServiceStub, "GetCacheStats", GetCacheStatsRequest())
        """
        return await self._patiently(getattr(stub(self._connected), method), request)

    async def _call(self, method: str, request: Any, traceparent: str = "") -> Any:
        return await self._patiently(getattr(self._stub, method), request, traceparent)

    async def _patiently(self, method: Any, request: Any, traceparent: str = "") -> Any:
        """One call whose repetition changes nothing, tried until it works or patience is over."""
        patience = _Patience(self._patience_s, None)
        while True:
            call = method(request, metadata=self._with_trace(traceparent), timeout=CALL_TIMEOUT_S)
            try:
                return await _translated(call, CALL_TIMEOUT_S)
            except HeavyError as error:
                failure = error
            await patience.wait(failure)

    @property
    def _stub(self) -> Any:
        return heavy_pb2_grpc.HeavyServiceStub(self._connected)  # type: ignore[no-untyped-call]

    @property
    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise RuntimeError("The client is not connected: use `async with HeavyClient(...) as heavy`")
        return self._channel

    def _with_trace(self, traceparent: str) -> tuple[tuple[str, str], ...]:
        return (*self._metadata, ("traceparent", traceparent)) if traceparent else self._metadata

    def _open_channel(self) -> grpc.aio.Channel:
        if self._tls is False:
            return grpc.aio.insecure_channel(self._address, CLIENT_OPTIONS)
        roots = None if self._tls is True else self._tls
        return grpc.aio.secure_channel(self._address, grpc.ssl_channel_credentials(roots), CLIENT_OPTIONS)


def conversation(messages: Conversation) -> tuple[Message, ...]:
    """A question as a conversation."""
    if isinstance(messages, str):
        return (Message(Role.USER, messages),)
    return (messages,) if isinstance(messages, Message) else tuple(messages)


class _Patience:
    """How long a server that cannot be reached is tried again, with growing pauses."""

    def __init__(self, patience_s: float, timeout_s: float | None) -> None:
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._ends = None if timeout_s is None else monotonic_s() + timeout_s
        self.restore()

    def restore(self) -> None:
        """There was an answer: the next trouble starts from nothing."""
        self._pause_s = _BACKOFF_FIRST_S
        self._since: float | None = None

    def remaining_s(self) -> float | None:
        """What is left of the caller's own deadline. Raises `LimitExceeded` when it has passed."""
        if self._ends is None or self._timeout_s is None:
            return None
        left = self._ends - monotonic_s()
        if left <= 0:
            text = f"No answer within {self._timeout_s:g} s"
            raise LimitExceeded(text, "deadline_s", self._timeout_s, self._timeout_s)
        return left

    async def wait(self, failure: HeavyError) -> None:
        """Pause before the next attempt. Raises `failure` when trying again will not help, or no longer."""
        now = monotonic_s()
        self._since = now if self._since is None else self._since
        if not passing(failure) or now + self._pause_s > self._since + self._patience_s:
            raise failure
        await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
        self._pause_s = min(_BACKOFF_MAX_S, self._pause_s * 2)


async def _translated(call: Awaitable[Any], timeout_s: float | None) -> Any:
    """What a call gives, or the error that its status stands for.

    grpc.aio raises CancelledError for a call that the server cancelled, too. Only a cancel of this task
    may look like one.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, timeout_s) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ServerUnavailable("The connection was closed while the call was under way") from None
