"""web_fetch against a real site: what is read, how politely, what is refused, and what hostile bodies do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from heavy.core.clock import monotonic_s
from heavy.core.ids import RunId, arm
from heavy.core.tools import ToolContext, ToolOutput
from heavy.tools.config import NetworkSection, ToolsConfig, ToolsTable, WebFetchSection
from heavy.tools.registry import open_tools

from tests_support.site import Site, serving

SMALL = WebFetchSection(bytes_max=300_000, page_chars=4_000, per_host_delay_s=0.0)

Fetch = Callable[..., "asyncio.Future[ToolOutput]"]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A site of one's own."""
    async with serving(Site()) as one:
        yield one


class Fetching:
    """The tool, made from a configuration as a runner makes it."""

    def __init__(self, section: WebFetchSection, site: Site, block: tuple[str, ...] = ()) -> None:
        network = NetworkSection(allow_private=(f"127.0.0.1:{site.port}",), block_hosts=block)
        self._config = ToolsConfig(tools=ToolsTable(web_fetch=section), network=network)

    async def __aenter__(self) -> Fetching:
        self._box = await open_tools(self._config)
        (self.tool,) = self._box.select(("web_fetch",))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._box.close()

    async def __call__(self, url: str, page: int = 1, timeout_s: float = 60.0) -> ToolOutput:
        context = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "call", timeout_s)
        return await self.tool.call({"url": url, "page": page}, context)


@pytest.fixture
async def fetch(site: Site) -> AsyncIterator[Fetching]:
    """web_fetch that may visit the site."""
    async with Fetching(SMALL, site) as tool:
        yield tool


async def test_the_readable_part_of_a_page_comes_with_title_and_links(fetch: Fetching, site: Site) -> None:
    output = await fetch(site.url("/article"))
    assert output.content.startswith(f"{site.url('/article')}\nTitle: How bridges stand\n")
    assert "carry its own weight" in output.content
    assert "[why steel took over](https://example.org/steel)" in output.content
    assert "Imprint" not in output.content
    assert output.meta["source"] == site.url("/article")
    assert fetch.tool.spec.untrusted


async def test_pdfs_are_read_whatever_the_server_calls_them(fetch: Fetching, site: Site) -> None:
    for path in ("/paper.pdf", "/paper"):
        assert "[page 1]\nThe load path of an arch" in (await fetch(site.url(path))).content


async def test_wrong_encodings_are_seen_through(fetch: Fetching, site: Site) -> None:
    for path in ("/latin", "/utf8-as-latin"):
        assert "Brücken über Flüsse: größer" in (await fetch(site.url(path))).content
    assert "own weight" in (await fetch(site.url("/charset-unknown"))).content


async def test_packed_bodies_are_unpacked_and_unknown_packings_named(fetch: Fetching, site: Site) -> None:
    for path in ("/gzip", "/deflate"):
        assert "own weight" in (await fetch(site.url(path))).content
    assert "packed as 'br'" in (await fetch(site.url("/brotli"))).content
    assert "cannot be unpacked" in (await fetch(site.url("/not-gzip"))).content


async def test_long_documents_come_in_pages_and_are_fetched_once(fetch: Fetching, site: Site) -> None:
    first = await fetch(site.url("/long"))
    assert "Page 1 of 13; ask for page 2 to read on." in first.content
    texts = [(await fetch(site.url("/long"), page)).content.split("\n\n", 1)[1] for page in range(1, 14)]
    assert "".join(texts).split("\n") == [f"line {n}" for n in range(5_000)]
    assert "there is no page 14" in (await fetch(site.url("/long"), 14)).content
    assert site.asked["/long"] == 1


async def test_plain_text_and_json_come_as_they_are_and_pictures_not(fetch: Fetching, site: Site) -> None:
    assert (await fetch(site.url("/json"))).content.endswith('\n\n{"answer": 42}')
    assert "image/png, which has no text" in (await fetch(site.url("/picture"))).content
    assert (await fetch(site.url("/empty"))).is_error


async def test_redirects_are_followed_and_named_but_not_for_ever(fetch: Fetching, site: Site) -> None:
    output = await fetch(site.url("/redirect?to=/json"))
    assert output.content.startswith(site.url("/json"))
    loop = await fetch(site.url("/loop"))
    assert "redirects more than 5 times" in loop.content
    assert loop.deterministic
    assert site.asked["/loop"] == 6


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http://169.254.169.254/latest/meta-data/", "metadata"),
        ("http://127.0.0.1:1/", "Port 1"),
        ("http://[::ffff:10.0.0.1]/", "private"),
        ("http://user:pass@example.org/", "user name or password"),
        ("file:///etc/passwd", "Only http and https"),
        ("//localhost/", "local network"),
        ("http://answers.example/x", "blocks answers.example"),
    ],
)
async def test_a_redirect_to_what_must_not_be_visited_is_refused(site: Site, target: str, said: str) -> None:
    async with Fetching(SMALL, site, block=("answers.example",)) as fetch:
        output = await fetch(site.url(f"/redirect?to={target}"))
    assert output.is_error
    assert "redirects to where this server does not go" in output.content
    assert said in output.content


async def test_without_the_operators_leave_loopback_is_out_of_reach(site: Site) -> None:
    async with Fetching(SMALL.model_copy(update={"ports": (site.port,)}), site) as fetch:
        for host in ("localhost", "[::1]", "127.0.0.2", "[::ffff:127.0.0.1]"):
            output = await fetch(f"http://{host}:{site.port}/json", timeout_s=10.0)
            assert output.is_error
    assert site.asked["/json"] == 0


async def test_statuses_say_whether_another_attempt_is_worth_it(fetch: Fetching, site: Site) -> None:
    gone, busy = await fetch(site.url("/status/404")), await fetch(site.url("/status/503"))
    assert "answered 404" in gone.content
    assert gone.deterministic
    assert "answered 503" in busy.content
    assert not busy.deterministic
    unreachable = await fetch("http://127.0.0.1:1/")
    assert "Port 1" in unreachable.content


async def test_huge_bodies_and_bombs_are_cut_at_the_limit(fetch: Fetching, site: Site) -> None:
    huge = await fetch(site.url("/huge"))
    assert "Left out: what follows its first 300000 bytes." in huge.content
    bomb = await fetch(site.url("/bomb"))
    assert "Left out: what follows its first 300000 bytes." in bomb.content


async def test_hostile_documents_end_in_the_sandbox(site: Site) -> None:
    async with Fetching(SMALL.model_copy(update={"bytes_max": 4 << 20}), site) as fetch:
        for path in ("/bomb.pdf", "/broken.pdf"):
            output = await fetch(site.url(path))
            assert output.is_error or "(no text)" in output.content or "cannot be read" in output.content
        nested = await fetch(site.url("/nested"))
        assert "deep" in nested.content or nested.is_error
        assert "own weight" in (await fetch(site.url("/article"))).content


async def test_slow_bodies_end_with_the_calls_time(fetch: Fetching, site: Site) -> None:
    started_s = monotonic_s()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await fetch(site.url("/slow"))
    assert monotonic_s() - started_s < 10.0
    assert "answer" in (await fetch(site.url("/json"))).content


async def test_robots_are_obeyed_asked_once_and_ignored_where_told(site: Site) -> None:
    async with Fetching(SMALL, site) as fetch:
        refused = await fetch(site.url("/private/article"))
        await fetch(site.url("/json"))
        await fetch(site.url("/redirect?to=/private/article"))
    assert "asks robots not to fetch /private/article" in refused.content
    assert site.asked["/robots.txt"] == 1
    assert site.asked["/private/article"] == 0
    async with Fetching(SMALL.model_copy(update={"robots": "ignore"}), site) as fetch:
        assert "own weight" in (await fetch(site.url("/private/article"))).content
    assert site.asked["/robots.txt"] == 1


@pytest.mark.parametrize(("status", "visited"), [(404, 1), (500, 0)])
async def test_a_site_without_robots_rules_is_free_and_one_that_fails_is_left_alone(
    site: Site, status: int, visited: int
) -> None:
    site.robots_status = status
    async with Fetching(SMALL, site) as fetch:
        said = await fetch(site.url("/json"))
    assert site.asked["/json"] == visited
    assert said.deterministic == (status == 404), "a site that fails now may answer soon"


async def test_a_host_is_asked_by_few_at_once(site: Site) -> None:
    async with Fetching(SMALL.model_copy(update={"per_host_at_once_max": 2}), site) as fetch:
        await asyncio.gather(*(fetch(site.url(f"/busy?{number}")) for number in range(6)))
    assert site.asked["/busy"] == 6
    assert site.at_once_most == 2
