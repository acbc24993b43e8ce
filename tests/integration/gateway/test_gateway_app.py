"""The HTTP side of a coordinator, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from heavy.aggregation.equivalence import Equivalence
from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.errors import ConfigError
from heavy.gateway.app import Gateway
from heavy.profiles.loader import load_profiles
from heavy.store.redis import RedisStore
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.tracing import Tracing
from heavy.testing.runner import ScriptedRunner

TOKEN = "alice-token-0123456789"


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("heavy_test", "A test's counter.", registry=made).inc(3)
    return made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def coordinator(store: RedisStore) -> AsyncIterator[CoordinatorService]:
    settings, book, equivalence = Settings(), load_profiles(), Equivalence()
    yield CoordinatorService(
        Parts(store, ScriptedRunner(store.control, {}), book, equivalence, settings.lease_s),
        PolicyDefaults(book.by_name, ("simulated",), settings, ()),
        settings,
        RunMetrics(CollectorRegistry(), ()),
        Tracing("", "test"),
        "tester",
    )
    await equivalence.close()


async def get(
    http: aiohttp.ClientSession, gateway: Gateway, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    async with http.get(f"http://127.0.0.1:{gateway.port}{path}", headers=headers) as response:
        return response.status, await response.text()


async def test_health_readiness_and_metrics_are_served(
    http: aiohttp.ClientSession, registry: CollectorRegistry, coordinator: CoordinatorService
) -> None:
    ready = False
    gateway = Gateway(Settings(http_port=0), registry, lambda: ready, coordinator)
    await gateway.start()
    await gateway.start()
    try:
        assert (await get(http, gateway, "/healthz"))[0] == 200
        assert (await get(http, gateway, "/readyz"))[0] == 503
        ready = True
        assert (await get(http, gateway, "/readyz"))[0] == 200
        status, text = await get(http, gateway, "/metrics")
        assert (status, "heavy_test_total 3.0" in text) == (200, True)
    finally:
        await gateway.stop()
        await gateway.stop()


async def test_metrics_ask_for_a_token_where_tokens_are_configured(
    http: aiohttp.ClientSession, registry: CollectorRegistry, coordinator: CoordinatorService, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"alice:{TOKEN[::-1]}\nroot:{TOKEN}-root:admin\nprometheus:{TOKEN}:metrics\n")
    gateway = Gateway(Settings(http_port=0, tokens_file=str(path)), registry, lambda: True, coordinator)
    await gateway.start()
    try:
        assert (await get(http, gateway, "/metrics"))[0] == 401
        tenant = await get(http, gateway, "/metrics", {"Authorization": f"Bearer {TOKEN[::-1]}"})
        assert tenant[0] == 403, "what a tenant spends is no other tenant's business"
        assert ":metrics" in tenant[1]
        assert (await get(http, gateway, "/metrics", {"Authorization": f"Bearer {TOKEN}-root"}))[0] == 200
        assert (await get(http, gateway, "/metrics", {"Authorization": "Bearer wrong"}))[0] == 401
        assert (await get(http, gateway, "/metrics", {"Authorization": f"Bearer {TOKEN}"}))[0] == 200
        assert (await get(http, gateway, "/healthz"))[0] == 200
    finally:
        await gateway.stop()


async def test_without_tokens_http_is_served_on_loopback_only(
    registry: CollectorRegistry, coordinator: CoordinatorService
) -> None:
    gateway = Gateway(Settings(host="0.0.0.0", http_port=0), registry, lambda: True, coordinator)
    with pytest.raises(ConfigError, match="HEAVY_TOKENS_FILE"):
        await gateway.start()
    await gateway.stop()


async def test_a_taken_http_port_is_a_config_error(
    registry: CollectorRegistry, coordinator: CoordinatorService
) -> None:
    first = Gateway(Settings(http_port=0), registry, lambda: True, coordinator)
    await first.start()
    try:
        second = Gateway(Settings(http_port=first.port), registry, lambda: True, coordinator)
        with pytest.raises(ConfigError, match="HEAVY_HTTP_PORT"):
            await second.start()
        await second.stop()
    finally:
        await first.stop()
