"""How soon generations go on elsewhere when their replica dies or hangs; whether a busy one is left alone.

The predictions are in docs/measurements/routing.md, written down before the first measurement, with what was
found. Replicas are hosted as the product hosts them, without Ray: guard, process watch, health probes,
announcements in a real store, restarts in place. Engines are simulated, in processes of their own. Load goes
through the real router, so much of it that all replicas are in use and two of them have room for all of it.

1.  Killed: SIGKILL to one engine's process in the middle of its generations.
2.  Hung: SIGSTOP to it, until all it had is elsewhere and it is shown as failed; then SIGCONT.
    Both: from the signal until each generation that was there has been asked of another replica. A generation
    that was sent to the replica before anybody could know counts from the signal, too.
3.  Busy: one replica alone with all its places taken and as many generations waiting for it, prompts that
    are prefilled one after the other in two steps of three seconds each, and a token every 0.4 s, for about
    a minute. Counted: looks that do not show it ready, generations asked twice, restarts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from heavy.core import clock
from heavy.core.fleet import ReplicaInfo
from heavy.core.ids import arm, new_run_id, request_id
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import Profile, ServeSection
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest
from heavy.replicas.client import HttpReplica
from heavy.replicas.holds import KvHolds
from heavy.replicas.http import Endpoint, HttpPool
from heavy.replicas.registry import ReplicaRegistry
from heavy.replicas.router import RoutedReplica

from tests_support.hosted import Hosted, hosted, server_of
from tests_support.waiting import until

REPLICAS: Final = 3
SLOTS: Final = 8
STREAMS: Final = 12
"""So many that the other two replicas have room for all."""
KILLS: Final = 6
HANGS: Final = 4
SETTLE_S: Final = 4.0
"""How long there is load before a replica is lost: its generations are in their middle, and none is so long
that it is lost three times, which is as often as it may be."""
MOVED_WITHIN_S: Final = 60.0
BUSY_S: Final = 60.0
BUSY_PROMPT_TOKENS: Final = 16_400
SILENCE_S: Final = 120.0
"""As in production: what a generation on a hung replica would wait for if nobody looked after it."""


def profile(name: str, *flags: str) -> Profile:
    """A profile of the simulated engine."""
    places = ("--max-running-requests", str(SLOTS), "--reasoning-tokens", "2000", "--answer-tokens", "20")
    return Profile(
        name=name,
        title="Simulated engine for replicas that are lost (answers are made up)",
        engine="simulated",
        model=name,
        context_tokens=65_536,
        serve=ServeSection(in_flight_max=SLOTS, args=(*places, *flags)),
    )


BRISK: Final = profile("reroute", "--ttft-ms", "50", "--itl-ms", "30")
SLOW: Final = profile(
    "busy", "--prefill-tokens-per-s", "2730", "--prefill-alone", "--ttft-ms", "50", "--itl-ms", "400"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """An attempt: which generation was asked of which replica, when."""

    generation: str
    replica: str
    at_s: float


@dataclass(slots=True)
class Watched:
    """Writes down what is asked of a replica, and what it has open."""

    inner: HttpReplica
    asked: list[Asked]
    open: dict[str, str]
    """Generation: the replica that it is on."""

    @property
    def continues(self) -> bool:
        """As the server does."""
        return self.inner.continues

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """As the server does."""
        generation = request.messages[0].content[:40]
        self.asked.append(Asked(generation, self.inner.endpoint.replica, time.monotonic()))
        self.open[generation] = self.inner.endpoint.replica
        async with aclosing(self.inner.generate(request)) as events:
            async for event in events:
                yield event

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """As the server does."""
        return await self.inner.count_tokens(profile, messages, tools)


@dataclass(slots=True)
class Traffic:
    """Streams of generations, one after the other each, through a router."""

    router: RoutedReplica
    profile: Profile
    tokens_max: int
    prompt_tokens: int
    asked: list[Asked] = field(default_factory=list)
    open: dict[str, str] = field(default_factory=dict)
    finished: int = 0
    numbers: count[int] = field(default_factory=count)

    async def stream(self) -> None:
        """Generations without end."""
        while True:
            number = next(self.numbers)
            generation = f"generation {number:>8} ".ljust(40, ".")
            request = GenerationRequest(
                request_id=request_id(new_run_id(), arm(0), 0, 0),
                profile=self.profile.name,
                messages=(Message(Role.USER, generation + "lorem " * (self.prompt_tokens * 4 // 6)),),
                tools=(),
                sampling=Sampling(seed=number),
                tokens_max=self.tokens_max + number % SLOTS * self.tokens_max // SLOTS,
                deadline_ms=clock.now_ms() + 600_000,
            )
            async with aclosing(self.router.generate(request)) as events:
                async for event in events:
                    self.finished += isinstance(event, Finished)
            self.open.pop(generation, None)

    def on(self, replica: str) -> set[str]:
        """The generations that are on a replica now."""
        return {generation for generation, where in self.open.items() if where == replica}

    def left_after_s(self, replica: str, since_s: float) -> list[float]:
        """For each that was on the replica then or came later and had to go: when it was asked elsewhere."""
        left: list[float] = []
        last: dict[str, Asked] = {}
        for one in self.asked:
            before = last.get(one.generation)
            if before and before.replica == replica and one.at_s >= since_s:
                left.append(one.at_s - since_s)
            last[one.generation] = one
        return left


@asynccontextmanager
async def traffic(
    fleet: Hosted, streams: int, tokens_max: int, prompt_tokens: int = 50
) -> AsyncIterator[Traffic]:
    """So many streams for a block. A generation that fails fails the block."""
    pool, holds = HttpPool(streams), KvHolds(fleet.store.reservations)

    def connect(info: ReplicaInfo) -> Watched:
        endpoint = Endpoint.of(info.replica, info.base_url, fleet.profile, info.model)
        return Watched(HttpReplica(endpoint, pool, silence_s=SILENCE_S), made.asked, made.open)

    router = RoutedReplica(ReplicaRegistry(fleet.store.directory, connect), holds=holds)
    made = Traffic(router, fleet.profile, tokens_max, prompt_tokens)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(made.stream()) for _ in range(streams)]
            yield made
            for task in tasks:
                task.cancel()
    finally:
        await holds.close()
        await pool.close()


async def lose(fleet: Hosted, load: Traffic, victim: str, how: signal.Signals) -> list[float]:
    """Lose a replica's engine; seconds until each generation that was there is asked of another one."""
    info = (await fleet.ready(REPLICAS))[victim]
    await asyncio.sleep(SETTLE_S)
    server, there, since_s = server_of(info), load.on(victim), time.monotonic()
    os.kill(server, how)
    try:

        async def rest() -> set[str]:
            return load.on(victim)

        await until(rest, lambda left: not left, MOVED_WITHIN_S)
    finally:
        if how == signal.SIGSTOP:
            os.kill(server, signal.SIGCONT)
    left_s = load.left_after_s(victim, since_s)
    assert len(left_s) >= len(there) > 0, f"{len(there)} generations were there, {len(left_s)} have moved"
    await until(
        fleet.infos,
        lambda infos: (
            infos[victim].state == "ready" and (how == signal.SIGSTOP or infos[victim].pid != info.pid)
        ),
        MOVED_WITHIN_S,
    )
    return left_s


def say(what: str, rounds: list[list[float]]) -> None:
    """Median and maximum over all generations of all rounds."""
    each_s = [s for one in rounds for s in one]
    worst_s = ", ".join(f"{max(one):.2f}" for one in rounds)
    print(f"{what}: {len(rounds)} times, {len(each_s)} generations; asked elsewhere after", end=" ")
    print(
        f"{statistics.median(each_s):.3f} s in the median, {max(each_s):.2f} s at most ({worst_s})",
        flush=True,
    )


async def print_losses(directory: Path) -> None:
    """Dead and hung replicas."""
    async with (
        hosted(directory, BRISK, REPLICAS) as fleet,
        traffic(fleet, STREAMS, tokens_max=60) as load,
    ):
        names = sorted(await fleet.infos())
        turns = [names[n % REPLICAS] for n in range(max(KILLS, HANGS))]
        say("killed", [await lose(fleet, load, name, signal.SIGKILL) for name in turns[:KILLS]])
        say("hung", [await lose(fleet, load, name, signal.SIGSTOP) for name in turns[:HANGS]])


async def print_busy(directory: Path) -> None:
    """A replica that is only busy."""
    async with hosted(directory, SLOW, 1) as fleet:
        (first,) = (await fleet.infos()).values()
        wrong: list[str] = []
        full = looked = 0
        async with traffic(fleet, 2 * SLOTS, tokens_max=20, prompt_tokens=BUSY_PROMPT_TOKENS) as load:
            until_s = time.monotonic() + BUSY_S
            while time.monotonic() < until_s:
                await asyncio.sleep(0.1)
                infos = list((await fleet.infos()).values())
                looked, full = looked + 1, full + any(info.running >= SLOTS for info in infos)
                wrong += [f"{info.state}: {info.detail}" for info in infos if info.state != "ready"]
                wrong += ["not announced"] if not infos else []
            (last,) = (
                await until(fleet.infos, lambda infos: len(infos) == 1) and (await fleet.infos()).values()
            )
            twice = len(load.asked) - len({one.generation for one in load.asked})
            print(
                f"busy for {BUSY_S:.0f} s, full in {full / looked:.0%} of {looked} looks, "
                f"{load.finished} generations finished: {len(wrong)} looks that did not show it ready "
                f"{sorted(set(wrong))}, {twice} failovers, {int(last.pid != first.pid)} restarts",
                flush=True,
            )


async def measure() -> None:
    """Everything, one after the other."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory:
        await print_losses(Path(directory) / "lost")
        await print_busy(Path(directory) / "busy")


def main() -> None:
    """Print everything; takes about three minutes."""
    asyncio.run(measure())
