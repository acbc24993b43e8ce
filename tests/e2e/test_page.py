"""The web page of `heavy up`, used by a person: a question, eight lanes, an answer."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests_support.browser import chromium
from tests_support.up import Up

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

WAIT_MS = 120_000.0


async def test_a_question_asked_on_the_page_is_answered_there(up: Up) -> None:
    async with chromium() as browser:
        page = await browser.new_page()
        page.set_default_timeout(WAIT_MS)
        failed: list[str] = []
        page.on("pageerror", lambda error: failed.append(str(error)))
        await page.goto(up.http)
        await page.get_by_label("Question").fill("What is 6 times 7?")
        await page.get_by_text("More").click()
        await page.get_by_label("Aggregation").select_option("reflective")
        await page.get_by_role("button", name="Ask").click()
        answer = page.get_by_role("region", name="Answer")
        await expect(answer).to_contain_text("by the reflective pass", timeout=WAIT_MS)
        await expect(page.get_by_role("note")).to_contain_text("SIMULATED")
        await expect(page.locator(".labels button")).to_have_count(9, timeout=WAIT_MS)
        await page.get_by_role("tab", name="Arm 1, completed").click()
        await page.locator("#arm-0-0").get_by_role("button").first.click()
        await expect(page.locator("#arm-0-0 .call .result")).to_be_visible(timeout=WAIT_MS)
        await page.goto(f"{up.http}/fleet")
        await expect(page.get_by_role("heading", name="Replicas (2)")).to_be_visible(timeout=WAIT_MS)
        assert failed == []
