"""The store's suite runs against both servers it promises to work on."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heavy.config import Settings
from heavy.store.redis import RedisStore, connect

from tests_support.servers import BINARIES, StoreServer


@pytest.fixture(scope="session", params=sorted(BINARIES))
def either_server(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """Each of the two servers, started once."""
    with tempfile.TemporaryDirectory(prefix="heavy-test-") as directory:
        server = StoreServer(request.param, Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def store_server(either_server: StoreServer) -> StoreServer:
    """Each of the two servers, empty."""
    either_server.flush()
    return either_server


@pytest.fixture(params=sorted(BINARIES))
def own_server(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """Each of the two servers, for a test that mistreats it."""
    with tempfile.TemporaryDirectory(prefix="heavy-test-") as directory:
        server = StoreServer(request.param, Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def own_store(own_server: StoreServer, store_settings: Settings) -> AsyncIterator[RedisStore]:
    """A store on the server that is about to be mistreated."""
    connected = await connect(own_server.url, store_settings)
    yield connected
    await connected.close()
