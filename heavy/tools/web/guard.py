"""What may be visited: URLs checked before anything is resolved, addresses checked before anything connects.

The connection goes to the very address that was checked, so a name that changes its mind in between gains
nothing. Redirects are followed by hand, each hop through here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from heavy.tools.web.addresses import why_refused

URL_CHARS_MAX: Final = 4_000
_NUMBER: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.ASCII)
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+", re.ASCII | re.IGNORECASE)
_DOTTED: Final = re.compile(r"(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}", re.ASCII)
_LOCAL_SUFFIXES: Final = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "localdomain")


class Refused(Exception):
    """A URL or an address that is not visited. The message is for the model."""


class AddressRefused(OSError):
    """A name that leads to an address that is not visited. An OSError, as resolvers raise."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator lets be visited. `allow_private`: `host:port` that may be anywhere."""

    ports: Collection[int] = (80, 443)
    block_hosts: Collection[str] = ()
    allow_private: Collection[str] = field(default_factory=frozenset)

    def blocked(self, host: str) -> bool:
        """Whether the host, or one above it, is on the block-list."""
        labels = host.lower().rstrip(".").split(".")
        return any(".".join(labels[start:]) in self.block_hosts for start in range(len(labels)))

    def private(self, host: str, port: int | None) -> bool:
        """Whether the operator allows this very server whatever its address."""
        return f"{host.lower()}:{port}" in self.allow_private

    def check(self, text: str) -> URL:
        """The URL in `text`, where it may be visited. Raises `Refused`."""
        if len(text) > URL_CHARS_MAX:
            raise Refused(f"The URL is longer than {URL_CHARS_MAX} characters.")
        try:
            url = URL(text.strip())
            host, port = (url.raw_host or "").rstrip("."), url.port
        except ValueError as error:
            raise Refused(f"This is not a URL: {error}.") from error
        if url.scheme not in ("http", "https"):
            raise Refused(f"Only http and https can be fetched, not {url.scheme or 'a URL without scheme'}.")
        if not host:
            raise Refused("The URL names no host.")
        if url.user is not None or url.password is not None:
            raise Refused("URLs with a user name or password are not fetched.")
        if not _HOST.fullmatch(host):
            raise Refused(f"{host!r:.100} is not a host name.")
        if self.blocked(host):
            raise Refused(f"The operator of this server blocks {host}.")
        if self.private(host, port):
            return url.with_fragment(None)
        if port not in self.ports:
            raise Refused(f"Port {port} is not fetched; only {', '.join(map(str, self.ports))}.")
        self._check_host(host)
        if host != url.raw_host:
            url = url.with_host(host)  # a last dot would hide it from servers and from the block-list
        return url.with_fragment(None)

    def _check_host(self, host: str) -> None:
        """Refuse addresses that are not public, in any spelling, and names that only local networks have."""
        if ":" in host or _DOTTED.fullmatch(host):
            if why := why_refused(host):
                raise Refused(f"The address {host} is not a public server: it is {why}.")
            return
        if _NUMBER.fullmatch(host.lower().rsplit(".", 1)[-1]):
            raise Refused(f"{host} is neither a host name nor an address in its usual form.")
        if "." not in host or any(host.lower().endswith("." + suffix) for suffix in _LOCAL_SUFFIXES):
            raise Refused(f"{host} is a name of a local network, not of a public server.")


class CheckedResolver(AbstractResolver):
    """Resolves names, and refuses those that lead anywhere but to public servers.

    One address that is not public spoils a name: honest public names have none.
    """

    def __init__(self, rules: Rules, inner: AbstractResolver | None = None) -> None:
        self._rules = rules
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses to connect to. Raises `AddressRefused`."""
        found = await self._inner.resolve(host, port, family)
        if self._rules.private(host, port):
            return found
        for result in found:
            if why := why_refused(result["host"]):
                raise AddressRefused(f"{host} leads to {result['host']}, no public server: it is {why}")
        return found

    async def close(self) -> None:
        """Close what resolves."""
        await self._inner.close()
