"""What a generation may be expected to cost on each replica, itself and those beside it, in seconds; pure.

    cost = queue + prefill + standstill + crowd

- *queue*: until there is a place, where there is none: a replica with n places frees one every n-th part of
  the time that a usual generation takes; and KV memory likewise.
- *prefill*: what has been promised to be prefilled there before ours, and what it does not hold of our
  prompt. The opening of a run counts as held once somebody is prefilling it: waiting for that takes no longer
  than doing the same elsewhere, and costs no replica anything.
- *standstill*: what those who are there lose while it prefills: servers decode nothing meanwhile. Without
  it trajectories of a full fleet change places for each other's sake, and all of them pay for the prefills.
- *crowd*: what a usual generation takes longer for those beside it.

So a trajectory stays where its prefix is until waiting there costs more than prefilling it again, and arms
of a run go together only where prefilling their opening once more outweighs an idle replica.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Reason(StrEnum):
    """Why a generation was placed where it was."""

    AFFINITY = "affinity"
    """The replica holds most of its prompt."""
    LEAD = "lead"
    """It prefills the opening of its run, and others wait for that."""
    FOLLOW = "follow"
    """It waited for the one that did."""
    IDLE = "idle"
    """No other one was cheaper: nothing of its prompt counted for more."""
    MOVED = "moved"
    """Waiting where its prompt was would have cost more than prefilling it again."""
    FAILOVER = "failover"
    """The replica before was lost."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the replicas of a profile are, and how long a usual generation is."""

    prefill_token_s: float
    """What one more token of a prompt takes."""
    token_s: float
    """Between two tokens of one stream."""
    output_tokens: float
    crowding: float
    """How much longer a token takes on a full replica, as a share."""
    first_s: float = 0.0
    """What a first word takes that needs hardly any prefill: the way there, and the engine's turn."""

    @property
    def generation_s(self) -> float:
        """What a usual generation takes once its prompt is prefilled."""
        return self.output_tokens * self.token_s


@dataclass(frozen=True, slots=True)
class Demand:
    """What a generation needs: a prompt, and KV memory for it and for what it will say."""

    prompt_tokens: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What one replica has for a generation. `held` is reserved; `taken` is what may be there in all."""

    replica: str
    slots: int
    held: int = 0
    taken: int = 0
    waiting: int = 0
    """Those of `taken` that its engine has not begun."""
    kv_max: int = 0
    """0: nobody knows."""
    kv_held: int = 0
    kv_taken: int = 0
    ahead_tokens: int = 0
    """Prefill that others were promised."""
    cached_tokens: int = 0
    """How much of our prompt it holds, or is about to."""

    def has_room(self, demand: Demand) -> bool:
        """Whether it can be taken now. What is larger than all there is goes where nobody else is."""
        fits = not self.kv_max or not self.held or self.kv_held + demand.kv_tokens <= self.kv_max
        return fits and self.held < self.slots

    @property
    def fullness(self) -> float:
        """0 when idle, 1 when full, by places or by KV memory, whichever is more."""
        kv = self.kv_taken / self.kv_max if self.kv_max else 0.0
        return min(1.0, max(self.taken / self.slots, kv))


class Chooser(Protocol):
    """Chooses one of several offers for a generation; None where it would rather wait."""

    def __call__(self, offers: Sequence[Offer], demand: Demand, pace: Pace, prefer: str) -> Offer | None:
        """`prefer`: where the trajectory was last, or is to begin."""
        ...


def queue_s(offer: Offer, demand: Demand, pace: Pace) -> float:
    """Seconds until it begins: a full replica frees a place, and as much memory, every so often."""
    over = max(0, offer.taken - offer.slots + 1, offer.waiting) / offer.slots
    if offer.kv_max:
        over = max(over, (offer.kv_taken + demand.kv_tokens - offer.kv_max) / offer.kv_max)
    return over * pace.generation_s


def prefill_s(offer: Offer, demand: Demand, pace: Pace) -> float:
    """Seconds from beginning to the first token."""
    uncached = max(0, demand.prompt_tokens - offer.cached_tokens)
    return (offer.ahead_tokens + uncached) * pace.prefill_token_s


def standstill_s(offer: Offer, demand: Demand, pace: Pace) -> float:
    """Seconds that all who are there wait for its prefill, added up."""
    uncached = max(0, demand.prompt_tokens - offer.cached_tokens)
    return offer.taken * uncached * pace.prefill_token_s


def cost_s(offer: Offer, demand: Demand, pace: Pace) -> float:
    """What a generation there may be expected to cost; never less for more of anything that costs."""
    crowd_s = pace.crowding * pace.generation_s * offer.fullness
    own_s = queue_s(offer, demand, pace) + prefill_s(offer, demand, pace) + crowd_s
    return own_s + standstill_s(offer, demand, pace)


def cheapest(
    offers: Sequence[Offer],
    demand: Demand,
    pace: Pace,
    prefer: str = "",
    lot: Callable[[], float] = random.random,
) -> Offer | None:
    """The offer that costs least. Of equals the preferred one, else one by lot. None where there is none."""
    return min(
        offers,
        key=lambda one: (cost_s(one, demand, pace), one.replica != prefer, lot()),
        default=None,
    )
