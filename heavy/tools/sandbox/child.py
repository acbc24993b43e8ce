"""One sandboxed process: started, held by its first process, killed with all inside it, seen gone."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from asyncio.subprocess import PIPE
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import Any, Final

from heavy.tools.sandbox import jail
from heavy.tools.sandbox.cgroup import Cgroup
from heavy.tools.sandbox.jail import Jail, SandboxLimits

_log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 10.0
END_TIMEOUT_S: Final = 5.0
"""How long a killed sandbox may take to be gone: the kernel ends its whole process namespace."""
CHUNK: Final = 1 << 16


class Child:
    """One sandbox from its start to the moment it is gone.

    `stdin`, `stdout` and `stderr` are there once it is started; `control`, which only a session has, too.
    """

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    control: asyncio.StreamReader

    def __init__(self, limits: SandboxLimits) -> None:
        self._limits = limits
        self._root = os.geteuid() == 0
        self._ours = ExitStack()
        self._info_fd = -1
        self._go_fd = -1
        self._first_fd = -1
        self._first_pid = 0
        self._info = b""
        self._process: asyncio.subprocess.Process
        self._started = False

    @property
    def status(self) -> int | None:
        """bwrap's exit status; None while it runs."""
        return self._process.returncode if self._started else None

    async def start(self, confinement: Jail) -> None:
        """Start bwrap and see it through: what was started is known, also when this is cancelled.

        It starts nothing itself until `take_charge` lets it.
        """
        await _seen_through(self._start(confinement))

    async def _start(self, confinement: Jail) -> None:
        with ExitStack() as theirs:
            filter_fd = _filled_pipe(confinement.filter)
            theirs.callback(os.close, filter_fd)
            info_fd = self._info_pipe(theirs)
            go_fd = self._go_pipe(theirs)
            control_fd = await self._control_pipe(theirs) if confinement.session else None
            self._process = await asyncio.create_subprocess_exec(
                *confinement.argv(
                    seccomp_fd=filter_fd,
                    info_fd=info_fd,
                    go_fd=go_fd,
                    root=self._root,
                    control_fd=control_fd,
                ),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=[fd for fd in (filter_fd, info_fd, go_fd, control_fd) if fd is not None],
                env={},
                cwd="/",
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self._started = True

    def _info_pipe(self, theirs: ExitStack) -> int:
        """Where bwrap says which process is the namespace's first."""
        self._info_fd, write = os.pipe()
        self._ours.callback(os.close, self._info_fd)
        theirs.callback(os.close, write)
        return write

    def _go_pipe(self, theirs: ExitStack) -> int:
        """Where the namespace's first process waits until it is bounded, and its users mapped."""
        read, self._go_fd = os.pipe()
        self._ours.callback(os.close, self._go_fd)
        theirs.callback(os.close, read)
        return read

    async def _control_pipe(self, theirs: ExitStack) -> int:
        """Where a session's interpreter answers, apart from what its code prints."""
        read, write = os.pipe()
        theirs.callback(os.close, write)
        self.control = asyncio.StreamReader(CHUNK)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.control), os.fdopen(read, "rb", buffering=0)
        )
        self._ours.callback(transport.close)
        return write

    async def take_charge(self) -> None:
        """Get hold of the namespace's first process, bound it, map its users and let it go on."""
        await self._get_hold()
        if self._first_fd < 0:
            return
        if self._limits.cgroup:
            group = Cgroup(self._limits.cgroup, self._limits.memory_bytes, self._limits.threads)
            self._ours.callback(group.remove)
            group.add(self._first_pid)
        if self._root:
            _map_users(self._first_pid)
        os.write(self._go_fd, b"1")

    async def _get_hold(self) -> None:
        """Learn from bwrap which process is the namespace's first, with which all others die."""
        while b"}" not in self._info:
            await _readable(self._info_fd)
            chunk = os.read(self._info_fd, CHUNK)
            if not chunk:
                return  # bwrap gave up; its reason is on stderr
            self._info += chunk
        if self._first_fd < 0:
            self._first_pid = int(json.loads(self._info)["child-pid"])
            self._first_fd = os.pidfd_open(self._first_pid)
            self._ours.callback(os.close, self._first_fd)

    async def wait(self) -> int:
        """bwrap's exit status, once it has ended."""
        return await self._process.wait()

    def kill(self) -> None:
        """Kill bwrap and the namespace's first process; the kernel ends all others with it."""
        if not self._started:
            return
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
            self.kill()
            self.stdin.close()
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._process.wait()
                if self._first_fd >= 0:
                    await _readable(self._first_fd)
                await asyncio.gather(_discard(self.stdout), _discard(self.stderr))
        except TimeoutError:
            _log.error("a killed sandbox (pid %s) is not gone after %s s", self._process.pid, END_TIMEOUT_S)
        finally:
            self._ours.close()


async def _discard(stream: asyncio.StreamReader) -> None:
    """Read to the end and keep nothing."""
    while await stream.read(CHUNK):
        pass


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
