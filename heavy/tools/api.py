"""The seam to a tool. Whatever goes wrong inside is a value that the model sees; only cancellation raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from heavy.core.ids import RunId, TrajectoryId
from heavy.core.tools import ToolContext, ToolOutput, ToolSpec


class Tool(Protocol):
    """One tool. Wrappers (cache, limits, tracing) satisfy the same protocol."""

    @property
    def spec(self) -> ToolSpec:
        """What it declares."""
        ...

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Run with arguments that satisfy `spec.parameters`, within `context.timeout_s`."""
        ...


@runtime_checkable
class Lasting(Protocol):
    """A tool that keeps something from call to call, until a trajectory ends."""

    async def end(self, run: RunId, trajectory: TrajectoryId) -> None:
        """The trajectory is over. Bounded; safe for one that never called."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A tool that holds processes or connections."""

    async def close(self) -> None:
        """Let go of them; safe to call twice."""
        ...
