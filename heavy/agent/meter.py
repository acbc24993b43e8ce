"""The agent's view of money: what a generation may cost, and what it did cost."""

from __future__ import annotations

from typing import Protocol

from heavy.core.ledger import Spend
from heavy.replicas.api import TokenUsage
from heavy.store.api import Amount


class Meter(Protocol):
    """Prices generations of one profile. Both methods are pure, and linear in the tokens."""

    def estimate(self, prompt_tokens: int, output_tokens: int) -> Amount:
        """The most a generation of that size can cost: nothing cached."""
        ...

    def spend(self, usage: TokenUsage, wall_s: float, queue_s: float) -> Spend:
        """The ledger entry of a generation that took `wall_s` seconds, `queue_s` of them without replica."""
        ...
