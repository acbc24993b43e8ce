"""The `web_search` tool: one provider's results, asked with patience and read with care."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from yarl import URL

from heavy.core.clock import monotonic_s
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.tools.web.guard import Rules
from heavy.tools.web.providers import PROVIDERS, Query, Request, Result

REVISION: Final = 1
ANSWER_BYTES_MAX: Final = 4 << 20
BACKOFF_S: Final = 1.0
RETRY_AFTER_MAX_S: Final = 20.0
PAGES_MAX: Final = 10


class SearchFailed(Exception):
    """The provider did not answer as it should. `retry_after_s`: when to ask again; None: never."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WebSearchTool:
    """Searches for `{"query": str}`. Results on blocked hosts are left out."""

    def __init__(
        self,
        provider: str,
        rules: Rules,
        *,
        url: str,
        key: str,
        results_max: int,
        tries_max: int,
        at_once_max: int,
        timeout_s: float,
    ) -> None:
        self._name = provider
        self._provider = PROVIDERS[provider]
        self._url = (url or self._provider.url).rstrip("/")
        self._key = key
        self._rules = rules
        self._results_max = results_max
        self._tries_max = tries_max
        self._spec = _spec(provider, results_max, self._provider.paged, timeout_s)
        self._slots = asyncio.Semaphore(at_once_max)
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=timeout_s)
        )

    @property
    def spec(self) -> ToolSpec:
        """What it declares."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Titles, addresses and snippets, numbered. Provider failures are error outputs, never kept."""
        query = Query(
            str(arguments["query"]),
            min(int(arguments.get("results", self._results_max)), self._results_max),
            int(arguments.get("page", 1)),
            tuple(self._rules.block_hosts),
        )
        deadline_s = monotonic_s() + context.timeout_s
        try:
            async with self._slots:
                answer = await self._answer(query, deadline_s)
            results = self._results(answer, query.count)
        except SearchFailed as failure:
            return ToolOutput(f"The search failed: {failure}", is_error=True, deterministic=False)
        return ToolOutput(_shown(query, results), meta={"source": f"web search ({self._name})"})

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._session.close()

    async def _answer(self, query: Query, deadline_s: float) -> Any:
        """The provider's answer, asked for again where it says that it may come. Raises `SearchFailed`."""
        request = self._provider.ask(self._url, self._key, query)
        for attempt in range(1, self._tries_max + 1):
            try:
                return await self._once(request)
            except SearchFailed as failure:
                if failure.retry_after_s is None or attempt == self._tries_max:
                    raise
                pause_s = min(failure.retry_after_s * attempt, RETRY_AFTER_MAX_S)
                if monotonic_s() + pause_s >= deadline_s:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(self, request: Request) -> Any:
        method = "GET" if request.json is None else "POST"
        try:
            async with self._session.request(
                method,
                request.url,
                headers=request.headers,
                params=request.params,
                json=request.json,
                allow_redirects=False,
            ) as response:
                if response.status != 200:
                    raise _refusal(self._name, response)
                return json.loads(await _read(response))
        except (aiohttp.ClientError, OSError) as error:
            said = f"{self._name} cannot be reached: {type(error).__name__}"
            raise SearchFailed(said, BACKOFF_S) from error
        except (ValueError, RecursionError) as error:
            raise SearchFailed(f"{self._name} answered with what is not JSON") from error

    def _results(self, answer: Any, count: int) -> list[Result]:
        try:
            found = list(self._provider.read(answer))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SearchFailed(f"{self._name} answered in a form that is not known") from error
        return [result for result in found if self._allowed(result.url)][:count]

    def _allowed(self, url: str) -> bool:
        try:
            parsed = URL(url)
        except ValueError:
            return False
        return parsed.scheme in ("http", "https") and not self._rules.blocked(parsed.raw_host or "")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise SearchFailed("the provider's answer is too long")
    return bytes(body)


def _refusal(name: str, response: aiohttp.ClientResponse) -> SearchFailed:
    """What a status means for whoever reads the log or the transcript; never what the body says."""
    status = response.status
    if status in (401, 403):
        hint = "; enable its json format" if name == "searxng" else "; the operator has to check its key"
        return SearchFailed(f"{name} refused ({status}){hint}")
    if status == 429 or status >= 500:
        after = response.headers.get("Retry-After", "")
        return SearchFailed(f"{name} is busy ({status})", float(after) if after.isdigit() else BACKOFF_S)
    return SearchFailed(f"{name} did not accept the query ({status})")


def _shown(query: Query, results: list[Result]) -> str:
    if not results:
        return f"Nothing was found for {query.text!r}."
    parts = []
    for number, result in enumerate(results, start=1 + (query.page - 1) * query.count):
        date = f" ({result.date})" if result.date else ""
        parts.append(f"{number}. {result.title or '(no title)'}{date}\n   {result.url}\n   {result.snippet}")
    return "\n".join(part.rstrip() for part in parts)


def _spec(provider: str, results_max: int, paged: bool, timeout_s: float) -> ToolSpec:
    properties: dict[str, Any] = {
        "query": {"type": "string", "minLength": 1, "maxLength": 2_000, "description": "What to look for."},
        "results": {"type": "integer", "minimum": 1, "maximum": results_max},
    }
    if paged:
        properties["page"] = {"type": "integer", "minimum": 1, "maximum": PAGES_MAX, "description": "From 1."}
    return ToolSpec(
        name="web_search",
        description=(
            f"Search the web: up to {results_max} results with title, address and snippet. web_fetch, where "
            "there is one, reads them."
        ),
        parameters={
            "type": "object",
            "properties": properties,
            "required": ["query"],
            "additionalProperties": False,
        },
        version=f"{REVISION}-{provider}",
        effects=Effects.READ,
        cacheable=True,
        timeout_s=timeout_s,
        untrusted=True,
    )
