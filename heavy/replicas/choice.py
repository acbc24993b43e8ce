"""What there is to choose from, by what is announced, what is reserved and what is known to be warm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from heavy.core.fleet import ReplicaInfo
from heavy.profiles.schema import RoutingSection
from heavy.replicas.cost import Chooser, Demand, Offer, Pace, Reason, cost_s
from heavy.replicas.registry import Known
from heavy.store.api import KvClaim, KvHeld

NOTHING_HELD: Final = KvHeld()
REPORT_AGE_S: Final = 1.5
"""How old a load report may be; what was reserved since is not in it, what was returned since still is."""
MOST: Final = 0.5
"""The part of a prompt that makes a replica the one where it is warm."""


def demand_of(prompt_tokens: int, tokens_max: int, routing: RoutingSection) -> Demand:
    """What a generation needs that may say at most `tokens_max`."""
    return Demand(prompt_tokens, prompt_tokens + min(tokens_max, routing.output_tokens_reserved))


def offer_of(
    info: ReplicaInfo,
    held: KvHeld,
    routing: RoutingSection,
    *,
    in_flight: int = 0,
    warm_tokens: int = 0,
    opening_tokens: int = 0,
) -> Offer:
    """What a replica offers: by its own load report, by what is reserved, by what this process sends it.

    What is young is not in the report yet, and what is gone may be in it still. `warm_tokens` of our prompt
    it is known to hold; an opening that it is prefilling for somebody else will be there.
    """
    coming = opening_tokens if held.led else min(held.warm_tokens, opening_tokens)
    budgets = [most for most in (routing.kv_tokens_max, info.kv_tokens_max) if most]
    reported = max(0, info.running + info.waiting - held.gone_generations)
    used_tokens = max(0, info.kv_tokens_used - held.gone_tokens)
    return Offer(
        replica=info.replica,
        slots=info.in_flight_max,
        held=max(in_flight, held.generations),
        taken=max(in_flight, held.generations, reported + held.young_generations),
        waiting=info.waiting,
        kv_max=min(budgets, default=0),
        kv_held=held.tokens,
        kv_taken=max(held.tokens, used_tokens + held.young_tokens),
        ahead_tokens=held.ahead_tokens,
        cached_tokens=max(warm_tokens, coming),
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One replica that may be chosen. `warm_tokens`: what it holds of the prompt now, without waiting."""

    known: Known
    offer: Offer
    warm_tokens: int
    own_tokens: int
    """How much of it there is the trajectory's own doing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The options of one generation, and what they are measured by."""

    options: Sequence[Option]
    demand: Demand
    pace: Pace
    prefer: str
    chooser: Chooser

    def best(self) -> Option | None:
        """The cheapest one, with or without room."""
        return self._chosen(self.options)

    def with_room(self, best: Option | None) -> Option | None:
        """The cheapest one of those that can be taken now: `best`, where it can."""
        if best is None or best.offer.has_room(self.demand):
            return best
        return self._chosen([one for one in self.options if one.offer.has_room(self.demand)])

    def saved_s(self, best: Option, other: Option) -> float:
        """What waiting for the best saves against taking the other one."""
        return cost_s(other.offer, self.demand, self.pace) - cost_s(best.offer, self.demand, self.pace)

    def reason(self, chosen: Option, claim: KvClaim, *, moved: bool, followed: bool) -> Reason:
        """Why this one was taken."""
        most = MOST * self.demand.prompt_tokens
        if moved:
            return Reason.FAILOVER
        if claim.leads:
            return Reason.LEAD
        if followed:
            return Reason.FOLLOW
        if chosen.warm_tokens >= most:
            return Reason.AFFINITY
        return Reason.MOVED if any(one.own_tokens >= most for one in self.options) else Reason.IDLE

    def _chosen(self, options: Sequence[Option]) -> Option | None:
        chosen = self.chooser([one.offer for one in options], self.demand, self.pace, self.prefer)
        return next((one for one in options if one.offer is chosen), None)
