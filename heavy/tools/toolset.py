"""The tools of one trajectory. A call always comes back as a value; only cancellation raises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from heavy.core.clock import monotonic_s
from heavy.core.errors import ConfigError
from heavy.core.messages import ToolCall
from heavy.core.repairs import Repair
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec, fate_unknown
from heavy.tools import arguments
from heavy.tools.api import Tool
from heavy.tools.presentation import Presentation
from heavy.tools.text import clip

ERROR_CHARS_MAX: Final = 2_000
TIMEOUT_GRACE_S: Final = 0.5
"""What a tool that keeps its own time gets beyond it, to come back with what it has."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A call as far as it can be understood without running it.

    Either `arguments`, which satisfy the schema, or a `problem` for the model. `repairs` names what was
    mended, or what is wrong.
    """

    arguments: arguments.Arguments | None
    problem: str = ""
    repairs: tuple[Repair, ...] = ()


class Toolset:
    """An ordered mapping of names to tools, and the one way to call them.

    Raises `ConfigError` when two tools have one name or a tool's schema is none.
    """

    def __init__(self, tools: Iterable[Tool], presentation: Presentation | None = None) -> None:
        self._tools: dict[str, Tool] = {}
        self._schemas: dict[str, arguments.Schema] = {}
        self._presentation = presentation or Presentation()
        for tool in tools:
            name = tool.spec.name
            if name in self._tools:
                raise ConfigError(f"Two tools are called {name!r}; every tool needs a name of its own.")
            self._tools[name] = tool
            self._schemas[name] = arguments.Schema(name, tool.spec.parameters)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the tools declare, in order."""
        return tuple(tool.spec for tool in self._tools.values())

    def spec(self, name: str) -> ToolSpec | None:
        """What one tool declares; None when there is no such tool."""
        tool = self._tools.get(name)
        return tool.spec if tool else None

    async def read(self, call: ToolCall) -> Reading:
        """Find the tool and read the arguments."""
        if call.name not in self._tools:
            return Reading(None, self._unknown(call.name), (Repair.UNKNOWN_TOOL,))
        try:
            given = await arguments.read(call.arguments, self._schemas[call.name])
        except arguments.BadArguments as problem:
            return Reading(None, f"{call.name}: {problem}", (problem.kind,))
        return Reading(given, repairs=given.repairs)

    async def call(self, call: ToolCall, context: ToolContext, reading: Reading | None = None) -> ToolOutput:
        """Run the tool as `reading` (else `read`) understands the call; present what it says."""
        started_s = monotonic_s()
        output = await self._attempt(call, reading or await self.read(call), context)
        return replace(
            output,
            content=self._presentation.shown(self.spec(call.name), output),
            duration_s=monotonic_s() - started_s,
        )

    async def _attempt(self, call: ToolCall, reading: Reading, context: ToolContext) -> ToolOutput:
        if reading.arguments is None:
            return _failure(reading.problem)
        return await _run(self._tools[call.name], reading.arguments, context)

    def _unknown(self, name: str) -> str:
        known = ", ".join(self._tools) or "none"
        return f"There is no tool called {clip(name, 100)!r}. The tools are: {known}."


async def _run(tool: Tool, given: arguments.Arguments, context: ToolContext) -> ToolOutput:
    """Run a tool within its time. Whatever it raises becomes a value, except being cancelled from outside."""
    limit_s = min(context.timeout_s, tool.spec.timeout_s)
    watch = asyncio.timeout(limit_s + TIMEOUT_GRACE_S)
    try:
        async with watch:
            return await tool.call(given.values, replace(context, timeout_s=limit_s))
    except TimeoutError as error:
        if watch.expired():
            text = f"{tool.spec.name} did not finish within {limit_s:g} s and was stopped."
            return _stopped(tool, text)
        return _raised(tool, error)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _raised(tool, error)  # nobody cancelled this call: the tool lost something of its own
    except Exception as error:
        return _raised(tool, error)


def _raised(tool: Tool, error: BaseException) -> ToolOutput:
    return _stopped(tool, clip(f"{tool.spec.name} failed: {type(error).__name__}: {error}", ERROR_CHARS_MAX))


def _stopped(tool: Tool, text: str) -> ToolOutput:
    """The value of a call that did not come to its own end. A write may have done its work by then."""
    if tool.spec.effects is Effects.WRITE:
        return fate_unknown(tool.spec.name, text.rstrip("."))
    return _failure(text, deterministic=False)


def _failure(text: str, *, deterministic: bool = True) -> ToolOutput:
    return ToolOutput(content=text, is_error=True, deterministic=deterministic)
