"""A real Chromium for tests: the one that `make test-parts` fetched."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright


def chromium_binary() -> Path:
    """The browser's program. Never skipped: without it a test is in error."""
    home = os.environ.get("HEAVY_CACHE_DIR")
    root = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heavy"
    binary = root / "chromium" / "chromium"
    if not binary.exists():
        raise FileNotFoundError(f"{binary} is not there: run `make test-parts` once")
    return binary


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser. Its own sandbox needs rights that containers do not give; the pages are ours."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_binary(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()
