"""What a whole batch may cost. What is in flight is counted before it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heavy.core.draft import PolicyDraft
from heavy.core.ledger import Spend


@dataclass(frozen=True, slots=True)
class BatchBudget:
    """Caps over all questions, earlier sittings and failures included. None: no cap of that kind."""

    cost_usd_max: float | None = None
    tokens_max: int | None = None


UNLIMITED: Final = BatchBudget()


@dataclass(frozen=True, slots=True)
class _Amount:
    cost_usd: float = 0.0
    tokens: float = 0.0


class Purse:
    """Decides whether one more question may be asked.

    A question with caps of its own is counted at its cap while it is out, so the budget is never exceeded.
    One without is counted at the mean of those that have ended; until one has, they are asked one at a
    time. Such a budget can be exceeded by what is out, never by more.
    """

    def __init__(self, budget: BatchBudget) -> None:
        self._budget = budget
        self._out: dict[str, _Amount] = {}
        self._ended = 0
        self.cost_usd = 0.0
        self.tokens = 0

    @property
    def limited(self) -> bool:
        """Whether there is a cap at all."""
        return self._budget != UNLIMITED

    @property
    def out(self) -> int:
        """Questions that are out."""
        return len(self._out)

    def book(self, spend: Spend) -> None:
        """Count what a run cost. Refused questions cost nothing and teach nothing: do not book them."""
        self.cost_usd += spend.cost_usd
        self.tokens += spend.tokens
        self._ended += 1

    def fits(self, policy: PolicyDraft) -> bool:
        """Whether a question under `policy` may be asked now."""
        if not self.limited:
            return True
        if not self._ended and not self._capped(policy):
            return not self._out and self._room(_Amount())
        return self._room(self._expected(policy))

    def take(self, name: str, policy: PolicyDraft) -> None:
        """A question goes out."""
        self._out[name] = self._expected(policy)

    def seen(self, name: str, spend: Spend) -> None:
        """One that is out is known to have cost so much by now."""
        held = self._out[name]
        self._out[name] = _Amount(max(held.cost_usd, spend.cost_usd), max(held.tokens, spend.tokens))

    def give_back(self, name: str) -> None:
        """It is back."""
        self._out.pop(name, None)

    def _room(self, wanted: _Amount) -> bool:
        """Whether `wanted` fits beside what is booked and out. Nothing fits once a cap is reached."""
        held = _Amount(
            self.cost_usd + sum(one.cost_usd for one in self._out.values()),
            self.tokens + sum(one.tokens for one in self._out.values()),
        )
        cost_max, tokens_max = self._budget.cost_usd_max, self._budget.tokens_max
        return (
            cost_max is None or (held.cost_usd + wanted.cost_usd <= cost_max and self.cost_usd < cost_max)
        ) and (tokens_max is None or (held.tokens + wanted.tokens <= tokens_max and self.tokens < tokens_max))

    def _capped(self, policy: PolicyDraft) -> bool:
        """Whether `policy` bounds everything that the budget does."""
        return (self._budget.cost_usd_max is None or policy.cost_usd_max is not None) and (
            self._budget.tokens_max is None or policy.tokens_max is not None
        )

    def _expected(self, policy: PolicyDraft) -> _Amount:
        ended = max(1, self._ended)
        return _Amount(
            self.cost_usd / ended if policy.cost_usd_max is None else policy.cost_usd_max,
            self.tokens / ended if policy.tokens_max is None else policy.tokens_max,
        )
