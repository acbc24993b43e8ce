"""What a coordinator answers over HTTP: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from heavy.config import Settings
from heavy.coordinator.tenants import Tenants, load_tenants
from heavy.core.errors import ConfigError, Unauthenticated

READY: Final = web.AppKey("ready", Callable[[], bool])
REGISTRY: Final = web.AppKey("registry", CollectorRegistry)
TENANTS: Final = web.AppKey("tenants", Tenants)
STOP_GRACE_S: Final = 3.0


class Gateway:
    """The HTTP server of a coordinator process. `/healthz` and `/readyz` are open; `/metrics` asks for a
    token where tokens are configured, because its labels name tenants.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        """Raises `ConfigError` for a tokens file that cannot be used."""
        self._settings = settings
        self._tenants = load_tenants(settings.tokens_file)
        self._registry = registry
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        return self._port

    async def start(self) -> None:
        """Bind and serve. Raises `ConfigError` when the address is taken, or open to all without tokens."""
        if self._runner is not None:
            return
        host, port = self._settings.host, self._settings.http_port
        self._tenants.require_safe(host, "HEAVY_HOST")
        runner = web.AppRunner(
            make_app(self._registry, self._ready, self._tenants),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_GRACE_S,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host.strip("[]"), port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                f"Cannot listen on {host} port {port} for HTTP: {error.strerror}. Set HEAVY_HTTP_PORT to another."
            ) from error
        self._runner, self._port = runner, runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop serving. Safe to call twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


def make_app(registry: CollectorRegistry, ready: Callable[[], bool], tenants: Tenants) -> web.Application:
    """The application behind a `Gateway`."""
    app = web.Application()
    app[READY], app[REGISTRY], app[TENANTS] = ready, registry, tenants
    app.add_routes(
        [web.get("/healthz", _healthz), web.get("/readyz", _readyz), web.get("/metrics", _metrics)]
    )
    return app


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    ready = request.app[READY]()
    return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)


async def _metrics(request: web.Request) -> web.Response:
    try:
        request.app[TENANTS].identify(request.headers.getall("Authorization", []))
    except Unauthenticated as error:
        return web.Response(
            text=f"{error}\n", status=401, headers={"WWW-Authenticate": 'Bearer realm="heavy"'}
        )
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(request.app[REGISTRY]), headers={"Content-Type": content_type})
