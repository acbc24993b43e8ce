"""web_search against a server that answers as each provider does; what breaks is told, not kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from heavy.core.errors import ConfigError
from heavy.core.ids import RunId, arm
from heavy.core.tools import ToolContext, ToolOutput
from heavy.tools.config import NetworkSection, ToolsConfig, ToolsTable, WebSearchSection
from heavy.tools.registry import open_tools

HITS = [
    {
        "title": "How  arches\nwork",
        "url": "https://bridges.example/arches",
        "text": "They push.",
        "date": "2026-01-02",
    },
    {"title": "Answers", "url": "https://www.answers.example/17", "text": "The answer is 4.", "date": None},
    {"title": "", "url": "https://beams.example/", "text": "They bend. " * 300, "date": None},
    {"title": "Script", "url": "javascript:alert(1)", "text": "", "date": None},
]


class Engine:
    """Speaks the dialect of whoever it is asked as, and checks that it is asked rightly."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failures: list[web.Response] = []
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        """One search."""
        asked = dict(request.query) if request.method == "GET" else await request.json()
        self.asked.append(asked)
        if self.failures:
            return self.failures.pop(0)
        dialect = request.path.strip("/").split("/")[0]
        headers = request.headers
        shape = getattr(self, f"_{dialect}")(asked, headers)
        return web.Response(status=401) if shape is None else web.json_response(shape)

    def _searxng(self, asked: Any, headers: Any) -> Any:
        assert asked["format"] == "json"
        hits = [{**hit, "content": hit["text"], "publishedDate": hit["date"]} for hit in HITS]
        return {"query": asked["q"], "number_of_results": 0, "results": hits, "answers": [], "infoboxes": []}

    def _tavily(self, asked: Any, headers: Any) -> Any:
        if headers.get("Authorization") != "Bearer k-123":
            return None
        assert asked["exclude_domains"] == ["answers.example"]
        return {"query": asked["query"], "results": [{**h, "content": h["text"], "score": 0.9} for h in HITS]}

    def _brave(self, asked: Any, headers: Any) -> Any:
        if headers.get("X-Subscription-Token") != "k-123":
            return None
        hits = [
            {**h, "description": h["text"], "extra_snippets": ["More."], "page_age": h["date"]} for h in HITS
        ]
        return (
            {"type": "search", "web": {"type": "search", "results": hits}} if asked["q"] != "nothing" else {}
        )

    def _exa(self, asked: Any, headers: Any) -> Any:
        if headers.get("x-api-key") != "k-123":
            return None
        assert asked["excludeDomains"] == ["answers.example"]
        return {"results": [{**h, "highlights": [h["text"]], "publishedDate": h["date"]} for h in HITS]}

    def _serper(self, asked: Any, headers: Any) -> Any:
        if headers.get("X-API-KEY") != "k-123":
            return None
        hits = [
            {"title": h["title"], "link": h["url"], "snippet": h["text"], "date": h["date"]} for h in HITS
        ]
        return {"searchParameters": asked, "organic": hits}


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """A search engine on loopback."""
    engine = Engine()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    engine.port = runner.addresses[0][1]
    yield engine
    await runner.cleanup()


@asynccontextmanager
async def searching(engine: Engine, provider: Any, **more: Any) -> AsyncIterator[Any]:
    """The tool, as a runner makes it, ready to be asked."""
    section = WebSearchSection(
        provider=provider,
        url=f"http://127.0.0.1:{engine.port}/{provider}/",
        api_key_env="" if provider == "searxng" else "SEARCH_TEST_KEY",
        **more,
    )
    network = NetworkSection(block_hosts=("answers.example",))
    box = await open_tools(ToolsConfig(tools=ToolsTable(web_search=section), network=network))
    (tool,) = box.select(("web_search",))

    async def ask(query: str, timeout_s: float = 30.0, **more: Any) -> ToolOutput:
        context = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "call", timeout_s)
        output: ToolOutput = await tool.call({"query": query, **more}, context)
        return output

    ask.spec = tool.spec  # type: ignore[attr-defined]
    try:
        yield ask
    finally:
        await box.close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that the providers want."""
    monkeypatch.setenv("SEARCH_TEST_KEY", "k-123")


@pytest.mark.parametrize("provider", ["searxng", "tavily", "brave", "exa", "serper"])
async def test_every_provider_gives_the_same_list_without_blocked_hosts(
    engine: Engine, provider: str
) -> None:
    async with searching(engine, provider) as search:
        output = await search("arches")
    lines = output.content.splitlines()
    assert lines[0].startswith("1. How arches work")
    assert lines[1] == "   https://bridges.example/arches"
    assert lines[2].startswith("   They push.")
    assert lines[3:5] == ["2. (no title)", "   https://beams.example/"]
    assert len(lines[5]) <= 1_003
    assert len(lines) == 6
    assert not output.is_error
    assert search.spec.untrusted


async def test_nothing_found_is_an_answer(engine: Engine) -> None:
    async with searching(engine, "brave") as search:
        assert (await search("nothing")).content == "Nothing was found for 'nothing'."


async def test_pages_are_asked_for_where_the_provider_has_them(engine: Engine) -> None:
    async with searching(engine, "searxng") as search:
        assert (await search("arches", page=3, results=1)).content.startswith("3. How arches work")
    async with searching(engine, "exa") as search:
        assert "page" not in search.spec.parameters["properties"]
    assert engine.asked[0]["pageno"] == "3"


async def test_a_busy_provider_is_asked_again_and_then_said_to_be_busy(engine: Engine) -> None:
    busy = lambda: web.Response(status=429, headers={"Retry-After": "0"})  # noqa: E731
    engine.failures = [busy()]
    async with searching(engine, "searxng", tries_max=2) as search:
        assert not (await search("arches")).is_error
        engine.failures = [busy(), busy()]
        output = await search("arches")
        engine.failures = [web.Response(status=503, headers={"Retry-After": "20"})]
        hurried = await search("arches", timeout_s=5.0)
    assert "searxng is busy (429)" in output.content
    assert "searxng is busy (503)" in hurried.content
    assert not output.deterministic


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=403), "enable its json format"),
        (web.Response(status=400), "did not accept the query"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "did not accept"),
        (web.Response(text="<html>"), "not JSON"),
        (web.Response(text="[" * 100_000), "not JSON"),
        (web.Response(text='{"results": [{"title": "x"}]}'), "form that is not known"),
        (web.Response(text=json.dumps({"results": "x" * (5 << 20)})), "too long"),
    ],
)
async def test_answers_that_are_none_are_errors_that_are_not_kept(
    engine: Engine, answer: web.Response, said: str
) -> None:
    engine.failures = [answer]
    async with searching(engine, "searxng", tries_max=1) as search:
        output = await search("arches")
    assert output.is_error
    assert said in output.content
    assert not output.deterministic


async def test_a_wrong_key_is_told_and_never_shown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_TEST_KEY", "wrong-key-4711")
    async with searching(engine, "tavily") as search:
        output = await search("arches")
    assert "tavily refused (401); the operator has to check its key" in output.content
    assert "4711" not in output.content


async def test_without_its_key_the_tool_is_missing_and_says_which(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEARCH_TEST_KEY")
    with pytest.raises(ConfigError, match="SEARCH_TEST_KEY, which is not set"):
        async with searching(engine, "serper"):
            pass


async def test_a_provider_that_is_not_there_is_an_error_in_time(engine: Engine) -> None:
    engine.port = 1
    async with searching(engine, "searxng", tries_max=1) as search, asyncio.timeout(20):
        assert "searxng cannot be reached" in (await search("arches")).content
