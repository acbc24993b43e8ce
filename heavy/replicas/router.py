"""One `Replica` over many: goes on elsewhere when a replica is lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from heavy.core import clock
from heavy.core.errors import (
    ContextOverflow,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    HeavyError,
    MalformedStream,
)
from heavy.core.messages import Message
from heavy.core.tools import ToolSpec
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest
from heavy.replicas.cost import Chooser, Pace, cheapest
from heavy.replicas.holds import KvHolds
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.replicas.placement import (
    FAILOVER_STRIDE,
    Journey,
    Place,
    Placement,
    PlacementLimits,
    RoutingOf,
    by_default,
)
from heavy.replicas.registry import Known, ReplicaRegistry
from heavy.replicas.said import Said
from heavy.replicas.vigil import Vigil

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoutingLimits(PlacementLimits):
    """How long places are waited for, and when one is left.

    `attempts_max` counts replicas tried for one generation. While a generation is silent, its replica is
    looked after every `look_after_s`.
    """

    attempts_max: int = 3
    look_after_s: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.attempts_max <= FAILOVER_STRIDE:
            raise ValueError(f"attempts_max must be from 1 to {FAILOVER_STRIDE}")


@dataclass(slots=True)
class _Stay:
    """A generation's stay on a replica, and what has been learnt from it."""

    place: Place
    began: bool = False
    judged: bool = False

    def heard(self, event: GenerationEvent) -> None:
        """An event came."""
        if not self.began:
            self.began = True
            self.place.known.breaker.answered()
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
            self.place.known.breaker.failed(after_s)

    def over(self) -> None:
        """It has left. A trial that learnt nothing lets another one try."""
        if self.place.trial and not self.judged and not self.began:
            self.place.known.breaker.abandoned()

    def _well(self) -> None:
        self.judged = True
        self.place.known.breaker.succeeded()


class RoutedReplica:
    """Implements `heavy.replicas.api.Replica` over the replicas that a registry knows.

    A replica that fails is left for another one. After the first token that one goes on from what was said,
    so whoever listens hears no gap and nothing twice; where servers cannot do that, the error is the
    caller's, who starts the step anew. Waiters are served in the order they came.
    """

    continues = True
    """It does so itself."""

    def __init__(
        self,
        registry: ReplicaRegistry,
        limits: RoutingLimits | None = None,
        holds: KvHolds | None = None,
        routing: RoutingOf = by_default,
        chooser: Chooser = cheapest,
    ) -> None:
        """Without `holds` nothing is reserved; `routing` knows what profiles say about it.

        Another `chooser` is for comparisons.
        """
        self._registry = registry
        self._limits = limits or RoutingLimits()
        self._placement = Placement(registry, self._limits, holds or KvHolds(), routing, chooser)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Stream one generation; see the protocol. `EngineUnavailable` when no replica could be had."""
        journey, said, loss = Journey.of(request), Said(), None
        while True:
            async with self._staying(journey) as stay:
                place = stay.place
                attempt = said.begin(journey.next_request())
                try:
                    async with aclosing(self._events(place.known, attempt)) as events:
                        async for event in events:
                            first = not stay.began
                            stay.heard(event)
                            if first:
                                self._placement.began(place)
                            whole = said.hear(event)
                            if isinstance(event, Finished):
                                self._placement.ended(place, journey, event)
                            yield _placed(whole, place) if first or isinstance(whole, Finished) else whole
                    return
                except HeavyError as error:
                    stay.failed(error, request.deadline_ms)
                    if loss is not None and isinstance(error, EngineRefused | ContextOverflow):
                        raise loss from error  # it would not go on: the step is to be begun anew
                    stuck = said.anything and not place.known.client.continues
                    if stuck or not self._may_move(journey, error):
                        raise
                    loss = error if said.anything else None
                    logger.warning("moving %s to another replica: %s", request.request_id, error)
            journey.tried.append(place.known.info.replica)

    @asynccontextmanager
    async def _staying(self, journey: Journey) -> AsyncIterator[_Stay]:
        """A stay on a replica for the length of a block."""
        async with self._placement.place(journey) as place:
            stay = _Stay(place)
            try:
                yield stay
            finally:
                stay.over()

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
        """By the least busy working replica of the profile; the estimate when there is none."""
        working = [one for one in await self._registry.of(profile) if one.works]
        if not working:
            return estimated_prompt_tokens(messages, tools)
        least = min(working, key=lambda one: one.in_flight + one.info.running + one.info.waiting)
        return await least.client.count_tokens(profile, messages, tools)

    @property
    def queue_wait_s(self) -> dict[str, float]:
        """Per profile, how long the first in line has waited for room on a replica; only where one waits."""
        return self._placement.queue_wait_s

    def pace(self, profile: str) -> Pace:
        """How fast the replicas of a profile have turned out to be, as far as is known here."""
        return self._placement.pace(profile)

    def _may_move(self, journey: Journey, error: HeavyError) -> bool:
        """Whether another attempt may help: an infrastructure failure, attempts and time left."""
        helps = isinstance(error, EngineUnavailable | EngineTimeout | MalformedStream)
        tries_left = len(journey.tried) + 1 < self._limits.attempts_max
        return helps and tries_left and clock.remaining_s(journey.request.deadline_ms) > 0


def _placed(event: GenerationEvent, place: Place) -> GenerationEvent:
    """The event with how long its place was waited for, and why it is there."""
    if isinstance(event, Finished):
        timing = replace(event.timing, queue_s=place.queue_s)
        return replace(event, timing=timing, placed=place.reason.value)
    return replace(event, queue_s=place.queue_s)
