"""Ports of engines on one host: leased, so that two replicas never choose the same one.

A port that was free when it was looked at may be taken when the engine binds it, minutes later. So whoever
chooses one holds a lock on a file named after it for as long as its engine may run; the lock is the kernel's
and ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from heavy.core.errors import ConfigError

FIRST, LAST = 20_000, 31_999
"""Below the ports that systems hand out by themselves (32768 and up on Linux)."""
ATTEMPTS: Final = 200

HTTP_OFFSETS: Final = (0, 233, 234, 235, 236, 237)
"""SGLang binds its port, and for the processes behind it some from 233 above (its `ZMQ_TCP_PORT_DELTA`)."""
RENDEZVOUS_OFFSETS: Final = tuple(range(8))
"""Where the ranks of a gang meet, and the ports next to it that SGLang derives from it."""


class PortLease:
    """A port and those at given distances from it, ours until `release`, or until this process ends."""

    def __init__(self, port: int, locks: list[int]) -> None:
        self.port = port
        self._locks = locks

    @classmethod
    def take(cls, host: str, offsets: Iterable[int] = (0,), directory: Path | None = None) -> PortLease:
        """Lease ports that nobody listens on and nobody else has leased. Raises `ConfigError`."""
        home = directory or Path(tempfile.gettempdir()) / f"heavy-ports-{os.getuid()}"
        try:
            return cls._search(host, tuple(offsets), home)
        except OSError as error:
            raise ConfigError(
                f"Ports are leased by lock files in {home}, which cannot be written ({error.strerror}):"
                " make room there, or set TMPDIR to a directory that has some."
            ) from error

    @classmethod
    def _search(cls, host: str, distances: tuple[int, ...], home: Path) -> PortLease:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            port = random.randint(FIRST, LAST - max(distances))
            locks = _lock([home / str(port + distance) for distance in distances])
            if locks and all(_is_free(host, port + distance) for distance in distances):
                return cls(port, locks)
            _unlock(locks)
        raise ConfigError(
            f"No free ports were found on {host} from {FIRST} to {LAST}; is something holding all of them?"
        )

    def release(self) -> None:
        """Let others have them. Safe to call twice."""
        locks, self._locks = self._locks, []
        _unlock(locks)


def _lock(files: list[Path]) -> list[int]:
    """Locks on all the files, or none."""
    locks: list[int] = []
    for file in files:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        locks.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _unlock(locks)
            return []
    return locks


def _unlock(locks: list[int]) -> None:
    for lock in locks:
        os.close(lock)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
