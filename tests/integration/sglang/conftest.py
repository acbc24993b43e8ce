"""One real server for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import LIMITS, Running, serving
from tests_support.otlp import TraceReceiver


@pytest.fixture(scope="session")
def receiver() -> Iterator[TraceReceiver]:
    """Where the server's spans go."""
    receiver = TraceReceiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="session")
def server(receiver: TraceReceiver) -> Iterator[Running]:
    """A server on a free loopback port."""
    flags = ["--max-running-requests", str(LIMITS["running"]), "--max-queued-requests", str(LIMITS["queued"])]
    flags += ["--load-snapshot-publish-interval", "1"]
    with serving(*flags, traces=receiver.endpoint) as server:
        yield server


@pytest.fixture
def url(server: Running) -> str:
    """Its base URL."""
    return server.base_url
