"""Finds each generation a place: by expected cost, within what is reserved, in turn where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from heavy.core import clock
from heavy.core.errors import EngineUnavailable
from heavy.core.ids import attempt_of, trajectory_of, with_attempt
from heavy.profiles.schema import RoutingSection
from heavy.replicas.api import Finished, GenerationRequest
from heavy.replicas.choice import NOTHING_HELD, REPORT_AGE_S, Choice, Option, demand_of, offer_of
from heavy.replicas.cost import Chooser, Pace, Reason, cheapest
from heavy.replicas.holds import GRANTED, KvHolds
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.replicas.pace import Warmth, assumed, learnt
from heavy.replicas.registry import READY, STARTING, Known, ReplicaRegistry
from heavy.store.api import KvClaim, KvHeld, Taken

FAILOVER_STRIDE: Final = 16
"""Failover n of the caller's attempt a has the attempt number a + 16 n: no id is used twice."""

RoutingOf = Callable[[str], RoutingSection]
"""What a profile says about routing."""


def by_default(_profile: str) -> RoutingSection:
    """What holds where nobody knows the profile."""
    return RoutingSection()


@dataclass(frozen=True, slots=True)
class PlacementLimits:
    """How long places are waited for.

    While no replica of the profile works, at most `absence_s` is waited; for room on a working one, or for
    one that is starting, until the generation's deadline. Where another one has room, at most `wait_max_s` is
    waited for a cheaper one, and never longer than it saves. Openings that take less than `lead_min_s` to
    prefill have no leader; one is waited for at most `lead_max_s`.
    """

    absence_s: float = 10.0
    look_again_s: float = 0.25
    wait_max_s: float = 20.0
    lead_min_s: float = 0.1
    lead_max_s: float = 30.0


@dataclass(slots=True)
class Journey:
    """One generation on its way: when it set out, where it has been, what it has waited for."""

    request: GenerationRequest
    prompt_tokens: int
    set_out_s: float = field(default_factory=clock.monotonic_s)
    tried: list[str] = field(default_factory=list)
    following_since_s: float | None = None
    """Since when it has waited for whoever prefills its opening."""
    holding_out_since_s: float | None = None
    """Since when it has left room to others, for a better place. What it waited for any room before is none
    of that: it would move whenever the fleet is full, and prefill again where all wait for prefills."""

    def holds_out_s(self) -> float:
        """How long it has done so, and goes on doing so."""
        now_s = clock.monotonic_s()
        if self.holding_out_since_s is None:
            self.holding_out_since_s = now_s
        return now_s - self.holding_out_since_s

    @classmethod
    def of(cls, request: GenerationRequest) -> Journey:
        """A generation that sets out now."""
        known = request.prompt_tokens or estimated_prompt_tokens(request.messages, request.tools)
        return cls(request, known)

    def next_request(self) -> GenerationRequest:
        """The request under the id of the attempt that comes now."""
        failovers = len(self.tried)
        if failovers == 0:
            return self.request
        attempt = attempt_of(self.request.request_id) % FAILOVER_STRIDE + FAILOVER_STRIDE * failovers
        return replace(self.request, request_id=with_attempt(self.request.request_id, attempt))

    @property
    def opening_tokens(self) -> int:
        """How much of the prompt is the group's."""
        return min(self.request.opening_tokens, self.prompt_tokens) if self.request.group else 0


@dataclass(slots=True)
class Place:
    """A generation's place on a replica."""

    known: Known
    trial: bool
    claim: KvClaim
    reason: Reason
    warm_tokens: int
    """What the replica was expected to hold of the prompt."""
    fullness: float
    """How full it was, 0 to 1."""
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Later:
    """There is room, but a better place may come within so long."""

    wait_s: float


@dataclass(slots=True)
class _Queue:
    """Those who wait for a replica of one profile, served in the order they came."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived_s: list[float] = field(default_factory=list)
    """When each of those who wait came."""
    absent_since_s: float | None = None
    """Since when no replica of the profile has been seen working."""

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """Stand among those who wait for room."""
        arrived_s = clock.monotonic_s()
        self.arrived_s.append(arrived_s)
        try:
            yield
        finally:
            self.arrived_s.remove(arrived_s)


class Placement:
    """Places generations on the replicas that a registry knows."""

    def __init__(
        self,
        registry: ReplicaRegistry,
        limits: PlacementLimits,
        holds: KvHolds,
        routing: RoutingOf,
        chooser: Chooser = cheapest,
    ) -> None:
        self._registry = registry
        self._limits = limits
        self._holds = holds
        self._routing = routing
        self._chooser = chooser
        self._warmth = Warmth()
        self._paces: dict[str, Pace] = {}
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def place(self, journey: Journey) -> AsyncIterator[Place]:
        """A place for the length of a block; given back, and waiters told, at its end.

        Raises `EngineUnavailable` when none could be had.
        """
        place = await self._claim(journey)
        place.queue_s = clock.monotonic_s() - journey.set_out_s
        try:
            yield place
        finally:
            place.known.in_flight -= 1
            self._holds.give_back(place.claim)
            self._registry.tell()

    def began(self, place: Place) -> None:
        """The first word has come: the prompt is prefilled."""
        self._holds.began(place.claim)
        if place.claim.shared_tokens:
            self._warmth.learn(place.known.process, place.claim.group, place.claim.shared_tokens)

    def ended(self, place: Place, journey: Journey, finished: Finished) -> None:
        """A whole generation was made there: learn from it. One that moved counts its prompt twice."""
        profile, usage, prompt = journey.request.profile, finished.usage, journey.prompt_tokens
        if not journey.tried:
            prompt = usage.prompt
            self._paces[profile] = learnt(self.pace(profile), finished, place.fullness)
            self._warmth.check(place.known.process, place.warm_tokens, usage.cached)
        name = trajectory_of(journey.request.request_id)
        self._warmth.learn(place.known.process, name, prompt + usage.output)

    def pace(self, profile: str) -> Pace:
        """How fast replicas of a profile are, as far as is known here."""
        return self._paces.get(profile) or assumed(self._routing(profile))

    @property
    def queue_wait_s(self) -> dict[str, float]:
        """Per profile, how long the first in line has waited for room; only where one waits.

        Who waits though there is room, for a better place or for a prompt's prefill, is not in line: another
        replica would not help.
        """
        now_s = clock.monotonic_s()
        waiting = {profile: queue.arrived_s for profile, queue in self._queues.items() if queue.arrived_s}
        return {profile: now_s - min(arrived_s) for profile, arrived_s in waiting.items()}

    # -- claiming

    async def _claim(self, journey: Journey) -> Place:
        """The best place there is, waited for in turn; for a better one than there is, outside the turn."""
        request, arrived_s = journey.request, clock.monotonic_s()
        queue = self._queues.setdefault(request.profile, _Queue())
        bound = asyncio.timeout(clock.remaining_s(request.deadline_ms))
        try:
            async with bound:
                while True:
                    with queue.in_line():
                        async with queue.turn:
                            while (decided := await self._decide(journey)) is None:
                                await self._check_absence(request.profile, queue, arrived_s)
                                await self._registry.change(self._limits.look_again_s)
                    if isinstance(decided, Place):
                        return decided
                    await self._wait(journey, decided)
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise EngineUnavailable(
                f"No replica of {request.profile} had room before the deadline of {request.request_id}."
            ) from error

    async def _wait(self, journey: Journey, later: Later) -> None:
        """Wait until something has changed: room was made, or the opening that is waited for is there."""
        longest_s = min(later.wait_s, self._limits.look_again_s)
        if journey.following_since_s is None:
            await self._registry.change(longest_s)
            return
        with self._holds.listening(journey.request.group) as news:
            news.clear()
            try:
                async with asyncio.timeout(longest_s):
                    await news.wait()
            except TimeoutError:
                pass

    async def _decide(self, journey: Journey) -> Place | Later | None:
        """A place taken now; or a while in which a better one may come; None where there is no room."""
        full: set[str] = set()
        while True:
            choice = await self._choice(journey, full)
            best = choice.best()
            option = choice.with_room(best)
            if best is None or option is None:
                return None
            if best is not option:
                left_s = min(self._limits.wait_max_s, choice.saved_s(best, option)) - journey.holds_out_s()
                if left_s > 0:
                    return Later(left_s)
            taken = await self._take(journey, choice, option)
            if taken is not None:
                return taken
            full.add(option.offer.replica)

    async def _choice(self, journey: Journey, full: Collection[str]) -> Choice:
        """What there is to choose from. Replicas tried for this generation come last."""
        request, routing = journey.request, self._routing(journey.request.profile)
        found = [one for one in await self._registry.of(request.profile) if one.info.replica not in full]
        known = [one for one in found if one.info.replica not in journey.tried and one.admits]
        known = known or [one for one in found if one.admits]
        replicas = [one.info.replica for one in known]
        held = await self._holds.seen(replicas, request.group, REPORT_AGE_S)
        options = [
            self._option(one, held.get(one.info.replica, NOTHING_HELD), journey, routing)
            for one in known
            if one.admits  # still: reading took a moment
        ]
        demand = demand_of(journey.prompt_tokens, request.tokens_max, routing)
        pace = self.pace(request.profile)
        return Choice(options, demand, pace, request.prefer_replica, self._chooser)

    def _option(self, known: Known, held: KvHeld, journey: Journey, routing: RoutingSection) -> Option:
        request, opening = journey.request, journey.opening_tokens
        own = self._warmth.held(known.process, trajectory_of(request.request_id))
        warm = min(max(own, self._warmth.held(known.process, request.group)), journey.prompt_tokens)
        offer = offer_of(
            known.info,
            held,
            routing,
            in_flight=known.in_flight,
            warm_tokens=warm,
            opening_tokens=opening,
        )
        return Option(known, offer, max(warm, min(held.warm_tokens, opening)), own)

    async def _take(self, journey: Journey, choice: Choice, option: Option) -> Place | Later | None:
        """Take the place; None when it is full. Nothing is awaited between choosing it and counting it."""
        known, claim = option.known, self._claim_on(journey, choice, option)
        trial = known.breaker.enter()
        known.in_flight += 1
        taken = None
        try:
            slots, kv_max = option.offer.slots, option.offer.kv_max
            taken = await self._holds.take(claim, kv_tokens_max=kv_max, generations_max=slots)
        finally:
            if taken not in GRANTED:
                known.in_flight -= 1
                if trial:
                    known.breaker.abandoned()
        if taken in GRANTED:
            claim = replace(claim, leads=claim.leads and taken is not Taken.WARM)
            followed = journey.following_since_s is not None
            reason = choice.reason(option, claim, moved=bool(journey.tried), followed=followed)
            return Place(known, trial, claim, reason, option.warm_tokens, option.offer.fullness)
        if taken is Taken.LED:
            now_s = clock.monotonic_s()
            journey.following_since_s = journey.following_since_s or now_s
            return Later(max(0.0, journey.following_since_s + self._limits.lead_max_s - now_s))
        return None

    def _claim_on(self, journey: Journey, choice: Choice, option: Option) -> KvClaim:
        """What it reserves there. It leads where the opening is long, missing, and was not waited for."""
        shared, since_s = journey.opening_tokens, journey.following_since_s
        long = shared * choice.pace.prefill_token_s >= self._limits.lead_min_s
        waited = since_s is not None and clock.monotonic_s() - since_s >= self._limits.lead_max_s
        return KvClaim(
            replica=option.offer.replica,
            holder=journey.next_request().request_id,
            group=journey.request.group or "-",
            shared_tokens=shared,
            own_tokens=choice.demand.kv_tokens - shared,
            fresh_tokens=max(0, journey.prompt_tokens - option.warm_tokens),
            leads=long and shared > option.warm_tokens and not waited,
        )

    async def _check_absence(self, profile: str, queue: _Queue, arrived_s: float) -> None:
        """Raises `EngineUnavailable` when none has worked, nor been starting, for as long as one waits."""
        known, now_s = await self._registry.of(profile), clock.monotonic_s()
        if any(one.info.state == STARTING or one.works for one in known):
            queue.absent_since_s = None
            return
        since_s = queue.absent_since_s = now_s if queue.absent_since_s is None else queue.absent_since_s
        if now_s - max(since_s, arrived_s) >= self._limits.absence_s:
            raise EngineUnavailable(_absence(profile, known))


def _absence(profile: str, known: Sequence[Known]) -> str:
    if not known:
        return f"No replica of profile {profile} is there. Start one, or name a profile that is served."
    states = ", ".join(
        f"{one.info.replica} {'keeps failing' if one.info.state == READY else one.info.state}"
        + (f" ({one.info.detail})" if one.info.detail else "")
        for one in known
    )
    return f"No replica of profile {profile} works: {states}."
