"""A real Ray head with its job server: asks for its token, and is killed as a node is lost."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Final

from workers.launch import free_port

from tests_support.up import processes_below

READY_WITHIN_S: Final = 150.0
AGENT_PORTS: Final = (
    "ray-client-server-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
TRIES: Final = 3
"""Ray gives its own daemons 30 s, which a busy machine can exceed."""


class RayHead:
    """One head. `environment` is what its clients need; `address` is its job server's."""

    def __init__(self) -> None:
        self.address = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "120",
        }
        self._directory = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until its job server answers."""
        for _ in range(TRIES):
            self._process = subprocess.Popen(
                self._command(),
                env={**os.environ, **self.environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._ready():
                return
            self.kill()
        raise AssertionError(f"Ray's head did not come up; its logs were in {self._directory.name}")

    def kill(self) -> None:
        """End every process of it at once, saying nothing; what it ran ends with it."""
        if self._process is None:
            return
        for pid in processes_below(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _command(self) -> list[str]:
        ray = str(Path(sys.executable).parent / "ray")
        port = self.address.rpartition(":")[2]
        return [
            *(ray, "start", "--head", "--block", "--num-cpus", "2", "--num-gpus", "0", "--port", "0"),
            *("--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--dashboard-port", port),
            *("--object-store-memory", "100000000", "--disable-usage-stats"),
            *("--temp-dir", self._directory.name),
            # Ports that are not given are waited for, each for a time that a busy machine can exceed.
            *(word for name in AGENT_PORTS for word in (f"--{name}", str(free_port()))),
        ]

    def _ready(self) -> bool:
        assert self._process is not None
        until_s = time.monotonic() + READY_WITHIN_S
        token = self.environment["RAY_AUTH_TOKEN"]
        asked = urllib.request.Request(
            f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
        )
        while time.monotonic() < until_s and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5):
                return True
            time.sleep(0.2)
        return False
