"""One real server for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import Running, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server on a free loopback port."""
    with serving() as running:
        yield running


@pytest.fixture
def url(server: Running) -> str:
    """Its base URL."""
    return server.base_url
