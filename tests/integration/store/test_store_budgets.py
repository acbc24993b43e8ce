from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heavy.config import Settings
from heavy.core.errors import BudgetExhausted, LeaseLost
from heavy.core.ids import RunId
from heavy.core.policy import Budget
from heavy.store.api import Amount
from heavy.store.redis import RedisStore, connect

from tests_support.domain import policy, run_spec
from tests_support.proxy import LossyProxy
from tests_support.servers import StoreServer


async def with_budget(store: RedisStore, budget: Budget) -> RunId:
    spec = run_spec(policy=replace(policy(), budget=budget))
    return (await store.log.create(spec, owner="test", lease_s=60)).run.spec.run


async def reserve(
    store: RedisStore, run: RunId, name: str, tokens: int, cost: float = 0, aggregation: bool = False
) -> None:
    await store.budgets.reserve(
        run, epoch=1, request_id=name, amount=Amount(tokens, cost), aggregation=aggregation
    )


async def test_arms_leave_the_aggregation_its_share_and_the_aggregation_may_use_all_that_is_left(
    store: RedisStore,
) -> None:
    run = await with_budget(store, Budget(tokens_max=1000, aggregation_share=0.2))
    await reserve(store, run, "a", 800)
    with pytest.raises(BudgetExhausted) as refusal:
        await reserve(store, run, "b", 1)
    assert refusal.value.limit == "tokens_max"
    assert refusal.value.details["used"] == 800
    await store.budgets.settle(run, request_id="a", spent=Amount(300, 0.0))
    await reserve(store, run, "agg", 700, aggregation=True)
    with pytest.raises(BudgetExhausted):
        await reserve(store, run, "agg2", 1, aggregation=True)
    with pytest.raises(BudgetExhausted):
        await reserve(store, run, "c", 1)


async def test_money_adds_up_exactly(store: RedisStore) -> None:
    run = await with_budget(store, Budget(cost_usd_max=1.0, aggregation_share=0.0))
    for i in range(10):
        await reserve(store, run, f"g{i}", 10**9, cost=0.1)
    with pytest.raises(BudgetExhausted) as refusal:
        await reserve(store, run, "one more", 0, cost=0.000001)
    assert refusal.value.limit == "cost_usd_max"
    for i in range(10):
        await store.budgets.settle(run, request_id=f"g{i}", spent=Amount(1, 0.1))
    assert await store.budgets.spent(run) == Amount(10, 1.0)


async def test_a_reservation_and_its_settlement_count_once(store: RedisStore) -> None:
    run = await with_budget(store, Budget(tokens_max=100, aggregation_share=0.0))
    for _ in range(3):
        await reserve(store, run, "a", 60)
    for _ in range(3):
        await store.budgets.settle(run, request_id="a", spent=Amount(50, 0.5))
    await reserve(store, run, "a", 60)
    await store.budgets.settle(run, request_id="never reserved", spent=Amount(50, 0.5))
    assert await store.budgets.spent(run) == Amount(50, 0.5)
    await reserve(store, run, "b", 50)


async def test_a_run_without_caps_spends_what_it_likes_and_still_knows_how_much(store: RedisStore) -> None:
    run = await with_budget(store, Budget())
    await reserve(store, run, "a", 10**12, cost=10**5)
    await store.budgets.settle(run, request_id="a", spent=Amount(10**12, 10.0**5))
    assert await store.budgets.spent(run) == Amount(10**12, 10.0**5)
    assert await store.budgets.count_tool_calls(run, calls=1000) == 1000


async def test_who_lost_the_lease_reserves_nothing_but_what_was_spent_is_still_booked(
    store: RedisStore,
) -> None:
    run = await with_budget(store, Budget(tokens_max=100))
    await reserve(store, run, "a", 10)
    await store.leases.release(run, epoch=1)
    with pytest.raises(LeaseLost):
        await reserve(store, run, "b", 1)
    await store.budgets.settle(run, request_id="a", spent=Amount(10, 0.1))
    assert await store.budgets.spent(run) == Amount(10, 0.1)


async def test_tool_calls_stop_at_their_cap(store: RedisStore) -> None:
    run = await with_budget(store, Budget(tool_calls_max=5))
    counted = await asyncio.gather(
        *(store.budgets.count_tool_calls(run, calls=1) for _ in range(9)), return_exceptions=True
    )
    assert sorted(count for count in counted if isinstance(count, int)) == [1, 2, 3, 4, 5]
    with pytest.raises(BudgetExhausted) as refusal:
        await store.budgets.count_tool_calls(run, calls=1)
    assert refusal.value.limit == "tool_calls_max"


async def test_a_reservation_whose_reply_was_lost_is_held_once(
    store_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    async with LossyProxy(store_url, tmp_path) as proxy:
        store = await connect(proxy.url, store_settings)
        run = await with_budget(store, Budget(tokens_max=100, aggregation_share=0.0))
        await reserve(store, run, "a", 10)
        proxy.to_lose = 1
        await reserve(store, run, "b", 90)
        await store.budgets.settle(run, request_id="a", spent=Amount(10, 0.0))
        proxy.to_lose = 1
        await store.budgets.settle(run, request_id="b", spent=Amount(80, 0.0))
        assert proxy.lost == 2
        assert await store.budgets.spent(run) == Amount(90, 0.0)
        await store.close()


Generation = tuple[int, int, bool]
GENERATIONS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 100), st.booleans()), min_size=1, max_size=24
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(generations=GENERATIONS, tokens_max=st.integers(0, 300), share=st.sampled_from([0.0, 0.15, 0.5, 1.0]))
def test_a_budget_is_never_overspent_however_many_spend_at_once(
    store_server: StoreServer, generations: list[Generation], tokens_max: int, share: float
) -> None:
    """Each generation reserves, spends a part of it, settles; twice where a reply might have been lost."""

    async def spend(store: RedisStore, run: RunId, index: int, one: Generation) -> tuple[bool, int]:
        tokens, percent, aggregation = one
        try:
            for _ in range(1 + index % 2):
                await reserve(store, run, f"g{index}", tokens, tokens / 1000, aggregation)
        except BudgetExhausted:
            return aggregation, 0
        spent = tokens * percent // 100
        for _ in range(1 + index % 3):
            await store.budgets.settle(run, request_id=f"g{index}", spent=Amount(spent, spent / 1000))
        return aggregation, spent

    async def check() -> None:
        stores = [await connect(store_server.url, Settings(store_timeout_s=10)) for _ in range(2)]
        budget = Budget(tokens_max=tokens_max, cost_usd_max=tokens_max / 1000, aggregation_share=share)
        run = await with_budget(stores[0], budget)
        spent = await asyncio.gather(
            *(spend(stores[i % 2], run, i, one) for i, one in enumerate(generations))
        )
        total = sum(tokens for _, tokens in spent)
        by_arms = sum(tokens for aggregation, tokens in spent if not aggregation)
        booked = await stores[0].budgets.spent(run)
        assert booked.tokens == total <= tokens_max
        assert booked.cost_usd == pytest.approx(total / 1000, abs=1e-9)
        assert by_arms <= tokens_max * (1 - share) + 1e-6
        for store in stores:
            await store.close()

    asyncio.run(check())


async def test_a_reservation_of_nothing_settles_as_nothing(store: RedisStore) -> None:
    run = await with_budget(store, Budget(tokens_max=0))
    await reserve(store, run, "a", 0)
    await store.budgets.settle(run, request_id="a", spent=Amount(0, 0.0))
    assert await store.budgets.spent(run) == Amount(0, 0.0)
