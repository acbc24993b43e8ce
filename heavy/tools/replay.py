"""Tools whose results come from a recording: a run touches nothing, and says what was not recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from heavy.core.ids import RunId, TrajectoryId
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec, fate_unknown
from heavy.tools.api import Tool
from heavy.tools.cache_key import canonical, chained
from heavy.tools.recording import RecordedCall, RecordedResults, Recording

REPEATS_KEPT_MAX: Final = 100_000
"""Calls whose repetitions are counted; beyond, counting begins anew."""


class ReplayedTool:
    """A tool's declaration, with what a recording says in place of what it does.

    A result is found by the call's arguments, whatever trajectory makes it; for a stateful tool, by the calls
    before it too. The same call made again in one trajectory gets the next result recorded for it.
    """

    def __init__(
        self, inner: Tool, recording: Recording, missing: Literal["error", "live"] = "error"
    ) -> None:
        self._inner = inner
        self._spec = replace(inner.spec, untrusted=False)  # what is recorded is marked already
        self._results = RecordedResults(recording.of(inner.spec.name))
        self._run = recording.run
        self._missing = missing
        self._made: Counter[tuple[RunId, TrajectoryId, str]] = Counter()

    @property
    def spec(self) -> ToolSpec:
        """What the tool declares."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """What was recorded; a call that was not is an error that says so, or made, as configured."""
        text = canonical(arguments)
        history = chained(context.history or ()) if self.spec.stateful else None
        found = self._results.find(text, self._nth(context, text), history)
        if found is not None:
            return _output(found)
        if self._missing == "live":
            return await self._inner.call(arguments, context)
        after = " after the calls before it" if self.spec.stateful and context.history else ""
        return ToolOutput(
            f"[replay] This call of {self.spec.name}{after} was not recorded: {self._run} made "
            f"{len(self._results)} calls of it, none with these arguments.",
            is_error=True,
            storable=False,
        )

    def _nth(self, context: ToolContext, arguments: str) -> int:
        if len(self._made) >= REPEATS_KEPT_MAX:
            self._made.clear()
        key = (context.run, context.trajectory, arguments)
        self._made[key] += 1
        return self._made[key] - 1


class RecordedTool:
    """A tool that is known from a recording alone: its declaration is guessed from the calls it got."""

    def __init__(self, name: str, calls: tuple[RecordedCall, ...]) -> None:
        seen: dict[str, Any] = {}
        for call in calls:
            seen |= json.loads(call.arguments)
        self._spec = ToolSpec(
            name=name,
            description=f"{name}, as recorded. Its declaration was not; known arguments: {', '.join(seen)}.",
            parameters={"type": "object", "properties": {argument: {} for argument in seen}},
            version="recorded",
            effects=Effects(calls[0].effects),
            cacheable=False,
        )

    @property
    def spec(self) -> ToolSpec:
        """What the recording lets one guess."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """There is nothing behind it."""
        return ToolOutput(
            f"{self._spec.name} is known from a recording alone.", is_error=True, storable=False
        )


def _output(call: RecordedCall) -> ToolOutput:
    if call.unknown:
        return fate_unknown(call.tool, "so it was recorded")
    return ToolOutput(call.content, is_error=call.is_error, storable=False, meta={"replayed": "yes"})
