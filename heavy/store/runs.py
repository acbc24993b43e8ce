"""The run record as a hash of the store, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from heavy.core.codec import dump, load
from heavy.core.ids import RunId
from heavy.core.ledger import Ledger
from heavy.core.policy import Budget
from heavy.core.runs import Run, RunFailure, RunResult, RunSpec, RunState
from heavy.store.api import Amount, Ending
from heavy.store.keys import RunKeys
from heavy.store.link import Link

NANO: Final = 1_000_000_000
FIELDS: Final = (
    "spec",
    "state",
    "epoch",
    "records",
    "result",
    "failure",
    "ledger",
    "ended_ms",
    "cancel_reason",
)


def fields_of(spec: RunSpec, owner: str) -> list[str | bytes]:
    """A fresh run as field, value, ... Budget limits stand beside the policy, where scripts can read them."""
    fields: dict[str, str | bytes] = {
        "spec": dump(spec),
        "state": RunState.ACCEPTED.value,
        "epoch": "1",
        "records": "0",
        "owner": owner,
        **_limits(spec.policy.budget),
    }
    return [part for pair in fields.items() for part in pair]


def ending_fields_of(ending: Ending) -> list[str | bytes]:
    """What an ending writes into the run, as field, value, ..."""
    fields: list[str | bytes] = ["state", ending.state.value, "ended_ms", str(ending.ended_ms)]
    for name, value in (("result", ending.result), ("failure", ending.failure), ("ledger", ending.ledger)):
        if value is not None:
            fields += [name, dump(value)]
    return fields


def nano(cost_usd: float) -> int:
    """Whole nano-dollars, never less than the amount."""
    return math.ceil(round(cost_usd * NANO, 3))


def whole(amount: Amount) -> tuple[int, int]:
    """An amount as scripts count it: tokens, nano-dollars. Raises ValueError when either is negative."""
    if amount.tokens < 0 or amount.cost_usd < 0:
        raise ValueError(f"an amount is never negative: {amount}")
    return amount.tokens, nano(amount.cost_usd)


async def load_runs(link: Link, runs: Sequence[RunId]) -> list[Run | None]:
    """The records of several runs in one round trip; None for those that are gone."""

    async def read(client: Any) -> list[list[bytes | None]]:
        pipeline = client.pipeline(transaction=False)
        for run in runs:
            pipeline.hmget(RunKeys(run).run, FIELDS)
        found: list[list[bytes | None]] = await pipeline.execute()
        return found

    return [_run(values) for values in await link.call("read runs", read)] if runs else []


def _run(values: list[bytes | None]) -> Run | None:
    spec, state, epoch, records, result, failure, ledger, ended_ms, cancel_reason = values
    if spec is None or state is None:
        return None
    return Run(
        spec=load(RunSpec, spec),
        state=RunState(state.decode()),
        epoch=int(epoch or 0),
        records=int(records or 0),
        result=load(RunResult, result) if result else None,
        failure=load(RunFailure, failure) if failure else None,
        ledger=load(Ledger, ledger) if ledger else None,
        ended_ms=int(ended_ms) if ended_ms else None,
        cancel_reason=(cancel_reason or b"").decode(),
    )


def _limits(budget: Budget) -> dict[str, str]:
    """Caps as scripts compare them; empty where there is none. The arms' share is rounded down."""
    tokens, cost = budget.tokens_max, budget.cost_usd_max
    arms_share = 1 - budget.aggregation_share
    return {
        "tokens_max": "" if tokens is None else str(tokens),
        "tokens_arms_max": "" if tokens is None else str(math.floor(round(tokens * arms_share, 6))),
        "cost_max": "" if cost is None else str(math.floor(round(cost * NANO, 3))),
        "cost_arms_max": "" if cost is None else str(math.floor(round(cost * NANO * arms_share, 3))),
        "tool_calls_max": "" if budget.tool_calls_max is None else str(budget.tool_calls_max),
    }
