"""The stream of a caller with tools, message by message: what fits nothing, what is malformed or hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from heavy.caller import tool
from heavy.client import HeavyClient
from heavy.core.errors import ConfigError, InvalidRequest
from heavy.core.tools import Effects
from heavy.v1 import heavy_pb2 as pb
from heavy.v1 import heavy_pb2_grpc, tool_pb2

from .conftest import ONE, QUESTION, Desk, Site


def start(*tools: tool_pb2.CallerTool, question: str = QUESTION, width: int = 1) -> pb.ConverseRequest:
    ask = pb.AskRequest(
        messages=[{"role": 2, "content": question}], policy={"width": width}, request_id="raw"
    )
    return pb.ConverseRequest(start=pb.ConverseStart(ask=ask, tools=tools))


LOOKUP = tool_pb2.CallerTool(name="lookup", parameters='{"type": "object"}')


def result(call_id: str, content: str = "here") -> pb.ConverseRequest:
    return pb.ConverseRequest(result=pb.CallerToolResult(call_id=call_id, content=content))


@pytest.fixture
async def stub(site: Site) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(site.address) as channel:
        yield heavy_pb2_grpc.HeavyServiceStub(channel)  # type: ignore[no-untyped-call]


async def the_next(call: Any, event: str) -> Any:
    """The next message of a kind."""
    async with asyncio.timeout(20):
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.WhichOneof("event") == event:
                return getattr(message, event)
    raise AssertionError(f"the stream ended without a {event}")


async def to_its_end(call: Any) -> None:
    """Read until the stream ends."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_results_that_fit_no_call_get_receipts_and_harm_nothing(stub: Any) -> None:
    call = stub.Converse()
    await call.write(start(LOOKUP))
    asked = await the_next(call, "call")
    for call_id in ("never-made", "x" * 1_000, ""):
        await call.write(result(call_id))
        assert (await the_next(call, "receipt")).kind == pb.RECEIPT_KIND_NO_SUCH_CALL
    await call.write(result(asked.call_id))
    assert (await the_next(call, "receipt")).kind == pb.RECEIPT_KIND_TAKEN
    await call.write(result(asked.call_id, "another"))
    again = await the_next(call, "receipt")
    assert again.kind in (pb.RECEIPT_KIND_DUPLICATE, pb.RECEIPT_KIND_OVER)
    assert again.detail
    while (message := await call.read()) is not grpc.aio.EOF:
        last = message
    assert last.record.lifecycle.result.answer == "Answer: here"


async def test_a_second_start_ends_the_stream_and_not_the_run(
    stub: Any, client: HeavyClient, site: Site
) -> None:
    call = stub.Converse()
    await call.write(start(LOOKUP))
    await the_next(call, "call")
    await call.write(start(LOOKUP))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await to_its_end(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not (await site.runs())[0].state.final


@pytest.mark.parametrize("first", [result("x"), pb.ConverseRequest(), None])
async def test_a_stream_must_begin_with_a_start(stub: Any, first: pb.ConverseRequest | None) -> None:
    call = stub.Converse()
    if first is not None:
        await call.write(first)
    await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError, match="start"):
        await to_its_end(call)


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([tool_pb2.CallerTool(name="python")], "name"),
        ([tool_pb2.CallerTool(name="search_trajectory")], "name"),
        ([tool_pb2.CallerTool(name="../x")], "name"),
        ([tool_pb2.CallerTool(name="")], "name"),
        ([LOOKUP, LOOKUP], "name"),
        ([tool_pb2.CallerTool(name=f"t{n}") for n in range(65)], "tools"),
        ([tool_pb2.CallerTool(name="a", parameters="{")], "parameters"),
        ([tool_pb2.CallerTool(name="a", parameters="[]")], "parameters"),
        ([tool_pb2.CallerTool(name="a", parameters='{"type": "string"}')], "parameters"),
        ([tool_pb2.CallerTool(name="a", parameters='{"type": "object", "required": 3}')], "parameters"),
        (
            [
                tool_pb2.CallerTool(
                    name="a", parameters='{"type":"object","properties":{"x":{"pattern":"(a+)+$"}}}'
                )
            ],
            "parameters",
        ),
        (
            [tool_pb2.CallerTool(name="a", parameters='{"type":"object","not":' * 40 + "{}" + "}" * 40)],
            "parameters",
        ),
        (
            [tool_pb2.CallerTool(name="a", parameters='{"type": "object", "title": "%s"}' % ("x" * 70_000))],
            "parameters",
        ),
        ([tool_pb2.CallerTool(name="a", description="x" * 9_000)], "description"),
        ([tool_pb2.CallerTool(name="a", timeout={"seconds": 0})], "timeout"),
        ([tool_pb2.CallerTool(name="a", timeout={"seconds": 100_000})], "timeout"),
        ([tool_pb2.CallerTool(name="a", cacheable=True)], "cacheable"),
        ([tool_pb2.CallerTool(name="a", effects=77)], "effects"),  # type: ignore[arg-type]
    ],
)
async def test_declarations_that_cannot_work_are_refused_by_field(stub: Any, tools: Any, field: str) -> None:
    call = stub.Converse()
    await call.write(start(*tools))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await to_its_end(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(caught.value.details())


async def test_the_same_request_with_other_tools_is_another_request(client: HeavyClient, desk: Desk) -> None:
    await client.answer(QUESTION, ONE, tools=[desk.tool], request_id="same")
    other = Desk(name="lookup", description="Something else.")
    with pytest.raises(Exception, match="request_id"):
        await client.answer(QUESTION, ONE, tools=[other.tool], request_id="same")


async def test_what_is_no_tool_is_said_before_anything_is_asked(client: HeavyClient, desk: Desk) -> None:
    with pytest.raises(ConfigError, match="decorate"):
        client.ask(QUESTION, ONE, tools=[lambda: None])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="Two tools"):
        client.ask(QUESTION, ONE, tools=[desk.tool, desk.tool])
    with pytest.raises(ConfigError, match="by name"):

        @tool
        def positional(order_id: str, /) -> str:
            return order_id

    with pytest.raises(InvalidRequest, match="python"):
        await client.answer(QUESTION, ONE, tools=[Desk(name="python").tool])
    assert tool(lambda order_id: "").spec.effects is Effects.WRITE
