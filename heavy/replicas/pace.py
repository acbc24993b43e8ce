"""How fast replicas turn out to be, and what they turn out to hold: learnt from every generation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from heavy.core import clock
from heavy.profiles.schema import RoutingSection
from heavy.replicas.api import Finished
from heavy.replicas.cost import Pace

WEIGHT: Final = 0.1
"""What one generation counts against all before it."""
SAMPLE_TOKENS: Final = 256
"""A shorter prefill says more about the way there than about the rate."""
WHOLE_SAMPLE_TOKENS: Final = 2_048
"""A prefill that is shorter counts less: the rest of what its first word took weighs more in it."""
PREFIXES_MAX: Final = 4_096
WARM_S: Final = 600.0
"""For so long a prompt is taken to be where it was prefilled, if nothing speaks against it."""


def assumed(routing: RoutingSection) -> Pace:
    """What a profile says of itself."""
    return Pace(
        1 / routing.prefill_tokens_per_s,
        1 / routing.tokens_per_s,
        float(routing.output_tokens),
        routing.crowding,
    )


def learnt(pace: Pace, finished: Finished, fullness: float = 0.0) -> Pace:
    """The pace after one more generation, on a replica that was so full when it went there.

    What is not the prefill's is taken off: the usual way to a first word that needs none, and what the crowd
    makes of a token.
    """
    timing, usage = finished.timing, finished.usage
    uncached = usage.prompt - usage.cached
    if timing.first_token_s > 0 and uncached >= SAMPLE_TOKENS:
        token_s = max(0.0, timing.first_token_s - pace.first_s) / uncached
        weight = WEIGHT * min(1.0, uncached / WHOLE_SAMPLE_TOKENS)
        pace = replace(pace, prefill_token_s=_mixed(pace.prefill_token_s, token_s, weight))
    elif timing.first_token_s > 0 and usage.cached:
        first_s = timing.first_token_s
        pace = replace(pace, first_s=_mixed(pace.first_s, first_s) if pace.first_s else first_s)
    if usage.output > 1:
        further_s = timing.decode_s / (usage.output - 1) / (1 + pace.crowding * fullness)
        pace = replace(
            pace,
            token_s=_mixed(pace.token_s, further_s),
            output_tokens=_mixed(pace.output_tokens, float(usage.output)),
        )
    return pace


@dataclass(slots=True)
class Warmth:
    """What replicas are known to hold of the prompts of trajectories and of groups. Bounded; old ones go.

    A replica that reports fewer cached tokens than it should hold has dropped them: it is believed less.
    """

    now_s: Callable[[], float] = clock.monotonic_s
    _tokens: OrderedDict[tuple[object, str], tuple[int, float]] = field(default_factory=OrderedDict)
    _kept_share: dict[object, float] = field(default_factory=dict)

    def held(self, replica: object, *names: str) -> int:
        """Tokens of the longest prefix under any of the names that the replica may be expected to hold."""
        found = (self._tokens.get((replica, name)) for name in names)
        oldest_s = self.now_s() - WARM_S
        longest = max((tokens for tokens, at_s in filter(None, found) if at_s >= oldest_s), default=0)
        return int(longest * self._kept_share.get(replica, 1.0))

    def learn(self, replica: object, name: str, tokens: int) -> None:
        """The replica has just prefilled or generated so many tokens under a name."""
        self._tokens.pop((replica, name), None)
        self._tokens[replica, name] = (tokens, self.now_s())
        while len(self._tokens) > PREFIXES_MAX:
            self._tokens.popitem(last=False)

    def check(self, replica: object, expected: int, cached: int) -> None:
        """It was expected to hold so much and reports so much. One that never reports any is believed."""
        if expected < SAMPLE_TOKENS or (not cached and replica not in self._kept_share):
            return
        share = self._kept_share.get(replica, 1.0)
        if len(self._kept_share) >= PREFIXES_MAX:
            self._kept_share.clear()
        self._kept_share[replica] = _mixed(share, min(1.0, cached / expected * share))


def _mixed(before: float, sample: float, weight: float = WEIGHT) -> float:
    return (1 - weight) * before + weight * sample
