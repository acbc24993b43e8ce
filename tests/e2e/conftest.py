"""One whole Heavy for all end-to-end tests: the real command, Ray, Valkey, sandbox, gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from heavy.client import HeavyClient

from tests_support.up import Up


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """`heavy up` with two replicas of the brisk simulated engine."""
    running = Up(["brisk"])
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def client(up: Up) -> AsyncIterator[HeavyClient]:
    """A client of it."""
    async with HeavyClient(up.address) as connected:
        yield connected
