"""All that an engine says, in a file: bounded, never in the engine's way, whatever becomes of the disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

SUBDIRECTORY = "heavy-engines"
FILE_BYTES_MAX = 64 << 20
"""A file that has grown so long becomes `NAME.log.1` in place of the one before: twice this at most."""
KEPT_S = 7 * 24 * 3600.0
"""Files that nobody has written to for so long are removed."""
PENDING_LINES_MAX = 10_000
"""Lines held back while the disk is slow; beyond, the oldest are lost, and counted."""
RETRY_S = 2.0
CLOSE_S = 2.0

logger = logging.getLogger(__name__)


class EngineLogFile:
    """Written from a thread, in the background. `take` never waits; what could not be written is counted."""

    def __init__(self, directory: str, name: str, bytes_max: int = FILE_BYTES_MAX) -> None:
        """A file for the engine `name`, in a directory of Heavy's own below `directory`, made when needed."""
        file = f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}.log"
        self.path = Path(directory).expanduser() / SUBDIRECTORY / file
        self.problem = ""
        """Why nothing is being written, and what to do; empty while all is well."""
        self._bytes_max = bytes_max
        self._pending: deque[str] = deque(maxlen=PENDING_LINES_MAX)
        self._lost = 0
        self._fresh = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        if self._task is None:
            self._task = asyncio.create_task(self._write_forever())

    def take(self, line: str) -> None:
        """One more line."""
        self._lost += len(self._pending) == PENDING_LINES_MAX
        self._pending.append(line)
        self._fresh.set()

    async def close(self) -> None:
        """Write what is left, if that can be done soon. Safe to call twice."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._write_pending(), CLOSE_S)

    async def _write_forever(self) -> None:
        """A disk that takes nothing is tried again every `RETRY_S`."""
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            await self._write_pending()
            if self.problem:
                await asyncio.sleep(RETRY_S)
                self._fresh.set()

    async def _write_pending(self) -> None:
        lines = list(self._pending)
        self._pending.clear()
        missing = [f"[heavy] lines missing here: {self._lost}"] if self._lost else []
        try:
            await asyncio.to_thread(self._append, [*missing, *lines])
        except OSError as error:
            self._lost += len(lines)
            if not self.problem:
                logger.warning("%s cannot be written: %s", self.path, error)
            self.problem = (
                f"its log cannot be written to {self.path} ({error.strerror}); it serves on: make room there"
            )
        else:
            self.problem, self._lost = "", 0

    def _append(self, lines: Sequence[str]) -> None:
        """Raises OSError."""
        data = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        if not self.path.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_old()
        elif self.path.stat().st_size + len(data) > self._bytes_max:
            self.path.replace(f"{self.path}.1")
        with self.path.open("ab", buffering=0) as file:
            while data:
                data = data[os.write(file.fileno(), data) :]

    def _remove_old(self) -> None:
        """Raises OSError."""
        for file in self.path.parent.glob("*.log*"):
            if file.stat().st_mtime < time.time() - KEPT_S:
                file.unlink()
