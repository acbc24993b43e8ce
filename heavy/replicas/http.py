"""HTTP to model servers: one session per process, where an endpoint is, and stops that are seen through."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from heavy.core.errors import ConfigError
from heavy.profiles.schema import Profile, RequestSection
from heavy.replicas.openai_json import Dialect
from heavy.replicas.translate import Speaker

CONNECT_S: Final = 5.0
KEEP_ALIVE_S: Final = 3.0
"""Below uvicorn's 5 s: a connection that the server is about to close is not used again."""
STOP_S: Final = 2.0
"""How long telling an engine to stop may take."""
STOP_WAIT_S: Final = 0.5
"""How long that is waited for: an engine that is hung holds nobody up who could go on elsewhere."""
VERSION_PATH: Final = "/v1"

_TRACEPARENT: Final = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: `base_url` ends with its version path; `model` is the name that requests carry."""

    replica: str
    base_url: str
    model: str
    dialect: Dialect
    api_key_env: str = ""
    request: RequestSection = field(default_factory=RequestSection)
    """How its requests differ from what OpenAI's API says."""

    @classmethod
    def of(cls, replica: str, base_url: str, profile: Profile, model: str = "") -> Endpoint:
        """The endpoint of a replica of `profile`. A bare host gets `/v1` appended."""
        trimmed = base_url.rstrip("/")
        if "/" not in trimmed.partition("://")[2]:
            trimmed += VERSION_PATH
        remote = profile.remote if profile.engine == "remote" else None
        return cls(
            replica=replica,
            base_url=trimmed,
            model=model or profile.model,
            dialect=remote.dialect if remote else "sglang",
            api_key_env=remote.api_key_env if remote else "",
            request=profile.request,
        )

    def url(self, path: str) -> str:
        """A path below the version path, such as `/chat/completions`."""
        return self.base_url + path

    def root_url(self, path: str) -> str:
        """A path beside the version path, such as `/health`."""
        return self.base_url.removesuffix(VERSION_PATH) + path

    def speaker(self) -> Speaker:
        """Who speaks, for errors. Raises `ConfigError` when the key's variable is not set."""
        return Speaker(self.replica, self._api_key(), self.api_key_env)

    def headers(self, *, request_id: str = "", traceparent: str = "") -> dict[str, str]:
        """Request headers, the key among them."""
        headers = {"Content-Type": "application/json"}
        if key := self._api_key():
            headers["Authorization"] = f"Bearer {key}"
        if request_id and self.dialect == "sglang":
            headers["x-override-rid"] = request_id
        if _TRACEPARENT.match(traceparent):
            headers["traceparent"] = traceparent
        return headers

    def _api_key(self) -> str:
        if not self.api_key_env:
            return ""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"Replica {self.replica} needs an API key: set the environment variable {self.api_key_env}."
            )
        return key


class HttpPool:
    """The process's one HTTP session and the stop requests under way. Close it last.

    `streams_max` is how many generations this process may have under way: each has one connection, and
    one more for a stop, so that a stop never waits for a connection.
    """

    def __init__(self, streams_max: int) -> None:
        self._connections_max = 2 * streams_max + 16
        self._session: aiohttp.ClientSession | None = None
        self._stops: set[asyncio.Task[Any]] = set()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, opened at first use (it belongs to the running loop)."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections_max, keepalive_timeout=KEEP_ALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def see_through(self, stop: Coroutine[Any, Any, None]) -> None:
        """Run a stop request to its end or its bound, `STOP_S`, even when the caller is cancelled.

        It is waited for at most `STOP_WAIT_S`, and a cancel while waiting is raised at once; the stop goes
        on, and `close` waits for it.
        """
        task = asyncio.create_task(_bounded(stop))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)
        await asyncio.wait({task}, timeout=STOP_WAIT_S)

    async def close(self) -> None:
        """Wait for stops under way, then close every connection. Idempotent."""
        if self._stops:
            await asyncio.wait(self._stops)
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _bounded(stop: Coroutine[Any, Any, None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await stop
