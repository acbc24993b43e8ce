"""What the run store costs over the server it stands on: appends, and how soon a watcher sees them."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import redis.asyncio

from heavy.config import Settings
from heavy.core import clock
from heavy.core.ids import RunId, arm, new_run_id
from heavy.core.ledger import Spend
from heavy.core.messages import FinishReason, Message, Role
from heavy.core.policy import AggregationMode, Budget, ContextPolicy, Members, Policy
from heavy.core.records import Entry, GenerationRecord, GenerationTiming, Record
from heavy.core.runs import RunSpec
from heavy.store.embedded import EmbeddedValkey
from heavy.store.redis import RedisStore, connect

SECONDS_EACH: Final = 2.0
WRITERS: Final = 8
CONTENT: Final = "A generation of a few sentences. " * 30


def main() -> None:
    """Print the figures; about ten seconds."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory:
        server = EmbeddedValkey(Path(directory))
        try:
            asyncio.run(_measure(server.start()))
        finally:
            server.stop()


async def _measure(url: str) -> None:
    store = await connect(url, Settings())
    bare = redis.asyncio.Redis.from_url(url, protocol=2)
    entry, run = _generation(), await _fresh(store)
    body = CONTENT.encode()

    append_s = await _latency_s(lambda: store.log.append(run, epoch=1, entries=[entry]))
    xadd_s = await _latency_s(lambda: bare.xadd("bare", {"e": body}))
    ratio = append_s / xadd_s
    print(
        f"append, one writer: {append_s * 1e6:.0f} us at the median;"
        f" bare XADD {xadd_s * 1e6:.0f} us; x{ratio:.2f}"
    )
    print(f"appends by {WRITERS} writers of one run: {await _appends_per_s(store, entry):.0f} a second")
    shown_s = sorted(await _follow_s(store, entry))
    print(
        f"append to watcher: {statistics.median(shown_s) * 1e3:.2f} ms at the median,"
        f" {shown_s[int(len(shown_s) * 0.99)] * 1e3:.2f} ms at the 99th percentile"
    )
    await bare.aclose()
    await store.close()


async def _latency_s(operation: Callable[[], Awaitable[object]]) -> float:
    taken_s = []
    until_s = time.perf_counter() + SECONDS_EACH
    while (started_s := time.perf_counter()) < until_s:
        await operation()
        taken_s.append(time.perf_counter() - started_s)
    return statistics.median(taken_s)


async def _appends_per_s(store: RedisStore, entry: Entry) -> float:
    run = await _fresh(store)
    until_s = time.perf_counter() + SECONDS_EACH

    async def write() -> None:
        while time.perf_counter() < until_s:
            await store.log.append(run, epoch=1, entries=[entry])

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return (await store.log.get(run)).records / SECONDS_EACH


async def _follow_s(store: RedisStore, entry: Entry) -> list[float]:
    """Seconds from the start of an append to the watcher having its record."""
    run = await _fresh(store)
    taken_s: list[float] = []
    appended_s = [0.0]
    shown = asyncio.Event()

    async def watch() -> None:
        async for item in store.log.follow(run, after=0, deltas=True):
            if isinstance(item, Record):
                taken_s.append(time.perf_counter() - appended_s[0])
                shown.set()

    watcher = asyncio.create_task(watch())
    until_s = time.perf_counter() + SECONDS_EACH
    while time.perf_counter() < until_s:
        shown.clear()
        appended_s[0] = time.perf_counter()
        await store.log.append(run, epoch=1, entries=[entry])
        await shown.wait()
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    return taken_s


async def _fresh(store: RedisStore) -> RunId:
    now_ms = clock.now_ms()
    policy = Policy(
        width=8,
        members=Members(("bench",) * 8, "bench"),
        quorum=8,
        straggler_grace_s=30.0,
        deadline_s=600.0,
        budget=Budget(),
        aggregation=AggregationMode.AUTO,
        vote_threshold=0.75,
        early_stop=True,
        tools=(),
        context_policy=ContextPolicy.HIDE_TOOL_OUTPUTS,
        sampling=None,
        seed=1,
    )
    messages = (Message(Role.USER, "How fast is the store?"),)
    spec = RunSpec(new_run_id(), "bench", "", messages, policy, False, now_ms, now_ms + 600_000)
    return (await store.log.create(spec, owner="bench", lease_s=600.0)).run.spec.run


def _generation() -> Entry:
    body = GenerationRecord(
        message=Message(Role.ASSISTANT, CONTENT),
        finish_reason=FinishReason.STOP,
        spend=Spend(tokens_prompt=1000, tokens_output=250),
        replica="replica-0",
        model="model",
        request_id="0",
        timing=GenerationTiming(0.0, 0.2, 2.0),
    )
    return Entry(arm(0), 0, body, clock.now_ms())
