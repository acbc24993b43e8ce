"""Real parts for the tools' tests: a Valkey of one's own, and a sandbox that is tried once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from heavy.store.embedded import EmbeddedValkey


class CacheProcess:
    """A Valkey process that a test may freeze and kill."""

    def __init__(self, server: EmbeddedValkey, url: str) -> None:
        self.server = server
        self.url = url

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        os.kill(self.server.pid, number)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[CacheProcess]:
    """A cache server for one test."""
    server = EmbeddedValkey(tmp_path / "valkey", role="cache", memory_mb=64)
    process = CacheProcess(server, server.start())
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, AssertionError):
            process.signal(signal.SIGCONT)
        server.stop()
