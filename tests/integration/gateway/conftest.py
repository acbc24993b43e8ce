"""One server and one browser for all tests of the HTTP side, in one event loop that outlives the tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from heavy.core import clock
from heavy.core.ids import AGGREGATOR, arm
from heavy.core.runs import RunState
from heavy.testing.runner import Part

from tests_support import histories
from tests_support.browser import chromium
from tests_support.pages import PAST_RUNS, PageServer, Runs
from tests_support.servers import StoreServer

WAIT_MS = 30_000.0
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def page_store() -> Iterator[StoreServer]:
    """A store server of the page's own, so that no other test empties it."""
    with tempfile.TemporaryDirectory(prefix="heavy-page-") as directory:
        server = StoreServer("valkey", Path(directory))
        server.start()
        yield server
        server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(page_store: StoreServer) -> AsyncIterator[PageServer]:
    """The server; runs asked of it hang until they are cancelled."""
    parts = {arm(index): Part(hangs=True) for index in range(8)}
    server = PageServer(page_store.url, {**parts, AGGREGATOR: Part("Answer: 0")})
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def runs(served: PageServer, page_store: StoreServer) -> Runs:
    """Ten thousand past runs, one of each kind to look at, and one of 8 x 300 steps."""
    histories.fill_with_past_runs(page_store.url, PAST_RUNS)
    now_ms, store = clock.now_ms(), served.store
    return Runs(
        reflective=(await histories.reflective(store, now_ms - 50_000)).run,
        voted=(await histories.voted(store, now_ms - 45_000)).run,
        failed=(await histories.ended_without_answer(store, now_ms - 40_000, RunState.FAILED)).run,
        cancelled=(await histories.ended_without_answer(store, now_ms - 35_000, RunState.CANCELLED)).run,
        live=(await histories.under_way(store, now_ms - 15_000)).run,
        long=(await histories.long_run(store, now_ms - 1_200_000)).run,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def http(served: PageServer) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the API."""
    async with aiohttp.ClientSession(served.url) as session:
        yield session


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests."""
    async with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokens file for two tenants and an administrator."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(
        "default:alice-token-0123456789\nbob:bob-token-0123456789ab\nroot:root-token-0123456789a:admin\n"
    )
    return str(path)


@dataclass
class Window:
    """A browser window, and what went wrong or elsewhere in it."""

    page: Page
    context: BrowserContext
    errors: list[str]
    requests: list[str]

    async def opened(self, address: str) -> Page:
        """The page at `address`, once it shows a screen."""
        await self.page.goto(address)
        await self.page.wait_for_selector("#loading", state="detached")
        return self.page


@pytest.fixture
def window_options() -> dict[str, Any]:
    """Size and colour scheme; tests override it."""
    return {"viewport": DESK}


@pytest_asyncio.fixture(loop_scope="session")
async def window(browser: Browser, window_options: dict[str, Any]) -> AsyncIterator[Window]:
    """A fresh window. Scripts that fail in it fail the test."""
    context = await browser.new_context(**window_options)
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    shown = Window(page, context, [], [])
    page.on("pageerror", lambda error: shown.errors.append(str(error)))
    page.on("request", lambda request: shown.requests.append(request.url))
    yield shown
    await context.close()
    assert shown.errors == []
