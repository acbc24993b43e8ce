"""Routing over real servers: failover before the first token, breakers, in-flight limits, waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import pytest

from heavy.core import clock
from heavy.core.errors import EngineRefused, EngineTimeout, EngineUnavailable, HeavyError
from heavy.core.fleet import ReplicaInfo
from heavy.core.ids import arm, new_run_id, request_id
from heavy.replicas.api import Finished, TextDelta
from heavy.replicas.breaker import BreakerState
from heavy.replicas.client import HttpReplica
from heavy.replicas.http import HttpPool
from heavy.testing.scripted_server import ABORT, CHAT, Act, Reply, answer, chunk

from tests_support.routed import MESSAGES, PROFILE, QUICK, Fleet, request, rids

BUSY = Reply((b'{"error":"queue full"}',), 503, {"Content-Type": "application/json"})


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        pool = HttpPool(streams_max=64)
        stack.push_async_callback(pool.close)
        fleet = Fleet(pool, stack)
        yield fleet
        assert all(known.in_flight == 0 for known in await fleet.registry.of(PROFILE))
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0)


async def test_a_replica_that_fails_before_the_first_token_is_left_for_another_under_a_new_id(
    fleet: Fleet,
) -> None:
    bad, good = await fleet.server("bad", BUSY), await fleet.server("good", answer())
    asked = request_id(new_run_id(), arm(3), 7, 2)
    finished = await fleet.ask(request_id=asked, prefer_replica="bad")
    assert finished.replica == "good"
    assert rids(bad, good) == [asked, asked[:-2] + "12"]
    assert finished.request_id == asked[:-2] + "12"


@pytest.mark.parametrize("reply", [BUSY, Reply((Act.DROP,))], ids=["busy", "dropped"])
async def test_the_number_of_attempts_is_bounded_and_every_id_is_distinct(fleet: Fleet, reply: Reply) -> None:
    servers = [await fleet.server(f"r{index}", reply) for index in range(5)]
    with pytest.raises(EngineUnavailable):
        await fleet.ask()
    seen = rids(*servers)
    assert len(seen) == len(set(seen)) == 3
    assert all(len(server.of(CHAT)) <= 1 for server in servers)
    assert len({one[:-2] for one in seen}) == len({len(one) for one in seen}) == 1


HALF = Reply((chunk({"reasoning_content": "Let me "}), chunk({"reasoning_content": "see"}), Act.DROP))


async def test_after_the_first_token_another_replica_goes_on_from_what_was_said(fleet: Fleet) -> None:
    broken = await fleet.server("a", HALF)
    whole = await fleet.server("b", answer(" it.", reasoning="ing."))
    events = [event async for event in fleet.router.generate(request(prefer_replica="a"))]
    heard = "".join(event.reasoning for event in events if isinstance(event, TextDelta))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert heard == finished.reasoning == "Let me seeing."
    assert (finished.content, finished.replica) == (" it.", "b")
    assert len(rids(broken, whole)) == 2
    sent = whole.of(CHAT)[0].json()
    assert sent["continue_final_message"] is True
    assert sent["messages"][-1] == {"role": "assistant", "content": "<think>Let me see"}
    assert len(sent["messages"]) == len(MESSAGES) + 1


async def test_what_the_lost_attempt_cost_is_counted_too(fleet: Fleet) -> None:
    await fleet.server("a", HALF)
    await fleet.server("b", answer("!", reasoning="ing."))
    split = await fleet.ask(prefer_replica="a")
    alone = await fleet.ask(prefer_replica="b")
    assert split.usage.output > alone.usage.output
    assert split.usage.prompt > alone.usage.prompt


async def test_a_server_that_cannot_go_on_leaves_half_an_answer_to_the_caller(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpReplica, "continues", False)
    servers = [await fleet.server(name, HALF) for name in ("a", "b")]
    with pytest.raises(EngineUnavailable):
        await fleet.ask()
    assert len(rids(*servers)) == 1


async def test_a_server_that_refuses_to_go_on_leaves_the_loss_to_the_caller(fleet: Fleet) -> None:
    await fleet.server("a", HALF)
    await fleet.server("b", Reply((b'{"error":{"message":"no such field"}}',), 400))
    with pytest.raises(EngineUnavailable, match="Replica a"):
        await fleet.ask(prefer_replica="a")


@pytest.mark.parametrize("how", ["failed", "gone", "anew"])
async def test_a_silent_replica_that_is_lost_is_left_long_before_silence_is_a_failure(
    fleet: Fleet, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heavy.replicas.http.STOP_S", 30.0)  # what is hung hears no abort, either
    hung = await fleet.server("hung", Reply((chunk({"content": "so"}), Act.STALL)))
    hung.on(ABORT, Reply(mute=True))
    await fleet.server("well", answer(" it is"))
    waiting = asyncio.create_task(fleet.ask(prefer_replica="hung"))
    async with asyncio.timeout(5):
        while not hung.open:
            await asyncio.sleep(0.01)
    if how == "gone":
        del fleet.directory.infos["hung"]
    elif how == "failed":
        fleet.directory.put("hung", hung.base_url, "failed")
    else:
        fleet.directory.put("hung", hung.base_url, "ready", pid=7)
    finished = await asyncio.wait_for(waiting, 8)
    assert (finished.content, finished.replica) == ("so it is", "well")


async def test_a_silent_replica_that_is_well_is_waited_for(fleet: Fleet) -> None:
    hung = await fleet.server("thinking", Reply((chunk({"content": "so"}), Act.STALL)))
    waiting = asyncio.create_task(fleet.ask())
    async with asyncio.timeout(5):
        while not hung.open:
            await asyncio.sleep(0.01)
    done, _ = await asyncio.wait({waiting}, timeout=10 * QUICK.look_after_s)
    assert not done
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_dead_process_that_is_still_announced_is_left_at_once(fleet: Fleet) -> None:
    dead = await fleet.server("dead", answer())
    await dead.__aexit__()
    good = await fleet.server("good", answer())
    began_s = clock.monotonic_s()
    for _ in range(5):
        assert (await fleet.ask(prefer_replica="dead")).replica == "good"
    assert clock.monotonic_s() - began_s < 2.0
    assert len(good.of(CHAT)) == 5
    assert await fleet.breaker("dead") is BreakerState.OPEN


async def test_a_refusal_is_no_reason_to_try_elsewhere(fleet: Fleet) -> None:
    servers = [await fleet.server(name, Reply((b"{}",), 400)) for name in ("a", "b")]
    with pytest.raises(EngineRefused):
        await fleet.ask()
    assert len(rids(*servers)) == 1


async def test_a_single_replica_that_stumbles_once_is_tried_again(fleet: Fleet) -> None:
    server = await fleet.server("only", Reply((Act.DROP,)), answer())
    assert (await fleet.ask()).replica == "only"
    assert len(set(rids(server))) == 2


async def test_a_breaker_opens_for_a_failing_replica_and_closes_when_it_recovers(fleet: Fleet) -> None:
    bad = await fleet.server("bad", BUSY)
    await fleet.server("good", answer())
    for _ in range(3):
        assert (await fleet.ask(prefer_replica="bad")).replica == "good"
    assert await fleet.breaker("bad") is BreakerState.OPEN
    assert (await fleet.ask(prefer_replica="bad")).replica == "good"
    assert len(bad.of(CHAT)) == 3
    bad.on(CHAT, answer())
    async with asyncio.timeout(5):
        while (await fleet.ask(prefer_replica="bad")).replica == "good":
            await asyncio.sleep(0.05)
    assert await fleet.breaker("bad") is BreakerState.CLOSED


async def test_retry_after_keeps_everyone_away_for_that_long(fleet: Fleet) -> None:
    body = {"Content-Type": "application/json", "Retry-After": "30"}
    busy = await fleet.server("busy", Reply((b"{}",), 503, body))
    await fleet.server("good", answer())
    for _ in range(3):
        await fleet.ask(prefer_replica="busy")
    assert len(busy.of(CHAT)) == 1


async def test_in_flight_limits_hold_and_the_wait_is_counted_as_queue_time(fleet: Fleet) -> None:
    held = Reply((Act.GATE, *answer().parts))
    servers = [await fleet.server(f"r{index}", held, in_flight_max=2) for index in range(2)]
    tasks = [asyncio.create_task(fleet.ask()) for _ in range(24)]
    for server in servers:
        await server.until(lambda server=server: server.open == 2)  # type: ignore[misc]
    waited_since_s = clock.monotonic_s()
    while clock.monotonic_s() - waited_since_s < 0.2:  # time in which a fifth could come, were it let in
        await asyncio.sleep(0.01)
    for server in servers:
        server.gate.set()
    finished = await asyncio.gather(*tasks)
    assert [server.open_peak for server in servers] == [2, 2]
    assert sum(len(server.of(CHAT)) for server in servers) == 24
    assert sorted(one.timing.queue_s for one in finished)[4] >= 0.2


async def test_arms_that_start_together_are_spread_over_idle_replicas(fleet: Fleet) -> None:
    stall = Reply((chunk({"content": "so"}), Act.STALL))
    servers = [await fleet.server(f"r{index}", stall) for index in range(4)]
    tasks = [asyncio.create_task(fleet.ask()) for _ in range(8)]
    for server in servers:
        await server.until(lambda server=server: server.open == 2)  # type: ignore[misc]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(len(server.of(ABORT)) for server in servers) == 8


async def test_a_cancelled_waiter_takes_no_place_and_holds_nobody_up(fleet: Fleet) -> None:
    stall = Reply((chunk({"content": "so"}), Act.STALL))
    server = await fleet.server("only", stall, answer(), in_flight_max=1)
    async with aclosing(fleet.router.generate(request())) as first:
        await anext(first)
        waiters = [asyncio.create_task(fleet.ask()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        waiters[1].cancel()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, asyncio.CancelledError, Finished]
    assert len(server.of(CHAT)) == 2


async def test_waiting_for_room_ends_at_the_deadline(fleet: Fleet) -> None:
    await fleet.server("only", Reply((chunk({"content": "so"}), Act.STALL)), in_flight_max=1)
    async with aclosing(fleet.router.generate(request())) as first:
        await anext(first)
        with pytest.raises(EngineUnavailable, match="had room before the deadline"):
            await fleet.ask(deadline_ms=clock.now_ms() + 150)


@pytest.mark.parametrize("state", ["failed", "draining"])
async def test_no_working_replica_is_said_after_a_bounded_wait(fleet: Fleet, state: str) -> None:
    with pytest.raises(EngineUnavailable, match="No replica of profile simulated is there"):
        await fleet.ask()
    fleet.directory.put("r1", "http://127.0.0.1:9/v1", state=state)
    with pytest.raises(EngineUnavailable, match=f"works: r1 {state}"):
        await fleet.ask()


async def test_many_who_wait_for_an_absent_replica_wait_together_and_not_in_turn(fleet: Fleet) -> None:
    began_s = clock.monotonic_s()
    results = await asyncio.gather(*(fleet.ask() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, EngineUnavailable) for result in results)
    assert clock.monotonic_s() - began_s < 20 * QUICK.absence_s / 2


async def test_a_replica_that_is_starting_is_waited_for(fleet: Fleet) -> None:
    fleet.directory.put("r1", "http://127.0.0.1:9/v1", state="starting")
    asking = asyncio.create_task(fleet.ask())
    began_s = clock.monotonic_s()
    while clock.monotonic_s() - began_s < 2 * QUICK.absence_s:
        assert not asking.done()
        await asyncio.sleep(0.05)
    await fleet.server("r1", answer())
    assert (await asking).replica == "r1"


async def test_a_replica_that_came_back_elsewhere_starts_afresh(fleet: Fleet) -> None:
    await fleet.server("r1", BUSY)
    with pytest.raises(HeavyError):
        await fleet.ask()
    assert await fleet.breaker("r1") is BreakerState.OPEN
    await fleet.server("r1", answer())
    assert (await fleet.ask()).content == "Answer: 4"


async def test_a_replica_of_a_profile_unknown_here_disturbs_nobody(fleet: Fleet) -> None:
    await fleet.server("r1", answer())
    fleet.directory.infos["x"] = ReplicaInfo("x", "unknown-here", "http://x/v1", "remote", "m", "ready")
    assert (await fleet.ask()).replica == "r1"


async def test_callers_whose_time_is_over_do_not_count_against_the_replica(fleet: Fleet) -> None:
    await fleet.server("r1", Reply((Act.STALL,)))
    for _ in range(4):
        with pytest.raises(EngineTimeout):
            await fleet.ask(deadline_ms=clock.now_ms() + 60)
    assert await fleet.breaker("r1") is BreakerState.CLOSED


async def test_tokens_are_counted_by_a_working_replica_else_estimated(fleet: Fleet) -> None:
    estimate = await fleet.router.count_tokens(PROFILE, MESSAGES, ())
    assert estimate > 0
    server = await fleet.server("r1")
    server.on("/v1/tokenize", Reply((b'{"tokens":[],"count":77}',)))
    async with asyncio.timeout(5):
        while await fleet.router.count_tokens(PROFILE, MESSAGES, ()) != 77:
            await asyncio.sleep(0.05)
