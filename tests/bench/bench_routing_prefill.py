"""How many prompt tokens one run prefills on real SGLang servers, against the least that it could.

The whole service in this process (coordinator, agent loop, sandboxed python, a real Valkey), the router of
two runners, and real SGLang servers on the CPU that serve Abacus. One question behind a long system prompt,
eight arms, three python calls an arm, then an answer. Rounds with and without a leading arm (`route_lead_s`
0) take turns, on one replica and on two; before each, every server's cache is emptied. Two replicas come
with neighbours that are said to cost nothing, then with what profiles say unless told otherwise.

- *prefilled*: prompt tokens less cached ones, as the engine reports them per generation; beside it what the
  servers' own counters of computed prompt tokens grew by.
- *ideal*: the distinct prefixes of all prompts of the run, token by token as the server's own tokenizer and
  template render them, less those that end within a turn that the model generated: they are in its cache.
- *where they went*: the same with a cache for each replica: what spreading over replicas costs by intent.

Behind an opening as long as none it has seen, Abacus calls no tool. So what it says is dictated, token by
token, by a logit processor of SGLang's own: some reasoning, a call of one power, and in the end an answer,
each arm its own, as the template renders them. All else is real: prefill, cache, batches, results of 5 to
110 tokens. Predictions and results: docs/measurements/routing.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp
import orjson

from heavy.client import HeavyClient
from heavy.config import Settings
from heavy.core.draft import PolicyDraft
from heavy.core.errors import HeavyError
from heavy.core.fleet import ReplicaInfo
from heavy.core.ids import trajectory_of
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode
from heavy.core.tools import ToolSpec
from heavy.profiles.loader import load_profiles
from heavy.profiles.schema import Profile, RoutingSection
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest
from heavy.replicas.client import HttpReplica
from heavy.replicas.holds import KvHolds
from heavy.replicas.http import Endpoint, HttpPool
from heavy.replicas.openai_json import tokenize_body
from heavy.replicas.registry import ReplicaRegistry
from heavy.replicas.router import RoutedReplica, RoutingLimits
from heavy.store.redis import RedisStore, connect
from heavy.tools.config import ToolsConfig
from tests.integration.sglang.server import NAME, Running, serving
from workers.engines.sglang.environment import cpu_environment

from tests_support.servers import StoreServer
from tests_support.waiting import until
from tests_support.whole import whole

ROOT: Final = Path(__file__).parents[2]
PROFILES: Final = ROOT / "tests" / "fixtures" / "profiles"
ROUNDS: Final = 3
WIDTH: Final = 8
RUNNERS: Final = 2
CALLS: Final = 3
OPENING_CHARS: Final = 4_200
ALL_S: Final = 1_800.0
REPORT_S: Final = 0.5

QUESTION: Final = "Use python: start with 787, multiply by 11, subtract 512, plus 40, times 3."
ALONE: Final = RoutingSection(prefill_tokens_per_s=7_000.0, tokens_per_s=170.0, output_tokens=50)
"""What the profile says of its pace: one stream alone, two idle cores."""
FLAG: Final = "--enable-custom-logit-processor"
DICTATION: Final = """
from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor

class Dictation(CustomLogitProcessor):
    def __call__(self, logits, custom_param_list=None):
        for row, params in enumerate(custom_param_list):
            token = params["dictated"][len(params["__req__"].output_ids)]
            logits[row] = -float("inf")
            logits[row, token] = 0.0
        return logits

print(Dictation.to_str())
"""
POLICY: Final = PolicyDraft(
    width=WIDTH,
    quorum=WIDTH,
    early_stop=False,
    aggregation=AggregationMode.VOTE,
    steps_per_trajectory_max=CALLS + 3,
)


def main() -> None:
    """Print a line a round, and each kind's ratio to the ideal; about five minutes."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory, ExitStack() as stack:
        store = StoreServer("valkey", Path(directory))
        store.start()
        stack.callback(store.stop)
        servers = [stack.enter_context(serving(FLAG)) for _ in range(2)]
        asyncio.run(_measure(store.url, servers, dictation()))


def dictation() -> str:
    """The processor that makes a model say what a request dictates, as SGLang wants it sent."""
    engine = cpu_environment()
    done = subprocess.run(
        [str(engine.python), "-c", DICTATION],
        env={**os.environ, **engine.variables},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300.0,
    )
    return done.stdout.strip().splitlines()[-1]


# -- what is measured


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a round, with its prompt as the engine had it."""

    trajectory: str
    replica: str
    placed: str
    prompt: Sequence[int]
    prefilled: int
    output: int


@dataclass(frozen=True, slots=True)
class Round:
    """All generations of one run, and what the servers themselves counted meanwhile."""

    generations: Sequence[Generation]
    counted: int
    wall_s: float

    @property
    def prefilled(self) -> int:
        """Prompt tokens that were computed."""
        return sum(one.prefilled for one in self.generations)

    @property
    def ideal(self) -> int:
        """What one cache for all would have had to compute."""
        return fresh_tokens(self.generations)

    @property
    def where_they_went(self) -> int:
        """What the replicas that were used would have had to compute."""
        replicas = {one.replica for one in self.generations}
        return sum(
            fresh_tokens([one for one in self.generations if one.replica == name]) for name in replicas
        )


def fresh_tokens(generations: Iterable[Generation]) -> int:
    """Distinct prefixes of the prompts, less those that end within what the model said before."""
    asked: set[int] = set()
    said: set[int] = set()
    last: dict[str, Generation] = {}
    for one in generations:
        before = last.get(one.trajectory)
        begun, ended = (len(before.prompt), len(before.prompt) + before.output) if before else (0, 0)
        prefix = 0
        for at, token in enumerate(one.prompt):
            prefix = hash((prefix, token))
            asked.add(prefix)
            if begun <= at < ended:
                said.add(prefix)
        last[one.trajectory] = one
    return len(asked - said)


@dataclass(slots=True)
class Watched:
    """The routers of several runners as one `Replica`, each with every other arm; keeps what came of it."""

    routers: Sequence[RoutedReplica] = ()
    seen: list[tuple[GenerationRequest, Finished]] = field(default_factory=list)

    continues = True

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The events of the router whose runner has this arm."""
        arm = int(trajectory_of(request.request_id)[-1], 16)
        async with aclosing(self.routers[arm % len(self.routers)].generate(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    self.seen.append((request, event))
                yield event

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """The first router's count."""
        return await self.routers[0].count_tokens(profile, messages, tools)


class Dictated(HttpReplica):
    """A server whose model says what is dictated to it."""

    def __init__(self, endpoint: Endpoint, pool: HttpPool, world: World) -> None:
        super().__init__(endpoint, pool, silence_s=120.0)
        self._pool_of_all = pool
        self._world = world

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The events of a generation that says its step's turn."""
        ids = await self._world.tokens_of(_turn(request.request_id))
        extra = {"custom_logit_processor": self._world.dictation, "custom_params": {"dictated": ids}}
        shape = self.endpoint.request.model_copy(update={"extra": extra})
        speaker = HttpReplica(replace(self.endpoint, request=shape), self._pool_of_all, silence_s=120.0)
        async with aclosing(speaker.generate(request)) as events:
            async for event in events:
                yield event


def _turn(request_id: str) -> str:
    """What a trajectory says at a step, as the template renders it: another one for every arm and step."""
    step, lot = int(request_id[-9:-3], 16), random.Random(request_id)
    thought = f"{lot.randint(100, 999)}*{lot.randint(2, 19)}={lot.randint(1_000, 9_999)}\n"
    if step >= CALLS:
        return f"<think>{thought}</think>Answer: {lot.randint(1, 99)}<|im_end|>"
    code = f"print({lot.randint(2, 999)}**{lot.randint(2, 40)})"
    call = f'functions.python:{step}<|tool_call_argument_begin|>{{"code": "{code}"}}<|tool_call_end|>'
    section = f"<|tool_calls_section_begin|><|tool_call_begin|>{call}<|tool_calls_section_end|>"
    return f"<think>{thought}</think>{section}<|im_end|>"


# -- the world around it


@dataclass(frozen=True, slots=True)
class World:
    """Servers, the profile they serve, and the store in which they are announced."""

    store: RedisStore
    profile: Profile
    pool: HttpPool
    http: aiohttp.ClientSession
    urls: Mapping[str, str]
    dictation: str

    def routers(self, lead_max_s: float) -> list[RoutedReplica]:
        """One a runner, each with reservations and a registry of its own."""
        return [self._router(RoutingLimits(lead_max_s=lead_max_s)) for _ in range(RUNNERS)]

    def _router(self, limits: RoutingLimits) -> RoutedReplica:
        def connected(info: ReplicaInfo) -> Dictated:
            endpoint = Endpoint.of(info.replica, info.base_url, self.profile, info.model)
            return Dictated(endpoint, self.pool, self)

        registry = ReplicaRegistry(self.store.directory, connected)
        holds = KvHolds(self.store.reservations)
        return RoutedReplica(registry, limits, holds, lambda _: self.profile.routing)

    async def announce_forever(self) -> None:
        """What a replica's actor does: its engine's own load report, twice a second."""
        clients = {
            name: HttpReplica(Endpoint.of(name, url, self.profile), self.pool, silence_s=10.0)
            for name, url in self.urls.items()
        }
        while True:
            for name, client in clients.items():
                await self._announce(name, client)
            await asyncio.sleep(REPORT_S)

    async def _announce(self, name: str, client: HttpReplica) -> None:
        try:
            load = await client.load(5.0)
        except HeavyError:
            return
        info = ReplicaInfo(
            name,
            self.profile.name,
            self.urls[name],
            "sglang",
            NAME,
            "ready",
            running=load.running,
            waiting=load.waiting,
            kv_tokens_used=load.kv_tokens_used,
            kv_tokens_max=load.kv_tokens_max,
            in_flight_max=self.profile.serve.in_flight_max,
        )
        await self.store.directory.announce_replica(info, ttl_s=30.0)

    async def emptied(self) -> None:
        """Nothing is in any server's cache any more."""

        async def refused() -> list[str]:
            answers = [await self.http.post(f"{url}/flush_cache") for url in self.urls.values()]
            return [await answer.text() for answer in answers if answer.status != 200]

        await until(refused, lambda texts: not texts)

    async def counted(self) -> int:
        """Prompt tokens that all servers have computed so far, by their own counters."""
        total = 0.0
        for url in self.urls.values():
            async with self.http.get(f"{url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            found = [line for line in lines if line.startswith("sglang:realtime_tokens_total")]
            total += sum(float(line.rpartition(" ")[2]) for line in found if 'mode="prefill_compute"' in line)
        return int(total)

    async def prompt_of(self, request: GenerationRequest) -> list[int]:
        """A prompt's tokens, by the servers' own template and tokenizer."""
        return await self._tokens(tokenize_body(request.messages, request.tools, NAME))

    async def tokens_of(self, text: str) -> list[int]:
        """A text's tokens."""
        return await self._tokens(orjson.dumps({"model": NAME, "prompt": text, "add_special_tokens": False}))

    async def _tokens(self, body: bytes) -> list[int]:
        url, kind = next(iter(self.urls.values())), {"Content-Type": "application/json"}
        async with self.http.post(f"{url}/v1/tokenize", data=body, headers=kind) as answer:
            tokens: list[int] = orjson.loads(await answer.read())["tokens"]
        return tokens


@asynccontextmanager
async def _world(
    store_url: str, servers: Sequence[Running], dictation: str, crowding: float
) -> AsyncIterator[World]:
    profile = _profile(crowding)
    store = await connect(store_url, Settings())
    pool = HttpPool(64)
    urls = {f"r{number}": server.base_url for number, server in enumerate(servers)}
    async with aiohttp.ClientSession() as http:
        world = World(store, profile, pool, http, urls, dictation)
        announcing = asyncio.create_task(world.announce_forever())
        try:
            await until(store.directory.replicas, lambda found: len(found) == len(urls))
            yield world
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
            for name in urls:
                await store.directory.withdraw(name)
            await pool.close()
            await store.close()


def _profile(crowding: float) -> Profile:
    known = load_profiles((PROFILES,)).get("abacus-sglang")
    limits = known.limits.model_copy(update={"steps_max": CALLS + 3})
    routing = ALONE.model_copy(update={"crowding": crowding})
    return known.model_copy(update={"limits": limits, "routing": routing})


# -- rounds


async def _measure(store_url: str, servers: Sequence[Running], dictation: str) -> None:
    async with asyncio.timeout(ALL_S):
        for count, crowding in ((1, 1.0), (2, 1.0), (2, 0.0)):
            print(f"{count} replica{'s' * (count > 1)}; a full one is said to be slower by {crowding:.0%}")
            await _compare(store_url, servers[:count], dictation, crowding)


async def _compare(store_url: str, servers: Sequence[Running], dictation: str, crowding: float) -> None:
    async with _world(store_url, servers, dictation, crowding) as world:
        watched, kinds = Watched(), {"leading": RoutingLimits().lead_max_s, "no leader": 0.0}
        routers = {kind: world.routers(lead_max_s) for kind, lead_max_s in kinds.items()}
        rounds: dict[str, list[Round]] = {kind: [] for kind in kinds}
        config = ToolsConfig.model_validate({"tools": {"python": {}}})
        parts = whole(store_url, profile=world.profile, replica=watched, tools=config)
        async with parts as heavy, HeavyClient(heavy.address) as client:
            for number in range(ROUNDS):
                for kind in kinds if number % 2 else reversed(kinds):
                    watched.routers = routers[kind]
                    one = await _round(world, watched, client, number)
                    rounds[kind].append(one)
                    _print_round(f"  {kind}, round {number}", one)
        for kind, measured in rounds.items():
            _print_kind(f"  {kind}", measured)
            pace = routers[kind][0].pace(world.profile.name)
            print(
                f"  learnt: {1 / pace.prefill_token_s:.0f} prompt tokens/s, {1 / pace.token_s:.0f} tokens/s,"
                f" {pace.output_tokens:.0f} tokens an answer"
            )


async def _round(world: World, watched: Watched, client: HeavyClient, number: int) -> Round:
    await world.emptied()
    watched.seen.clear()
    before, began_s = await world.counted(), time.perf_counter()
    async with client.ask(_conversation(number), POLICY, deltas=False) as stream:
        async for _ in stream:
            pass
    wall_s = time.perf_counter() - began_s
    counted = await world.counted() - before
    generations = [
        Generation(
            trajectory_of(request.request_id),
            finished.replica,
            finished.placed,
            await world.prompt_of(request),
            finished.usage.prompt - finished.usage.cached,
            finished.usage.output,
        )
        for request, finished in watched.seen
    ]
    return Round(generations, counted, wall_s)


def _conversation(number: int) -> tuple[Message, ...]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return (
        Message(Role.SYSTEM, text[number * 500 :][:OPENING_CHARS]),
        Message(Role.USER, QUESTION),
    )


def _print_round(title: str, one: Round) -> None:
    where = Counter(generation.replica for generation in one.generations)
    firsts = {generation.trajectory: generation for generation in reversed(one.generations)}
    opening = len(next(iter(firsts.values())).prompt)
    again = sum(generation.prefilled for generation in firsts.values())
    print(
        f"{title}: {one.prefilled / one.ideal:.3f} ({one.prefilled} of {one.ideal} tokens;"
        f" {one.where_they_went} where they went; servers counted {one.counted});"
        f" opening of {opening} prefilled {again / opening:.2f} times;"
        f" generations {dict(sorted(where.items()))}, {one.wall_s:.1f} s"
    )
    print(f"  placed: {dict(Counter(generation.placed for generation in one.generations))}", flush=True)


def _print_kind(title: str, rounds: Sequence[Round]) -> None:
    ratios = sorted(one.prefilled / one.ideal for one in rounds)
    print(
        f"{title}: {statistics.median(ratios):.3f} of the ideal (aim 1.05), from {ratios[0]:.3f} to"
        f" {ratios[-1]:.3f} in {len(ratios)} rounds; {statistics.median(r.wall_s for r in rounds):.1f} s"
    )
