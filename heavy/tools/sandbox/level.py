"""Which walls stand around generated code on this host, and what would have to change for the others."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import Final

from heavy.tools.sandbox import cgroup
from heavy.tools.sandbox.jail import SandboxLimits, SandboxUnavailable
from heavy.tools.sandbox.sandbox import Sandbox

WALLS: Final = (
    "namespaces (user, pid, network, ipc, uts, cgroup, mount)",
    "seccomp filter",
    "no new privileges, no capabilities, another user",
    "read-only files, private /tmp",
    "rlimits (cpu, address space, threads, files)",
)
"""What every sandbox has, or does not start. The probe looks at each from inside."""


@dataclass(frozen=True, slots=True)
class SandboxLevel:
    """What is in force. `lacking`: a wall and what would mend it; nothing runs where `works` is false."""

    works: bool
    walls: tuple[str, ...]
    lacking: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        """One line for logs: the walls in force, then what lacks."""
        stands = "; ".join(self.walls) or "none"
        return stands + "".join(f"; lacking {wall}: {mend}" for wall, mend in self.lacking)


async def sandbox_level(limits: SandboxLimits | None = None) -> SandboxLevel:
    """Start a sandbox and look. Raises nothing: what does not work is `lacking`."""
    try:
        await Sandbox(limits).probe()
    except SandboxUnavailable as error:
        return SandboxLevel(False, (), (("the sandbox", error.message),))
    return level_of(limits or SandboxLimits())


def level_of(limits: SandboxLimits) -> SandboxLevel:
    """The level of a sandbox whose probe succeeded."""
    host = f"{sys.platform} {platform.release()} {platform.machine()}"
    problem = cgroup.problem(limits.cgroup)
    if problem:
        return SandboxLevel(True, (*WALLS, host), ((cgroup.WALL, problem),))
    return SandboxLevel(True, (*WALLS, cgroup.WALL, host), ())
