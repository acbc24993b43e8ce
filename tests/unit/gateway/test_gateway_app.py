"""The HTTP side of a coordinator, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from heavy.config import Settings
from heavy.core.errors import ConfigError
from heavy.gateway.app import Gateway

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


async def get(
    http: aiohttp.ClientSession, gateway: Gateway, path: str, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    async with http.get(f"http://127.0.0.1:{gateway.port}{path}", headers=headers) as response:
        return response.status, await response.text()


async def test_health_readiness_and_metrics_are_served(
    http: aiohttp.ClientSession, registry: CollectorRegistry
) -> None:
    ready = False
    gateway = Gateway(Settings(http_port=0), registry, lambda: ready)
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
    http: aiohttp.ClientSession, registry: CollectorRegistry, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"alice:{TOKEN}\n")
    gateway = Gateway(Settings(http_port=0, tokens_file=str(path)), registry, lambda: True)
    await gateway.start()
    try:
        assert (await get(http, gateway, "/metrics"))[0] == 401
        assert (await get(http, gateway, "/metrics", {"Authorization": "Bearer wrong"}))[0] == 401
        assert (await get(http, gateway, "/metrics", {"Authorization": f"Bearer {TOKEN}"}))[0] == 200
        assert (await get(http, gateway, "/healthz"))[0] == 200
    finally:
        await gateway.stop()


async def test_without_tokens_http_is_served_on_loopback_only(registry: CollectorRegistry) -> None:
    gateway = Gateway(Settings(host="0.0.0.0", http_port=0), registry, lambda: True)
    with pytest.raises(ConfigError, match="HEAVY_TOKENS_FILE"):
        await gateway.start()
    await gateway.stop()


async def test_a_taken_http_port_is_a_config_error(registry: CollectorRegistry) -> None:
    first = Gateway(Settings(http_port=0), registry, lambda: True)
    await first.start()
    try:
        second = Gateway(Settings(http_port=first.port), registry, lambda: True)
        with pytest.raises(ConfigError, match="HEAVY_HTTP_PORT"):
            await second.start()
        await second.stop()
    finally:
        await first.stop()
