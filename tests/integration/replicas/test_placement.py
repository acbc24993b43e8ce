"""Where generations go: real servers, the real store, several routers as several processes have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from heavy.core import clock
from heavy.core.errors import EngineUnavailable
from heavy.core.ids import RunId, arm, new_run_id, request_id
from heavy.profiles.schema import RoutingSection
from heavy.replicas.cost import Chooser, Demand, Offer, Pace, Reason, cheapest
from heavy.replicas.holds import KvHolds
from heavy.replicas.http import HttpPool
from heavy.replicas.router import RoutingLimits
from heavy.store.redis import RedisStore
from heavy.testing.scripted_server import CHAT, DONE, Act, Reply, ScriptedServer, answer, chunk, usage

from tests_support.routed import Fleet, ListedDirectory
from tests_support.waiting import until

LIMITS = RoutingLimits(absence_s=0.8, look_again_s=0.02, look_after_s=0.1)
SLOW = RoutingSection(prefill_tokens_per_s=1_000, tokens_per_s=100, output_tokens=100, crowding=1.0)
"""A usual generation takes 1 s; 700 tokens of opening 0.7 s."""
OPENING = 700
HELD_UP = Reply((Act.GATE, *answer("4").parts))

Make = Callable[..., Fleet]


@pytest.fixture
async def make(store: RedisStore) -> AsyncIterator[Make]:
    """Makes fleets over one directory and one store: each is what one process would have."""
    directory = ListedDirectory()
    made: list[KvHolds] = []
    async with AsyncExitStack() as stack:
        pool = HttpPool(streams_max=64)
        stack.push_async_callback(pool.close)

        def fleet(
            limits: RoutingLimits = LIMITS,
            routing: RoutingSection = SLOW,
            ttl_s: float = 5.0,
            chooser: Chooser = cheapest,
        ) -> Fleet:
            made.append(KvHolds(store.reservations, ttl_s))
            return Fleet(
                pool,
                stack,
                limits=limits,
                holds=made[-1],
                routing=routing,
                directory=directory,
                chooser=chooser,
            )

        yield fleet
        for holds in made:
            await holds.close()
        seen = await store.reservations.held(sorted(directory.infos) or ["none"])
        assert all(one.generations == 0 for one in seen.values())


def asked(run: RunId, index: int, step: int = 0, **changes: object) -> dict[str, object]:
    """One generation of an arm whose prompt begins with the opening of its run."""
    ordinary = {
        "request_id": request_id(run, arm(index), step, 1),
        "group": f"{run}-arm",
        "opening_tokens": OPENING,
        "prompt_tokens": OPENING,
    }
    return {**ordinary, **changes}


async def placed(fleet: Fleet, **changes: object) -> tuple[str, str]:
    finished = await fleet.ask(**changes)
    return finished.replica, finished.placed


async def test_the_first_arm_leads_and_the_others_begin_once_it_has_begun(make: Make) -> None:
    here, there = make(), make()
    a = await here.server("a", HELD_UP, answer("4"))
    b = await here.server("b", HELD_UP, answer("4"))
    run = new_run_id()
    tasks = [
        asyncio.create_task(placed((here, there)[index % 2], **asked(run, index, prefer_replica="a")))
        for index in range(6)
    ]
    await a.until(lambda: len(a.of(CHAT)) == 1)
    await asyncio.sleep(0.1)  # time in which others could come, were they let in
    assert (len(a.of(CHAT)), len(b.of(CHAT))) == (1, 0)
    a.gate.set()
    b.gate.set()
    found = await asyncio.gather(*tasks)
    assert [replica for replica, _ in found] == ["a"] * 6
    assert sorted(reason for _, reason in found) == ["follow"] * 5 + ["lead"]


async def test_who_waits_for_a_prefill_is_not_in_line_for_room(make: Make) -> None:
    fleet = make()
    a = await fleet.server("a", HELD_UP)
    run = new_run_id()
    tasks = [asyncio.create_task(placed(fleet, **asked(run, index))) for index in range(3)]
    await a.until(lambda: len(a.of(CHAT)) == 1)
    await asyncio.sleep(0.1)  # time in which the others come to wait

    async def in_line() -> dict[str, float]:
        return fleet.router.queue_wait_s

    await until(in_line, lambda waits: waits == {})
    assert len(a.of(CHAT)) == 1
    a.gate.set()
    await asyncio.gather(*tasks)


async def test_a_leader_that_fails_releases_the_others(make: Make) -> None:
    here, there = make(), make()
    a = await here.server("a", Reply((Act.GATE, Act.DROP)), answer("4"))
    run = new_run_id()
    tasks = [asyncio.create_task(placed((here, there)[index % 2], **asked(run, index))) for index in range(4)]
    await a.until(lambda: len(a.of(CHAT)) == 1)
    a.gate.set()
    found = await asyncio.gather(*tasks)
    assert {replica for replica, _ in found} == {"a"}
    assert len(a.of(CHAT)) == 5


async def test_a_leader_is_waited_for_only_so_long(make: Make) -> None:
    quick = RoutingLimits(absence_s=0.8, look_again_s=0.02, look_after_s=0.1, lead_max_s=0.2)
    fleet = make(quick)
    a = await fleet.server("a", HELD_UP)
    run = new_run_id()
    tasks = [asyncio.create_task(placed(fleet, **asked(run, index))) for index in range(3)]
    await a.until(lambda: len(a.of(CHAT)) == 3)
    a.gate.set()
    await asyncio.gather(*tasks)


async def test_arms_with_a_short_opening_spread_and_none_leads(make: Make) -> None:
    fleet = make()
    servers = [await fleet.server(name, HELD_UP, in_flight_max=8) for name in ("a", "b", "c", "d")]
    run, short = new_run_id(), {"opening_tokens": 40, "prompt_tokens": 40}
    tasks = [asyncio.create_task(placed(fleet, **asked(run, index, **short))) for index in range(8)]
    for server in servers:
        await server.until(lambda server=server: server.open == 2)  # type: ignore[misc]
    for server in servers:
        server.gate.set()
    assert {reason for _, reason in await asyncio.gather(*tasks)} <= {Reason.IDLE, Reason.AFFINITY}


async def test_a_trajectory_stays_where_its_prompt_is_and_leaves_when_waiting_costs_more(make: Make) -> None:
    fleet = make()
    long = Reply((chunk({"content": "4"}), chunk(finish="stop"), usage(5_000, 3), DONE))
    a = await fleet.server("a", long, HELD_UP, long, HELD_UP, in_flight_max=1)
    run, own, busy = new_run_id(), {"opening_tokens": 0}, {"opening_tokens": 0, "prefer_replica": "a"}
    assert await placed(fleet, **asked(run, 0, **own)) == ("a", "idle")
    crowd = asyncio.create_task(placed(fleet, **asked(new_run_id(), 0, **busy)))
    await a.until(lambda: a.open == 1)
    b = await fleet.server("b", answer("4"), in_flight_max=1)
    await until(lambda: replicas(fleet), lambda names: len(names) == 2)
    # A place on a comes free within 1 s; prefilling 5,000 tokens on b takes 5 s.
    staying = asyncio.create_task(placed(fleet, **asked(run, 0, 1, **own, prompt_tokens=5_000)))
    await asyncio.sleep(0.1)  # time in which it could go elsewhere
    assert not b.of(CHAT)
    a.gate.set()
    assert await staying == ("a", "affinity")
    await crowd
    a.gate.clear()
    crowd = asyncio.create_task(placed(fleet, **asked(new_run_id(), 0, **busy, prompt_tokens=10_000)))
    await until(lambda: opened(a, b), lambda count: count == 1)
    idle, name = (b, "b") if a.open else (a, "a")
    # Prefilling 60 tokens takes less than waiting for anybody.
    assert (await placed(fleet, **asked(run, 0, 2, **own, prompt_tokens=60)))[0] == name
    assert idle.open == 0
    a.gate.set()
    b.gate.set()
    await crowd


async def test_what_was_waited_for_any_room_is_not_taken_off_the_wait_for_a_better_one(make: Make) -> None:
    fleet = make(RoutingLimits(look_again_s=0.02, wait_max_s=1.0))
    long = Reply((chunk({"content": "4"}), chunk(finish="stop"), usage(50_000, 3), DONE))
    a = await fleet.server("a", long, HELD_UP, answer("4"), in_flight_max=1)
    run, own = new_run_id(), {"opening_tokens": 0}
    await placed(fleet, **asked(run, 0, **own))
    b = await fleet.server("b", HELD_UP, in_flight_max=1)
    await until(lambda: replicas(fleet), lambda names: len(names) == 2)
    crowd = [
        asyncio.create_task(placed(fleet, **asked(new_run_id(), 0, **own, prompt_tokens=60))) for _ in "ab"
    ]
    await until(lambda: opened(a, b), lambda count: count == 2)
    staying = asyncio.create_task(placed(fleet, **asked(run, 0, 1, **own, prompt_tokens=50_000)))

    async def waited_s() -> float:
        return fleet.router.queue_wait_s.get("simulated", 0.0)

    await until(waited_s, lambda waited: waited > 1.2)
    b.gate.set()
    await b.until(lambda: b.open == 0)
    await asyncio.sleep(0.1)  # time in which it could go there
    a.gate.set()
    assert (await staying)[0] == "a"
    await asyncio.gather(*crowd)


async def replicas(fleet: Fleet) -> list[str]:
    return [one.info.replica for one in await fleet.registry.of("simulated")]


async def opened(*servers: ScriptedServer) -> int:
    return sum(server.open for server in servers)


async def test_memory_that_is_promised_is_waited_for_over_all_processes(make: Make) -> None:
    here, there = make(), make()
    a = await here.server("a", HELD_UP, kv_tokens_max=1_000)
    big = {"opening_tokens": 0, "prompt_tokens": 600}
    first = asyncio.create_task(placed(here, **asked(new_run_id(), 0, **big)))
    await a.until(lambda: a.open == 1)
    second = asyncio.create_task(placed(there, **asked(new_run_id(), 1, **big)))
    await asyncio.sleep(0.1)  # time in which it could come, were it let in
    assert a.open == 1
    a.gate.set()
    await asyncio.gather(first, second)
    assert a.open_peak == 1


async def test_where_memory_is_promised_another_replica_with_memory_is_taken(make: Make) -> None:
    here, there = make(), make()
    a = await here.server("a", HELD_UP, kv_tokens_max=1_000)
    b = await here.server("b", HELD_UP, kv_tokens_max=1_000)
    big = {"opening_tokens": 0, "prompt_tokens": 600}
    tasks = [
        asyncio.create_task(placed(fleet, **asked(new_run_id(), 0, **big, prefer_replica="a")))
        for fleet in (here, there)
    ]
    for server in (a, b):
        await server.until(lambda server=server: server.open == 1)  # type: ignore[misc]
    for server in (a, b):
        server.gate.set()
    assert {replica for replica, _ in await asyncio.gather(*tasks)} == {"a", "b"}


async def test_so_many_generations_a_replica_over_all_processes(make: Make) -> None:
    here, there = make(), make()
    a = await here.server("a", HELD_UP, in_flight_max=2)
    tasks = [
        asyncio.create_task(placed((here, there)[index % 2], **asked(new_run_id(), 0, opening_tokens=0)))
        for index in range(6)
    ]
    await a.until(lambda: a.open == 2)
    await asyncio.sleep(0.1)  # time in which others could come, were they let in
    a.gate.set()
    await asyncio.gather(*tasks)
    assert a.open_peak == 2


async def test_waiting_for_memory_ends_at_the_deadline(make: Make) -> None:
    fleet = make()
    a = await fleet.server("a", HELD_UP, kv_tokens_max=1_000)
    big = {"opening_tokens": 0, "prompt_tokens": 600}
    first = asyncio.create_task(placed(fleet, **asked(new_run_id(), 0, **big)))
    await a.until(lambda: a.open == 1)
    with pytest.raises(EngineUnavailable, match="had room before the deadline"):
        await fleet.ask(**asked(new_run_id(), 1, **big, deadline_ms=clock.now_ms() + 200))
    a.gate.set()
    await first


async def test_a_full_replica_is_left_for_what_the_chooser_takes_of_the_others(make: Make) -> None:
    asked_for: list[list[str]] = []

    def last(offers: Sequence[Offer], demand: Demand, pace: Pace, prefer: str) -> Offer | None:
        names = sorted(one.replica for one in offers)
        asked_for.append(names)
        return next(one for one in offers if one.replica == names[-1])

    fleet = make(RoutingLimits(absence_s=0.8, look_again_s=0.02, wait_max_s=0.0), chooser=last)
    servers = [await fleet.server(name, HELD_UP, in_flight_max=1) for name in ("a", "b", "c")]
    tasks = []
    for server in reversed(servers):
        tasks.append(asyncio.create_task(placed(fleet, **asked(new_run_id(), 0, opening_tokens=0))))
        await server.until(lambda server=server: server.open == 1)  # type: ignore[misc]
    # Asked once where it has room, and else once more about those that have.
    assert asked_for == [["a", "b", "c"], ["a", "b", "c"], ["a", "b"], ["a", "b", "c"], ["a"]]
    for server in servers:
        server.gate.set()
    assert [replica for replica, _ in await asyncio.gather(*tasks)] == ["c", "b", "a"]


async def test_a_store_that_is_gone_keeps_nobody_from_being_placed(make: Make, store: RedisStore) -> None:
    fleet = make()
    await fleet.server("a", answer("4"))
    await store.close()
    assert (await placed(fleet, **asked(new_run_id(), 0)))[0] == "a"


async def test_a_generation_that_lasts_longer_than_a_reservation_keeps_it(
    make: Make, store: RedisStore
) -> None:
    fleet = make(ttl_s=0.3)
    a = await fleet.server("a", Reply((chunk({"content": "so"}), Act.GATE, *answer("4").parts)))
    asking = asyncio.create_task(placed(fleet, **asked(new_run_id(), 0)))
    await a.until(lambda: a.open == 1)
    for _ in range(10):
        await asyncio.sleep(0.1)
        assert (await store.reservations.held(["a"]))["a"].generations == 1
    a.gate.set()
    await asking

    async def generations() -> int:
        return (await store.reservations.held(["a"]))["a"].generations

    await until(generations, lambda count: count == 0)
