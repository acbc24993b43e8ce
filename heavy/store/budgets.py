"""Money and tokens of a run, on Redis: `heavy.store.api.Budgets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from heavy.core.errors import BudgetExhausted
from heavy.core.ids import RunId
from heavy.store import scripts
from heavy.store.api import Amount
from heavy.store.keys import RunKeys
from heavy.store.link import Argument, Link, new_token
from heavy.store.refusals import lease_lost, not_found
from heavy.store.runs import NANO, whole

LIMITS: Final = {"tokens": "tokens_max", "cost": "cost_usd_max", "tool_calls": "tool_calls_max"}


class RedisBudgets:
    """Reservations against the stored policy's limits. The arms may take all but the aggregation's share."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def reserve(
        self, run: RunId, *, epoch: int, request_id: str, amount: Amount, aggregation: bool
    ) -> None:
        """Set an amount aside, once per request_id. Raises `BudgetExhausted`, `LeaseLost`, `NotFound`."""
        keys = RunKeys(run)
        arguments: list[Argument] = [epoch, request_id, int(aggregation), *whole(amount)]
        answer, *rest = await self._link.script(
            f"reserve budget of {run}",
            scripts.RESERVE,
            [keys.run, keys.lease, keys.budget],
            arguments,
        )
        if answer == b"lost":
            raise lease_lost(run, epoch)
        _check(run, answer, rest)

    async def settle(self, run: RunId, *, request_id: str, spent: Amount) -> None:
        """Return a reservation and book what was really spent, once. Raises `NotFound`."""
        keys = RunKeys(run)
        arguments: list[Argument] = [request_id, *whole(spent)]
        answer, *rest = await self._link.script(
            f"settle budget of {run}", scripts.SETTLE, [keys.run, keys.budget], arguments
        )
        _check(run, answer, rest)

    async def count_tool_calls(self, run: RunId, *, calls: int) -> int:
        """Count tool calls of a run; the total so far. Raises `BudgetExhausted`, `NotFound`."""
        if calls < 0:
            raise ValueError(f"{calls} tool calls cannot be counted")
        keys, token = RunKeys(run), new_token()
        answer, *rest = await self._link.script(
            f"count tool calls of {run}",
            scripts.COUNT_TOOL_CALLS,
            [keys.run, keys.budget, keys.tokens],
            [token, calls],
        )
        _check(run, answer, rest)
        return int(rest[0])

    async def spent(self, run: RunId) -> Amount:
        """What is booked so far. Raises `NotFound`."""
        keys = RunKeys(run)

        async def read(client: Any) -> tuple[int, list[bytes | None]]:
            pipeline = client.pipeline(transaction=False)
            pipeline.exists(keys.run)
            pipeline.hmget(keys.budget, "tokens", "cost")
            there, spent = await pipeline.execute()
            return there, spent

        there, (tokens, cost) = await self._link.call(f"read the budget of {run}", read)
        if not there:
            raise not_found(run)
        return Amount(tokens=int(tokens or 0), cost_usd=int(cost or 0) / NANO)


def _check(run: RunId, answer: bytes, rest: Sequence[Any]) -> None:
    if answer == b"gone":
        raise not_found(run)
    if answer == b"over":
        kind, used, allowed = (part.decode() for part in rest)
        unit = NANO if kind == "cost" else 1
        raise BudgetExhausted(
            f"The budget of {run} does not hold this: {int(used) / unit:g} of {int(allowed) / unit:g}"
            f" ({LIMITS[kind]}) are spent or reserved. Give the run a larger budget.",
            LIMITS[kind],
            int(used) / unit,
            int(allowed) / unit,
        )
