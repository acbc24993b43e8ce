"""`heavy up` as a person starts it, for tests: the real command in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PROFILES: Final = ROOT / "tests" / "fixtures" / "profiles"
READY_WITHIN_S: Final = 180.0
STOPPED_WITHIN_S: Final = 90.0


class Up:
    """A running `heavy up`. `output` has what it printed; `address` where it serves."""

    def __init__(self, profiles: Sequence[str], *flags: str, env: dict[str, str] | None = None) -> None:
        named = [part for name in profiles for part in ("--profile", name)]
        self._command = [
            *(sys.executable, "-m", "heavy.cli.main", "up", *named),
            *("--profiles-dir", str(PROFILES), "--port", "0", "--http-port", "0", *flags),
        ]
        self._env = {**os.environ, "COLUMNS": "200", **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self.output: list[str] = []
        self.address = ""
        self.http = ""

    @property
    def pid(self) -> int:
        """The command's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, within_s: float = READY_WITHIN_S) -> None:
        """Start it and wait for its word that it is ready."""
        self.begin()
        assert self._process is not None
        assert self._process.stdout is not None
        until_s = time.monotonic() + within_s
        for line in self._process.stdout:
            self.output.append(line)
            if found := re.search(r"--server (\S+)", line):
                self.address = found[1]
            if found := re.search(r"health: (\S+)", line):
                self.http = found[1]
                return
            if time.monotonic() > until_s:
                break
        self.stop()
        raise AssertionError(f"`heavy up` did not get ready:\n{''.join(self.output)}")

    def begin(self) -> None:
        """Start it and wait for nothing."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._env,
            start_new_session=True,
        )

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C; its exit status once it is gone."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        said, _ = self._process.communicate(timeout=STOPPED_WITHIN_S)
        self.output.append(said)
        return self._process.returncode


def processes_below(pid: int) -> set[int]:
    """A process and everything it started, directly or not."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of them that still run; zombies do not."""
    left = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            left.add(pid)
    return left
