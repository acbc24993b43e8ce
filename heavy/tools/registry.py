"""From tool names to tools: which there are, and what is wrapped around them, in what order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from heavy.core.errors import ConfigError, HeavyError
from heavy.core.traces import TraceReader
from heavy.tools.api import Tool
from heavy.tools.cache import CachedTool, ToolCache
from heavy.tools.python import PythonTool
from heavy.tools.sandbox.jail import SandboxLimits, SandboxUnavailable
from heavy.tools.sandbox.sandbox import Sandbox
from heavy.tools.traces import TraceLimits, trace_tools

_log = logging.getLogger(__name__)

PYTHON: Final = "python"
TOOL_NAMES: Final = (PYTHON,)
"""What a policy may ask for; checked at the edge, before anything runs."""


class ToolBox:
    """The tools of one process, ready to be called, and why others are missing."""

    def __init__(
        self, tools: Sequence[Tool], missing: dict[str, HeavyError], cache: ToolCache | None
    ) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        self._missing = dict(missing)
        self._cache = cache

    @property
    def missing(self) -> dict[str, str]:
        """Tools that cannot work here, and what would mend it."""
        return {name: error.message for name, error in self._missing.items()}

    def select(
        self, names: Sequence[str], reader: TraceReader | None = None, limits: TraceLimits | None = None
    ) -> tuple[Tool, ...]:
        """The tools of one trajectory, in the order of `names`. With a `reader` they may be trace tools.

        Raises `ConfigError` for a name that is no tool, and a missing tool's own error.
        """
        known = dict(self._tools)
        if reader is not None:
            known |= {tool.spec.name: tool for tool in trace_tools(reader, limits)}
        for name in names:
            if name in self._missing:
                raise self._missing[name]
            if name not in known:
                raise ConfigError(
                    f"There is no tool called {name!r}; there are {', '.join(known) or 'none'}."
                )
        return tuple(known[name] for name in names)

    async def close(self) -> None:
        """End executions under way and close the cache; safe to call twice."""
        if self._cache is not None:
            await self._cache.close()


async def open_tools(
    names: Sequence[str] = TOOL_NAMES,
    *,
    cache: ToolCache | None = None,
    sandbox_limits: SandboxLimits | None = None,
) -> ToolBox:
    """Make and try every tool of `names`. One that cannot work is missing, not fatal.

    The wrappers, from the inside out: the tool, then the cache (of which the box then is the owner).
    Time-outs, arguments and clipping are the toolset's; tracing is the runner's.
    Raises `ConfigError` for a name that is no tool.
    """
    tools: list[Tool] = []
    missing: dict[str, HeavyError] = {}
    for name in names:
        try:
            tool = await _make(name, sandbox_limits)
        except SandboxUnavailable as error:
            _log.warning("the tool %s is not available: %s", name, error)
            missing[name] = error
            continue
        tools.append(CachedTool(tool, cache) if cache is not None else tool)
    return ToolBox(tools, missing, cache)


async def _make(name: str, sandbox_limits: SandboxLimits | None) -> Tool:
    if name != PYTHON:
        raise ConfigError(f"There is no tool called {name!r}; there are {', '.join(TOOL_NAMES)}.")
    sandbox = Sandbox(sandbox_limits)
    await sandbox.probe()
    return PythonTool(sandbox)
