"""One `Replica` over many: chooses, waits for room, and goes on elsewhere when a replica is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from heavy.core import clock
from heavy.core.errors import (
    ContextOverflow,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    HeavyError,
    MalformedStream,
)
from heavy.core.ids import attempt_of, with_attempt
from heavy.core.messages import Message
from heavy.core.tools import ToolSpec
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest
from heavy.replicas.breaker import BreakerState
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.replicas.registry import READY, STARTING, Known, ReplicaRegistry
from heavy.replicas.said import Said
from heavy.replicas.vigil import Vigil

logger = logging.getLogger(__name__)

FAILOVER_STRIDE: Final = 16
"""Failover n of the caller's attempt a has the attempt number a + 16 n: no id is used twice."""


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """How a replica is chosen and how long it is waited for.

    `attempts_max` counts replicas tried for one generation. While no replica of the profile works, at most
    `absence_s` is waited; for room on a working one, or for one that is starting, until the deadline.
    While a generation is silent, its replica is looked after every `look_after_s`.
    A preferred replica is taken while it is at most `stickiness` fuller (0 to 1) than the emptiest.
    """

    attempts_max: int = 3
    absence_s: float = 10.0
    look_again_s: float = 0.25
    look_after_s: float = 1.0
    stickiness: float = 0.25

    def __post_init__(self) -> None:
        if not 1 <= self.attempts_max <= FAILOVER_STRIDE:
            raise ValueError(f"attempts_max must be from 1 to {FAILOVER_STRIDE}")


@dataclass(slots=True)
class _Place:
    """A generation's place on a replica, and what has been learnt from it."""

    known: Known
    trial: bool
    began: bool = False
    judged: bool = False

    def heard(self, event: GenerationEvent) -> None:
        """An event came."""
        if not self.began:
            self.began = True
            self.known.breaker.answered()
        if isinstance(event, Finished):
            self._well()

    def failed(self, error: HeavyError, deadline_ms: int) -> None:
        """The generation ended with an error: the replica's fault, a sign that it is well, or neither."""
        if isinstance(error, EngineRefused | ContextOverflow):
            self._well()
        elif isinstance(error, EngineUnavailable | EngineTimeout | MalformedStream) and (
            clock.remaining_s(deadline_ms) > 0  # a caller whose time is over says nothing about the replica
        ):
            self.judged = True
            after_s = error.retry_after_s if isinstance(error, EngineUnavailable) else None
            self.known.breaker.failed(after_s)

    def give_back(self) -> None:
        """Leave the replica."""
        self.known.in_flight -= 1
        if self.trial and not self.judged and not self.began:
            self.known.breaker.abandoned()

    def _well(self) -> None:
        self.judged = True
        self.known.breaker.succeeded()


@dataclass(slots=True)
class _Queue:
    """Those who wait for a replica of one profile, served in the order they came."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived_s: list[float] = field(default_factory=list)
    """When each of those who wait came."""
    absent_since_s: float | None = None
    """Since when no replica of the profile has been seen working."""


@dataclass(slots=True)
class _Journey:
    """One generation on its way: when it set out and where it has been."""

    request: GenerationRequest
    set_out_s: float = field(default_factory=clock.monotonic_s)
    tried: list[str] = field(default_factory=list)

    def next_request(self) -> GenerationRequest:
        """The request under the id of the attempt that comes now."""
        failovers = len(self.tried)
        if failovers == 0:
            return self.request
        attempt = attempt_of(self.request.request_id) % FAILOVER_STRIDE + FAILOVER_STRIDE * failovers
        return replace(self.request, request_id=with_attempt(self.request.request_id, attempt))


class RoutedReplica:
    """Implements `heavy.replicas.api.Replica` over the replicas that a registry knows.

    A replica that fails is left for another one. After the first token that one goes on from what was said,
    so whoever listens hears no gap and nothing twice; where servers cannot do that, the error is the
    caller's, who starts the step anew. Waiters are served in the order they came.
    """

    continues = True
    """It does so itself."""

    def __init__(self, registry: ReplicaRegistry, limits: RoutingLimits | None = None) -> None:
        self._registry = registry
        self._limits = limits or RoutingLimits()
        self._queues: dict[str, _Queue] = {}

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Stream one generation; see the protocol. `EngineUnavailable` when no replica could be had."""
        journey, said, loss = _Journey(request), Said(), None
        while True:
            async with self._placed(journey) as place:
                queue_s = clock.monotonic_s() - journey.set_out_s
                attempt = said.begin(journey.next_request())
                try:
                    async with aclosing(self._events(place.known, attempt)) as events:
                        async for event in events:
                            first = not place.began
                            place.heard(event)
                            whole = said.hear(event)
                            yield _queued(whole, queue_s) if first or isinstance(whole, Finished) else whole
                    return
                except HeavyError as error:
                    place.failed(error, request.deadline_ms)
                    if loss is not None and isinstance(error, EngineRefused | ContextOverflow):
                        raise loss from error  # it would not go on: the step is to be begun anew
                    stuck = said.anything and not place.known.client.continues
                    if stuck or not self._may_move(journey, error):
                        raise
                    loss = error if said.anything else None
                    logger.warning("moving %s to another replica: %s", request.request_id, error)
            journey.tried.append(place.known.info.replica)

    async def _events(self, known: Known, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The events of one attempt, given up when the replica is lost while it is silent."""

        async def lost() -> str:
            return await self._registry.lost(known)

        vigil = Vigil(known.info.replica, lost, self._limits.look_after_s)
        async with aclosing(known.client.generate(request)) as events, vigil:
            while True:
                try:
                    event = await vigil.next(events)
                except StopAsyncIteration:
                    return
                yield event

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """By the emptiest working replica of the profile; the estimate when there is none."""
        known = await self._registry.of(profile)
        working = [one for one in known if _works(one)]
        if not working:
            return estimated_prompt_tokens(messages, tools)
        return await min(working, key=lambda one: one.fullness).client.count_tokens(profile, messages, tools)

    @property
    def queue_wait_s(self) -> dict[str, float]:
        """Per profile, how long the first in line has waited for room on a replica; only where one waits."""
        now_s = clock.monotonic_s()
        waiting = {profile: queue.arrived_s for profile, queue in self._queues.items() if queue.arrived_s}
        return {profile: now_s - min(arrived_s) for profile, arrived_s in waiting.items()}

    def _may_move(self, journey: _Journey, error: HeavyError) -> bool:
        """Whether another attempt may help: an infrastructure failure, attempts and time left."""
        helps = isinstance(error, EngineUnavailable | EngineTimeout | MalformedStream)
        tries_left = len(journey.tried) + 1 < self._limits.attempts_max
        return helps and tries_left and clock.remaining_s(journey.request.deadline_ms) > 0

    @asynccontextmanager
    async def _placed(self, journey: _Journey) -> AsyncIterator[_Place]:
        """A place on a replica for the length of a block; given back, and waiters told, at its end."""
        place = await self._claim(journey)
        try:
            yield place
        finally:
            place.give_back()
            self._registry.tell()

    async def _claim(self, journey: _Journey) -> _Place:
        """Take a place on the best replica, waiting in turn. Raises `EngineUnavailable`."""
        request, arrived_s = journey.request, clock.monotonic_s()
        queue = self._queues.setdefault(request.profile, _Queue())
        bound = asyncio.timeout(clock.remaining_s(request.deadline_ms))
        queue.arrived_s.append(arrived_s)
        try:
            async with bound, queue.turn:
                while (place := await self._free(journey)) is None:
                    await self._check_absence(request.profile, queue, arrived_s)
                    await self._registry.change(self._limits.look_again_s)
                return place
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise EngineUnavailable(
                f"No replica of {request.profile} had room before the deadline of {request.request_id}."
            ) from error
        finally:
            queue.arrived_s.remove(arrived_s)

    async def _free(self, journey: _Journey) -> _Place | None:
        """A place where there is room now. Nothing is awaited between choosing and taking."""
        known = await self._registry.of(journey.request.profile)
        chosen = choose(known, journey.request.prefer_replica, journey.tried, self._limits.stickiness)
        if chosen is None:
            return None
        chosen.in_flight += 1
        return _Place(chosen, trial=chosen.breaker.enter())

    async def _check_absence(self, profile: str, queue: _Queue, arrived_s: float) -> None:
        """Raises `EngineUnavailable` when none has worked, nor been starting, for as long as one waits."""
        known, now_s = await self._registry.of(profile), clock.monotonic_s()
        if any(one.info.state == STARTING or _works(one) for one in known):
            queue.absent_since_s = None
            return
        since_s = queue.absent_since_s = now_s if queue.absent_since_s is None else queue.absent_since_s
        if now_s - max(since_s, arrived_s) >= self._limits.absence_s:
            raise EngineUnavailable(_absence(profile, known))


def choose(
    known: Sequence[Known], prefer: str, tried: Sequence[str] = (), stickiness: float = 0.25
) -> Known | None:
    """The replica for the next generation, or None while none has room.

    Replicas tried for this generation come last. Then the preferred one, unless it is more than
    `stickiness` fuller than the emptiest; else the emptiest, ties by lot.
    """
    free = [one for one in known if one.has_room]
    fresh = [one for one in free if one.info.replica not in tried] or free
    if not fresh:
        return None
    least = min(one.fullness for one in fresh)
    for one in fresh:
        if one.info.replica == prefer and one.fullness <= least + stickiness:
            return one
    return random.choice([one for one in fresh if one.fullness == least])


def _works(known: Known) -> bool:
    return known.info.state == READY and known.breaker.state is not BreakerState.OPEN


def _queued(event: GenerationEvent, queue_s: float) -> GenerationEvent:
    if isinstance(event, Finished):
        return replace(event, timing=replace(event.timing, queue_s=queue_s))
    return replace(event, queue_s=queue_s)


def _absence(profile: str, known: Sequence[Known]) -> str:
    if not known:
        return f"No replica of profile {profile} is there. Start one, or name a profile that is served."
    states = ", ".join(
        f"{one.info.replica} {'keeps failing' if one.info.state == READY else one.info.state}"
        + (f" ({one.info.detail})" if one.info.detail else "")
        for one in known
    )
    return f"No replica of profile {profile} works: {states}."
