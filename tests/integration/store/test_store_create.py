from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio

from heavy.config import Settings
from heavy.core.errors import InvalidRequest, RequestConflict
from heavy.core.files import File
from heavy.core.runs import RunSpec, RunState
from heavy.store.keys import RunKeys
from heavy.store.redis import RedisStore, connect

from tests_support.domain import run_spec
from tests_support.entries import failure, state_entry
from tests_support.proxy import LossyProxy

ALL: frozenset[RunState] = frozenset()


async def create(store: RedisStore, spec: RunSpec) -> bool:
    return (await store.log.create(spec, owner="test", lease_s=30)).fresh


async def test_a_run_comes_back_as_it_was_created(store: RedisStore) -> None:
    spec = run_spec()
    created = await store.log.create(spec, owner="test", lease_s=30)
    assert created.fresh
    assert created.run.spec == spec
    assert (created.run.state, created.run.epoch, created.run.records) == (RunState.ACCEPTED, 1, 0)
    assert await store.log.get(spec.run) == created.run
    assert await store.leases.held(spec.run, epoch=1)


async def test_the_same_request_finds_the_run_it_created_and_another_is_a_conflict(store: RedisStore) -> None:
    spec = run_spec(request_id="r", fingerprint="a")
    assert await create(store, spec)
    again = await store.log.create(run_spec(request_id="r", fingerprint="a"), owner="another", lease_s=30)
    assert not again.fresh
    assert again.run.spec == spec
    with pytest.raises(RequestConflict):
        await create(store, run_spec(request_id="r", fingerprint="b"))
    assert await create(store, run_spec(request_id="r", fingerprint="b", tenant="another"))
    assert await create(store, run_spec(fingerprint="b")), "runs without a request_id have nothing in common"
    assert await create(store, run_spec(fingerprint="c"))


async def test_of_many_that_ask_at_once_one_creates_the_run(store: RedisStore, store_url: str) -> None:
    other = await connect(store_url, Settings())
    created = await asyncio.gather(
        *(
            one.log.create(run_spec(request_id="r"), owner="test", lease_s=30)
            for _ in range(10)
            for one in (store, other)
        )
    )
    await other.close()
    assert sum(one.fresh for one in created) == 1
    assert len({one.run.spec.run for one in created}) == 1
    page = await store.log.list("default", states=ALL, page_size=50, page_token="")
    assert len(page.runs) == 1, "those that lost the race left nothing behind"


async def test_creation_survives_lost_replies_at_every_step(
    store_url: str, store_settings: Settings, tmp_path: Path
) -> None:
    async with LossyProxy(store_url, tmp_path) as proxy:
        store = await connect(proxy.url, store_settings)
        await create(store, run_spec(request_id="the scripts are known"))
        for lost in range(1, 6):
            spec = run_spec(request_id=f"r{lost}")
            proxy.to_lose = lost
            created = await store.log.create(spec, owner="test", lease_s=30)
            assert created.fresh
            assert created.run.spec.run == spec.run
            assert proxy.to_lose == 0
        await store.close()


async def test_a_request_whose_run_has_vanished_creates_a_new_one(store: RedisStore, store_url: str) -> None:
    first, second = run_spec(request_id="r"), run_spec(request_id="r")
    await create(store, first)
    async with redis.asyncio.Redis.from_url(store_url) as client:
        await client.delete(*RunKeys(first.run).all)
    assert await create(store, second)
    page = await store.log.list("default", states=ALL, page_size=10, page_token="")
    assert [run.spec.run for run in page.runs] == [second.run]


async def test_pages_are_stable_while_runs_are_added(store: RedisStore) -> None:
    specs = [run_spec(created_ms=1_000 + i // 3) for i in range(20)]
    for spec in specs:
        await create(store, spec)
    seen, token = [], ""
    for _ in range(10):
        page = await store.log.list("default", states=ALL, page_size=3, page_token=token)
        seen += [run.spec for run in page.runs]
        await create(store, run_spec(created_ms=2_000))
        token = page.next_token
        if not token:
            break
    newest_first = sorted(specs, key=lambda spec: (spec.created_ms, spec.run), reverse=True)
    assert seen == newest_first


async def test_a_page_holds_only_the_states_and_the_tenant_asked_for(store: RedisStore) -> None:
    done, other = run_spec(created_ms=1), run_spec(tenant="other", created_ms=2)
    for spec in (done, other, run_spec(created_ms=3)):
        await create(store, spec)
    await store.log.finish(done.run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
    page = await store.log.list("default", states=frozenset({RunState.FAILED}), page_size=10, page_token="")
    assert [run.spec.run for run in page.runs] == [done.run]
    assert page.next_token == ""
    assert (await store.log.list("nobody", states=ALL, page_size=10, page_token="")).runs == ()


@pytest.mark.parametrize("token", ["x", "1-run-0", "000000000000001-*", "-" * 50])
async def test_a_page_token_from_elsewhere_is_refused(store: RedisStore, token: str) -> None:
    with pytest.raises(InvalidRequest, match="page_token"):
        await store.log.list("default", states=ALL, page_size=10, page_token=token)


async def test_every_key_of_a_run_is_gone_some_time_after_its_end(store_url: str) -> None:
    store = await connect(store_url, Settings(retention_s=0.3))
    spec = run_spec(request_id="r")
    await create(store, replace(spec, deadline_ms=spec.created_ms))
    await store.budgets.count_tool_calls(spec.run, calls=1)
    await store.log.finish(spec.run, epoch=1, ending=failure(), entry=state_entry(RunState.FAILED))
    async with redis.asyncio.Redis.from_url(store_url) as client:
        async with asyncio.timeout(5):
            while await client.dbsize():
                await asyncio.sleep(0.02)
    assert (await store.log.list("default", states=ALL, page_size=10, page_token="")).runs == ()
    await store.close()


async def test_no_key_of_a_run_that_never_ends_stays_for_ever(store: RedisStore, store_url: str) -> None:
    from heavy.core.calling import CallerCall, CallerResult
    from heavy.core.ids import RUN_LEVEL, arm
    from heavy.core.tools import Effects
    from heavy.store.api import Amount, Control, ControlKind

    from tests_support.entries import delta, note

    spec = run_spec(request_id="r")
    await store.log.create(spec, owner="test", lease_s=30, files=[File("a", b"a")])
    await store.log.append(spec.run, epoch=1, entries=[note()])
    await store.log.publish(spec.run, [delta(0)])
    await store.budgets.reserve(spec.run, epoch=1, request_id="g", amount=Amount(1, 0.1), aggregation=False)
    await store.control.send(spec.run, Control(ControlKind.CANCEL, RUN_LEVEL, "stop"))
    for call_id in ("answered", "over"):
        call = CallerCall(call_id, arm(0), 0, "look", "{}", Effects.READ, 0)
        await store.exchange.ask(spec.run, epoch=1, call=call)
    await store.exchange.answer(spec.run, CallerResult("answered", "42"))
    await store.exchange.end(spec.run, "over")
    await store.exchange.attached(spec.run, ttl_s=5.0)
    async with redis.asyncio.Redis.from_url(store_url) as client:
        keys = {key.decode() for key in await client.keys("*")}
        lasting = {key for key in keys if await client.pttl(key) == -1}
    assert set(RunKeys(spec.run).all) <= keys
    assert lasting == {"heavy:live"}
