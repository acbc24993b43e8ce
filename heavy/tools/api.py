"""The seam to a tool. Whatever goes wrong inside is a value that the model sees; only cancellation raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

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
