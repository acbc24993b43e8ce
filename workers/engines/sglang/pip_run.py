"""Runs pip in an environment: its progress in a few lines, its failures in words that say what to do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from heavy.core.errors import EngineUnavailable

REPORT_EVERY = 20
"""Packages between two lines of progress; larger downloads are named anyway."""
LARGE_MB = 30.0
LINES_SHOWN = 8
HINDERED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
"""What would lead pip elsewhere than into the environment."""
CAUSES = (
    (
        ("No space left on device", "Errno 28", "Disk quota exceeded"),
        "The disk is full: make room and build again.",
    ),
    (
        ("THESE PACKAGES DO NOT MATCH THE HASHES",),
        "A package differs from the one that was locked: the index or a cache holds another file.",
    ),
    (
        ("Failed to establish a new connection", "Temporary failure in name resolution", "Read timed out"),
        "The package index cannot be reached: check the network and pip's settings, and build again.",
    ),
    (
        ("ConnectionError", "ConnectTimeoutError", "ProxyError", "SSLError", "Connection refused"),
        "The package index cannot be reached: check the network and pip's settings, and build again.",
    ),
    (
        ("No matching distribution found", "Could not find a version"),
        "A package has no wheel for this machine (locked for Linux on x86-64, glibc 2.34, Python 3.11), "
        "or the index cannot be reached.",
    ),
)
"""Words in pip's output, the first that is found deciding, and what they mean."""


class PipRun:
    """pip of one environment. Everything it says goes to `log`; `report` gets a line now and then."""

    def __init__(self, python: str, log: Path, report: Callable[[str], None]) -> None:
        self._python = python
        self._log = log
        self._report = report

    def install(self, *arguments: str) -> None:
        """`pip install` with `arguments`. Raises `EngineUnavailable`."""
        variables = {name: value for name, value in os.environ.items() if name not in HINDERED}
        command = [self._python, "-m", "pip", "install", "--no-input", "--progress-bar=off", *arguments]
        lines: list[str] = []
        with (
            self._log.open("a") as log,
            subprocess.Popen(
                command,
                env=variables,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",
            ) as pip,
        ):
            assert pip.stdout is not None
            found = 0
            for line in pip.stdout:
                log.write(line)
                lines.append(line.rstrip())
                found += line.startswith("Collecting ")
                if said := progress(line, found):
                    self._report(said)
        if pip.returncode:
            raise EngineUnavailable(failure(lines, self._log))


def progress(line: str, found: int) -> str:
    """What a line of pip's is worth saying; empty for most. `found`: packages found so far."""
    words = line.split()
    if line.startswith("Collecting ") and found % REPORT_EVERY == 0:
        return f"{found} packages found"
    if line.startswith("Installing collected packages:"):
        return f"installing {len(words) - 3} packages"
    if words[:1] == ["Downloading"] and len(words) == 4 and words[3] == "MB)":
        name, size = words[1].rsplit("/", 1)[-1], words[2].lstrip("(")
        return f"downloading {name} ({size} MB)" if float(size) >= LARGE_MB else ""
    return ""


def failure(lines: list[str], log: Path) -> str:
    """The message of a failed run: what it means, pip's last words, and where the rest of them is."""
    text = "\n".join(lines)
    meaning = next((mend for signs, mend in CAUSES if any(sign in text for sign in signs)), "pip failed.")
    tail = "\n".join(f"    {line}" for line in lines[-LINES_SHOWN:])
    return f"SGLang's environment could not be built. {meaning}\n{tail}\n    (all of it: {log})"
