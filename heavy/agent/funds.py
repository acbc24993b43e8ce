"""Paying for generations: reserve before, settle after, and keep enough for a forced final answer."""

from __future__ import annotations

import asyncio
import contextlib

from heavy.agent.journal import Journal
from heavy.agent.last_words import see_through
from heavy.agent.meter import Meter
from heavy.core.errors import BudgetExhausted, HeavyError
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.store.api import Amount, spend_amount

_PROBE_TOKENS = 1_000
"""How many tokens the price of one more token is measured over."""


class Funds:
    """One trajectory's dealings with its run's budget."""

    def __init__(self, journal: Journal, meter: Meter, flush_s: float, answer_tokens: int) -> None:
        self._journal = journal
        self._meter = meter
        self._flush_s = flush_s
        self._answer_tokens = answer_tokens

    async def reserve(
        self, request_id: str, prompt_tokens: int, completion_tokens: int, *, least_tokens: int, last: bool
    ) -> int:
        """Set a generation's cost aside; the completion cap that is paid for.

        Unless it is the `last` one, the cost of a forced answer after it is set aside with it. Where the
        budget holds less than the whole cap, the cap shrinks, down to `least_tokens`. Raises
        `BudgetExhausted`.
        """
        try:
            await self._set_aside(request_id, self._quote(prompt_tokens, completion_tokens, last))
        except BudgetExhausted as error:
            affordable = self._affordable(error, prompt_tokens, last)
            if not least_tokens <= affordable < completion_tokens:
                raise
            completion_tokens = affordable
            await self._set_aside(request_id, self._quote(prompt_tokens, completion_tokens, last))
        return completion_tokens

    async def settle(self, request_id: str, spend: Spend) -> None:
        """Book what was spent and return the rest, also while being cancelled."""
        await see_through(self._journal.settle(request_id, spend_amount(spend)), self._flush_s)

    async def _set_aside(self, request_id: str, amount: Amount) -> None:
        try:
            await see_through(self._journal.reserve(request_id, amount), self._flush_s)
        except asyncio.CancelledError:
            # It may have been made: nobody else will return it.
            with contextlib.suppress(HeavyError):
                await self.settle(request_id, NOTHING_SPENT)
            raise

    def _quote(self, prompt_tokens: int, completion_tokens: int, last: bool) -> Amount:
        amount = self._meter.estimate(prompt_tokens, completion_tokens)
        if last:
            return amount
        # The answer's prompt is this one again: a completion that used its whole cap was cut in its
        # reasoning, which does not go back.
        answer = self._meter.estimate(prompt_tokens, self._answer_tokens)
        return Amount(amount.tokens + answer.tokens, amount.cost_usd + answer.cost_usd)

    def _affordable(self, error: BudgetExhausted, prompt_tokens: int, last: bool) -> int:
        """The completion that what is left would pay for; quotes are linear in its tokens."""

        def price(tokens: int) -> float:
            quote = self._quote(prompt_tokens, tokens, last)
            return quote.cost_usd if error.limit.startswith("cost") else float(quote.tokens)

        left = float(error.details["allowed"]) - float(error.details["used"])
        fixed = price(0)
        each = (price(_PROBE_TOKENS) - fixed) / _PROBE_TOKENS
        return int((left - fixed) / each) if each > 0 else 0
