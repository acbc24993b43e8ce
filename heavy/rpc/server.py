"""The gRPC server: start, ready, drain, stop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from heavy.config import Settings
from heavy.coordinator.api import Coordinator
from heavy.coordinator.fleet import FleetAdmin
from heavy.coordinator.tenants import load_tenants
from heavy.core.errors import ConfigError
from heavy.rpc import cache_servicer, replica_servicer
from heavy.rpc.auth import TenantInterceptor
from heavy.rpc.servicer import HeavyServicer
from heavy.rpc.streams import Streams
from heavy.telemetry.tracing import Tracing
from heavy.tools.cache_admin import CacheAdmin
from heavy.v1 import cache_pb2_grpc, heavy_pb2, heavy_pb2_grpc, replica_pb2_grpc
from heavy.wire.channel import SERVER_OPTIONS

log = logging.getLogger(__name__)

SERVICE: Final[str] = heavy_pb2.DESCRIPTOR.services_by_name["HeavyService"].full_name
STOP_GRACE_S: Final = 5.0
"""How long calls that are not streams may still take once the server stops."""
HEALTH_NOTICE_S: Final = 1.0
"""How long health watchers may take to hear that the server is going down."""


class RpcServer:
    """Serves a coordinator over gRPC, with health and reflection.

    Build it where no loop need run; `start` binds. `drain` lets what is in progress end, `stop` ends it.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        settings: Settings,
        tracing: Tracing | None = None,
        cache: CacheAdmin | None = None,
        fleet: FleetAdmin | None = None,
    ) -> None:
        """Raises `ConfigError` for a tokens file that cannot be used."""
        self._coordinator = coordinator
        self._settings = settings
        self._tenants = load_tenants(settings.tokens_file)
        self._tracing = tracing or Tracing("", settings.service_name)
        self._cache = cache
        self._fleet = fleet
        self._server: Any = None
        self._streams: Streams | None = None
        self._health: Any = None
        self._ready = False
        self._port = 0

    @property
    def ready(self) -> bool:
        """Whether new runs are accepted."""
        return self._ready

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        return self._port

    @property
    def address(self) -> str:
        """host:port to connect to."""
        return _address(self._settings.host, self._port)

    async def start(self) -> None:
        """Bind and serve. Raises `ConfigError` when the address is taken, or open to all without tokens."""
        if self._server is not None:
            return
        self._tenants.require_safe(self._settings.host, "HEAVY_HOST")
        server = grpc.aio.server(
            interceptors=(TenantInterceptor(self._tenants),),
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=self._settings.rpcs_max,
        )
        streams = Streams()
        health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
        heavy_pb2_grpc.add_HeavyServiceServicer_to_server(  # type: ignore[no-untyped-call]
            HeavyServicer(self._coordinator, streams, self._tracing), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(  # type: ignore[no-untyped-call]
            health_servicer, server
        )
        services = [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        if self._cache is not None:
            cache_pb2_grpc.add_CacheServiceServicer_to_server(  # type: ignore[no-untyped-call]
                cache_servicer.CacheServicer(self._cache, self._tracing), server
            )
            services.append(cache_servicer.SERVICE)
        if self._fleet is not None:
            replica_pb2_grpc.add_ReplicaServiceServicer_to_server(  # type: ignore[no-untyped-call]
                replica_servicer.ReplicaServicer(self._fleet, self._tracing), server
            )
            services.append(replica_servicer.SERVICE)
        reflection.enable_server_reflection(services, server)  # type: ignore[no-untyped-call]
        self._port = _bind(server, self._settings)
        await health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        self._server, self._streams, self._health = server, streams, health_servicer
        self._ready = True

    async def drain(self, timeout_s: float) -> None:
        """Refuse new runs, show it in the health service, and wait for open streams, at most `timeout_s`."""
        if self._streams is None:
            return
        await self._refuse_new(self._streams)
        if not await self._streams.wait_idle(timeout_s):
            log.warning("%d streams are still open after %g s of draining", len(self._streams), timeout_s)

    async def stop(self) -> None:
        """End everything: watchers get UNAVAILABLE and may resume elsewhere. Safe to call twice."""
        server, streams, self._server = self._server, self._streams, None
        if server is None or streams is None:
            return
        await self._refuse_new(streams)
        streams.close()
        await server.stop(STOP_GRACE_S)

    async def _refuse_new(self, streams: Streams) -> None:
        self._ready = False
        streams.drain()
        try:
            async with asyncio.timeout(HEALTH_NOTICE_S):
                await self._health.enter_graceful_shutdown()
        except TimeoutError:
            log.warning(
                "a health watcher does not read; it will learn of the shutdown by losing its connection"
            )


def _bind(server: Any, settings: Settings) -> int:
    address = _address(settings.host, settings.port)
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(
            f"Cannot listen on {address}: the port is taken, or the address is not this machine's. "
            "Set HEAVY_HOST or HEAVY_PORT to another."
        ) from error
    return port


def _address(host: str, port: int) -> str:
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
