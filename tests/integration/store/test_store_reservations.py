from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heavy.config import Settings
from heavy.store.api import KvClaim, KvHeld, Taken
from heavy.store.redis import RedisStore, connect

from tests_support.proxy import LossyProxy
from tests_support.servers import StoreServer

FULL_TOKENS = 1_000


def claim(holder: str, own: int, shared: int = 0, group: str = "g", *, leads: bool = False) -> KvClaim:
    return KvClaim("r", holder, group, shared, own, fresh_tokens=shared if leads else 0, leads=leads)


async def take(store: RedisStore, one: KvClaim, *, generations_max: int = 64, ttl_s: float = 60) -> Taken:
    return await store.reservations.take(
        one, kv_tokens_max=FULL_TOKENS, generations_max=generations_max, ttl_s=ttl_s
    )


async def held(store: RedisStore, group: str = "", report_age_s: float = 0.0) -> KvHeld:
    return (await store.reservations.held(["r"], group=group, report_age_s=report_age_s))["r"]


async def test_a_replica_is_never_promised_twice_and_what_is_returned_may_be_promised_again(
    store: RedisStore,
) -> None:
    assert await take(store, claim("a", 600)) is Taken.HELD
    assert await take(store, claim("b", 401)) is Taken.FULL
    assert await take(store, claim("c", 400)) is Taken.HELD
    assert await take(store, claim("d", 0)) is Taken.HELD
    for _ in range(2):
        await store.reservations.give_back(claim("a", 600))
    assert await held(store) == KvHeld(tokens=400, generations=2)
    assert await take(store, claim("b", 401)) is Taken.HELD


async def test_so_many_generations_and_no_more_over_all_processes(store: RedisStore) -> None:
    taken = await asyncio.gather(*(take(store, claim(f"h{i}", 1), generations_max=5) for i in range(12)))
    assert taken.count(Taken.HELD) == 5
    assert taken.count(Taken.FULL) == 7


async def test_one_that_is_larger_than_all_there_is_is_let_in_where_nobody_else_is(store: RedisStore) -> None:
    assert await take(store, claim("whale", 5_000)) is Taken.HELD
    assert await take(store, claim("small", 1)) is Taken.FULL
    await store.reservations.give_back(claim("whale", 5_000))
    assert await take(store, claim("small", 1)) is Taken.HELD
    assert await take(store, claim("whale", 5_000)) is Taken.FULL


async def test_the_opening_of_a_group_is_there_once_however_many_begin_with_it(store: RedisStore) -> None:
    for index in range(8):
        assert await take(store, claim(f"arm-{index}", 10, shared=700)) is Taken.HELD
    assert (await held(store)).tokens == 780
    assert await take(store, claim("stranger", 10, shared=700, group="other")) is Taken.FULL


async def test_one_leads_the_others_are_told_when_it_has_begun_and_then_find_the_opening_there(
    store: RedisStore,
) -> None:
    leader, follower = claim("a", 10, 700, leads=True), claim("b", 10, 700, leads=True)
    assert await take(store, leader) is Taken.HELD
    with store.reservations.listening("g") as news:
        for _ in range(2):  # at first, and once the subscription stands
            await news.wait()
            news.clear()
        assert await take(store, follower) is Taken.LED
        assert (await held(store, "g")).led
        assert (await held(store, "other")).ahead_tokens == 700
        await store.reservations.began(leader, warm_s=60)
        async with asyncio.timeout(30):
            await news.wait()
    assert await held(store, "g") == KvHeld(tokens=710, generations=1, warm_tokens=700)
    assert (await held(store, "other")).ahead_tokens == 0
    assert await take(store, follower) is Taken.WARM
    for one in (leader, follower):
        await store.reservations.give_back(one)
    assert await held(store, "g") == KvHeld(warm_tokens=700)


async def test_a_leader_that_gives_up_makes_way_for_the_next(store: RedisStore) -> None:
    leader, follower = claim("a", 10, 700, leads=True), claim("b", 10, 700, leads=True)
    assert await take(store, leader) is Taken.HELD
    assert await take(store, follower) is Taken.LED
    await store.reservations.give_back(leader)
    assert await take(store, follower) is Taken.HELD


async def test_what_is_young_is_told_apart_from_what_a_report_may_know(store: RedisStore) -> None:
    await take(store, claim("a", 100, 50))
    seen = await held(store, report_age_s=60)
    assert (seen.young_tokens, seen.young_generations) == (150, 1)
    assert (await held(store)).young_tokens == 0


async def test_what_is_gone_is_told_as_long_as_a_report_may_still_count_it(store: RedisStore) -> None:
    await take(store, claim("a", 100, 50))
    await store.reservations.give_back(claim("a", 100, 50))
    await store.reservations.give_back(claim("a", 100, 50))
    assert await held(store, report_age_s=60) == KvHeld(gone_tokens=100, gone_generations=1)
    assert await held(store) == KvHeld()


async def test_a_dead_process_leaks_nothing_and_what_is_kept_stays(store: RedisStore) -> None:
    await take(store, claim("dead", 500, 100, leads=True), ttl_s=0.3)
    await take(store, claim("alive", 400), ttl_s=0.3)
    seen = None
    for _ in range(500):
        await store.reservations.keep("r", ["alive"], ttl_s=0.3)
        seen = await held(store)
        if seen.generations == 1:
            break
        await asyncio.sleep(0.01)
    assert seen == KvHeld(tokens=400, generations=1)
    assert await take(store, claim("next", 600)) is Taken.HELD


async def test_keeping_revives_nothing_that_was_returned(store: RedisStore) -> None:
    await take(store, claim("a", 500))
    await store.reservations.give_back(claim("a", 500))
    await store.reservations.keep("r", ["a"], ttl_s=60)
    assert await held(store) == KvHeld()


async def test_a_reservation_whose_reply_was_lost_is_held_once(
    store_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    async with LossyProxy(store_url, tmp_path) as proxy:
        store = await connect(proxy.url, store_settings)
        await take(store, claim("a", 10))
        proxy.to_lose = 1
        assert await take(store, claim("b", 900)) is Taken.HELD
        assert await held(store) == KvHeld(tokens=910, generations=2)
        proxy.to_lose = 1
        await store.reservations.give_back(claim("b", 900))
        assert await held(store) == KvHeld(tokens=10, generations=1)
        assert proxy.lost == 2
        await store.close()


steps = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["take", "give back", "began", "keep"]),
        st.integers(1, 600),
        st.sampled_from([0, 250]),
        st.sampled_from(["g", "h"]),
        st.booleans(),
    ),
    max_size=30,
)


@given(steps)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_promises_fit_and_in_the_end_nothing_is_left(
    valkey_server: StoreServer, store_settings: Settings, steps: list[tuple[int, str, int, int, str, bool]]
) -> None:
    async def play() -> None:
        valkey_server.flush()
        store = await connect(valkey_server.url, store_settings)
        book: dict[int, KvClaim] = {}
        for slot, act, own, shared, group, leads in steps:
            if act == "take" and slot not in book:
                one = claim(f"h{slot}", own, shared, group, leads=leads)
                if await take(store, one) in (Taken.HELD, Taken.WARM):
                    book[slot] = one
            elif act == "keep":
                await store.reservations.keep("r", [f"h{slot}"], ttl_s=60)
            elif slot in book and act == "began":
                await store.reservations.began(book[slot], warm_s=60)
            elif slot in book and act == "give back":
                await store.reservations.give_back(book.pop(slot))
            seen = await held(store)
            openings = {c.group: 0 for c in book.values()}
            for c in book.values():
                openings[c.group] = max(openings[c.group], c.shared_tokens)
            assert seen.tokens == sum(c.own_tokens for c in book.values()) + sum(openings.values())
            assert seen.generations == len(book)
            assert seen.tokens <= FULL_TOKENS
        for one in book.values():
            await store.reservations.give_back(one)
        assert await held(store) == KvHeld()
        await store.close()

    asyncio.run(play())


SEVERAL = """
import asyncio, sys
from heavy.config import Settings
from heavy.store.api import KvClaim, Taken
from heavy.store.redis import connect

async def main(url, name):
    store = await connect(url, Settings())
    most = 0
    for turn in range(60):
        claim = KvClaim("r", f"{name}-{turn}", "g", 0, 300, 0)
        taken = await store.reservations.take(claim, kv_tokens_max=1000, generations_max=9, ttl_s=60)
        if taken is Taken.HELD:
            seen = await store.reservations.held(["r"])
            most = max(most, seen["r"].tokens)
            await store.reservations.give_back(claim)
    print(most)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_several_processes_together_never_promise_more_than_there_is(
    valkey_server: StoreServer,
) -> None:
    valkey_server.flush()
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", SEVERAL, valkey_server.url, name, stdout=asyncio.subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    most = [int((await process.communicate())[0]) for process in started]
    assert 0 < max(most) <= FULL_TOKENS
    store = await connect(valkey_server.url, Settings())
    assert await held(store) == KvHeld()
    await store.close()
