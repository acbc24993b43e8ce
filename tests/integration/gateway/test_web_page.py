"""The web page in a real Chromium, with 10,000 runs stored."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from heavy.core import clock
from heavy.core.files import File, FileRef, ref_of
from heavy.core.ids import arm
from heavy.core.records import Delta
from heavy.core.runs import OutcomeKind, RunState

from tests_support import entries, histories
from tests_support.domain import run_spec
from tests_support.pages import PageServer, Runs
from tests_support.servers import StoreServer
from tests_support.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

expect.set_options(timeout=30_000)
NODES_MAX = 4_000


async def nodes(page: Page) -> int:
    count: int = await page.evaluate("document.querySelectorAll('*').length")
    return count


async def overflow(page: Page) -> int:
    """Pixels by which the page is wider than the window."""
    wider: int = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wider


# The list


async def test_runs_are_listed_with_answer_cost_agreement_method_and_model(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(served.url)
    row = page.locator(f"[data-run='{runs.reflective}']")
    for text in (
        "completed",
        "simulated",
        "24",
        "against the majority",
        "50% agree",
        "reflective",
        "one arm",
    ):
        await expect(row).to_contain_text(text)
    await expect(row).to_contain_text("Simulated engine (no model; answers are made up)")
    assert await nodes(page) < NODES_MAX


async def test_older_runs_come_page_by_page_and_a_filter_goes_into_the_address(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(served.url)
    await page.get_by_role("button", name="Older runs").click()
    await expect(page.locator(".runs > li")).to_have_count(100)
    assert (
        len(set(await page.locator(".runs > li").evaluate_all("all => all.map(i => i.dataset.run)"))) == 100
    )
    await page.get_by_role("button", name="failed").click()
    await expect(page.locator(".runs .pill.completed")).to_have_count(0)
    await expect(page.locator(f"[data-run='{runs.failed}']")).to_contain_text("no_usable_outcome")
    assert page.url == f"{served.url}/?state=failed"
    await page.reload()
    await expect(page.get_by_role("button", name="failed")).to_have_attribute("aria-pressed", "true")


async def test_a_run_is_found_by_its_id_and_opened_by_the_keyboard_alone(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(served.url)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
    await page.get_by_label("Id", exact=True).focus()
    await page.keyboard.type(runs.voted[:17])
    await expect(page.locator(".runs > li")).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(page.locator(f"[data-run='{runs.voted}'] a")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Answer")).to_contain_text("42")
    await expect(page.get_by_role("main")).to_be_focused()
    await page.go_back()
    await expect(page.locator(".runs > li")).to_have_count(1)


async def test_where_nothing_fits_and_where_nothing_is_the_page_says_so(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(f"{served.url}/?id=run-ffffff")
    await expect(page.get_by_text("No run fits.")).to_be_visible()
    await page.goto(f"{served.url}/runs/run-0123456789abcdef01234567")
    await expect(page.get_by_role("alert")).to_contain_text("There is no run run-0123456789abcdef01234567")
    await page.goto(f"{served.url}/runs/nonsense")
    await expect(page.get_by_role("alert")).to_contain_text("is no run id")


# Asking


async def test_a_run_is_asked_for_seen_running_and_cancelled(window: Any, served: PageServer) -> None:
    page = await window.opened(served.url)
    await page.get_by_label("Question").fill("Will this ever end?")
    await page.get_by_label("Arms").fill("2")
    await page.get_by_label("At most, USD").fill("0.25")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.get_by_role("heading", name="Will this ever end?")).to_be_visible()
    await expect(page.locator(".run-head .pill.running")).to_be_visible()
    run = page.url.rpartition("/")[2]
    made = await served.store.log.get(run)  # type: ignore[arg-type]
    assert (made.spec.policy.width, made.spec.policy.budget.cost_usd_max) == (2, 0.25)
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Really cancel?").click()
    await expect(page.get_by_role("region", name="No answer")).to_contain_text("Cancelled")
    await expect(page.get_by_role("region", name="No answer")).to_contain_text("Arm 2")
    assert (await served.store.log.get(run)).state is RunState.CANCELLED  # type: ignore[arg-type]


async def test_files_go_with_a_question(window: Any, served: PageServer) -> None:
    page = await window.opened(served.url)
    await page.get_by_label("Question").fill("What is in it?")
    await page.get_by_text("More").click()
    files = page.get_by_label("Files for python")
    given = {"name": "data.csv", "mimeType": "text/csv", "buffer": b"n\n\xff\n"}
    await files.set_input_files([{**given, "name": "my data.csv"}])
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator(".ask .notice")).to_contain_text("'my data.csv' must be 1 to 100")
    await files.set_input_files([given])
    await page.get_by_role("button", name="Ask").click()
    button = page.get_by_role("list", name="Files given with the question").get_by_role("button")
    await expect(button).to_have_text("data.csv (4 bytes)")
    run = await served.store.log.get(page.url.rpartition("/")[2])  # type: ignore[arg-type]
    assert await served.store.files.read(run.spec.run, run.spec.files[0].digest) == given["buffer"]
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Really cancel?").click()
    await expect(page.get_by_role("region", name="No answer")).to_contain_text("Cancelled")


async def test_what_cannot_be_asked_is_said_where_it_stands(window: Any, served: PageServer) -> None:
    page = await window.opened(served.url)
    await page.get_by_label("Question").fill("?")
    await page.get_by_text("More").click()
    await page.get_by_label("Deadline, s").evaluate(
        "box => { box.removeAttribute('max'); box.value = '999999' }"
    )
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator(".ask .notice")).to_contain_text(
        "Deadline, s: is 999999.0 s; it must be above 0"
    )
    await expect(page.get_by_label("Deadline, s")).to_be_focused()


# One run


async def test_an_answer_leads_to_the_step_that_it_cites(window: Any, served: PageServer, runs: Runs) -> None:
    page = await window.opened(f"{served.url}/runs/{runs.reflective}")
    await expect(page.get_by_role("note")).to_contain_text("SIMULATED")
    await expect(page.locator(".run-head .model")).to_contain_text("Simulated engine")
    await expect(page.get_by_role("region", name="Agreement")).to_contain_text("they gave the root, not n.")
    await expect(page.locator(".groups .chosen .said")).to_have_text("24")
    await page.get_by_role("link", name="Arm 6, step 2").click()
    step = page.locator("#arm-5-1")
    await expect(step.get_by_role("button").first).to_be_focused()
    await expect(step).to_contain_text("Checking the small cases by hand first")
    await expect(page.get_by_role("tab", name="Arm 6, completed")).to_have_attribute("aria-selected", "true")


async def test_steps_unfold_to_reasoning_calls_and_results_with_their_cache_state(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(f"{served.url}/runs/{runs.reflective}")
    first = page.locator("#arm-0-0")
    await expect(first).to_contain_text("python · miss")
    await first.get_by_role("button").first.click()
    await expect(first.locator(".text.code").first).to_have_text(histories.CODE)
    await expect(first.locator(".text.result")).to_have_text("4900\n")
    await expect(page.locator("#arm-0-1")).to_contain_text("python · error")
    await page.get_by_role("tab", name="Arm 7, cut").click()
    await expect(page.get_by_role("tabpanel")).to_contain_text("Quorum was reached and its grace is over.")
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tabpanel")).to_contain_text(
        "The replica simulated-1 went silent for 120 s."
    )


async def test_files_given_and_made_are_saved_from_where_they_stand(window: Any, served: PageServer) -> None:
    data, plot, lost = File("data.csv", b"n\n42\n"), File("plot.svg", b"<svg/>"), FileRef("large.bin", "", 9)
    spec = run_spec("Plot it.", files=(ref_of(data),))
    store = served.store
    await store.log.create(spec, owner="page", lease_s=600.0, files=[data])
    (made,) = await store.files.keep(spec.run, [plot])
    arm_0 = histories.Telling(arm(0), clock.now_ms(), random.Random(1)).start()
    arm_0.step("Let me plot.", code="plot()", output="done", files=(made, lost))
    await store.log.append(spec.run, epoch=1, entries=arm_0.entries)

    page = await window.opened(f"{served.url}/runs/{spec.run}")
    await page.locator("#arm-0-0").get_by_role("button").first.click()
    for label, file in (("Files given with the question", data), ("Files of python", plot)):
        async with page.expect_download() as saving:
            await page.get_by_role("list", name=label).get_by_role("button").click()
        saved = await saving.value
        assert saved.suggested_filename == file.name
        assert await asyncio.to_thread(Path(await saved.path()).read_bytes) == file.data
    await expect(page.get_by_role("list", name="Files of python")).to_contain_text(
        "large.bin (9 bytes) was not kept"
    )
    assert await overflow(page) <= 0


async def test_the_ledger_and_the_premium_over_one_arm_are_shown(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(f"{served.url}/runs/{runs.voted}")
    ledger = page.get_by_role("region", name="Ledger", exact=True)
    await expect(ledger.locator("tbody tr")).to_have_count(4)
    await expect(ledger.locator("tfoot")).to_contain_text("In all")
    await expect(
        page.get_by_role("region", name="Single against heavy").locator("tbody tr").first
    ).to_contain_text("×")


@pytest.mark.parametrize(("kind", "said"), [("failed", "No answer"), ("cancelled", "Cancelled")])
async def test_a_run_without_an_answer_says_why_for_every_arm(
    window: Any, served: PageServer, runs: Runs, kind: str, said: str
) -> None:
    page = await window.opened(f"{served.url}/runs/{getattr(runs, kind)}")
    card = page.get_by_role("region", name="No answer")
    await expect(card.get_by_role("heading")).to_have_text(said)
    await expect(card.get_by_role("listitem")).to_have_count(4)


async def test_the_timeline_is_walked_with_the_arrow_keys(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(f"{served.url}/runs/{runs.reflective}")
    await expect(page.locator(".labels button")).to_have_count(9)
    timeline = page.get_by_role("application")
    await timeline.focus()
    said = page.get_by_role("status").first
    await timeline.press("ArrowRight")
    await expect(said).to_contain_text("Arm 1, step 2")
    await expect(said).to_contain_text("python error")
    await timeline.press("ArrowDown")
    await expect(said).to_contain_text("Arm 2, step 1")
    await timeline.press("End")
    await timeline.press("Enter")
    await expect(page.locator("#arm-1-1 .body")).to_be_visible()


async def test_the_timeline_zooms_and_scrolls(window: Any, served: PageServer, runs: Runs) -> None:
    page = await window.opened(f"{served.url}/runs/{runs.long}")
    await expect(page.get_by_text("How it went")).to_be_visible()
    await expect(page.get_by_role("tabpanel")).to_contain_text("300 steps")
    scroller = page.locator(".scroller")
    for _ in range(5):
        await scroller.press("+")
    width, shown = await scroller.evaluate("s => [s.scrollWidth, s.clientWidth]")
    assert width > 25 * shown
    await scroller.press("End")
    await until(lambda: scroller.evaluate("s => s.scrollLeft / s.scrollWidth"), lambda share: share > 0.9)
    await scroller.press("0")
    await until(lambda: scroller.evaluate("s => s.scrollWidth - s.clientWidth"), lambda left: left < 40)


async def test_a_run_of_eight_times_three_hundred_steps_keeps_the_document_small(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(f"{served.url}/runs/{runs.long}")
    await expect(page.get_by_text("How it went")).to_be_visible()
    await expect(page.get_by_role("tabpanel")).to_contain_text("300 steps")
    assert await nodes(page) < NODES_MAX
    await page.get_by_role("link", name="Arm 8, step 151").click()
    await expect(page.locator("#arm-7-150 .text").first).to_contain_text("Step 151.")
    assert await nodes(page) < NODES_MAX


# Live


async def test_a_run_goes_on_before_ones_eyes_and_ends_with_its_answer(
    window: Any, served: PageServer
) -> None:
    store, created_ms = served.store, clock.now_ms() - 5_000
    spec = await histories.under_way(store, created_ms, "Live one")
    page = await window.opened(f"{served.url}/runs/{spec.run}")
    await expect(page.get_by_role("tabpanel")).to_contain_text("1 step")
    await until_shown(store, spec.run, page, "a thought on its way")
    told = histories.lane(0, created_ms, 4).step("seen").step("A second thought, recorded.")
    await store.log.append(spec.run, epoch=1, entries=[told.entries[-1]])
    await expect(page.locator("#arm-0-1")).to_contain_text("A second thought, recorded.")
    await expect(page.locator(".saying")).to_be_hidden()
    outcome = told.end("Answer: 1", OutcomeKind.COMPLETED)
    await store.log.append(spec.run, epoch=1, entries=[told.entries[-1]])
    await expect(page.get_by_role("tab", name="Arm 1, completed")).to_be_visible()
    await store.log.finish(
        spec.run, epoch=1, ending=entries.failure(), entry=entries.state_entry(RunState.FAILED)
    )
    await expect(page.get_by_role("region", name="No answer")).to_contain_text("It failed.")
    assert outcome.answer == "Answer: 1"


async def test_a_run_that_ends_before_its_log_is_read_shows_its_answer(
    window: Any, served: PageServer
) -> None:
    spec = await histories.under_way(served.store, clock.now_ms() - 5_000, "Ended meanwhile")

    async def end_behind(route: Any) -> None:
        response = await route.fetch()
        await served.store.log.finish(
            spec.run, epoch=1, ending=entries.failure(), entry=entries.state_entry(RunState.FAILED)
        )
        await route.fulfill(response=response)

    await window.page.route(f"**/api/v1/runs/{spec.run}", end_behind, times=1)
    page = await window.opened(f"{served.url}/runs/{spec.run}")
    await expect(page.get_by_role("region", name="No answer")).to_contain_text("It failed.")


async def until_shown(store: Any, run: Any, page: Page, text: str) -> None:
    """Publish fresh text until the page, once it follows, has shown it."""

    async def publish() -> bool:
        await store.log.publish(run, [Delta(arm(0), 1, reasoning=text)])
        return bool(await page.locator(".saying", has_text=text).count())

    await until(publish, bool)


async def test_a_lost_connection_is_taken_up_again_and_nothing_is_missed(
    window: Any, page_store: StoreServer
) -> None:
    server = PageServer(page_store.url)
    await server.start()
    spec = await histories.under_way(server.store, clock.now_ms() - 5_000, "Interrupted")
    page = await window.opened(f"{server.url}/runs/{spec.run}")
    await until_shown(server.store, spec.run, page, "before")
    numbers = "[...document.querySelectorAll('.story li')].map(item => item.textContent)"
    await server.stop()
    await expect(page.get_by_text("nothing is missed")).to_be_visible()
    await server.start()
    await server.store.log.append(spec.run, epoch=1, entries=[entries.note("while it was away")])
    await server.store.log.append(spec.run, epoch=1, entries=[entries.note("and after")])
    await expect(page.get_by_text("nothing is missed")).to_be_hidden()
    await page.get_by_text("How it went").click()
    await expect(page.locator(".story")).to_contain_text("and after")
    told = await page.evaluate(numbers)
    assert sum("while it was away" in line for line in told) == 1
    await server.stop()


async def test_a_server_that_is_gone_is_said_and_tried_again(window: Any, page_store: StoreServer) -> None:
    server = PageServer(page_store.url)
    await server.start()
    page = await window.opened(server.url)
    await server.stop()
    await page.get_by_role("link", name="Spend").click()
    await expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    await server.start()
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("heading", name="Spend")).to_be_visible()
    await expect(page.get_by_text("Cost of a run")).to_be_visible()
    await server.stop()


# What others wrote


HOSTILE = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
    '<a href="javascript:window.hacked=1">x</a>{{7*7}}'
)


async def test_what_others_wrote_is_shown_as_it_stands_and_never_runs(
    window: Any, served: PageServer
) -> None:
    created_ms = clock.now_ms() - 3_000
    spec = histories.spec_at(HOSTILE, created_ms, width=1)
    told = histories.lane(0, created_ms, 6).step(HOSTILE, HOSTILE, code=HOSTILE, output=HOSTILE)
    told.step(HOSTILE, HOSTILE).end(HOSTILE)
    await histories.write(served.store, spec, told.entries)
    page = await window.opened(f"{served.url}/runs/{spec.run}")
    await page.locator("#arm-0-0").get_by_role("button").first.click()
    for place in ("h1.question", "#arm-0-0 .reasoning", "#arm-0-0 .code >> nth=0", "#arm-0-0 .result"):
        await expect(page.locator(place)).to_have_text(HOSTILE)
    await page.goto(served.url)
    await expect(page.locator(f"[data-run='{spec.run}'] .question")).to_have_text(HOSTILE)
    assert await page.locator("main img, main script, a[href^='javascript']").count() == 0
    assert await page.evaluate("window.hacked") is None


async def test_text_cannot_become_markup_even_by_a_mistake_of_ours(window: Any, served: PageServer) -> None:
    page = await window.opened(served.url)
    refused = "() => { try { document.body.innerHTML = '<p>x'; return 'set' } catch (e) { return e.name } }"
    assert await page.evaluate(refused) == "TypeError"


async def test_nothing_comes_from_another_origin(window: Any, served: PageServer, runs: Runs) -> None:
    for path in ("/", f"/runs/{runs.reflective}", "/spend", "/fleet"):
        await window.opened(served.url + path)
    assert window.requests
    assert {url for url in window.requests if not url.startswith(served.url)} == set()
    outside = "fetch('https://example.com').then(() => 'let', () => 'refused')"
    window.requests.clear()
    assert await window.page.evaluate(outside) == "refused"


# Screens of every size


@pytest.mark.parametrize("window_options", [{"viewport": {"width": 360, "height": 740}}], ids=["phone"])
async def test_every_screen_fits_a_phone_by_day_and_by_night(
    window: Any, served: PageServer, runs: Runs
) -> None:
    for path in ("/", f"/runs/{runs.reflective}", f"/runs/{runs.failed}", "/spend", "/fleet"):
        page = await window.opened(served.url + path)
        await expect(page.locator("main")).not_to_be_empty()
        assert (path, await overflow(page)) == (path, 0)
    paper = "getComputedStyle(document.body).backgroundColor"
    for scheme, expected in (("light", "rgb(246, 247, 249)"), ("dark", "rgb(16, 18, 22)")):
        await page.emulate_media(color_scheme=scheme)
        assert await page.evaluate(paper) == expected


async def test_spend_compares_single_with_heavy_over_recent_runs(
    window: Any, served: PageServer, runs: Runs
) -> None:
    page = await window.opened(f"{served.url}/spend")
    await expect(page.get_by_text("newest 1,000 runs")).to_be_visible()
    charts = page.get_by_role("img")
    await expect(charts).to_have_count(4)
    row = page.get_by_role("region", name="Figures by profile").locator("tbody tr").first
    await expect(row).to_contain_text("×")
    assert await nodes(page) < 500


# Signing in


async def test_a_person_signs_in_with_a_token_that_stays_in_the_tab(
    window: Any, page_store: StoreServer, runs: Runs, tokens: str
) -> None:
    server = PageServer(page_store.url, tokens_file=tokens)
    await server.start()
    page = await window.opened(f"{server.url}/runs/{runs.voted}")
    await page.get_by_label("Token").fill("wrong-token-0123456789")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("not one of this server's")
    await page.get_by_label("Token").fill("alice-token-0123456789")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="Answer")).to_contain_text("42")
    await expect(page.locator("#who")).to_contain_text("default")
    await expect(page.get_by_role("link", name="Fleet")).to_be_hidden()
    await page.reload()
    await expect(page.get_by_role("region", name="Answer")).to_be_visible()
    assert await window.context.cookies() == []
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    assert await page.evaluate("Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0
    await server.stop()
