"""Calls on their way to an attached caller, and its results on their way back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from heavy.coordinator.caller_tools import RESULT_BYTES_MAX
from heavy.core.calling import CallerCall, CallerResult, Receipt, Withdrawn
from heavy.core.errors import HeavyError
from heavy.core.ids import RunId
from heavy.core.tools import Effects
from heavy.store.api import Exchange

logger = logging.getLogger(__name__)

SAID_PER_TTL: Final = 3
"""How often it is said that a caller is attached, while that is remembered."""
LOST: Final = "the connection to the caller broke while the call was on its way"


async def to_be_sent(
    exchange: Exchange, run: RunId, calls: AsyncIterator[CallerCall | Withdrawn], held: frozenset[str]
) -> AsyncGenerator[CallerCall | Withdrawn]:
    """What of `calls` goes to a caller that holds `held` already.

    A write goes out once. One that was on its way over another connection, and that the caller does not
    hold, may have been executed or may not: it is answered as unknown.
    """
    token = secrets.token_hex(8)
    async for call in calls:
        if isinstance(call, Withdrawn):
            yield call
        elif call.id not in held:
            if call.effects is Effects.WRITE and not await exchange.send_once(run, call.id, token):
                await exchange.answer(run, CallerResult(call.id, LOST, is_error=True, unknown=True))
                continue
            yield call


async def take(exchange: Exchange, run: RunId, result: CallerResult) -> Receipt:
    """Give a call its result. One that is too large is replaced by an error that says so."""
    size = len(result.content.encode("utf-8", "surrogatepass"))
    if size <= RESULT_BYTES_MAX:
        return await exchange.answer(run, result)
    text = f"The result has {size} bytes; at most {RESULT_BYTES_MAX} are taken. Ask for less."
    receipt = await exchange.answer(run, replace(result, content=text, is_error=True))
    return Receipt.TOO_LARGE if receipt is Receipt.TAKEN else receipt


@asynccontextmanager
async def attached_elsewhere(exchange: Exchange, run: RunId, grace_s: float) -> AsyncIterator[None]:
    """Within it, whoever owns the run hears that its caller is attached through this process."""
    saying = asyncio.create_task(_say_forever(exchange, run, grace_s))
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)


async def _say_forever(exchange: Exchange, run: RunId, ttl_s: float) -> None:
    while True:
        with contextlib.suppress(HeavyError):  # said again soon; a store that is down ends the run anyway
            await exchange.attached(run, ttl_s=ttl_s)
        await asyncio.sleep(ttl_s / SAID_PER_TTL)
