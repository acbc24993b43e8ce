"""What a coordinator answers over HTTP: whether it lives and is ready, its metrics, the API, the web page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from heavy.config import Settings
from heavy.coordinator.api import Coordinator
from heavy.coordinator.tenants import load_tenants
from heavy.core.errors import ConfigError, Unauthenticated
from heavy.gateway.api import Api
from heavy.gateway.assets import Page, add_headers
from heavy.gateway.callers import Callers, Handler
from heavy.gateway.problems import told_as_json
from heavy.gateway.requests import BODY_BYTES_MAX

STOP_GRACE_S: Final = 3.0
NOT_FOR_TENANTS: Final = (
    "Metrics tell of all tenants: use a token whose line ends in `:metrics` or `:admin`.\n"
)


class Gateway:
    """The HTTP server of a coordinator process. `/healthz`, `/readyz` and the page's own files are open;
    the API asks for a token where tokens are configured. `/metrics` then wants an administrator's, or one
    that may read metrics: its labels name every tenant.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        coordinator: Coordinator,
    ) -> None:
        """Raises `ConfigError` for a tokens file that cannot be used."""
        self._settings = settings
        self._tenants = load_tenants(settings.tokens_file)
        self._registry = registry
        self._ready = ready
        self._api = Api(coordinator, Callers(self._tenants))
        self._page = Page()
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
            self._app(),
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
                f"Cannot listen on {host} port {port} for HTTP: {error.strerror}. "
                "Set HEAVY_HTTP_PORT to another."
            ) from error
        self._runner, self._port = runner, runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop serving. Safe to call twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await self._api.streams.close()
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[told_as_json], client_max_size=BODY_BYTES_MAX)
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._guarded(make_aiohttp_handler(self._registry))),
                *self._api.routes(),
                *self._page.routes(),
            ]
        )
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ready\n" if ready else "not ready\n", status=200 if ready else 503)

    def _guarded(self, handler: Handler) -> Handler:
        """The handler, for callers who may read metrics (or for everybody where no token is configured)."""

        async def guard(request: web.Request) -> web.StreamResponse:
            try:
                caller = self._tenants.identify(request.headers.getall("Authorization", []))
            except Unauthenticated as error:
                challenge = {"WWW-Authenticate": 'Bearer realm="heavy"'}
                return web.Response(text=f"{error}\n", status=401, headers=challenge)
            if not (caller.admin or caller.metrics):
                return web.Response(text=NOT_FOR_TENANTS, status=403)
            return await handler(request)

        return guard
