"""What differs between search providers: how each is asked, and where in its answer the results are.

APIs as documented by docs.searxng.org/dev/search_api, docs.tavily.com, api-dashboard.search.brave.com,
exa.ai/docs/reference/search and serper.dev (November 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

TITLE_CHARS_MAX: Final = 300
SNIPPET_CHARS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: `count` results of page `page` (from 1), none of `excluded` hosts."""

    text: str
    count: int
    page: int = 1
    excluded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request: query parameters of a GET, or the JSON body of a POST."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] | None = None
    json: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One result, in plain text."""

    title: str
    url: str
    snippet: str
    date: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """A kind of search engine. `paged`: whether it has more pages than the first."""

    url: str
    ask: Callable[[str, str, Query], Request]
    """From address, key and query to a request."""
    read: Callable[[Any], Iterable[Result]]
    """From a parsed answer to results. May raise anything for an answer of another shape."""
    paged: bool = True


def _searxng(url: str, key: str, query: Query) -> Request:
    params = {"q": query.text, "format": "json", "pageno": str(query.page)}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return Request(f"{url}/search", headers, params=params)


def _read_searxng(answer: Any) -> Iterable[Result]:
    for one in answer["results"]:
        yield _result(one, snippet="content", date="publishedDate")


def _tavily(url: str, key: str, query: Query) -> Request:
    body = {"query": query.text, "max_results": query.count, "exclude_domains": list(query.excluded)}
    return Request(f"{url}/search", {"Authorization": f"Bearer {key}"}, json=body)


def _read_tavily(answer: Any) -> Iterable[Result]:
    for one in answer["results"]:
        yield _result(one, snippet="content", date="published_date")


def _brave(url: str, key: str, query: Query) -> Request:
    params = {"q": query.text[:400], "count": str(query.count), "offset": str(query.page - 1)}
    headers = {"X-Subscription-Token": key, "Accept": "application/json"}
    return Request(f"{url}/res/v1/web/search", headers, params=params)


def _read_brave(answer: Any) -> Iterable[Result]:
    for one in (answer.get("web") or {}).get("results", ()):  # nothing found: no `web` at all
        more = " ".join(one.get("extra_snippets") or ())
        yield _result(
            {**one, "text": f"{one.get('description') or ''} {more}"}, snippet="text", date="page_age"
        )


def _exa(url: str, key: str, query: Query) -> Request:
    body: dict[str, Any] = {"query": query.text, "numResults": query.count, "contents": {"highlights": True}}
    if query.excluded:
        body["excludeDomains"] = list(query.excluded)
    return Request(f"{url}/search", {"x-api-key": key}, json=body)


def _read_exa(answer: Any) -> Iterable[Result]:
    for one in answer["results"]:
        text = " … ".join(one.get("highlights") or ()) or one.get("text") or one.get("summary") or ""
        yield _result({**one, "shown": text}, snippet="shown", date="publishedDate")


def _serper(url: str, key: str, query: Query) -> Request:
    body = {"q": query.text, "num": query.count, "page": query.page}
    return Request(f"{url}/search", {"X-API-KEY": key}, json=body)


def _read_serper(answer: Any) -> Iterable[Result]:
    for one in answer.get("organic", ()):
        yield _result({**one, "url": one["link"]}, snippet="snippet", date="date")


def _result(one: Any, *, snippet: str, date: str) -> Result:
    return Result(
        title=_plain(one.get("title"), TITLE_CHARS_MAX),
        url=str(one["url"]),
        snippet=_plain(one.get(snippet), SNIPPET_CHARS_MAX),
        date=_plain(one.get(date), 40),
    )


def _plain(text: object, chars_max: int) -> str:
    return " ".join(str(text or "").split())[:chars_max]


PROVIDERS: Final[Mapping[str, Provider]] = {
    "searxng": Provider("", _searxng, _read_searxng),
    "tavily": Provider("https://api.tavily.com", _tavily, _read_tavily, paged=False),
    "brave": Provider("https://api.search.brave.com", _brave, _read_brave),
    "exa": Provider("https://api.exa.ai", _exa, _read_exa, paged=False),
    "serper": Provider("https://google.serper.dev", _serper, _read_serper),
}
