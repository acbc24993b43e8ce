"""Ask, watch and resume against a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.errors import LimitExceeded, NotFound, RequestConflict, ServerUnavailable
from heavy.core.ids import RunId, arm, new_run_id
from heavy.core.messages import Message, Role
from heavy.core.records import Delta, LifecycleRecord, Record
from heavy.core.runs import RunState
from heavy.rpc.server import STOP_GRACE_S, RpcServer


async def test_an_answer_comes_with_its_run(client: HeavyClient, coordinator: Any) -> None:
    coordinator.opening = lambda run: coordinator.finish(run, "391")
    run = await client.answer("What is 17 * 23?", PolicyDraft(width=2, seed=7))
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert run.result.answer == "391"
    assert run.spec.messages == (Message(Role.USER, "What is 17 * 23?"),)
    assert (run.spec.policy.width, run.spec.policy.seed, run.spec.attached) == (2, 7, True)
    assert run.spec.policy.members.arms == ("tiny", "tiny")


async def test_records_and_deltas_come_in_order_and_the_stream_ends_with_the_run(
    client: HeavyClient, coordinator: Any
) -> None:
    stream = client.ask("Hello")
    first = await anext(stream)
    assert isinstance(first, Record)
    assert (first.number, stream.last_record) == (1, 1)
    run = coordinator.only
    assert stream.run == run.run.spec.run
    await coordinator.show(run, Delta(arm(0), 0, reasoning="hm"), Delta(arm(1), 0, content="ha"))
    assert [await anext(stream), await anext(stream)] == [
        Delta(arm(0), 0, reasoning="hm"),
        Delta(arm(1), 0, content="ha"),
    ]
    await coordinator.finish(run, "done")
    last = [event async for event in stream]
    assert [event.number for event in last if isinstance(event, Record)] == [2]


async def test_deltas_stay_away_when_not_wanted(client: HeavyClient, coordinator: Any) -> None:
    async with client.ask("Hello", deltas=False) as stream:
        await anext(stream)
        await coordinator.show(coordinator.only, Delta(arm(0), 0, content="x"))
        await coordinator.finish(coordinator.only, "done")
        assert all([isinstance(event, Record) async for event in stream])


async def test_a_caller_that_goes_is_seen_to_go(client: HeavyClient, coordinator: Any) -> None:
    async with client.ask("Hello") as stream:
        await anext(stream)
        assert coordinator.only.attached == 1
    await coordinator.until(lambda: coordinator.only.attached == 0)


async def test_a_caller_whose_connection_breaks_is_seen_to_go(server: RpcServer, coordinator: Any) -> None:
    client = HeavyClient(server.address)
    async with client:
        stream = client.ask("Hello")
        await anext(stream)
        await client.close()
        await coordinator.until(lambda: coordinator.only.attached == 0)


async def test_a_cancelled_task_cancels_its_call_and_stays_cancelled(
    client: HeavyClient, coordinator: Any
) -> None:
    task = asyncio.create_task(client.answer("Hello"))
    await coordinator.until(lambda: bool(coordinator.runs) and coordinator.only.attached == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await coordinator.until(lambda: coordinator.only.attached == 0)


async def test_the_same_request_id_attaches_to_the_run_that_is_there(
    client: HeavyClient, coordinator: Any
) -> None:
    async with (
        client.ask("Hello", request_id="one") as first,
        client.ask("Hello", request_id="one") as second,
    ):
        await anext(first)
        await anext(second)
        assert first.run == second.run
        assert coordinator.only.attached == 2
    await coordinator.until(lambda: coordinator.only.attached == 0)


async def test_the_same_request_id_with_another_question_is_a_conflict(client: HeavyClient) -> None:
    await client.create("Hello", request_id="one")
    with pytest.raises(RequestConflict, match="another request"):
        await client.create("Goodbye", request_id="one")


async def test_asking_again_is_the_same_request_though_its_deadline_shrinks_and_its_seed_is_drawn(
    client: HeavyClient, coordinator: Any
) -> None:
    async with client.ask("Hello", request_id="one", timeout_s=60) as first:
        await anext(first)
    async with client.ask("Hello", request_id="one", timeout_s=50) as second:
        await anext(second)
    one, two = coordinator.requests
    assert one.policy != two.policy
    assert one.fingerprint == two.fingerprint
    assert first.run == second.run


async def test_the_callers_deadline_caps_the_runs(client: HeavyClient, coordinator: Any) -> None:
    with pytest.raises(LimitExceeded) as caught:
        await client.answer("Hello", PolicyDraft(deadline_s=100), timeout_s=1)
    assert caught.value.limit == "deadline_s"
    assert 0 < coordinator.requests[0].policy.deadline_s < 1
    await coordinator.until(lambda: coordinator.only.attached == 0)


async def test_a_shorter_deadline_of_the_policy_stands(client: HeavyClient, coordinator: Any) -> None:
    async with client.ask("Hello", PolicyDraft(deadline_s=5), timeout_s=60) as stream:
        await anext(stream)
    assert coordinator.requests[0].policy.deadline_s == 5


async def test_a_stream_resumes_after_its_last_record_when_the_server_is_back(
    server: RpcServer, coordinator: Any, settings: Any
) -> None:
    async with HeavyClient(server.address) as client, client.ask("Hello") as stream:
        await anext(stream)
        await coordinator.note(coordinator.only, "before")
        assert isinstance(await anext(stream), Record)
        await server.stop()
        await coordinator.until(lambda: coordinator.only.attached == 0)
        await coordinator.note(coordinator.only, "while away")
        again = RpcServer(coordinator, settings.model_copy(update={"port": server.port}))
        await again.start()
        try:
            third = await asyncio.wait_for(anext(stream), 10)
            assert isinstance(third, Record)
            assert isinstance(third.body, LifecycleRecord)
            assert (third.number, third.body.detail) == (3, "while away")
            await coordinator.finish(coordinator.only, "done")
            assert [event.number async for event in stream if isinstance(event, Record)] == [4]
        finally:
            await again.stop()
    assert coordinator.only.watches == [0, 2]
    assert len({request.request_id for request in coordinator.requests}) == 1


async def test_a_server_that_stops_tells_its_watchers_at_once(server: RpcServer, coordinator: Any) -> None:
    async with HeavyClient(server.address, patience_s=0) as client, client.ask("Hello") as stream:
        await anext(stream)
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(ServerUnavailable, match="going down"):
            await asyncio.wait_for(anext(stream), STOP_GRACE_S / 2)
        await stopping
    assert coordinator.only.attached == 0


async def test_patience_ends_when_the_server_stays_away(server: RpcServer, coordinator: Any) -> None:
    async with HeavyClient(server.address, patience_s=0.3) as client, client.ask("Hello") as stream:
        await anext(stream)
        await server.stop()
        with pytest.raises(ServerUnavailable):
            await asyncio.wait_for(anext(stream), 10)


async def test_a_server_that_was_never_there_is_unavailable() -> None:
    async with HeavyClient("127.0.0.1:1", patience_s=0.2) as client:
        with pytest.raises(ServerUnavailable, match="cannot be reached"):
            await client.get(new_run_id())


async def test_watching_starts_after_the_number_given_and_owns_nothing(
    client: HeavyClient, coordinator: Any
) -> None:
    run = await client.create("Hello")
    await coordinator.note(coordinator.only, "a")
    await coordinator.note(coordinator.only, "b")
    await coordinator.finish(coordinator.only, "done")
    assert not run.spec.attached
    events = [event async for event in client.watch(run.spec.run, after=2)]
    assert [event.number for event in events if isinstance(event, Record)] == [3, 4]
    assert coordinator.only.attachments == 0


async def test_unknown_runs_are_not_found(client: HeavyClient) -> None:
    with pytest.raises(NotFound):
        await anext(client.watch(new_run_id()))
    with pytest.raises(NotFound):
        await client.get(RunId("run-000000000000000000000000"))


async def test_a_slow_reader_holds_the_watch_up_and_loses_nothing(
    client: HeavyClient, coordinator: Any
) -> None:
    records, size = 400, 100_000
    run = await client.create("Hello")
    for _ in range(records):
        await coordinator.note(coordinator.only, "x" * size)
    await coordinator.finish(coordinator.only, "done")
    async with client.watch(run.spec.run) as stream:
        await anext(stream)
        seen = await _settled(lambda: coordinator.only.given)
        assert seen < records / 2
        rest = [event.number async for event in stream if isinstance(event, Record)]
    assert rest == list(range(2, records + 3))


async def _settled(value: Any) -> int:
    """A count once it has stopped growing for a quarter of a second; at most five seconds."""
    last, since = value(), asyncio.get_running_loop().time()
    async with asyncio.timeout(5):
        while asyncio.get_running_loop().time() < since + 0.25:
            await asyncio.sleep(0.01)
            if value() != last:
                last, since = value(), asyncio.get_running_loop().time()
    return int(last)
