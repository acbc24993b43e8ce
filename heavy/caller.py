"""Tools of one's own, executed here while a run's arms call them: `heavy.client` uses this for `tools=[...]`.

    @tool
    async def lookup(order_id: str) -> str:
        "Finds an order by its number."
        return await orders.find(order_id)

    run = await heavy.answer("Where is order 17?", tools=[lookup])

Names, types and defaults become the schema that the model sees, the docstring its description. A call that
comes twice, because the connection broke between, is executed once.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, overload

import grpc
from pydantic import (
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    validate_call,
)

from heavy.core import clock
from heavy.core.calling import CallerCall, CallerResult
from heavy.core.errors import ConfigError, ServerUnavailable
from heavy.core.records import Delta, Record
from heavy.core.tools import Effects, ToolSpec
from heavy.v1 import heavy_pb2 as pb
from heavy.wire import convert_calling as convert

CALLS_AT_ONCE_MAX: Final = 64
RESULTS_KEPT_MAX: Final = 10_000
"""Results kept for calls that may come again; far more than one run has under way."""
AHEAD_MAX: Final = 1_000
"""Events read ahead of whoever takes them. With half of it full fresh text is left out; with all of it
nothing more is read, calls neither."""
_BROKEN: Final = "Internal error from Core"
"""How grpc.aio reports that it could not send: the connection was gone already."""
_NOT_SENT: Final = frozenset({"title", "pattern", "patternProperties"})
"""Parts of a schema that say nothing to a model, or that the server does not apply; they are checked here."""


class ToolError(Exception):
    """Raise it in a tool that failed for good, with nothing done. The model reads the message.

    Any other exception of a tool that writes leaves open whether it took effect, and the model is told that.
    """


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A function and what was declared of it. `call` is validated, and awaited where it is async."""

    spec: ToolSpec
    call: Callable[..., Any]


@overload
def tool(function: Callable[..., Any], /) -> ClientTool: ...
@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    effects: Effects | str = Effects.WRITE,
    timeout_s: float = convert.TIMEOUT_S,
    cacheable: bool = False,
) -> Callable[[Callable[..., Any]], ClientTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    effects: Effects | str = Effects.WRITE,
    timeout_s: float = convert.TIMEOUT_S,
    cacheable: bool = False,
) -> ClientTool | Callable[[Callable[..., Any]], ClientTool]:
    """Make a function, async or not, a tool that models may call while it runs here.

    Say `effects="read"` (or "pure") for one that changes nothing: only such calls are sent again after a
    broken connection, and only they may be `cacheable`: asked once for all arms of a run. Functions that are
    not async run in threads. What is returned reaches the model as text, or else as JSON.
    Raises `ConfigError` for a function whose parameters no schema can describe.
    """

    def declare(declared: Callable[..., Any]) -> ClientTool:
        spec = ToolSpec(
            name=name or getattr(declared, "__name__", ""),
            description=description or inspect.getdoc(declared) or "",
            parameters=_parameters(declared),
            version=convert.VERSION,
            effects=Effects(effects),
            cacheable=cacheable,
            timeout_s=timeout_s,
        )
        return ClientTool(spec, validate_call(declared))

    return declare if function is None else declare(function)


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    name = getattr(function, "__name__", repr(function))
    try:
        declared: Any = function  # pydantic describes functions too, though its types do not say so
        schema = TypeAdapter(declared).json_schema()
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        raise ConfigError(
            f"The parameters of tool {name!r} cannot be described to a model: {error}. "
            "Use keyword parameters of simple types, dataclasses or pydantic models."
        ) from error
    if schema.get("type") != "object":
        raise ConfigError(f"Tool {name!r} has positional-only parameters; models pass arguments by name.")
    found: dict[str, Any] = _sent(schema)
    return found


def _sent(part: Any, names: bool = False) -> Any:
    """A schema without what is not sent. `names`: its keys are names of properties, not keywords."""
    if isinstance(part, dict):
        return {
            key: _sent(value, names=not names and key in ("properties", "$defs"))
            for key, value in part.items()
            if names or key not in _NOT_SENT
        }
    return [_sent(one) for one in part] if isinstance(part, list) else part


@dataclass(eq=False)
class Executions:
    """The calls of one run that this process executes, over however many connections they come."""

    tools: Mapping[str, ClientTool]
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _results: dict[str, CallerResult] = field(default_factory=dict)
    _acknowledged: dict[str, None] = field(default_factory=dict)
    _send: Callable[[CallerResult], None] | None = None
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE_MAX))
    _threads: Executor = field(
        default_factory=lambda: ThreadPoolExecutor(CALLS_AT_ONCE_MAX, "heavy-caller-tool")
    )
    """For functions that are not async: a slot's call never waits for another one's thread."""

    @classmethod
    def of(cls, tools: Sequence[ClientTool]) -> Executions:
        """Executions of these tools. Raises `ConfigError` when two have one name, or one is none."""
        by_name: dict[str, ClientTool] = {}
        for one in tools:
            if not isinstance(one, ClientTool):
                raise ConfigError(f"{one!r:.80} is no tool: decorate the function with @heavy.caller.tool.")
            if one.spec.name in by_name:
                raise ConfigError(f"Two tools are called {one.spec.name!r}; every tool needs its own name.")
            by_name[one.spec.name] = one
        return cls(by_name)

    def start(self, ask: pb.AskRequest) -> pb.ConverseStart:
        """The first message of a connection."""
        held = [*self._running, *self._results, *self._acknowledged]
        declared = (convert.caller_tool_to_proto(one.spec) for one in self.tools.values())
        return pb.ConverseStart(ask=ask, tools=declared, calls_held=held)

    def connected(self, send: Callable[[CallerResult], None]) -> None:
        """From now on results go through `send`; those that were never acknowledged go again."""
        self._send = send
        for result in self._results.values():
            send(result)

    def begin(self, call: CallerCall) -> None:
        """Execute a call, unless it came before."""
        if (
            call.id not in self._running
            and call.id not in self._results
            and call.id not in self._acknowledged
        ):
            self._running[call.id] = asyncio.create_task(self._execute(call), name=call.id)

    def acknowledge(self, receipt: pb.CallerToolReceipt) -> None:
        """The server has a result, or wants none any more."""
        if convert.receipt_from_proto(receipt) is None and (task := self._running.get(receipt.call_id)):
            task.cancel()
        self._results.pop(receipt.call_id, None)
        self._acknowledged[receipt.call_id] = None
        while len(self._acknowledged) > RESULTS_KEPT_MAX:
            del self._acknowledged[next(iter(self._acknowledged))]

    async def close(self) -> None:
        """Cancel what is under way and wait for its end. Safe to call twice."""
        tasks = tuple(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _execute(self, call: CallerCall) -> None:
        try:
            async with self._slots:
                result = await self._result(call)
            self._results[call.id] = result
        finally:
            del self._running[call.id]
        if self._send is not None:
            self._send(result)

    async def _result(self, call: CallerCall) -> CallerResult:
        """What a call gives; whatever goes wrong is a result too."""
        declared = self.tools.get(call.name)
        if declared is None:
            return CallerResult(call.id, f"There is no tool called {call.name!r} here.", is_error=True)
        try:
            async with asyncio.timeout(clock.remaining_s(call.deadline_ms)):
                value = await self._called(declared, call.arguments)
            return CallerResult(call.id, _text(value))
        except (ToolError, ValidationError) as error:
            return CallerResult(call.id, f"{call.name}: {error}", is_error=True)
        except Exception as error:
            text = f"{call.name} failed: {type(error).__name__}: {error}"
            return CallerResult(call.id, text, True, unknown=declared.spec.effects is Effects.WRITE)

    async def _called(self, declared: ClientTool, arguments: str) -> Any:
        given: dict[str, Any] = _ARGUMENTS.validate_json(arguments)
        if inspect.iscoroutinefunction(inspect.unwrap(declared.call)):
            return await declared.call(**given)
        work = partial(contextvars.copy_context().run, declared.call, **given)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _ANYTHING.dump_json(value).decode()


_ARGUMENTS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class ConverseCall:
    """A `Converse` call as a stream of what it says of the run; calls and receipts are seen to on the way.

    `method` begins the call with what goes out. A connection that breaks is noticed by the reader; results
    that went out and were never acknowledged go again over the next one.
    """

    def __init__(
        self,
        method: Callable[[AsyncIterator[pb.ConverseRequest]], Any],
        ask: pb.AskRequest,
        executions: Executions,
    ) -> None:
        self._executions = executions
        self._outgoing: asyncio.Queue[pb.ConverseRequest | None] = asyncio.Queue()
        self._outgoing.put_nowait(pb.ConverseRequest(start=executions.start(ask)))
        executions.connected(self._send)
        self._call = method(self._requests())

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`. Raises `ServerUnavailable` for a connection that broke."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INTERNAL and error.details() == _BROKEN:
                raise ServerUnavailable("The connection broke while something was being sent.") from error
            raise
        if message is not grpc.aio.EOF:
            match message.WhichOneof("event"):
                case "call":
                    self._executions.begin(convert.call_from_proto(message.call))
                case "receipt":
                    self._executions.acknowledge(message.receipt)
        return message

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()
        self._outgoing.put_nowait(None)  # grpc.aio lets the requests of a call that has ended wait for ever

    def _send(self, result: CallerResult) -> None:
        self._outgoing.put_nowait(pb.ConverseRequest(result=convert.result_to_proto(result)))

    async def _requests(self) -> AsyncGenerator[pb.ConverseRequest]:
        while (request := await self._outgoing.get()) is not None:
            yield request


async def ahead(events: AsyncGenerator[Record | Delta]) -> AsyncGenerator[Record | Delta]:
    """`events`, read on while whoever takes them is busy with the last one: calls come between them."""
    read: asyncio.Queue[Record | Delta | Exception | None] = asyncio.Queue(AHEAD_MAX)

    async def pump() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Record) or read.qsize() < AHEAD_MAX // 2:
                        await read.put(event)
        except Exception as error:
            await read.put(error)
        else:
            await read.put(None)

    pumping = asyncio.create_task(pump(), name="heavy-read-ahead")
    try:
        while (event := await read.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
