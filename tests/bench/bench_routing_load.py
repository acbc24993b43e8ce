"""Mixed loads on four simulated replicas: routing by cost against simpler ways to choose a replica.

Everything but the model is real: replica hosts with their engine processes, health and load reports, the
store with its reservations, and two routers (as two runners have them) whose arms are each run's in turn.
The engines have eight places and 60,000 tokens of KV memory each. They prefill one prompt at a time, 40,000
tokens a second, and decode nothing meanwhile, as SGLang's scheduler does; a token takes 8 ms alone and four
times that on a full server. That is a K2-class node with a tenth of its tokens and of its times; routing's
own waits are a tenth as well. The profile that routing starts from says 1.0 for crowding where the engine
has 3.0, so it must make do with a wrong guess.

The ways to choose differ in the `Chooser` alone; all see the same reservations and reports:
  cost         the product's: `heavy.replicas.cost.cheapest`, its places and its leading arm
  round robin  the next one, whatever it holds and whatever it does
  least loaded the one with the fewest generations, running or queued, over all routers
  sticky       where the trajectory was, always; the first time the least loaded one
  selfish      the product's without `standstill_s`: what a prefill takes from others counts for nothing
Those in the middle know no bound on places: whom they send too much, the engine queues, as it does behind any
balancer. Each load is drawn from seeds; for every seed the ways take turns on the same engines, with texts of
their own, so that no prefix is left from another's. Printed for each way: what it takes over what
routing by cost takes (above 1: longer), for the last run to end, for a run on average and at the 95th
percentile, over the seeds: geometric mean, and from the least to the greatest; and prompt tokens prefilled.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from heavy.config import Settings
from heavy.core import clock
from heavy.core.fleet import ReplicaInfo, ReplicaState
from heavy.core.ids import RunId, arm, new_run_id, request_id
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.profiles.loader import ProfileBook
from heavy.profiles.schema import Profile, RoutingSection, ServeSection
from heavy.replicas.api import Finished, GenerationRequest
from heavy.replicas.cost import Chooser, Demand, Offer, Pace, cheapest, cost_s, standstill_s
from heavy.replicas.holds import KvHolds
from heavy.replicas.http import HttpPool
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.replicas.registry import ReplicaList, ReplicaRegistry
from heavy.replicas.router import RoutedReplica, RoutingLimits
from heavy.store.api import Store
from heavy.store.redis import connect
from workers.replica import Replica

from tests_support.run_loads import MIXES, RunLoad, Step, text
from tests_support.servers import StoreServer
from tests_support.waiting import until

REPLICAS: Final = 4
ROUTERS: Final = 2
PLACES: Final = 8
SEEDS: Final = (11, 12, 13)
SECONDS_MAX: Final = 600.0
"""No load is begun after so long; the one under way has a bound of its own."""
TRIAL_S: Final = 90.0
UNBOUNDED: Final = 10_000
TENTH: Final = RoutingLimits(look_again_s=0.025, wait_max_s=2.0, lead_min_s=0.01, lead_max_s=3.0)
"""A tenth of what the product waits, as generations are a tenth as long."""

PROFILE: Final = Profile(
    name="bench-routing",
    title="Simulated engines of a mixed load",
    engine="simulated",
    model="bench-routing",
    context_tokens=60_000,
    serve=ServeSection(
        in_flight_max=PLACES,
        args=(
            *("--ttft-ms", "10", "--itl-ms", "8", "--prefill-tokens-per-s", "40000", "--jitter", "0.1"),
            *("--crowding", "3", "--prefill-alone", "--reasoning-tokens", "400", "--steps-max", "0"),
            *("--max-running-requests", f"{PLACES}", "--max-total-tokens", "60000"),
            *("--max-queued-requests", "1000", "--steps-min", "0"),
        ),
    ),
    routing=RoutingSection(
        prefill_tokens_per_s=40_000, tokens_per_s=125, output_tokens=25, output_tokens_reserved=64
    ),
)


# -- the ways to choose


class RoundRobin:
    """The next one."""

    def __init__(self) -> None:
        self._turns = itertools.count()

    def __call__(self, offers: Sequence[Offer], demand: Demand, pace: Pace, prefer: str) -> Offer | None:
        """See `Chooser`."""
        there = sorted(offers, key=lambda one: one.replica)
        return there[next(self._turns) % len(there)] if there else None


def least_loaded(offers: Sequence[Offer], demand: Demand, pace: Pace, prefer: str) -> Offer | None:
    """The one with the fewest generations; of equals the preferred one, else the first."""
    return min(offers, key=lambda one: (one.taken, one.replica != prefer, one.replica), default=None)


def sticky(offers: Sequence[Offer], demand: Demand, pace: Pace, prefer: str) -> Offer | None:
    """Where the trajectory was."""
    there = next((one for one in offers if one.replica == prefer), None)
    return there or least_loaded(offers, demand, pace, prefer)


def selfish(offers: Sequence[Offer], demand: Demand, pace: Pace, prefer: str) -> Offer | None:
    """The cheapest one for itself."""

    def own_s(one: Offer) -> float:
        return cost_s(one, demand, pace) - standstill_s(one, demand, pace)

    return min(offers, key=lambda one: (own_s(one), one.replica != prefer, one.replica), default=None)


@dataclass(frozen=True, slots=True)
class Unbounded:
    """The directory as those see it who leave queues to the engines."""

    directory: ReplicaList

    async def replicas(self) -> tuple[ReplicaInfo, ...]:
        """See `ReplicaList`."""
        found = await self.directory.replicas()
        return tuple(replace(one, in_flight_max=UNBOUNDED, kv_tokens_max=0) for one in found)


WAYS: Final = ("cost", "round robin", "least loaded", "sticky", "selfish")
OURS: Final = ("cost", "selfish")


def chooser(way: str) -> Chooser:
    """A new one for every router."""
    simple: Mapping[str, Chooser] = {
        "least loaded": least_loaded,
        "sticky": sticky,
        "selfish": selfish,
    }
    return RoundRobin() if way == "round robin" else simple.get(way, cheapest)


# -- one trial


@dataclass(frozen=True, slots=True)
class Trial:
    """What one load took under one way: seconds until all ended and of each run, tokens prefilled."""

    makespan_s: float
    runs_s: tuple[float, ...]
    prefilled_tokens: int
    placed: Mapping[str, int]

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """Makespan, mean and 95th percentile of a run, prefilled tokens."""
        worst = sorted(self.runs_s)[math.ceil(0.95 * len(self.runs_s)) - 1]
        return self.makespan_s, statistics.fmean(self.runs_s), worst, float(self.prefilled_tokens)


class Rollout:
    """Runs a load over routers and counts."""

    def __init__(self, routers: Sequence[RoutedReplica], nonce: str) -> None:
        self._routers = routers
        self._nonce = nonce
        self._prefilled = 0
        self._placed: dict[str, int] = {}

    async def trial(self, load: Sequence[RunLoad]) -> Trial:
        """All runs of a load, each when it comes."""
        began_s = clock.monotonic_s()
        async with asyncio.timeout(TRIAL_S), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run(one)) for one in load]
        makespan_s = clock.monotonic_s() - began_s - load[0].comes_s
        return Trial(makespan_s, tuple(task.result() for task in tasks), self._prefilled, self._placed)

    async def _run(self, load: RunLoad) -> float:
        await asyncio.sleep(load.comes_s)
        run, began_s = new_run_id(), clock.monotonic_s()
        async with asyncio.TaskGroup() as group:
            for index, steps in enumerate(load.arms):
                group.create_task(self._arm(run, index, load, steps))
        return clock.monotonic_s() - began_s

    async def _arm(self, run: RunId, index: int, load: RunLoad, steps: Sequence[Step]) -> None:
        name = f"{self._nonce}-{load.name}"
        messages = [Message(Role.USER, text(name, load.opening_tokens))]
        opening = known = estimated_prompt_tokens(tuple(messages), ())
        replica = ""
        for number, step in enumerate(steps):
            if step.grown_tokens:
                messages.append(Message(Role.USER, text(f"{name}-{index}-{number}", step.grown_tokens)))
            request = GenerationRequest(
                request_id=request_id(run, arm(index), number, 0),
                profile=PROFILE.name,
                messages=tuple(messages),
                tools=(),
                sampling=Sampling(seed=index),
                tokens_max=step.output_tokens,
                deadline_ms=clock.now_ms() + int(TRIAL_S * 1_000),
                prefer_replica=replica,
                prompt_tokens=known + step.grown_tokens,
                group=f"{run}-arm",
                opening_tokens=opening,
            )
            finished = await self._generation(self._routers[index % len(self._routers)], request)
            opening = opening if number else finished.usage.prompt
            replica, known = finished.replica, finished.usage.prompt + finished.usage.output
            messages.append(Message(Role.ASSISTANT, finished.content or finished.reasoning))
            await asyncio.sleep(step.tool_s)

    async def _generation(self, router: RoutedReplica, request: GenerationRequest) -> Finished:
        async with aclosing(router.generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self._prefilled += event.usage.prompt - event.usage.cached
                    self._placed[event.placed] = self._placed.get(event.placed, 0) + 1
                    return event
        raise AssertionError("a generation that ends without an end")


# -- the comparison


@asynccontextmanager
async def _routers(store: Store, way: str) -> AsyncIterator[list[RoutedReplica]]:
    """New ones, which have learnt nothing yet."""
    ours = way in OURS
    limits = TENTH if ours else replace(TENTH, lead_min_s=math.inf)
    directory = store.directory if ours else Unbounded(store.directory)
    async with AsyncExitStack() as stack:
        routers = []
        for _ in range(ROUTERS):
            pool = HttpPool(UNBOUNDED)
            stack.push_async_callback(pool.close)
            holds = KvHolds(store.reservations)
            stack.push_async_callback(holds.close)
            registry = ReplicaRegistry.over_http(directory, ProfileBook([PROFILE]), pool, silence_s=60.0)
            routers.append(RoutedReplica(registry, limits, holds, lambda _: PROFILE.routing, chooser(way)))
        yield routers


@asynccontextmanager
async def _served(store_url: str) -> AsyncIterator[Store]:
    """The store, once all replicas are ready."""
    settings = Settings(store_url=store_url)
    async with AsyncExitStack() as stack:
        store = await connect(store_url, settings)
        stack.push_async_callback(store.close)
        for number in range(REPLICAS):
            replica = Replica(f"r{number}", PROFILE, settings.environment())
            stack.push_async_callback(replica.stop)
            await replica.start()
        await until(store.directory.replicas, _all_ready, within_s=60.0)
        yield store


def _all_ready(infos: Sequence[ReplicaInfo]) -> bool:
    return [one.state for one in infos] == [ReplicaState.READY] * REPLICAS


async def _compare(store_url: str) -> None:
    began_s = time.perf_counter()
    async with _served(store_url) as store:
        for name, mix in MIXES.items():
            trials: dict[str, list[Trial]] = {way: [] for way in WAYS}
            for turn, seed in enumerate(SEEDS):
                if time.perf_counter() - began_s > SECONDS_MAX:
                    break
                load = mix.drawn(seed)
                for way in (*WAYS[turn % len(WAYS) :], *WAYS[: turn % len(WAYS)]):
                    async with _routers(store, way) as routers:
                        trials[way].append(await Rollout(routers, f"{way}-{name}").trial(load))
            if trials[WAYS[0]]:
                _print(name, trials)


def _print(name: str, trials: Mapping[str, Sequence[Trial]]) -> None:
    ours = [one.figures for one in trials["cost"]]
    means = [statistics.fmean(column) for column in zip(*ours, strict=True)]
    print(
        f"\n{name}, {len(ours)} seeds; by cost the last run ends after {means[0]:.1f} s, a run takes"
        f" {means[1]:.2f} s, p95 {means[2]:.2f} s; {means[3]:,.0f} tokens prefilled;"
        f" placed: {_reasons(trials['cost'])}"
    )
    print(f"  {'over ours':14}{'makespan':>20}{'mean of a run':>20}{'p95 of a run':>20}{'prefilled':>20}")
    for way in WAYS[1:]:
        ratios = [
            [theirs / mine for theirs, mine in zip(one.figures, own, strict=True)]
            for one, own in zip(trials[way], ours, strict=True)
        ]
        columns = "".join(f"{_spread(column):>20}" for column in zip(*ratios, strict=True))
        print(f"  {way:14}{columns}")
    sys.stdout.flush()


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.geometric_mean(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _reasons(trials: Sequence[Trial]) -> str:
    names = sorted({name for one in trials for name in one.placed})
    return ", ".join(f"{sum(one.placed.get(name, 0) for one in trials)} {name}" for name in names)


def main() -> None:
    """Print the ratios; about eight minutes."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory:
        store = StoreServer("valkey", Path(directory))
        store.start()
        try:
            asyncio.run(_compare(store.url))
        finally:
            store.stop()
