"""Runs code in a fresh sandbox, with its output and its time bounded, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from heavy.core.clock import monotonic_s
from heavy.tools.sandbox import bootstrap, cgroup, jail
from heavy.tools.sandbox.child import START_TIMEOUT_S, Child
from heavy.tools.sandbox.jail import SandboxLimits, SandboxUnavailable
from heavy.tools.sandbox.output import Output

CODE_BYTES_MAX: Final = 1 << 20
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
        """One real run that looks at its own walls. Raises `SandboxUnavailable` with what is missing.

        Limits that the operator asked the kernel for are a wall too: without them nothing is run.
        """
        if self.limits.cgroup and (problem := cgroup.problem(self.limits.cgroup)):
            raise SandboxUnavailable(
                f"No sandbox can be bounded by its cgroup, so no code is run: {problem}."
            )
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
            return await self._run(source, deadline_s)
        finally:
            self._slots.release()

    async def _run(self, source: bytes, deadline_s: float) -> Execution:
        child = Child(self.limits)
        try:
            await child.start(self._jail)
            return await _Call(child, self.limits).run(source, max(0.0, deadline_s - monotonic_s()))
        except OSError as error:  # no process, no descriptor, no bwrap: not the code's doing
            return Execution(Ending.BROKEN, "", f"The sandbox could not be started: {error}")
        finally:
            await child.end()


class _Call:
    """One piece of code in a fresh sandbox: handed over, its output collected until it ends."""

    def __init__(self, child: Child, limits: SandboxLimits) -> None:
        self._child = child
        self._flood_bytes = limits.flood_bytes
        self._outputs = Output(limits.output_bytes), Output(limits.output_bytes)
        self._complete = False
        self._flooded = False

    async def run(self, source: bytes, timeout_s: float) -> Execution:
        """Hand the code over and collect what it writes until it ends or its time does."""
        child, (stdout, stderr) = self._child, self._outputs
        try:
            async with asyncio.timeout(timeout_s):
                await child.take_charge()
                await self._hand_over(source)
                await asyncio.gather(
                    stdout.fill(child.stdout, self._count), stderr.fill(child.stderr, self._count)
                )
                ending = _ending(await child.wait(), self._complete)
        except TimeoutError:
            ending = Ending.TIMEOUT
        if self._flooded:
            ending = Ending.FLOOD
        return Execution(ending, stdout.text(), stderr.text(), child.status)

    async def _hand_over(self, source: bytes) -> None:
        """Send the code once the sandbox says that it stands; a half-made one may yet lose its keeper."""
        self._complete = await self._child.stdout.read(1) == bootstrap.READY
        stdin = self._child.stdin
        with suppress(BrokenPipeError, ConnectionResetError):
            if self._complete:
                stdin.write(source)
                await stdin.drain()
            stdin.close()

    def _count(self) -> None:
        if sum(output.total for output in self._outputs) > self._flood_bytes and not self._flooded:
            self._flooded = True
            self._child.kill()


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
