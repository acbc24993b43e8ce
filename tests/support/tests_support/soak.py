"""Trajectories of hundreds of steps on a real runner host: real HTTP, real store, an engine of one's choice.

What is fake is the world outside: one tool that returns pages of a library, some of which are missing.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from heavy.agent.limits import AgentLimits
from heavy.core import clock
from heavy.core.fleet import ReplicaInfo
from heavy.core.ids import RunId, TrajectoryId, arm
from heavy.core.messages import Message, Role
from heavy.core.policy import ContextPolicy, Sampling
from heavy.core.records import GenerationRecord, LifecycleRecord, Record, ToolIntentRecord, ToolResultRecord
from heavy.core.runs import Outcome, TrajectoryRole, TrajectorySpec
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.profiles.loader import ProfileBook
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, Replica
from heavy.replicas.http import HttpPool
from heavy.replicas.registry import ReplicaRegistry
from heavy.replicas.router import RoutedReplica, RoutingLimits
from heavy.runner.build import Bench
from heavy.runner.deltas import Deltas
from heavy.runner.host import TrajectoryHost
from heavy.store.reading import records_of
from heavy.store.redis import RedisStore
from heavy.telemetry.tracing import Tracing
from heavy.tools.registry import ToolBox

from tests_support.domain import policy, run_spec

LEASE_S = 1_800.0
SAMPLE_S = 0.2
PAGES = 1_000_000


class Library:
    """A tool that returns a page of `chars` characters, the same for the same number; one in ten is missing.

    With `shelf` only the pages below it may be asked for, each spelled out: an untrained model under a
    grammar would never end a number.
    """

    def __init__(self, chars: int, shelf: int = 0) -> None:
        self._chars = chars
        self._shelf = shelf
        self.calls = 0

    @property
    def spec(self) -> ToolSpec:
        """One whole number."""
        number: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": PAGES}
        page = {"enum": list(range(self._shelf))} if self._shelf else number
        parameters = {"type": "object", "properties": {"page": page}, "required": ["page"]}
        return ToolSpec("page", "A page of the library.", parameters, "1", Effects.READ, cacheable=False)

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """The page."""
        self.calls += 1
        number = int(arguments["page"])
        if number % 10 == 0:
            return ToolOutput(f"There is no page {number}.", is_error=True)
        words = random.Random(number)
        line = " ".join(f"{words.getrandbits(32):08x}" for _ in range(12))
        return ToolOutput(f"Page {number}: " + (line + "\n") * (self._chars // 108))


@dataclass(slots=True)
class Watched:
    """A replica that counts and times what it passes through; `compel` turns free choice into `required`."""

    inner: Replica
    compel: bool = False
    generations: int = 0
    counts: int = 0
    counted_chars: int = 0
    engine_s: float = 0.0
    largest_prompt: int = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The inner one's events."""
        if self.compel and request.tool_choice == "auto":
            request = replace(request, tool_choice="required")
        started_s = time.perf_counter()
        async with aclosing(self.inner.generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self.generations += 1
                    self.engine_s += time.perf_counter() - started_s
                    # One that moved to another replica counts its prompt more than once.
                    if event.request_id == request.request_id:
                        tokens = event.usage.prompt + event.usage.output
                        self.largest_prompt = max(self.largest_prompt, tokens)
                yield event

    continues = False

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """The inner one's count."""
        self.counts += 1
        self.counted_chars += sum(len(message.content) for message in messages)
        return await self.inner.count_tokens(profile, messages, tools)


@dataclass(frozen=True, slots=True)
class Sample:
    """The process at one moment: generations so far, resident bytes, Python's blocks, seconds of CPU."""

    generations: int
    rss_bytes: int
    blocks: int
    cpu_s: float


@dataclass(slots=True)
class Soak:
    """A host, and what it has been seen doing."""

    store: RedisStore
    host: TrajectoryHost
    replica: Watched
    library: Library
    profile: Profile
    samples: list[Sample] = field(default_factory=list)

    async def specs(
        self,
        policies: Sequence[ContextPolicy],
        *,
        deadline_s: float = 1_800.0,
        temperature: float = 1.0,
        **changes: Any,
    ) -> tuple[TrajectorySpec, ...]:
        """One run in the store; a trajectory for each policy."""
        budget = changes.pop("budget", None)
        contract = policy(width=len(policies), deadline_s=deadline_s)
        spec = run_spec(policy=contract if budget is None else replace(contract, budget=budget))
        created = await self.store.log.create(spec, owner="soak", lease_s=LEASE_S)
        values: dict[str, Any] = {
            "run": spec.run,
            "role": TrajectoryRole.ARM,
            "tenant": "default",
            "profile": self.profile.name,
            "messages": (Message(Role.USER, "Read the library and say what it is about."),),
            "tools": ("page",),
            "steps_max": 300,
            "tool_calls_max": None,
            "reasoning_tokens_per_step_max": 4_000,
            "deadline_ms": clock.now_ms() + int(deadline_s * 1_000),
            "epoch": created.run.epoch,
            **changes,
        }
        return tuple(
            TrajectorySpec(
                trajectory=arm(index),
                context_policy=chosen,
                sampling=Sampling(temperature, seed=index),
                **values,
            )
            for index, chosen in enumerate(policies)
        )

    async def run(self, specs: Sequence[TrajectorySpec]) -> tuple[Outcome, ...]:
        """Every trajectory at once, with samples of the process taken beside them."""
        sampling = asyncio.create_task(self._sample())
        try:
            return tuple(await asyncio.gather(*map(self.host.run, specs)))
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    async def records(self, run: RunId) -> dict[TrajectoryId, list[Record]]:
        """The run's log by trajectory; its numbers have no gap."""
        found: dict[TrajectoryId, list[Record]] = {}
        number = 0
        async for record in records_of(self.store.log, run):
            number += 1
            assert record.number == number
            found.setdefault(record.trajectory, []).append(record)
        return found

    def growth(self, after: int) -> tuple[int, int]:
        """Bytes and blocks gained between the samples right after so many generations and the last ones."""
        later = [sample for sample in self.samples if sample.generations >= after]
        half = max(1, len(later) // 4)
        first, last = later[:half], later[-half:]
        return (
            min(s.rss_bytes for s in last) - min(s.rss_bytes for s in first),
            min(s.blocks for s in last) - min(s.blocks for s in first),
        )

    async def _sample(self) -> None:
        while True:
            self.samples.append(
                Sample(self.replica.generations, rss_bytes(), sys.getallocatedblocks(), time.process_time())
            )
            await asyncio.sleep(SAMPLE_S)


def rss_bytes() -> int:
    """Resident memory of this process (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def checked(records: Sequence[Record]) -> dict[str, int]:
    """Counts of one trajectory's records, after what must be true of every log was asserted.

    Steps are numbered from 0 without a gap, every intent has its result, in its own step.
    """
    generations = [r.step for r in records if isinstance(r.body, GenerationRecord)]
    assert generations == list(range(len(generations)))
    intents = [(r.step, r.body.call.id) for r in records if isinstance(r.body, ToolIntentRecord)]
    results = [(r.step, r.body.call_id) for r in records if isinstance(r.body, ToolResultRecord)]
    assert len(set(intents)) == len(intents)
    assert set(intents) <= set(results)
    asked = [
        (r.step, call.id)
        for r in records
        if isinstance(r.body, GenerationRecord)
        for call in r.body.message.tool_calls
    ]
    assert sorted(asked) == sorted(results)
    return {"generations": len(generations), "results": len(results)}


def notes(records: Sequence[Record]) -> list[str]:
    """What a trajectory noted."""
    return [record.body.detail for record in records if isinstance(record.body, LifecycleRecord)]


@asynccontextmanager
async def soaking(
    store: RedisStore,
    url: str,
    profile: Profile,
    *,
    page_chars: int,
    limits: AgentLimits,
    shelf: int = 0,
    compel: bool = False,
    absence_s: float = 10.0,
) -> AsyncIterator[Soak]:
    """A host over `store` whose one replica is the server at `url`."""
    info = ReplicaInfo("replica", profile.name, url, profile.engine, profile.model, "ready")
    await store.directory.announce_replica(info, ttl_s=LEASE_S)
    pool = HttpPool(16)
    profiles = ProfileBook([profile])
    registry = ReplicaRegistry.over_http(store.directory, profiles, pool, silence_s=60.0)
    tracing, deltas, library = Tracing("", "soak"), Deltas(store.log, 0.1), Library(page_chars, shelf)
    replica = Watched(RoutedReplica(registry, RoutingLimits(absence_s=absence_s)), compel)
    bench = Bench(profiles, replica, ToolBox([library], {}, None), store, tracing, limits)
    host = TrajectoryHost(store, deltas, bench, tracing, in_flight_max=8, lease_s=LEASE_S)
    deltas.start()
    try:
        yield Soak(store, host, replica, library, profile)
    finally:
        await host.stop()
        await deltas.stop()
        await pool.close()
