"""Memory and processes counted by the kernel over a whole sandbox (cgroup v2), where the operator gave one.

rlimits bound one process, and a sandbox is one process with threads; what they do not count is the page
cache and the kernel's own memory. The operator names a delegated directory; each sandbox gets a child of it.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import Final

WALL: Final = "cgroup limits (memory, processes)"
NEEDED: Final = ("memory", "pids")
OVERHEAD_BYTES: Final = 64 << 20
"""What bwrap and the kernel need beside the code's own memory and files."""


def problem(directory: str) -> str:
    """Why sandboxes cannot be put below `directory`, and what to do; empty when they can."""
    if not directory:
        return (
            "name a delegated cgroup v2 directory as cgroup under [tools.python], such as one made by "
            "systemd with Delegate=yes; the runner itself belongs into a cgroup below it"
        )
    try:
        with open(os.path.join(directory, "cgroup.subtree_control")) as control:
            enabled = control.read().split()
    except OSError as error:
        return f"{directory} is no cgroup v2 directory: {error.strerror}"
    missing = [name for name in NEEDED if name not in enabled]
    if missing:
        words = " ".join(f"+{name}" for name in missing)
        return f"write '{words}' to {directory}/cgroup.subtree_control"
    if not os.access(directory, os.W_OK):
        return f"{directory} must be writable by the runner's user"
    return ""


class Cgroup:
    """One sandbox's cgroup. Made empty; whoever is added brings its children along."""

    def __init__(self, parent: str, memory_bytes: int, processes_max: int) -> None:
        self._path = os.path.join(parent, f"heavy-{secrets.token_hex(8)}")
        os.mkdir(self._path)
        self._write("memory.max", str(memory_bytes + OVERHEAD_BYTES))
        with suppress(OSError):  # a kernel without swap accounting has no such file
            self._write("memory.swap.max", "0")
        self._write("pids.max", str(processes_max))

    def add(self, pid: int) -> None:
        """Put a process, and all it will start, inside."""
        self._write("cgroup.procs", str(pid))

    def remove(self) -> None:
        """Kill what is left and remove the directory."""
        with suppress(OSError):
            self._write("cgroup.kill", "1")
        with suppress(OSError):
            os.rmdir(self._path)

    def _write(self, name: str, value: str) -> None:
        with open(os.path.join(self._path, name), "w") as file:
            file.write(value)
