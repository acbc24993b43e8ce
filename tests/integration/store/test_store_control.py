from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from heavy.config import Settings
from heavy.core.errors import NotFound
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, RunId, TrajectoryId, arm, new_run_id
from heavy.core.runs import RunState
from heavy.store.api import Control, ControlKind
from heavy.store.redis import RedisStore, connect

from tests_support.domain import run_spec
from tests_support.entries import failure, state_entry

CANCEL = Control(ControlKind.CANCEL, RUN_LEVEL, "enough")
CUT = Control(ControlKind.CUT, arm(3), "straggler")


async def fresh(store: RedisStore) -> RunId:
    return (await store.log.create(run_spec(), owner="test", lease_s=60)).run.spec.run


async def soon(controls: AsyncIterator[Control]) -> Control:
    async with asyncio.timeout(3):  # well under the time after which a listener looks by itself
        return await anext(controls)


async def nothing_more(controls: AsyncIterator[Control]) -> bool:
    waiting = asyncio.ensure_future(anext(controls))
    await asyncio.wait({waiting}, timeout=0.1)
    said = waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return not said


async def test_what_was_noted_before_and_what_is_pushed_after_arrive_once_each(
    store: RedisStore, store_url: str
) -> None:
    run, other = await fresh(store), await fresh(store)
    sender = await connect(store_url, Settings())
    await sender.control.send(run, CUT)
    await sender.control.send(run, CUT)
    async with store.control.listen(run) as controls:
        assert await soon(controls) == CUT
        async with redis.asyncio.Redis.from_url(store_url) as client:
            await subscribed(client, "heavy:control")
        hearing = asyncio.create_task(soon(controls))
        done, _ = await asyncio.wait({hearing}, timeout=0.1)
        assert not done, "what was noted comes once"
        for _ in range(3):
            await sender.control.send(run, CUT)
            await sender.control.send(run, CANCEL)
            await sender.control.send(other, Control(ControlKind.CUT, AGGREGATOR, "not for this run"))
        assert await hearing == CANCEL
        assert await nothing_more(controls)
    await sender.close()


async def test_every_listener_hears_and_one_that_leaves_takes_nothing_from_the_others(
    store: RedisStore,
) -> None:
    run = await fresh(store)
    async with store.control.listen(run) as first:
        async with store.control.listen(run):
            pass
        async with store.control.listen(run) as second:
            await store.control.send(run, CANCEL)
            assert [await soon(first), await soon(second)] == [CANCEL, CANCEL]


async def test_a_cancel_is_in_the_run_record_with_its_first_reason(store: RedisStore) -> None:
    run = await fresh(store)
    await store.control.send(run, CUT)
    assert (await store.log.get(run)).cancel_reason == ""
    await store.control.send(run, CANCEL)
    await store.control.send(run, Control(ControlKind.CANCEL, RUN_LEVEL, "again"))
    assert (await store.log.get(run)).cancel_reason == "enough"
    silent = await fresh(store)
    await store.control.send(silent, Control(ControlKind.CANCEL, RUN_LEVEL, ""))
    assert (await store.log.get(silent)).cancel_reason


async def test_a_run_that_has_ended_takes_no_more_control(store: RedisStore) -> None:
    run = await fresh(store)
    await store.log.finish(run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
    await store.control.send(run, CANCEL)
    assert (await store.log.get(run)).cancel_reason == ""
    with pytest.raises(NotFound):
        await store.control.send(new_run_id(), CANCEL)


@pytest.mark.parametrize(
    "control",
    [Control("other", RUN_LEVEL, ""), Control(ControlKind.CUT, TrajectoryId("someone"), "")],
)
async def test_what_is_no_control_message_is_not_noted(store: RedisStore, control: Control) -> None:
    run = await fresh(store)
    with pytest.raises(ValueError):
        await store.control.send(run, control)


async def test_a_listener_hears_again_after_its_subscription_was_broken(
    store: RedisStore, store_url: str
) -> None:
    run = await fresh(store)
    async with redis.asyncio.Redis.from_url(store_url) as client, store.control.listen(run) as controls:
        await subscribed(client, "heavy:control")
        await client.client_kill_filter(_type="pubsub")
        await store.control.send(run, CUT)
        assert await soon(controls) == CUT
        await subscribed(client, "heavy:control")
        await store.control.send(run, CANCEL)
        assert await soon(controls) == CANCEL


async def test_leaving_ends_the_subscription(store: RedisStore, store_url: str) -> None:
    run = await fresh(store)
    async with redis.asyncio.Redis.from_url(store_url) as client:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                async with store.control.listen(run):
                    await subscribed(client, "heavy:control")
                    raise asyncio.CancelledError
            async with asyncio.timeout(5):
                while await client.pubsub_channels():
                    await asyncio.sleep(0.01)


async def subscribed(client: redis.asyncio.Redis, channel: str) -> None:
    async with asyncio.timeout(5):
        while channel.encode() not in await client.pubsub_channels():
            await asyncio.sleep(0.01)
