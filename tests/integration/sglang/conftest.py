"""One real server for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import LIMITS, Running, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server on a free loopback port."""
    flags = ["--max-running-requests", str(LIMITS["running"]), "--max-queued-requests", str(LIMITS["queued"])]
    with serving(*flags, "--load-snapshot-publish-interval", "1") as server:
        yield server


@pytest.fixture
def url(server: Running) -> str:
    """Its base URL."""
    return server.base_url
