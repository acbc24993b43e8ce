"""A question asked on the page is answered there: real agent loops, sandbox, engine; only Ray is left out."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from heavy.config import Settings
from heavy.core.records import GenerationRecord, ToolResultRecord
from heavy.runner.build import RunnerParts, open_runner
from heavy.store.api import ReplicaInfo
from heavy.store.reading import records_of

from tests_support.pages import PageServer
from tests_support.servers import StoreServer
from tests_support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

PROFILES = Path(__file__).parents[2] / "fixtures" / "profiles"
WAIT_MS = 120_000.0
ENGINE = (
    "--profile",
    "k2-8xh200",
    "--ttft-ms",
    "20",
    "--itl-ms",
    "2",
    "--steps-min",
    "2",
    "--steps-max",
    "2",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest_asyncio.fixture(loop_scope="session")
async def engine() -> AsyncIterator[int]:
    """The port of a simulated engine."""
    port = free_port()
    command = (
        sys.executable,
        "-m",
        "workers.engines.simulated",
        "--port",
        str(port),
        "--served-model-name",
        "brisk",
    )
    process = await asyncio.create_subprocess_exec(*command, *ENGINE, "--agreement", "0.6")
    await until(lambda: answers(port), bool, within_s=60.0)
    yield port
    process.terminate()
    await process.wait()


@pytest_asyncio.fixture(loop_scope="session")
async def asked(page_store: StoreServer, engine: int) -> AsyncIterator[PageServer]:
    """A server whose runs are really carried out."""
    settings = Settings(store_url=page_store.url, profile_dirs=str(PROFILES), profile="brisk")
    parts: RunnerParts = await open_runner(settings)
    info = ReplicaInfo(
        "brisk-0", "brisk", f"http://127.0.0.1:{engine}", "simulated", "brisk", "ready", in_flight_max=16
    )
    await parts.store.directory.announce_replica(info, ttl_s=600.0)
    server = PageServer(page_store.url, runner=parts.host, profile="brisk", profile_dirs=str(PROFILES))
    await server.start()
    yield server
    await server.stop()
    await parts.store.directory.withdraw("brisk-0")
    await parts.close()


async def test_a_question_asked_on_the_page_is_answered_there(window: Any, asked: PageServer) -> None:
    page = await window.opened(asked.url)
    await page.get_by_label("Question").fill("What is 6 times 7?")
    await page.get_by_label("Arms").fill("4")
    await page.get_by_text("More").click()
    await page.get_by_label("Aggregation").select_option("reflective")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.get_by_role("region", name="Answer")).to_contain_text(
        "by the reflective pass", timeout=WAIT_MS
    )
    await expect(page.get_by_role("note")).to_contain_text("SIMULATED")
    await expect(page.locator(".run-head .model")).to_have_text(
        "Simulated engine, brisk (answers are made up)"
    )
    await expect(page.locator(".labels button")).to_have_count(5, timeout=WAIT_MS)
    run = page.url.rpartition("/")[2]
    bodies = [record.body async for record in records_of(asked.store.log, run)]
    generated = sum(isinstance(body, GenerationRecord) for body in bodies)
    await expect(page.get_by_text("How it went")).to_be_visible()
    model = await page.evaluate(
        """async () => {
          const { RunModel } = await import("/page/run/model.js");
          const { briefs, run } = await import("/page/lib/api.js");
          const id = location.pathname.split("/").at(-1);
          const model = new RunModel((await run(id)).summary.created_ms);
          for await (const page of briefs(id, 0)) for (const record of page) model.apply(record);
          const steps = model.ordered.flatMap((lane) => lane.steps);
          return {
            generations: steps.filter((step) => step.generation).length,
            results: steps.flatMap((step) => step.tools).filter((tool) => tool.result).length,
            tokens: model.spend.tokens_output,
          };
        }"""
    )
    ledger = (await asked.store.log.get(run)).ledger  # type: ignore[arg-type]
    assert model["generations"] == generated
    assert model["results"] == sum(isinstance(body, ToolResultRecord) for body in bodies) > 0
    assert ledger is not None
    assert model["tokens"] == ledger.total.tokens_output
