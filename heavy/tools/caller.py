"""A tool that the caller executes: the call goes out through the store and its result comes back so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from heavy.core import clock
from heavy.core.calling import CallerCall, CallerResult
from heavy.core.errors import HeavyError
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec, fate_unknown
from heavy.store.api import Exchange
from heavy.tools.cache_key import canonical

END_S: Final = 1.0
"""How long saying that a call is over may take."""


class CallerTool:
    """One declared tool in one trajectory. Where nobody answers in time, that is what the model is told."""

    def __init__(self, spec: ToolSpec, exchange: Exchange, epoch: int) -> None:
        self._spec = spec
        self._exchange = exchange
        self._epoch = epoch

    @property
    def spec(self) -> ToolSpec:
        """What the caller declared."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Ask the caller and wait for its result."""
        call = CallerCall(
            id=call_id_of(context),
            trajectory=context.trajectory,
            step=context.step,
            name=self._spec.name,
            arguments=canonical(arguments),
            effects=self._spec.effects,
            deadline_ms=clock.now_ms() + int(context.timeout_s * 1000),
        )
        try:
            async with asyncio.timeout(context.timeout_s):
                await self._exchange.ask(context.run, epoch=self._epoch, call=call)
                result = await self._exchange.result(context.run, call.id)
        except TimeoutError:
            return self._unanswered(context.timeout_s)
        finally:
            await self._end(context, call.id)
        return self._output(result)

    def _unanswered(self, timeout_s: float) -> ToolOutput:
        why = f"the caller, who executes it, did not answer within {timeout_s:g} s"
        if self._spec.effects is Effects.WRITE:
            return fate_unknown(self._spec.name, why)
        return ToolOutput(f"{self._spec.name}: {why}.", is_error=True, deterministic=False)

    def _output(self, result: CallerResult) -> ToolOutput:
        if result.unknown:
            return fate_unknown(self._spec.name, result.content or "the caller cannot tell")
        return ToolOutput(result.content, is_error=result.is_error, deterministic=not result.is_error)

    async def _end(self, context: ToolContext, call_id: str) -> None:
        """Take the call back. What the store does not hear now, it forgets with the run."""
        ending = asyncio.ensure_future(self._exchange.end(context.run, call_id))
        with contextlib.suppress(HeavyError, TimeoutError):
            async with asyncio.timeout(END_S):
                await ending


def call_id_of(context: ToolContext) -> str:
    """The id under which the caller sees a call: unique within the run."""
    return f"{context.trajectory}-{context.step}-{context.idempotency_key[:16]}"
