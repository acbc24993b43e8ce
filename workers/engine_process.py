"""One engine process: started behind the guard, waited for, watched, stopped. Knows nothing of Ray."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
from collections import deque
from collections.abc import Callable

import aiohttp

from heavy.core import clock
from heavy.core.errors import EngineUnavailable
from workers.engine_log import EngineLogFile
from workers.launch import EngineCommand, environment

LOG_LINES_KEPT = 400
LOG_LINE_BYTES_MAX = 1 << 16
READY_POLL_S = 0.2
PROBE_TIMEOUT_S = 5.0
STOP_GRACE_S = 20.0
REST_OF_LOG_S = 1.0
"""How long what an ended process left in the pipe is read; its end comes sooner, unless a child holds it."""


class EngineProcess:
    """Owns one engine. `start` returns when it answers; `stop` is idempotent and leaves nothing behind."""

    def __init__(
        self,
        name: str,
        command: EngineCommand,
        heard: Callable[[str], None] = lambda line: None,
        log_dir: str = "",
    ) -> None:
        """`heard` is told every line of its log; a file in `log_dir`, if that is given, has all of them."""
        self.name = name
        self.base_url = command.base_url
        self._command = command
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._reader: asyncio.Task[None] | None = None
        self._file = EngineLogFile(log_dir, name) if log_dir else None

    @property
    def pid(self) -> int:
        """The guard's process id; 0 when nothing runs."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    @property
    def log(self) -> tuple[str, ...]:
        """The last lines it wrote."""
        return tuple(self._log)

    @property
    def log_problem(self) -> str:
        """Why its log is not being written to its file; empty while it is, or where there is none."""
        return self._file.problem if self._file else ""

    async def start(self, timeout_s: float) -> None:
        """Start and wait until it answers. Raises `EngineUnavailable` with the last lines of its log."""
        await self.spawn()
        try:
            await self.until_ready(timeout_s)
        except BaseException:
            await self.stop(grace_s=1.0)
            raise

    async def spawn(self) -> None:
        """Start it and wait for nothing: what a rank other than the first, which serves nothing, needs."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.guard", *self._command.argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment(self._command.env),
            limit=LOG_LINE_BYTES_MAX,
        )
        if self._file is not None:
            self._file.start()
        self._reader = asyncio.create_task(self._read_log(self._process))

    async def exited(self) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it: asked first, killed after `grace_s`. Safe to call twice."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGALRM)  # the guard's order to kill the whole session
                await process.wait()
        await self._hear_the_rest()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
        if self._file is not None:
            await self._file.close()

    def failure(self, what: str) -> EngineUnavailable:
        """An error that says what happened and what the engine said last."""
        tail = "".join(f"\n    {line}" for line in list(self._log)[-12:])
        said = (
            f"Its last words:{tail}"
            if tail
            else f"It said nothing. By hand: {shlex.join(self._command.argv)}"
        )
        return EngineUnavailable(f"The engine of {self.name} {what}. {said}", self.name)

    async def until_ready(self, timeout_s: float) -> None:
        """Wait until it answers. Raises `EngineUnavailable` when it ends first or takes too long."""
        process = self._process
        assert process is not None
        until_s = clock.monotonic_s() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)) as session:
            while clock.monotonic_s() < until_s:
                if process.returncode is not None:
                    await self._hear_the_rest()
                    raise self.failure(f"ended at once with status {process.returncode}")
                if await _answers(session, f"{self.base_url}/health"):
                    return
                await asyncio.sleep(READY_POLL_S)
        raise self.failure(f"did not answer within {timeout_s:g} s")

    async def _hear_the_rest(self) -> None:
        """What an ended process had written and nobody has read: its last words, most of all."""
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=REST_OF_LOG_S)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line beyond the limit: what has been read of it is gone, the rest follows
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._log.append(text)
            if self._file is not None:
                self._file.take(text)
            self._heard(text)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
