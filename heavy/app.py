"""A coordinator process: everything it is made of, put together in one place.

    python -m heavy.app

Reads `HEAVY_*` settings and `RAY_ADDRESS`; serves until SIGTERM or SIGINT, then ends its runs and itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from heavy.aggregation.equivalence import Equivalence
from heavy.aggregation.reflective import TRACE_TOOLS
from heavy.config import Settings
from heavy.coordinator.defaults import PolicyDefaults
from heavy.coordinator.fleet import FleetAdmin
from heavy.coordinator.lookout import Lookout
from heavy.coordinator.run import Parts
from heavy.coordinator.service import CoordinatorService
from heavy.core.errors import ConfigError, HeavyError
from heavy.gateway.app import Gateway
from heavy.profiles.loader import load_profiles
from heavy.rpc.server import RpcServer
from heavy.runner import ray_adapter
from heavy.runner.api import Runner
from heavy.runner.build import cache_secret_of, cache_url_of
from heavy.store.api import Directory
from heavy.store.redis import connect
from heavy.telemetry.fleet import FleetMetrics
from heavy.telemetry.metrics import RunMetrics
from heavy.telemetry.redaction import redact_logs
from heavy.telemetry.tracing import Tracing
from heavy.tools.cache_admin import CacheAdmin
from heavy.tools.config import read_tools
from heavy.tools.redaction import redactor_of

EXIT_FAILED = 1
EXIT_CONFIG = 78

logger = logging.getLogger("heavy")


@asynccontextmanager
async def serving(
    settings: Settings, runners: Callable[[Directory], Runner] = ray_adapter.RayRunners
) -> AsyncIterator[RpcServer]:
    """A coordinator around a block: store, service, gRPC, HTTP; taken down in the opposite order."""
    registry = _registry()
    tracing = Tracing(settings.otlp_endpoint, settings.service_name, redactor_of(settings))
    store = await connect(settings.store_url, settings)
    cache = CacheAdmin(cache_url_of(settings), cache_secret_of(settings))
    equivalence = Equivalence()
    try:
        profiles = load_profiles(settings.profile_directories)
        tools = read_tools(settings.tools_file)
        tool_names = tools.names
        runner = runners(store.directory)
        parts = Parts(store, runner, profiles, equivalence, settings.lease_s)
        policies = PolicyDefaults(
            profiles.by_name,
            settings.served_names or tuple(profiles),
            settings,
            tool_names,
            tools.file_tools,
        )
        owner = f"{socket.gethostname()}:{os.getpid()}"
        metrics = RunMetrics(registry, (*tool_names, *TRACE_TOOLS))
        service = CoordinatorService(parts, policies, settings, metrics, tracing, owner)
        fleet = FleetMetrics(registry, profiles.by_name, settings.served_names)
        lookout = Lookout(store, profiles, fleet, settings.metrics_interval_s)
        rpc = RpcServer(service, settings, tracing, cache, FleetAdmin(store))
        gateway = Gateway(settings, registry, ready=lambda: rpc.ready, coordinator=service)
        try:
            await lookout.start()
            await service.start()
            await rpc.start()
            await gateway.start()
            yield rpc
        finally:
            await service.stop()
            await rpc.stop()
            await gateway.stop()
            await lookout.stop()
    finally:
        await equivalence.close()
        await cache.close()
        await store.close()
        await asyncio.to_thread(tracing.shutdown)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with serving(settings) as rpc:
        logger.info("serving on %s", rpc.address)
        await told.wait()
        logger.info("stopping: runs under way are cancelled")


def main() -> int:
    """The process's entry point; its exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        run(Settings.read())
    except HeavyError as error:
        logger.error("%s", error)
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED
    finally:
        ray_adapter.disconnect()
    return 0


def run(settings: Settings) -> None:
    """Join Ray, then serve. Raises `ConfigError` for what is missing."""
    logging.getLogger().setLevel(settings.log_level)
    redact_logs(redactor_of(settings))
    ray_address = os.environ.get("RAY_ADDRESS")
    if not settings.store_url or not ray_address:
        raise ConfigError(
            "A coordinator needs HEAVY_STORE_URL and RAY_ADDRESS; `heavy up` brings up all of them."
        )
    ray_adapter.connect(ray_address)  # before the loop: Ray takes over signals, and we take them back
    asyncio.run(serve(settings))


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


if __name__ == "__main__":
    sys.exit(main())
