"""The run store on Redis 7 or Valkey: `connect` is the way in."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from heavy.config import Settings
from heavy.core.errors import ConfigError
from heavy.store.budgets import RedisBudgets
from heavy.store.control import RedisControl
from heavy.store.directory import RedisDirectory
from heavy.store.exchange import RedisExchange
from heavy.store.files import RedisFiles
from heavy.store.fleet import RedisFleet
from heavy.store.hints import Hints
from heavy.store.leases import RedisLeases
from heavy.store.link import WATCHERS_MAX, Link
from heavy.store.log import RedisRunLog
from heavy.store.reservations import RedisReservations

VERSION_MIN = 7


class RedisStore:
    """Implements `heavy.store.api.Store` over one link to one server. Belongs to one event loop."""

    def __init__(self, link: Link, retention_s: float, files_bytes_max: int) -> None:
        self._link = link
        self.log = RedisRunLog(link, retention_s)
        self.leases = RedisLeases(link)
        self.budgets = RedisBudgets(link)
        self._hints = Hints(link)
        self.control = RedisControl(link, self._hints)
        self.exchange = RedisExchange(link, self._hints)
        self.reservations = RedisReservations(link, self._hints)
        self.directory = RedisDirectory(link)
        self.fleet = RedisFleet(link)
        self.files = RedisFiles(link, files_bytes_max)

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when the server does not answer."""

        async def ping(client: Any) -> None:
            await client.ping()

        await self._link.call("answer a ping", ping)

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        await self._hints.close()
        await self._link.close()


async def connect(url: str, settings: Settings, *, watchers_max: int = WATCHERS_MAX) -> RedisStore:
    """A store on the server at `url` (redis://, rediss:// or unix://), once it has answered.

    Raises `StoreUnavailable` when it does not within `settings.store_timeout_s`, and `ConfigError` for a URL
    that cannot be read, wrong credentials, a server older than Redis 7, and one that may evict runs.
    """
    link = Link(url, timeout_s=settings.store_timeout_s, watchers_max=watchers_max)
    try:
        await _check_version(link)
        await _check_eviction(link)
    except BaseException:
        await link.close()
        raise
    return RedisStore(link, settings.retention_s, settings.run_files_bytes_max)


async def _check_version(link: Link) -> None:
    async def read(client: Any) -> str:
        return str((await client.info("server"))["redis_version"])

    version = await link.call("tell its version", read)
    if int(version.partition(".")[0]) < VERSION_MIN:
        raise ConfigError(f"The store at {link.server} is Redis {version}; Heavy needs Redis 7 or Valkey.")


async def _check_eviction(link: Link) -> None:
    """A server that evicts would lose runs in silence. One that does not say is trusted."""

    async def read(client: Any) -> str:
        try:
            found: dict[str, str] = await client.config_get("maxmemory-policy")
        except ResponseError:  # many hosted servers do not permit CONFIG
            return "noeviction"
        return found.get("maxmemory-policy", "noeviction")

    policy = await link.call("tell its eviction policy", read)
    if policy != "noeviction":
        raise ConfigError(
            f"The store at {link.server} evicts ({policy}) and would lose runs:"
            " set maxmemory-policy to noeviction there, or give HEAVY_STORE_URL a server of its own."
        )
