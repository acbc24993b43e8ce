"""Tools of the caller's own: real gRPC, real coordinator, store and runner; only the model plays a script."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from heavy.caller import ToolError, tool
from heavy.cli.story import Story
from heavy.client import HeavyClient
from heavy.coordinator.caller_tools import RESULT_BYTES_MAX
from heavy.core.draft import PolicyDraft
from heavy.core.records import Delta, Record
from heavy.core.runs import RunState
from heavy.core.tools import CacheState

from .conftest import EIGHT, ONE, QUESTION, Desk, Site, all_ask_alike
from tests_support.proxy import CutProxy
from tests_support.waiting import until


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


async def test_a_run_says_which_tools_were_the_callers(client: HeavyClient, desk: Desk) -> None:
    run = await client.answer(QUESTION, ONE, tools=[desk.tool])
    assert run.spec.caller_tools == (desk.tool.spec,)
    told = "".join(str(part) for part in Story(run, (), full=False).head(run.spec.created_ms))
    assert "tools python, of the caller's own lookup" in told


async def test_calls_are_executed_while_whoever_reads_the_stream_is_busy(
    client: HeavyClient, desk: Desk
) -> None:
    seen: list[Record | Delta] = []
    async with client.ask(QUESTION, EIGHT, tools=[desk.tool]) as stream:
        async for event in stream:
            if not seen:
                await desk.called(8)
            seen.append(event)
    numbers = [event.number for event in seen if isinstance(event, Record)]
    assert numbers == list(range(1, stream.last_record + 1))


async def test_functions_that_block_are_executed_for_all_arms_at_once(
    site: Site, client: HeavyClient
) -> None:
    together = threading.Barrier(8)

    @tool(effects="read")
    def lookup(order_id: str) -> str:
        together.wait(timeout=30.0)
        return "17"

    run = await client.answer(QUESTION, EIGHT, tools=[lookup])
    assert [(r.content, r.is_error) for r in await site.results(run.spec.run)] == [("17", False)] * 8


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
