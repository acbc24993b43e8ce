"""Fake tools: one that answers from a script, one that waits until it is let go, one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec

ANYTHING: Mapping[str, Any] = {"type": "object"}


def tool_spec(
    name: str,
    *,
    parameters: Mapping[str, Any] = ANYTHING,
    cacheable: bool = False,
    effects: Effects = Effects.PURE,
    timeout_s: float = 30.0,
    stateful: bool = False,
) -> ToolSpec:
    """A declaration with everything but the name filled in."""
    return ToolSpec(name, f"The {name} tool.", parameters, "1", effects, cacheable, timeout_s, stateful)


class ScriptedTool:
    """Gives back its outputs one after the other, the last one for ever; remembers every call."""

    def __init__(self, spec: ToolSpec, outputs: Sequence[ToolOutput | str] = ("done",)) -> None:
        self._spec = spec
        self._outputs = [ToolOutput(output) if isinstance(output, str) else output for output in outputs]
        self.calls: list[tuple[Mapping[str, Any], ToolContext]] = []

    @property
    def spec(self) -> ToolSpec:
        """What it declares."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """The next output."""
        self.calls.append((arguments, context))
        return self._outputs[min(len(self.calls), len(self._outputs)) - 1]


class SlowTool(ScriptedTool):
    """Waits in every call until `release` is set; `started` is set by the first, `cancelled` counts."""

    def __init__(self, spec: ToolSpec, outputs: Sequence[ToolOutput | str] = ("done",)) -> None:
        super().__init__(spec, outputs)
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = 0

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """The next output, once released."""
        output = await super().call(arguments, context)
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return output


class FailingTool(ScriptedTool):
    """Raises `error` in every call."""

    def __init__(self, spec: ToolSpec, error: BaseException) -> None:
        super().__init__(spec)
        self._error = error

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Fail."""
        await super().call(arguments, context)
        raise self._error
