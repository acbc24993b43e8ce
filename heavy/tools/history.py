"""The calls a trajectory made of a stateful tool, in order: what its next result depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from heavy.core.clock import monotonic_s
from heavy.core.tools import ToolContext, ToolOutput, ToolSpec
from heavy.tools.api import Tool

CALLS_MAX: Final = 1_000
"""Longer histories are not kept."""


class Remembering:
    """A stateful tool in one trajectory: one call at a time, each told of those before it.

    Once a call has ended in a way that leaves its effect on the state open (a time-out, a cancellation, a
    failure that may pass), nothing is known of the state any more, and no further call is told anything.
    """

    def __init__(self, inner: Tool) -> None:
        self._inner = inner
        self._calls: list[Mapping[str, Any]] | None = []
        self._turn = asyncio.Lock()

    @property
    def spec(self) -> ToolSpec:
        """What the tool declares."""
        return self._inner.spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Wait for the calls before this one, then run it with their history, in what time is left."""
        until_s = monotonic_s() + context.timeout_s
        async with self._turn:
            calls, self._calls = self._calls, None  # until this one has ended in a way that is understood
            told = replace(
                context,
                timeout_s=max(0.0, until_s - monotonic_s()),
                history=None if calls is None else tuple(calls),
            )
            output = await self._inner.call(arguments, told)
            if calls is not None and output.deterministic and len(calls) < CALLS_MAX:
                self._calls = [*calls, arguments]
            return output
