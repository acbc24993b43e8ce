"""Who calls over HTTP, and whether a browser was made to call by somebody else's page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from heavy.coordinator.tenants import Caller, Tenants, is_loopback
from heavy.core.errors import Forbidden

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON: Final = "application/json"


class Callers:
    """Identifies callers as the gRPC service does: by bearer token alone.

    Nothing that a browser sends by itself (a cookie) is ever a credential, so another site's page cannot act
    for a person who is signed in here. Where no tokens are configured, reaching the server is enough: then
    requests must name a loopback host, so that a page whose name was pointed at 127.0.0.1 gets nothing.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    @property
    def open(self) -> bool:
        """Whether no token is asked for."""
        return self._tenants.open

    def identify(self, request: web.Request) -> Caller:
        """The caller. Raises `Unauthenticated`; `Forbidden` for what another site's page sent."""
        self.refuse_strangers(request)
        return self._tenants.identify(request.headers.getall("Authorization", []))

    def require_admin(self, request: web.Request) -> Caller:
        """The caller, who administers. Raises `Forbidden` for others."""
        caller = self.identify(request)
        if not caller.admin:
            raise Forbidden("This is for administrators: use a token whose line ends in `:admin`.")
        return caller

    def refuse_strangers(self, request: web.Request) -> None:
        """Raises `Forbidden` for a request that a browser sent on behalf of another origin."""
        if _foreign(request):
            raise Forbidden("Pages of other origins may not call this server.")
        if self.open and not is_loopback(_name(request.host)):
            raise Forbidden(
                "No tokens are configured, so only loopback names are served, and"
                f" {request.host!r:.80} is none: use http://127.0.0.1, or configure HEAVY_TOKENS_FILE."
            )
        if request.method == "POST" and request.content_type != JSON:
            raise Forbidden(f"Send a body of type {JSON}; forms are not taken.")


def _foreign(request: web.Request) -> bool:
    """Whether a browser says that another origin's page is behind the request.

    Fetch metadata is asked first: it is right behind a proxy that changes `Host`, too. Browsers leave it out
    where the address is neither https nor this machine's.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc != request.host


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return urlsplit(f"//{host}").hostname or ""
