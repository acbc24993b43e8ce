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
