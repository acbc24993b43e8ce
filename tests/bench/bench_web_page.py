"""How fast the web page is with 10,000 runs stored and on a run of 8 x 300 steps: the API, then a Chromium.

Figures of the API are given as time passed and as processor time of this process, which serves and asks: the
second hardly depends on what else the machine does. What was predicted and measured is in
docs/measurements/web-page.md.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from playwright.async_api import Page

from heavy.core import clock
from heavy.core.ids import RunId

from tests_support import histories
from tests_support.browser import chromium
from tests_support.pages import PAST_RUNS, PageServer
from tests_support.servers import StoreServer

TIMES: Final = 5
FEW_RUNS: Final = 100
FRAME_MS: Final = """
async () => {
  const { Painter, palette } = await import("/page/run/paint.js");
  const { RunModel } = await import("/page/run/model.js");
  const { briefs, run } = await import("/page/lib/api.js");
  const id = location.pathname.split("/").at(-1);
  const model = new RunModel((await run(id)).summary.created_ms);
  for await (const page of briefs(id, 0)) for (const record of page) model.apply(record);
  const canvas = Object.assign(document.createElement("canvas"), { width: 1100, height: 330 });
  const context = canvas.getContext("2d");
  const perMs = 1100 / (model.latestMs - model.startMs);
  const painter = new Painter(context, palette(), (ms) => (ms - model.startMs) * perMs, 1100);
  const taken = [];
  for (let i = 0; i < 20; i++) {
    const from = performance.now();
    model.ordered.forEach((lane, row) => painter.lane(lane, row * 34, model.latestMs));
    context.getImageData(0, 0, 1, 1); // until it is really painted
    taken.push(performance.now() - from);
  }
  return Math.min(...taken);
}
"""


def main() -> None:
    """Print the figures; about a minute."""
    with tempfile.TemporaryDirectory(prefix="heavy-bench-") as directory:
        server = StoreServer("valkey", Path(directory))
        server.start()
        try:
            asyncio.run(_measure(server.url))
        finally:
            server.stop()


async def _measure(store_url: str) -> None:
    served = PageServer(store_url)
    await served.start()
    try:
        async with aiohttp.ClientSession(served.url) as http:
            histories.fill_with_past_runs(store_url, FEW_RUNS)
            few = await _median(lambda: _get(http, "runs?page_size=50"))
            histories.fill_with_past_runs(store_url, PAST_RUNS)
            long = (await histories.long_run(served.store, clock.now_ms() - 1_200_000)).run
            await _api(http, few, long)
        await _page(served.url, long)
    finally:
        await served.stop()


async def _api(http: aiohttp.ClientSession, few: Taken, long: RunId) -> None:
    many = await _median(lambda: _get(http, "runs?page_size=50"))
    print(f"first page of 50 runs: {many}; x{many.cpu_s / few.cpu_s:.2f} of {FEW_RUNS} stored")
    print(f"50 failed runs: {await _median(lambda: _get(http, 'runs?page_size=50&states=failed'))}")
    print(f"a run by its id: {await _median(lambda: _get(http, f'runs?id={long}'))}")
    briefs = await _median(lambda: _briefs(http, long))
    print(f"all records of the long run in brief: {briefs}, {await _briefs(http, long)} bytes")


async def _page(url: str, long: RunId) -> None:
    async with chromium() as browser:
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        await page.goto(url)
        print(f"page, the list: {await _median(lambda: _shown(page, url, '.runs li:nth-child(50)'))}")
        spend = await _median(lambda: _shown(page, f"{url}/spend", "text=newest 1,000 runs"))
        print(f"page, spend of 1,000 runs: {spend}")
        address = f"{url}/runs/{long}"
        print(f"page, the long run: {await _median(lambda: _shown(page, address, 'text=How it went'))}")
        print(f"page, one frame of its timeline, best of 20: {await page.evaluate(FRAME_MS):.1f} ms")
        print(f"page, elements: {await page.evaluate('document.querySelectorAll(`*`).length')}")
        started_s = time.perf_counter()
        await page.get_by_role("link", name="Arm 8, step 151").click()
        await page.wait_for_selector("#arm-7-150 .text")
        print(f"page, a citation followed: {(time.perf_counter() - started_s) * 1e3:.0f} ms")


async def _get(http: aiohttp.ClientSession, path: str) -> int:
    """Bytes as they travelled."""
    async with http.get(f"/api/v1/{path}", auto_decompress=False) as response:
        return len(await response.read())


async def _briefs(http: aiohttp.ClientSession, run: RunId) -> int:
    return sum([await _get(http, f"runs/{run}/briefs?after={after}") for after in (0, 4_000, 8_000)])


async def _shown(page: Page, address: str, selector: str) -> None:
    await page.goto(address, wait_until="commit")
    await page.wait_for_selector(selector, state="attached")


@dataclass(frozen=True, slots=True)
class Taken:
    """Time passed, and processor time of this process."""

    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s * 1e3:.0f} ms ({self.cpu_s * 1e3:.0f} of the server's processor time)"


async def _median(once: Callable[[], Awaitable[object]]) -> Taken:
    taken = []
    for _ in range(TIMES):
        started_s, cpu_s = time.perf_counter(), time.process_time()
        await once()
        taken.append((time.perf_counter() - started_s, time.process_time() - cpu_s))
    return Taken(*(statistics.median(column) for column in zip(*taken, strict=True)))
