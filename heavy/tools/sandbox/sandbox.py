"""Runs code in a fresh sandbox, with its output and its time bounded, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from heavy.core.clock import monotonic_s
from heavy.tools.sandbox import bootstrap, jail
from heavy.tools.sandbox.jail import Jail, SandboxLimits, SandboxUnavailable

_log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 10.0
END_TIMEOUT_S: Final = 5.0
"""How long a killed sandbox may take to be gone: the kernel ends its whole process namespace."""
CODE_BYTES_MAX: Final = 1 << 20
_CHUNK: Final = 1 << 16
_SIGNALLED: Final = 128
"""What bwrap adds to a signal's number to make an exit status of it."""

_PROBE: Final = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
import os
print(status["Seccomp"].strip(), status["NoNewPrivs"].strip(), int(status["CapEff"], 16), os.getuid())
"""

_HINT: Final = (
    "User namespaces may be switched off: look at the sysctls user.max_user_namespaces, "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; in a container, "
    "allow the calls unshare and mount in its seccomp profile and leave /proc unmasked."
)


class Ending(StrEnum):
    """How the code came to its end."""

    FINISHED = "finished"
    EXCEPTION = "exception"
    EXITED = "exited"
    MEMORY = "memory"
    CPU = "cpu"
    KILLED = "killed"
    TIMEOUT = "timeout"
    FLOOD = "flood"
    BROKEN = "broken"
    """The sandbox itself did not come up."""


@dataclass(frozen=True, slots=True)
class Execution:
    """What the code wrote (head and tail, where it wrote too much) and how it ended."""

    ending: Ending
    stdout: str
    stderr: str
    status: int | None = None


class Sandbox:
    """Fresh interpreters in namespaces of their own, at most `concurrency` at once (twice the cores).

    Raises `SandboxUnavailable` where the parts are missing; `probe` tells whether they work.
    """

    def __init__(self, limits: SandboxLimits | None = None, *, concurrency: int | None = None) -> None:
        self.limits = limits or SandboxLimits()
        self._jail = jail.build(self.limits)
        self._slots = asyncio.Semaphore(concurrency or 2 * (os.cpu_count() or 1))

    @property
    def libraries(self) -> dict[str, str]:
        """Names and versions of the numeric libraries inside."""
        return self._jail.libraries

    async def probe(self) -> None:
        """One real run that looks at its own walls. Raises `SandboxUnavailable` with what is missing."""
        run = await self.run(_PROBE, timeout_s=START_TIMEOUT_S)
        if run.ending is not Ending.FINISHED:
            said = run.stderr.strip() or run.ending
            raise SandboxUnavailable(
                f"bubblewrap does not work here, so generated code is not run: {said}. {_HINT}"
            )
        if run.stdout.split() != ["2", "1", "0", str(jail.UID)]:
            raise SandboxUnavailable(
                f"The sandbox came up without all its walls (saw {run.stdout.strip()!r})."
            )

    async def run(self, code: str, *, timeout_s: float) -> Execution:
        """Run `code` within `timeout_s`, waiting for a slot included. Nothing of it is left afterwards."""
        source = code.encode("utf-8", "replace")
        if len(source) > CODE_BYTES_MAX:
            return Execution(Ending.BROKEN, "", f"The code is longer than {CODE_BYTES_MAX} bytes.")
        deadline_s = monotonic_s() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            return Execution(Ending.BROKEN, "", f"All sandboxes were busy for {timeout_s:g} s.")
        try:
            child = _Child(self.limits)
            try:
                await _seen_through(child.start(self._jail))
                return await child.run(source, max(0.0, deadline_s - monotonic_s()))
            except OSError as error:  # no process, no descriptor, no bwrap: not the code's doing
                return Execution(Ending.BROKEN, "", f"The sandbox could not be started: {error}")
            finally:
                await child.end()
        finally:
            self._slots.release()


class _Child:
    """One sandbox from its start to the moment it is gone."""

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._ours = ExitStack()
        self._info_fd = -1
        self._go_fd = -1
        self._first_fd = -1
        self._first_pid = 0
        self._info = b""
        self._process: asyncio.subprocess.Process
        self._outputs: tuple[_Output, _Output]
        self._started = False
        self._complete = False
        self._flooded = False

    async def start(self, confinement: Jail) -> None:
        """Start bwrap; it waits for its user map where we are root."""
        with ExitStack() as theirs:
            filter_fd = _filled_pipe(confinement.filter)
            theirs.callback(os.close, filter_fd)
            info_fd = self._info_pipe(theirs)
            go_fd = self._go_pipe(theirs) if os.geteuid() == 0 else None
            self._process = await asyncio.create_subprocess_exec(
                *confinement.argv(seccomp_fd=filter_fd, info_fd=info_fd, go_fd=go_fd),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=(filter_fd, info_fd, *(() if go_fd is None else (go_fd,))),
                env={},
                cwd="/",
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._started = True
        bytes_max = self._limits.output_bytes
        self._outputs = _Output(self._process.stdout, bytes_max), _Output(self._process.stderr, bytes_max)

    def _info_pipe(self, theirs: ExitStack) -> int:
        """Where bwrap says which process is the namespace's first."""
        self._info_fd, write = os.pipe()
        self._ours.callback(os.close, self._info_fd)
        theirs.callback(os.close, write)
        return write

    def _go_pipe(self, theirs: ExitStack) -> int:
        """Where bwrap waits until the user map is written."""
        read, self._go_fd = os.pipe()
        self._ours.callback(os.close, self._go_fd)
        theirs.callback(os.close, read)
        return read

    async def run(self, source: bytes, timeout_s: float) -> Execution:
        """Hand the code over and collect what it writes until it ends or its time does."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._take_charge()
                await self._hand_over(source)
                await asyncio.gather(*(output.fill(self._count) for output in self._outputs))
                ending = _ending(await self._process.wait(), self._complete)
        except TimeoutError:
            ending = Ending.TIMEOUT
        if self._flooded:
            ending = Ending.FLOOD
        stdout, stderr = (output.text() for output in self._outputs)
        return Execution(ending, stdout, stderr, self._process.returncode)

    async def _take_charge(self) -> None:
        """Get hold of the namespace's first process, map its users and let it go on."""
        await self._get_hold()
        if self._first_fd >= 0 and self._go_fd >= 0:
            _map_users(self._first_pid)
            os.write(self._go_fd, b"1")

    async def _get_hold(self) -> None:
        """Learn from bwrap which process is the namespace's first, with which all others die."""
        while b"}" not in self._info:
            await _readable(self._info_fd)
            chunk = os.read(self._info_fd, _CHUNK)
            if not chunk:
                return  # bwrap gave up; its reason is on stderr
            self._info += chunk
        if self._first_fd < 0:
            self._first_pid = int(json.loads(self._info)["child-pid"])
            self._first_fd = os.pidfd_open(self._first_pid)
            self._ours.callback(os.close, self._first_fd)

    async def _hand_over(self, source: bytes) -> None:
        """Send the code once the sandbox says that it stands; a half-made one may yet lose its keeper."""
        self._complete = await self._outputs[0].first() == bootstrap.READY
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            if self._complete:
                stdin.write(source)
                await stdin.drain()
            stdin.close()

    def _count(self) -> None:
        if sum(output.total for output in self._outputs) > self._limits.flood_bytes and not self._flooded:
            self._flooded = True
            self._kill()

    def _kill(self) -> None:
        """Kill bwrap and the namespace's first process; the kernel ends all others with it."""
        with suppress(ProcessLookupError):
            if self._first_fd >= 0:
                signal.pidfd_send_signal(self._first_fd, signal.SIGKILL)
        with suppress(ProcessLookupError):
            if self._process.returncode is None:
                self._process.kill()

    async def end(self) -> None:
        """Kill what is left and wait until it is gone: the first process ends after all others inside."""
        if not self._started:
            self._ours.close()
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_TIMEOUT_S):
                    # Cut while it was starting: without bwrap, the first process would wait for ever.
                    await self._get_hold()
            self._kill()
            if self._process.stdin is not None:
                self._process.stdin.close()
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
                if self._first_fd >= 0:
                    await _readable(self._first_fd)
                await asyncio.gather(*(output.discard() for output in self._outputs))
        except TimeoutError:
            _log.error("a killed sandbox (pid %s) is not gone after %s s", self._process.pid, END_TIMEOUT_S)
        finally:
            self._ours.close()


class _Output:
    """One stream: its head and its tail are kept, what is between is counted."""

    def __init__(self, stream: asyncio.StreamReader, bytes_max: int) -> None:
        self._stream = stream
        self._head_max = bytes_max * 3 // 4
        self._tail_max = bytes_max - self._head_max
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    async def first(self) -> bytes:
        """The first byte, which is not part of the output; empty when the stream has ended."""
        return await self._stream.read(1)

    async def fill(self, count: Callable[[], None]) -> None:
        """Read to the end, in bounded memory; `count` is called after each chunk."""
        while chunk := await self._stream.read(_CHUNK):
            self.total += len(chunk)
            room = self._head_max - len(self._head)
            self._head += chunk[:room]
            self._tail += chunk[room:]
            del self._tail[: -self._tail_max]
            count()

    async def discard(self) -> None:
        """Read to the end and keep nothing."""
        while await self._stream.read(_CHUNK):
            pass

    def text(self) -> str:
        """What was kept, with a line between head and tail that says how much is missing."""
        missing = self.total - len(self._head) - len(self._tail)
        gap = f"\n... [{missing} bytes left out here] ...\n".encode() if missing else b""
        return bytes(self._head + gap + self._tail).decode("utf-8", "replace")


def _ending(status: int, complete: bool) -> Ending:
    if not complete:
        return Ending.BROKEN
    known = {
        0: Ending.FINISHED,
        bootstrap.EXCEPTION: Ending.EXCEPTION,
        bootstrap.OUT_OF_MEMORY: Ending.MEMORY,
        _SIGNALLED + signal.SIGXCPU: Ending.CPU,
    }
    return known.get(status, Ending.EXITED if 0 < status < _SIGNALLED else Ending.KILLED)


def _map_users(pid: int) -> None:
    """As root: 0 inside stays us, for bwrap's mounts; the code's user inside is nobody outside."""
    for kind in ("uid", "gid"):
        with open(f"/proc/{pid}/{kind}_map", "w") as users:
            users.write(f"0 0 1\n{jail.UID} {jail.NOBODY} 1\n")


def _filled_pipe(data: bytes) -> int:
    """The read end of a pipe that holds `data` (which fits into its buffer) and nothing more."""
    read, write = os.pipe()
    try:
        os.write(write, data)
    finally:
        os.close(write)
    return read


async def _seen_through(start: Coroutine[Any, Any, None]) -> None:
    """Await what takes a moment and must not stop half-way: a cancel is raised once it is done."""
    task = asyncio.ensure_future(start)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _readable(fd: int) -> None:
    """Wait until something can be read from `fd`, its other end is closed, or its process has ended."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
