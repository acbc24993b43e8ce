"""Engine servers as processes of their own, started as they are in production: by their command line."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
READY_S = 60.0
STOP_S = 15.0


@contextmanager
def server(module: str, *flags: str) -> Iterator[str]:
    """An engine server as a process of its own; yields its base URL."""
    command = [sys.executable, "-m", module, "--port", "0", "--die-with-parent", "--drain-s", "2", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(READY_S), f"{module} is not ready within {READY_S} s"
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        yield f"http://{ready['host']}:{ready['port']}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
