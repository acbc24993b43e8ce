"""The command at a terminal of its own, for tests: keys go in as they are typed, the screen comes out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

WITHIN_S: Final = 60.0
CTRL_C: Final = "\x03"


@dataclass
class Terminal:
    """What `heavy` draws, and a keyboard."""

    process: asyncio.subprocess.Process
    _device: int
    _drawn: bytearray = field(default_factory=bytearray)
    _fresh: asyncio.Event = field(default_factory=asyncio.Event)

    def type(self, keys: str) -> None:
        """Press keys. Screens drawn before are forgotten."""
        self._drawn.clear()
        os.write(self._device, keys.encode())

    @property
    def shows_keys(self) -> bool:
        """Whether the terminal shows what is typed, as shells want it."""
        return bool(termios.tcgetattr(self._device)[3] & termios.ECHO)

    async def until(self, text: str) -> str:
        """Everything drawn since the last key, once `text` is in it."""
        async with asyncio.timeout(WITHIN_S):
            while text not in (drawn := self._drawn.decode(errors="replace")):
                self._fresh.clear()
                await self._fresh.wait()
        return drawn

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), WITHIN_S)

    def take(self) -> None:
        """What has been drawn by now."""
        with contextlib.suppress(OSError):  # how a terminal says that nobody is left at its other end
            self._drawn += os.read(self._device, 1 << 16)
        self._fresh.set()


@contextlib.asynccontextmanager
async def at_a_terminal(
    address: str, *words: object, columns: int = 120, rows: int = 40
) -> AsyncIterator[Terminal]:
    """`heavy` with some words at a terminal of its own, with the server it asks."""
    device, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "HEAVY_SERVER": address, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heavy.cli.main", *map(str, words)),
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    terminal, loop = Terminal(process, device), asyncio.get_running_loop()
    loop.add_reader(device, terminal.take)
    try:
        yield terminal
    finally:
        loop.remove_reader(device)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(screen)
        os.close(device)
