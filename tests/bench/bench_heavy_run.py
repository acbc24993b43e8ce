"""One heavy run at K2's pace through the whole service: what everything but the engine and the tools costs.

The real `heavy up` (coordinator, two runners, Valkey, Ray, the sandbox, engine processes), asked by the real
client. The engine is simulated: 200 ms to the first token, 20,000 prompt tokens prefilled a second, 9 ms a
token, no jitter. So what it intends is known exactly.

1.  Wall time over critical path. Eight arms of 20 steps, each a generation and a python call, then an
    aggregator with two looks into transcripts. Wall time: from the client's `ask` to the end of its stream.
    Critical path: for the slowest arm (the last one recorded as ended) the sum over its generations of
    0.2 s + (prompt - cached tokens) / 20,000 + 0.009 s * output tokens, which is what the engine means to
    take, and of its tool calls' own durations, which on a machine with few cores include the queue for a
    core; and the same sum for the aggregator. The rest is ours. It is printed by where it went:
      start       acceptance, lease and the Ray call, to the slowest arm's first record
      reserve     from a step's last record to its next generation's request: append, settle, fit, reserve
                  (and the engine's last 9 ms, which are taken off), without the queue
      queue       for a place on a replica
      engine      how late the engine and its stream were against what was intended
      tools       append of the generation, intent, dispatch: generation to result, without the tool itself
      hand-over   from the slowest arm's end to the aggregator's first record: vote, candidates, Ray call
      end         from the aggregator's end to the client's stream having ended
2.  Memory per idle trajectory, in runners that have just started. One run of eight arms loads the modules and
    waits in a generation that says a word every 20 s; then eight more, then seven whose question is 64 KiB
    longer, while all before are still there. Each time the growth of the runners' resident memory over the
    number of arms.
3.  Cancel. A client cancels a run whose eight arms stream; the time from the call to the engine's load report
    showing nothing running, polled every 2 ms or so, and the engine's own counter of aborts having grown by
    eight. The polling is in the figure.

Predictions, written before the first measurement, for two cores of which something else keeps one busy:
1.  1.03: a step has about seven calls of the store at half a millisecond, 1 ms of loop, 2 ms of the engine's
    own timer and one hand-over of a stream's end: 12 ms in 700; start and end about 150 ms.
2.  90 KB with the short question; with the long one its size three times over beside that: the spec,
    the body of the request and the history share little.
3.  12 ms at the median, 45 ms at the 99th percentile.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import aiohttp

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.ids import AGGREGATOR, RunId, TrajectoryId
from heavy.core.policy import AggregationMode
from heavy.core.records import (
    Delta,
    Event,
    GenerationRecord,
    LifecycleRecord,
    Record,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.store.redis import connect

from tests_support.servers import StoreServer
from tests_support.up import Up
from tests_support.waiting import until

PROFILES: Final = ("k2-pace", "k2-pace-reader", "k2-endless", "idle")
FIRST_TOKEN_S: Final = 0.2
TOKEN_S: Final = 0.009
PREFILL_TOKENS_PER_S: Final = 20_000.0
QUESTION: Final = "What is 6 times 7?"

RUNS: Final = 3
CANCELS: Final = 60
IDLE_RUNS: Final = 8
WIDTH: Final = 8
LONG_BYTES: Final = 64 << 10
ALL_S: Final = 300.0

AT_PACE: Final = PolicyDraft(
    width=WIDTH,
    arms=("k2-pace",),
    aggregator="k2-pace-reader",
    quorum=WIDTH,
    early_stop=False,
    aggregation=AggregationMode.REFLECTIVE,
)
ENDLESS: Final = PolicyDraft(width=WIDTH, arms=("k2-endless",), aggregator="k2-endless", tools=())
IDLE: Final = PolicyDraft(width=WIDTH, arms=("idle",), aggregator="idle", tools=())


@dataclass(frozen=True, slots=True)
class Service:
    """A running `heavy up`, a client of it, and where its engines are."""

    up: Up
    client: HeavyClient
    http: aiohttp.ClientSession
    engines: dict[str, str]

    @property
    def runners(self) -> list[int]:
        """Process ids of the runners, as `heavy up` said them."""
        return [int(pid) for pid in re.findall(r"runner-\d+\s.*?pid (\d+)", "".join(self.up.output))]


def main() -> None:
    """Print the three figures; about two minutes, of which starting takes half of one."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory:
        store = StoreServer("valkey", Path(directory))
        store.start()
        up = Up(PROFILES, env={"HEAVY_STORE_URL": store.url})
        try:
            up.start()
            asyncio.run(_measure(up, store.url))
        finally:
            up.stop()
            store.stop()


async def _measure(up: Up, store_url: str) -> None:
    async with asyncio.timeout(ALL_S), _service(up, store_url) as service:
        await _print_memory(service)
        await _print_wall(service)
        await _print_cancels(service)


@asynccontextmanager
async def _service(up: Up, store_url: str) -> AsyncIterator[Service]:
    store = await connect(store_url, Settings())
    try:
        replicas = await until(store.directory.replicas, lambda found: len(found) == len(PROFILES))
    finally:
        await store.close()
    engines = {info.profile: info.base_url.removesuffix("/v1") for info in replicas}
    async with HeavyClient(up.address) as client, aiohttp.ClientSession() as http:
        yield Service(up, client, http, engines)


# -- wall time


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Seconds of one run, by where they went."""

    wall_s: float
    engine_s: float
    tools_s: float
    rest_s: dict[str, float]

    @property
    def ratio(self) -> float:
        """Wall time over critical path."""
        return self.wall_s / (self.engine_s + self.tools_s)


async def _print_wall(service: Service) -> None:
    runs = [await _one_run(service.client) for _ in range(RUNS)]
    best = min(runs, key=lambda run: run.ratio)
    print(f"wall over critical path: {best.ratio:.3f} (aim 1.02), best of {len(runs)}:", end=" ")
    print(", ".join(f"{run.ratio:.3f}" for run in runs))
    print(f"  wall {best.wall_s:.2f} s; path: engine {best.engine_s:.2f} s, tools {best.tools_s:.2f} s")
    rest = ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in best.rest_s.items())
    print(f"  the rest, in ms: {rest}")


async def _one_run(client: HeavyClient) -> Anatomy:
    records: list[Record] = []
    asked_ms, asked_s = time.time() * 1000, time.perf_counter()
    async with client.ask(QUESTION, AT_PACE) as stream:
        records += [event async for event in stream if isinstance(event, Record)]
    wall_s = time.perf_counter() - asked_s
    return _anatomy(records, asked_ms, wall_s)


def _anatomy(records: Sequence[Record], asked_ms: float, wall_s: float) -> Anatomy:
    arms = [record for record in records if _is(record, Event.TRAJECTORY_ENDED)]
    slowest = [record.trajectory for record in arms if record.trajectory != AGGREGATOR][-1]
    parts = [_of(records, slowest), _of(records, AGGREGATOR)]
    (arm_began, arm_ended), (reader_began, reader_ended) = ((p[0].at_ms, p[-1].at_ms) for p in parts)
    rest_s = {
        "start": (arm_began - asked_ms) / 1000,
        **{
            name: sum(_rest(part)[name] for part in parts) for name in ("reserve", "queue", "engine", "tools")
        },
        "hand-over": (reader_began - arm_ended) / 1000,
        "end": wall_s - (reader_ended - asked_ms) / 1000,
    }
    return Anatomy(
        wall_s, sum(map(_intended_s, records_in(parts))), sum(map(_tool_s, records_in(parts))), rest_s
    )


def _rest(part: Sequence[Record]) -> dict[str, float]:
    """What one trajectory took beside its engine and its tools, by where it went, in seconds."""
    spent = dict.fromkeys(("reserve", "queue", "engine", "tools"), 0.0)
    for before, after in pairwise(part):
        gap_s = (after.at_ms - before.at_ms) / 1000
        body = after.body
        if isinstance(body, GenerationRecord):
            timing = body.timing
            streamed_s = timing.first_token_s + timing.decode_s + TOKEN_S
            spent["queue"] += timing.queue_s
            spent["engine"] += streamed_s - _intended_s(after)
            spent["reserve"] += gap_s - streamed_s - timing.queue_s
        elif isinstance(body, ToolIntentRecord | ToolResultRecord):
            spent["tools"] += gap_s - _tool_s(after)
        else:
            spent["reserve"] += gap_s
    return spent


def _intended_s(record: Record) -> float:
    """What the engine means to take for a generation; 0 for other records."""
    body = record.body
    if not isinstance(body, GenerationRecord):
        return 0.0
    uncached = body.spend.tokens_prompt - body.spend.tokens_cached
    return FIRST_TOKEN_S + uncached / PREFILL_TOKENS_PER_S + TOKEN_S * body.spend.tokens_output


def _tool_s(record: Record) -> float:
    return record.body.duration_s if isinstance(record.body, ToolResultRecord) else 0.0


def _of(records: Iterable[Record], trajectory: TrajectoryId) -> list[Record]:
    return [record for record in records if record.trajectory == trajectory]


def records_in(parts: Iterable[Sequence[Record]]) -> list[Record]:
    """All of them, one after the other."""
    return [record for part in parts for record in part]


def _is(record: Record, event: Event) -> bool:
    return isinstance(record.body, LifecycleRecord) and record.body.event is event


# -- memory


async def _print_memory(service: Service) -> None:
    words = "How many words are there? "
    runs: list[RunId] = []
    await _idle_bytes(service, QUESTION, 1, runs)
    short = await _idle_bytes(service, QUESTION, IDLE_RUNS, runs)
    long = await _idle_bytes(service, words * (LONG_BYTES // len(words)), IDLE_RUNS - 1, runs)
    for run in runs:
        await service.client.cancel(run, "measured")
    for run in runs:
        await _ended(service.client, run)
    print(f"memory per idle trajectory: {short / 1024:.0f} KiB (aim: its transcript and 98 KiB);", end=" ")
    print(f"with {LONG_BYTES >> 10} KiB more of transcript {long / 1024:.0f} KiB,", end=" ")
    print(f"so {(long - short) / LONG_BYTES:.1f} bytes for each byte of transcript")


async def _idle_bytes(service: Service, question: str, count: int, runs: list[RunId]) -> float:
    """Growth of the runners' resident memory for each trajectory that comes to wait; `runs` grows by them."""
    before = sum(map(_resident_bytes, service.runners))
    runs += [(await service.client.create(question, IDLE)).spec.run for _ in range(count)]
    waiting = len(runs) * WIDTH
    await until(lambda: _running(service, "idle"), lambda running: running == waiting, within_s=30.0)
    during = sum(map(_resident_bytes, service.runners))
    return (during - before) / (count * WIDTH)


def _resident_bytes(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


# -- cancel


async def _print_cancels(service: Service) -> None:
    aborted_before = await _aborted(service, "k2-endless")
    taken_s = sorted([await _one_cancel(service) for _ in range(CANCELS)])
    aborts = await _aborted(service, "k2-endless") - aborted_before
    print(f"cancel to last abort: {1000 * statistics.median(taken_s):.0f} ms at the median,", end=" ")
    print(f"{1000 * taken_s[int(0.99 * len(taken_s))]:.0f} ms at the 99th percentile (aim 100)", end=" ")
    print(f"of {CANCELS}; {aborts} aborts counted for {CANCELS * WIDTH} generations")


async def _one_cancel(service: Service) -> float:
    client = service.client
    run = (await client.create(QUESTION, ENDLESS)).spec.run
    await _all_speak(client, run)
    called_s = time.perf_counter()
    cancel = asyncio.create_task(client.cancel(run, "measured"))
    while await _running(service, "k2-endless"):
        await asyncio.sleep(0.001)
    taken_s = time.perf_counter() - called_s
    await cancel
    await _ended(client, run)
    return taken_s


async def _all_speak(client: HeavyClient, run: RunId) -> None:
    seen: set[str] = set()
    async with client.watch(run) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                seen.add(event.trajectory)
            if len(seen) == WIDTH:
                return
    raise AssertionError(f"{run} ended before all of its arms spoke")


async def _ended(client: HeavyClient, run: RunId) -> None:
    async with client.watch(run, deltas=False) as stream:
        async for _ in stream:
            pass


async def _running(service: Service, profile: str) -> int:
    """Generations that an engine runs or keeps waiting, by its own load report."""
    async with service.http.get(f"{service.engines[profile]}/v1/loads") as response:
        loads = (await response.json())["loads"]
    return sum(load["num_running_reqs"] + load["num_waiting_reqs"] for load in loads)


async def _aborted(service: Service, profile: str) -> int:
    """Aborts that an engine has counted."""
    async with service.http.get(f"{service.engines[profile]}/metrics") as response:
        text = await response.text()
    found = re.search(r"^heavy_engine:num_aborted_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(float(found[1]))
