"""Starts an engine so that nothing of it outlives the process that wanted it.

    python -m workers.guard COMMAND [ARGUMENT ...]

The guard asks the kernel to be told when its own parent dies, runs the command in a session of its own,
passes SIGTERM and SIGINT on as SIGTERM, and kills the whole session when either side is gone. Should it be
killed itself (Ray kills the children of a process that it ends), the kernel ends the command with it.
It uses the standard library only: it starts in a few hundredths of a second and holds a few megabytes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1
TERM_GRACE_S = 15.0


def die_with_parent(sig: int) -> None:
    """Have the kernel send this process `sig` when its parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0)


def run(command: list[str]) -> int:
    """Run `command` guarded; its exit status, 128 + signal where it was killed."""
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    # Safe between fork and exec here: this process has one thread.
    child = subprocess.Popen(
        command, start_new_session=True, preexec_fn=lambda: die_with_parent(signal.SIGKILL)
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM)  # to it alone: SGLang takes a child's end for a crash
        signal.setitimer(signal.ITIMER_REAL, TERM_GRACE_S)

    def kill(_signal: int, _frame: FrameType | None) -> None:
        _signal_session(child.pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGALRM, kill)
    if os.getppid() != parent:
        stop(signal.SIGTERM, None)
    try:
        status = child.wait()
    finally:
        _signal_session(child.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _signal_session(leader: int, sig: int) -> None:
    try:
        os.killpg(leader, sig)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m workers.guard COMMAND [ARGUMENT ...]")
    sys.exit(run(sys.argv[1:]))
