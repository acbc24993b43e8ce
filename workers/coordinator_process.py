"""The coordinator as a child process of whoever brings a whole Heavy up."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import sys

import aiohttp

from heavy.config import Settings
from heavy.core import clock
from heavy.core.errors import HeavyError

START_TIMEOUT_S = 45.0
STOP_GRACE_S = 25.0
POLL_S = 0.1
PROBE_TIMEOUT_S = 2.0
LOG_BYTES = 1 << 16


class CoordinatorProcess:
    """Starts `python -m heavy.app` with given settings. `stop` is idempotent."""

    def __init__(self, settings: Settings, ray_address: str) -> None:
        self._settings = settings
        self._ray_address = ray_address
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start and wait until it serves. Its log goes to our standard error. Raises `HeavyError`."""
        environment = {**os.environ, **self._settings.environment(), "RAY_ADDRESS": self._ray_address}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.guard", sys.executable, "-m", "heavy.app"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        self._log = asyncio.create_task(_forward(self._process))
        await self._until_ready(self._process)

    async def exited(self) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Let it end its runs, then end it."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGALRM)
            await process.wait()

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        url = f"http://{self._settings.host}:{self._settings.http_port}/readyz"
        until_s = clock.monotonic_s() + START_TIMEOUT_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)) as session:
            while clock.monotonic_s() < until_s:
                if process.returncode is not None:
                    raise HeavyError(
                        f"The coordinator ended with status {process.returncode}; its log says why."
                    )
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(POLL_S)
        await self.stop()
        raise HeavyError(f"The coordinator did not serve {url} within {START_TIMEOUT_S:g} s.")


async def _forward(process: asyncio.subprocess.Process) -> None:
    """Its log through our own standard error, so that it goes above what is drawn on a terminal."""
    assert process.stderr is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := await process.stderr.read(LOG_BYTES):
        sys.stderr.write(decoder.decode(data))
        sys.stderr.flush()
