"""Where the arms of a run would best begin: one after the other, each beside those before it.

Only a proposal: nothing is reserved by it, and each arm's runner decides again before every generation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from heavy.core.errors import StoreUnavailable
from heavy.core.fleet import ReplicaState
from heavy.core.runs import TrajectorySpec
from heavy.profiles.loader import ProfileBook
from heavy.profiles.schema import Profile
from heavy.replicas.choice import NOTHING_HELD, REPORT_AGE_S, demand_of, offer_of
from heavy.replicas.cost import Demand, Offer, cheapest
from heavy.replicas.openai_json import estimated_prompt_tokens
from heavy.replicas.pace import assumed
from heavy.store.api import Store

logger = logging.getLogger(__name__)


async def proposed(
    store: Store, profiles: ProfileBook, specs: Sequence[TrajectorySpec]
) -> tuple[TrajectorySpec, ...]:
    """The arms, each with the replica that it would best begin on; without one where nobody can tell."""
    try:
        found = [one for one in await store.directory.replicas() if one.state == ReplicaState.READY]
        held = await store.reservations.held([one.replica for one in found], report_age_s=REPORT_AGE_S)
    except StoreUnavailable as error:
        logger.warning("no replicas are proposed: %s", error)
        return tuple(specs)
    chosen: dict[int, TrajectorySpec] = {}
    for name in dict.fromkeys(spec.profile for spec in specs):
        profile, theirs = profiles.get(name), [one for one in found if one.profile == name]
        offers = [offer_of(one, held.get(one.replica, NOTHING_HELD), profile.routing) for one in theirs]
        arms = [(index, spec) for index, spec in enumerate(specs) if spec.profile == name]
        for (index, spec), replica in zip(arms, spread(offers, profile, arms[0][1], len(arms)), strict=True):
            chosen[index] = replace(spec, prefer_replica=replica)
    return tuple(chosen[index] for index in range(len(specs)))


def spread(offers: Sequence[Offer], profile: Profile, spec: TrajectorySpec, arms: int) -> list[str]:
    """A replica for each of so many arms that begin alike; empty names where there is none."""
    opening = estimated_prompt_tokens(spec.messages, spec.caller_tools)
    demand = demand_of(opening, spec.reasoning_tokens_per_step_max, profile.routing)
    pace, there, named = assumed(profile.routing), {one.replica: one for one in offers}, []
    for _ in range(arms):
        best = cheapest(tuple(there.values()), demand, pace)
        named.append(best.replica if best else "")
        if best is not None:
            there[best.replica] = _with_one_more(best, demand)
    return named


def _with_one_more(offer: Offer, demand: Demand) -> Offer:
    """The replica as the next arm would find it: fuller, and with the opening there."""
    more = demand.kv_tokens - offer.cached_tokens
    return replace(
        offer,
        held=offer.held + 1,
        taken=offer.taken + 1,
        kv_held=offer.kv_held + more,
        kv_taken=offer.kv_taken + more,
        cached_tokens=demand.prompt_tokens,
    )
