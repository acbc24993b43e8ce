"""The `python` tool: one fresh sandboxed interpreter per call. Nothing survives, so it can be cached."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Final

from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.tools.sandbox.jail import SandboxLimits
from heavy.tools.sandbox.sandbox import Ending, Execution, Sandbox
from heavy.tools.text import clip

REVISION: Final = 1
"""Part of the version: raise it when the same code would come back with another text."""
TIMEOUT_S: Final = 30.0
STDERR_CHARS_MAX: Final = 4_000

MACHINE_DEPENDENT: Final = frozenset(
    {Ending.MEMORY, Ending.CPU, Ending.KILLED, Ending.TIMEOUT, Ending.BROKEN}
)


class PythonTool:
    """Runs `{"code": str}` and gives back what it printed, or the value of its last expression."""

    def __init__(self, sandbox: Sandbox, *, timeout_s: float = TIMEOUT_S) -> None:
        self._sandbox = sandbox
        self._spec = _spec(sandbox, timeout_s)

    @property
    def spec(self) -> ToolSpec:
        """What it declares; the version names interpreter, libraries and limits."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Run the code. Exceptions of the code, time-outs and kills are error outputs."""
        run = await self._sandbox.run(arguments["code"], timeout_s=context.timeout_s)
        problem = trouble(run, self._sandbox.limits, context.timeout_s)
        parts = [run.stdout, clip(run.stderr, STDERR_CHARS_MAX), problem]
        return ToolOutput(
            content="\n".join(part.strip("\n") for part in parts if part.strip()) or "(no output)",
            is_error=run.ending is not Ending.FINISHED,
            deterministic=run.ending not in MACHINE_DEPENDENT,
        )


def trouble(run: Execution, limits: SandboxLimits, timeout_s: float) -> str:
    """What the model should know about an ending that the code's own output does not explain."""
    match run.ending:
        case Ending.EXITED:
            return f"The code exited with status {run.status}."
        case Ending.MEMORY:
            return f"The code needed more than {limits.memory_bytes >> 20} MiB memory."
        case Ending.CPU:
            return f"The code was stopped after {limits.cpu_s} s of CPU time. Find a cheaper way."
        case Ending.TIMEOUT:
            return f"The code was stopped after {timeout_s:g} s."
        case Ending.FLOOD:
            return f"The code was stopped: it printed more than {limits.flood_bytes >> 20} MiB. Print less."
        case Ending.KILLED:
            return f"The code was killed (status {run.status}): it crashed or ran out of memory or CPU."
        case Ending.BROKEN:
            return "The python sandbox could not run the code; this is not the code's fault."
        case _:
            return ""


def _spec(sandbox: Sandbox, timeout_s: float) -> ToolSpec:
    limits, libraries = sandbox.limits, sandbox.libraries
    versions = [f"python-{platform.python_version()}", *(f"{n}-{v}" for n, v in libraries.items())]
    bounds = f"{limits.cpu_s}s-{limits.memory_bytes >> 20}M-{limits.output_bytes}B"
    installed = f" {', '.join(libraries)} are installed." if libraries else ""
    return ToolSpec(
        name="python",
        description=(
            f"Run Python {platform.python_version()} code and get what it prints, or else the value of its "
            f"last expression. Every call is a fresh interpreter: nothing is kept between calls.{installed} "
            f"No network, no other processes, {limits.cpu_s} s CPU, {limits.memory_bytes >> 20} MiB memory."
        ),
        parameters={
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The Python source to run."}},
            "required": ["code"],
            "additionalProperties": False,
        },
        version="+".join([str(REVISION), *versions, bounds]),
        effects=Effects.PURE,
        cacheable=True,
        timeout_s=timeout_s,
    )
