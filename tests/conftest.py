"""Fixtures for every test: a real store server for the session, a clean store for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest

from heavy.config import Settings
from heavy.store.redis import RedisStore, connect

from tests_support.servers import StoreServer

# A machine may be slow and busy: no example is a failure for the time it takes.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


ROOT = Path(__file__).parent
SHARED = {
    "integration/boards": "browsers and boards",
    "integration/gateway": "browsers and boards",
    "integration/sglang": "sglang",
    "integration/engines": "engines",
    "integration/fleet": "ray",
    "integration/runner": "ray",
}
"""Folders whose tests share a started server, or must not run beside each other: each group in one worker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several workers run the tests, whole groups go to one of them; else a group is a file."""
    for item in items:
        path = item.path.relative_to(ROOT)
        group = SHARED.get(path.parent.as_posix(), path.as_posix())
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests have recorded (`record_property("figure", ...)`), whoever ran them."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    figures = [
        f"{report.nodeid}: {value}"
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "figure" and report.when == "call"
    ]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[StoreServer]:
    """The wheel's Valkey, started once."""
    with tempfile.TemporaryDirectory(prefix="heavy-test-") as directory:
        server = StoreServer("valkey", Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def store_server(valkey_server: StoreServer) -> StoreServer:
    """A server that is empty when the test begins."""
    valkey_server.flush()
    return valkey_server


@pytest.fixture
def store_url(store_server: StoreServer) -> str:
    """The URL of an empty store."""
    return store_server.url


@pytest.fixture
def store_settings() -> Settings:
    """Settings under which a store that fails, fails soon."""
    return Settings(store_timeout_s=2.0, retention_s=600.0)


@pytest.fixture
async def store(store_url: str, store_settings: Settings) -> AsyncIterator[RedisStore]:
    """An empty store, connected."""
    connected = await connect(store_url, store_settings)
    yield connected
    await connected.close()
