"""What sites ask robots to do (RFC 9309), read by protego and kept for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from protego import Protego
from yarl import URL

from heavy.core.clock import monotonic_s
from heavy.tools.web.guard import Refused
from heavy.tools.web.http import Document, FetchFailed, Web

KEPT_S: Final = 3600.0
FAILURE_KEPT_S: Final = 60.0
SITES_MAX: Final = 1_000
BYTES_MAX: Final = 500 << 10
"""RFC 9309 asks that at least this much is read."""
HOPS_MAX: Final = 5
DELAY_MAX_S: Final = 10.0
ASK_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class _Site:
    rules: Protego | None
    """None: the site could not be asked, which counts as a no."""
    until_s: float
    refused: str = ""
    """Why it must not be asked, nor anything else of it."""


class Robots:
    """Asks each site once in a while."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._sites: OrderedDict[str, asyncio.Task[_Site]] = OrderedDict()

    async def delay_s(self, url: URL) -> float:
        """How long the site wants robots to wait between requests.

        Raises `Refused` for what it forbids and where this server does not go, `FetchFailed` where it did not
        answer.
        """
        site = await self._site(url)
        agent = self._web.limits.user_agent
        if site.refused:
            raise Refused(site.refused)
        if site.rules is None:
            raise FetchFailed(
                f"{url.raw_host} did not say what robots may fetch, so nothing of it is fetched now."
            )
        if not site.rules.can_fetch(str(url), agent):
            raise Refused(f"{url.raw_host} asks robots not to fetch {url.raw_path}.")
        return min(site.rules.crawl_delay(agent) or 0.0, DELAY_MAX_S)

    async def close(self) -> None:
        """End what is under way; safe to call twice."""
        for task in self._sites.values():
            task.cancel()
        await asyncio.gather(*self._sites.values(), return_exceptions=True)

    async def _site(self, url: URL) -> _Site:
        origin = str(url.origin())
        task = self._sites.get(origin)
        if task is not None and task.done() and _stale(task):
            task = None
        if task is None:
            task = self._sites[origin] = asyncio.create_task(self._ask(url.origin() / "robots.txt"))
            while len(self._sites) > SITES_MAX:
                self._sites.popitem(last=False)[1].cancel()
        self._sites.move_to_end(origin)
        return await asyncio.shield(task)

    async def _ask(self, url: URL) -> _Site:
        try:
            async with asyncio.timeout(ASK_S):
                text = await self._text(url)
        except FetchFailed as error:
            if error.lasting or 400 <= error.status < 500:
                return _Site(Protego.parse(""), monotonic_s() + KEPT_S)
            return _Site(None, monotonic_s() + FAILURE_KEPT_S)
        except Refused as refusal:
            return _Site(None, monotonic_s() + FAILURE_KEPT_S, str(refusal))
        except TimeoutError:
            return _Site(None, monotonic_s() + FAILURE_KEPT_S)
        return _Site(Protego.parse(text), monotonic_s() + KEPT_S)

    async def _text(self, url: URL) -> str:
        target: Document | URL = url
        for _ in range(HOPS_MAX + 1):
            if isinstance(target, Document):
                return target.body.decode("utf-8", "replace")
            target = await self._web.get(target, bytes_max=BYTES_MAX)
        raise FetchFailed(f"{url} redirects too often.", lasting=True)


def _stale(task: asyncio.Task[_Site]) -> bool:
    """Whether a finished question has to be asked again."""
    return task.cancelled() or task.exception() is not None or task.result().until_s < monotonic_s()
