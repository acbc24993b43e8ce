"""Tools of the caller's own: real gRPC, real coordinator, store and runner; only the model plays a script."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from heavy.agent.limits import AgentLimits
from heavy.aggregation.equivalence import Equivalence
from heavy.caller import ClientTool, ToolError, tool
from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.coordinator.caller_tools import RESULT_BYTES_MAX
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError, InvalidRequest
from heavy.core.ids import RunId
from heavy.core.messages import Role, ToolCall
from heavy.core.records import Record, ToolIntentRecord, ToolResultRecord
from heavy.core.runs import Run, RunState
from heavy.core.tools import CacheState, Effects
from heavy.profiles.loader import load_profiles
from heavy.replicas.api import GenerationRequest
from heavy.rpc.server import RpcServer
from heavy.runner.build import Bench
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.store.redis import RedisStore
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.replicas import Scripted, ScriptedReplica
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.cache import ToolCache
from heavy.tools.cache_breaker import BreakerLimits
from heavy.tools.cache_server import CacheLimits
from heavy.tools.registry import ToolBox
from heavy.v1 import heavy_pb2 as pb
from heavy.v1 import heavy_pb2_grpc

from tests_support.domain import PROFILE
from tests_support.proxy import CutProxy
from tests_support.waiting import until

QUESTION = "Where is order 17?"
EIGHT = PolicyDraft(width=8, early_stop=False, deadline_s=60.0)
ONE = PolicyDraft(width=1, deadline_s=60.0)


def calls_lookup(request: GenerationRequest) -> Scripted:
    """A model that looks one order up, each arm another, and says what it was told."""
    told = [m.content for m in request.messages if m.role is Role.TOOL]
    if told or not any(spec.name == "lookup" for spec in request.tools):
        return Scripted(f"Answer: {told[-1] if told else 'nothing'}")
    call = ToolCall("functions.lookup:0", "lookup", json.dumps({"order_id": request.request_id[25:26]}))
    return Scripted(reasoning="Let me see.", tool_calls=(call,))


def all_ask_alike(request: GenerationRequest) -> Scripted:
    """A model whose arms all look the same order up."""
    scripted = calls_lookup(request)
    alike = tuple(ToolCall(c.id, c.name, '{"order_id": "17"}') for c in scripted.tool_calls)
    return Scripted(scripted.content, scripted.reasoning, alike)


@dataclass
class Site:
    """Two coordinators over one store, and a runner."""

    servers: list[RpcServer]
    store: RedisStore
    replica: ScriptedReplica
    script: Callable[[GenerationRequest], Scripted] = field(default=calls_lookup)

    @property
    def address(self) -> str:
        return self.servers[0].address

    async def records(self, run: RunId) -> list[Record]:
        return list(await self.store.log.read(run, after=0, limit=1_000))

    async def results(self, run: RunId) -> list[ToolResultRecord]:
        return [r.body for r in await self.records(run) if isinstance(r.body, ToolResultRecord)]

    async def runs(self) -> tuple[Run, ...]:
        page = await self.store.log.list("default", states=frozenset(), page_size=10, page_token="")
        return page.runs

    async def calling(self) -> RunId:
        """Wait until a trajectory waits for a caller; its run."""
        runs = await until(self.runs, lambda runs: bool(runs))
        run = runs[0].spec.run

        async def intents() -> int:
            return sum(isinstance(r.body, ToolIntentRecord) for r in await self.records(run))

        await until(intents, lambda count: count > 0)
        return run

    async def keys(self, run: RunId) -> list[bytes]:
        async def read(client: Any) -> list[bytes]:
            found: list[bytes] = await client.keys(f"*{run}*")
            return found

        return await self.store._link.call("list keys", read)


@pytest.fixture
async def site(store: RedisStore, store_url: str) -> AsyncIterator[Site]:
    book, tracing = load_profiles(), Tracing("", "test")
    settings = Settings(host="127.0.0.1", port=0, lease_s=5.0, attach_grace_s=1.0)
    async with AsyncExitStack() as stack:
        made: list[Site] = []
        replica = ScriptedReplica(lambda request: made[0].script(request))
        patient = CacheLimits(command_s=5.0, breaker=BreakerLimits(slow_s=5.0))
        cache = await ToolCache.connect(store_url, b"secret", patient)
        stack.push_async_callback(cache.close)
        box = ToolBox([ScriptedTool(tool_spec("python"))], {}, cache)
        deltas = Deltas(store.log, 0.02)
        deltas.start()
        stack.push_async_callback(deltas.stop)
        bench = Bench(book, replica, box, store, tracing, AgentLimits(backoff_s=0.0))
        host = TrajectoryHost(store, deltas, bench, tracing, in_flight_max=32, lease_s=5.0)
        stack.push_async_callback(host.stop)
        servers = []
        for name in ("one", "two"):
            equivalence = Equivalence()
            stack.push_async_callback(equivalence.close)
            service = CoordinatorService(
                Parts(store, host, book, equivalence, settings.lease_s),
                PolicyDefaults(book.by_name, (PROFILE,), settings, ("python",)),
                settings,
                RunMetrics(CollectorRegistry(), ()),
                tracing,
                name,
            )
            await service.start()
            stack.push_async_callback(service.stop)
            servers.append(RpcServer(service, settings, tracing))
            await servers[-1].start()
            stack.push_async_callback(servers[-1].stop)
        made.append(Site(servers, store, replica))
        yield made[0]


@pytest.fixture
async def client(site: Site) -> AsyncIterator[HeavyClient]:
    async with HeavyClient(site.address) as connected:
        yield connected


class Desk:
    """A tool of the caller's that a test watches: it can be held up and made to fail."""

    def __init__(self, **declared: Any) -> None:
        self.calls: Counter[str] = Counter()
        self.cancelled = 0
        self.held = asyncio.Event()
        self.held.set()
        self.answer: Callable[[str], Any] = lambda order_id: "17"
        self.tool: ClientTool = tool(**{"name": "lookup", "effects": "read", **declared})(self._lookup)

    async def _lookup(self, order_id: str) -> Any:
        """Finds an order."""
        self.calls[order_id] += 1
        try:
            await self.held.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer(order_id)

    async def called(self, times: int = 1) -> None:
        async def count() -> int:
            return self.calls.total()

        await until(count, lambda total: total >= times)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_all_eight_arms_are_served_each_its_own_call(
    site: Site, client: HeavyClient, desk: Desk
) -> None:
    run = await client.answer(QUESTION, EIGHT, tools=[desk.tool])
    assert run.state is RunState.COMPLETED
    assert desk.calls == Counter({str(n): 1 for n in range(8)})
    results = await site.results(run.spec.run)
    assert [(r.content, r.is_error) for r in results] == [("17", False)] * 8


async def test_the_model_sees_the_declaration_and_the_arms_alone_have_the_tool(
    site: Site, client: HeavyClient, desk: Desk
) -> None:
    await client.answer(QUESTION, PolicyDraft(width=2, aggregation="reflective"), tools=[desk.tool])  # type: ignore[arg-type]
    arms = [r for r in site.replica.requests if any(spec.name == "lookup" for spec in r.tools)]
    assert len(arms) == 4
    (spec,) = [spec for spec in arms[0].tools if spec.name == "lookup"]
    assert spec.description == "Finds an order."
    assert spec.parameters["required"] == ["order_id"]
    assert len(site.replica.requests) > len(arms)  # the aggregator's


async def test_what_the_arms_ask_alike_is_asked_once_where_the_caller_says_so(
    site: Site, client: HeavyClient
) -> None:
    site.script = all_ask_alike
    shared, plain = Desk(cacheable=True), Desk()
    run = await client.answer(QUESTION, EIGHT, tools=[shared.tool])
    assert shared.calls == Counter({"17": 1})
    states = {r.cache for r in await site.results(run.spec.run)}
    assert states <= {CacheState.HIT, CacheState.COALESCED, CacheState.MISS}
    await client.answer(QUESTION, EIGHT, tools=[plain.tool])
    assert plain.calls == Counter({"17": 8})


async def test_a_client_that_was_cut_off_goes_on_and_executes_nothing_twice(site: Site, desk: Desk) -> None:
    desk.held.clear()
    async with CutProxy(site.servers[0].port) as proxy, HeavyClient(proxy.address) as client:
        answer = asyncio.create_task(client.answer(QUESTION, EIGHT, tools=[desk.tool]))
        await desk.called(8)
        proxy.cut()
        desk.held.set()
        run = await answer
    assert run.state is RunState.COMPLETED
    assert set(desk.calls.values()) == {1}
    assert not any(r.is_error for r in await site.results(run.spec.run))


async def test_results_that_were_ready_while_the_client_was_cut_off_arrive_afterwards(
    site: Site, desk: Desk
) -> None:
    desk.held.clear()
    async with CutProxy(site.servers[0].port) as proxy, HeavyClient(proxy.address) as client:
        answer = asyncio.create_task(client.answer(QUESTION, EIGHT, tools=[desk.tool]))
        await desk.called(8)
        proxy.open = False
        proxy.cut()
        desk.held.set()
        await asyncio.sleep(0.1)  # long enough to be ready, short of the grace
        proxy.open = True
        run = await answer
    assert run.state is RunState.COMPLETED
    assert set(desk.calls.values()) == {1}


async def test_a_new_process_with_the_same_request_id_gets_the_calls_that_are_out(
    site: Site, client: HeavyClient
) -> None:
    first, second = Desk(), Desk()
    first.held.clear()
    gone = client.ask(QUESTION, ONE, tools=[first.tool], request_id="again")
    reading = asyncio.create_task(anext(gone))
    drained = asyncio.create_task(_drain(gone, reading))
    await first.called()
    drained.cancel()
    await asyncio.gather(drained, return_exceptions=True)
    await gone.aclose()
    run = await client.answer(QUESTION, ONE, tools=[second.tool], request_id="again")
    assert run.state is RunState.COMPLETED
    assert (first.calls.total(), first.cancelled, second.calls.total()) == (1, 1, 1)
    assert len(await site.runs()) == 1


async def _drain(stream: Any, first: asyncio.Task[Any]) -> None:
    await first
    async for _ in stream:
        pass


async def test_a_write_that_was_out_is_not_sent_to_a_new_process_but_unknown(
    site: Site, client: HeavyClient
) -> None:
    first, second = Desk(effects="write"), Desk(effects="write")
    first.held.clear()
    gone = client.ask(QUESTION, ONE, tools=[first.tool], request_id="again")
    drained = asyncio.create_task(_drain(gone, asyncio.create_task(anext(gone))))
    await first.called()
    drained.cancel()
    await asyncio.gather(drained, return_exceptions=True)
    await gone.aclose()
    run = await client.answer(QUESTION, ONE, tools=[second.tool], request_id="again")
    assert run.state is RunState.COMPLETED
    assert second.calls.total() == 0
    (result,) = await site.results(run.spec.run)
    assert result.unknown


async def test_a_write_survives_a_cut_connection_in_the_process_that_executes_it(site: Site) -> None:
    desk = Desk(effects="write")
    desk.held.clear()
    async with CutProxy(site.servers[0].port) as proxy, HeavyClient(proxy.address) as client:
        answer = asyncio.create_task(client.answer(QUESTION, EIGHT, tools=[desk.tool]))
        await desk.called(8)
        proxy.cut()
        desk.held.set()
        run = await answer
    assert set(desk.calls.values()) == {1}
    assert not any(r.unknown for r in await site.results(run.spec.run))


async def test_another_coordinator_serves_as_well_and_keeps_the_run_alive(site: Site) -> None:
    first, second = Desk(), Desk()
    first.held.clear()
    second.held.clear()
    async with HeavyClient(site.servers[0].address) as here, HeavyClient(site.servers[1].address) as there:
        gone = here.ask(QUESTION, ONE, tools=[first.tool], request_id="again")
        drained = asyncio.create_task(_drain(gone, asyncio.create_task(anext(gone))))
        await first.called()
        drained.cancel()
        await asyncio.gather(drained, return_exceptions=True)
        await gone.aclose()
        answer = asyncio.create_task(there.answer(QUESTION, ONE, tools=[second.tool], request_id="again"))
        await second.called()
        await asyncio.sleep(2.5)  # beyond the grace of the coordinator that owns the run
        second.held.set()
        assert (await answer).state is RunState.COMPLETED


async def test_a_client_that_is_gone_for_good_ends_its_run(
    site: Site, client: HeavyClient, desk: Desk
) -> None:
    desk.held.clear()
    gone = client.ask(QUESTION, ONE, tools=[desk.tool])
    drained = asyncio.create_task(_drain(gone, asyncio.create_task(anext(gone))))
    await desk.called()
    drained.cancel()
    await asyncio.gather(drained, return_exceptions=True)
    await gone.aclose()
    run = (await site.runs())[0].spec.run
    ended = await until(lambda: client.get(run), lambda run: run.state.final)
    assert ended.state is RunState.CANCELLED
    assert "went away" in ended.cancel_reason


async def test_a_cancel_withdraws_the_calls_that_are_out(site: Site, client: HeavyClient, desk: Desk) -> None:
    desk.held.clear()
    answer = asyncio.create_task(client.answer(QUESTION, ONE, tools=[desk.tool]))
    await desk.called()
    run = (await site.runs())[0].spec.run
    await client.cancel(run)
    assert (await answer).state is RunState.CANCELLED
    assert desk.cancelled == 1


async def test_a_result_that_comes_too_late_is_said_to_the_model_and_the_run_goes_on(
    site: Site, client: HeavyClient
) -> None:
    slow, write = Desk(timeout_s=0.3), Desk(timeout_s=0.3, effects="write")
    for desk, unknown in ((slow, False), (write, True)):
        desk.held.clear()
        run = await client.answer(QUESTION, ONE, tools=[desk.tool])
        assert run.state is RunState.COMPLETED
        (result,) = await site.results(run.spec.run)
        assert (result.is_error, result.unknown) == (True, unknown)
        assert "did not" in result.content


async def test_what_goes_wrong_in_a_tool_is_a_result(site: Site, client: HeavyClient) -> None:
    def fails(error: Exception) -> Callable[[str], Any]:
        def answer(order_id: str) -> Any:
            raise error

        return answer

    cases = [
        ("read", ValueError("broken"), False, "ValueError: broken"),
        ("write", ValueError("broken"), True, "broken"),
        ("write", ToolError("no such order"), False, "no such order"),
    ]
    for effects, error, unknown, said in cases:
        desk = Desk(effects=effects)
        desk.answer = fails(error)
        run = await client.answer(QUESTION, ONE, tools=[desk.tool])
        (result,) = await site.results(run.spec.run)
        assert (result.is_error, result.unknown) == (True, unknown)
        assert said in result.content


async def test_a_result_that_is_too_large_is_refused_and_the_model_told(
    site: Site, client: HeavyClient, desk: Desk
) -> None:
    desk.answer = lambda order_id: "x" * (RESULT_BYTES_MAX + 1)
    run = await client.answer(QUESTION, ONE, tools=[desk.tool])
    assert run.state is RunState.COMPLETED
    (result,) = await site.results(run.spec.run)
    assert result.is_error
    assert "Ask for less" in result.content


async def test_functions_that_are_not_async_and_values_that_are_no_text_will_do(
    site: Site, client: HeavyClient
) -> None:
    @tool(effects="pure")
    def lookup(order_id: str, copies: int = 2) -> dict[str, Any]:
        """Finds an order."""
        return {"order": order_id, "copies": copies}

    run = await client.answer(QUESTION, ONE, tools=[lookup])
    (result,) = await site.results(run.spec.run)
    assert json.loads(result.content) == {"order": "0", "copies": 2}


async def test_a_run_without_such_tools_leaves_no_trace_of_them(site: Site, client: HeavyClient) -> None:
    run = await client.answer(QUESTION, ONE)
    names = {key.rpartition(b":")[2] for key in await site.keys(run.spec.run)}
    assert names.isdisjoint({b"calls", b"results", b"calls_over", b"callers"})


async def test_after_its_end_a_run_keeps_no_call_and_no_result(
    site: Site, client: HeavyClient, desk: Desk
) -> None:
    run = await client.answer(QUESTION, EIGHT, tools=[desk.tool])
    names = {key.rpartition(b":")[2] for key in await site.keys(run.spec.run)}
    assert names.isdisjoint({b"calls", b"results"})


# What a client without our library may send


def start(*tools: pb.CallerTool, question: str = QUESTION, width: int = 1) -> pb.ConverseRequest:
    ask = pb.AskRequest(
        messages=[{"role": 2, "content": question}], policy={"width": width}, request_id="raw"
    )
    return pb.ConverseRequest(start=pb.ConverseStart(ask=ask, tools=tools))


LOOKUP = pb.CallerTool(name="lookup", parameters='{"type": "object"}')


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
        ([pb.CallerTool(name="python")], "name"),
        ([pb.CallerTool(name="search_trajectory")], "name"),
        ([pb.CallerTool(name="../x")], "name"),
        ([pb.CallerTool(name="")], "name"),
        ([LOOKUP, LOOKUP], "name"),
        ([pb.CallerTool(name=f"t{n}") for n in range(65)], "tools"),
        ([pb.CallerTool(name="a", parameters="{")], "parameters"),
        ([pb.CallerTool(name="a", parameters="[]")], "parameters"),
        ([pb.CallerTool(name="a", parameters='{"type": "string"}')], "parameters"),
        ([pb.CallerTool(name="a", parameters='{"type": "object", "required": 3}')], "parameters"),
        (
            [pb.CallerTool(name="a", parameters='{"type":"object","properties":{"x":{"pattern":"(a+)+$"}}}')],
            "parameters",
        ),
        (
            [pb.CallerTool(name="a", parameters='{"type":"object","not":' * 40 + "{}" + "}" * 40)],
            "parameters",
        ),
        (
            [pb.CallerTool(name="a", parameters='{"type": "object", "title": "%s"}' % ("x" * 70_000))],
            "parameters",
        ),
        ([pb.CallerTool(name="a", description="x" * 9_000)], "description"),
        ([pb.CallerTool(name="a", timeout={"seconds": 0})], "timeout"),
        ([pb.CallerTool(name="a", timeout={"seconds": 100_000})], "timeout"),
        ([pb.CallerTool(name="a", cacheable=True)], "cacheable"),
        ([pb.CallerTool(name="a", effects=77)], "effects"),  # type: ignore[arg-type]
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
