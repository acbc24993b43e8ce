"""The HTTP API over a real store: what it answers, to whom, and how it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from heavy.core import clock, errors
from heavy.core.errors import HeavyError
from heavy.core.files import File
from heavy.core.ids import arm
from heavy.core.records import Delta
from heavy.core.runs import RunState
from heavy.gateway.problems import STATUSES, status_of

from tests_support import entries, histories
from tests_support.pages import PAST_RUNS, PageServer, Runs
from tests_support.servers import StoreServer

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

API = "/api/v1"
TOKEN = "alice-token-0123456789"
OTHER = "bob-token-0123456789ab"
ADMIN = "root-token-0123456789a"


async def get(http: aiohttp.ClientSession, path: str, **options: Any) -> tuple[int, Any]:
    async with http.get(API + path, **options) as response:
        return response.status, await response.json()


async def post(http: aiohttp.ClientSession, path: str, body: Any, **options: Any) -> tuple[int, Any]:
    async with http.post(API + path, json=body, **options) as response:
        return response.status, await response.json()


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, int, Any]]:
    """(type, number, data) of each event."""
    kind, number = "", 0
    async for raw in response.content:
        field, _, value = raw.decode().rstrip("\n").partition(": ")
        if field == "event":
            kind = value
        elif field == "id":
            number = int(value)
        elif field == "data":
            yield kind, number, json.loads(value)


async def test_a_run_at_a_glance_says_what_it_cost_and_what_one_arm_would_have(
    http: aiohttp.ClientSession, runs: Runs
) -> None:
    status, detail = await get(http, f"/runs/{runs.reflective}")
    summary = detail["summary"]
    assert status == 200
    assert summary["state"] == "completed"
    assert summary["simulated"]
    assert summary["models"][0]["title"].startswith("Simulated engine")
    assert (summary["method"], summary["agreement"], summary["dissents"]) == ("reflective", 0.5, True)
    arms = sorted(
        spend["cost_usd"] for name, spend in detail["ledger"]["trajectories"].items() if name != "aggregator"
    )
    assert summary["median_arm"]["cost_usd"] == pytest.approx((arms[3] + arms[4]) / 2)
    assert summary["spend"]["cost_usd"] > 8 * arms[0]


async def test_every_run_is_listed_once_page_by_page_newest_first(
    http: aiohttp.ClientSession, runs: Runs
) -> None:
    seen: list[str] = []
    token = ""
    while True:
        _, page = await get(http, "/runs", params={"page_size": 200, "page_token": token})
        seen += [run["run_id"] for run in page["runs"]]
        token = page["next_page_token"]
        if not token:
            break
    assert len(seen) == len(set(seen)) >= PAST_RUNS + 6
    assert seen.index(runs.live) < seen.index(runs.cancelled) < seen.index(runs.reflective)


async def test_runs_are_filtered_by_state_and_found_by_how_their_id_begins(
    http: aiohttp.ClientSession, runs: Runs
) -> None:
    _, failed = await get(http, "/runs", params=[("states", "failed"), ("page_size", "50")])
    assert {run["state"] for run in failed["runs"]} == {"failed"}
    assert len(failed["runs"]) == 50
    for start in (runs.long, runs.long[:18], runs.long.removeprefix("run-")[:13].upper()):
        _, found = await get(http, "/runs", params={"id": start})
        assert runs.long in {run["run_id"] for run in found["runs"]}
        assert all(
            run["run_id"].startswith(f"run-{start.removeprefix('run-').lower()}") for run in found["runs"]
        )
    _, nothing = await get(http, "/runs", params={"id": "run-ffff"})
    assert nothing == {"runs": [], "next_page_token": ""}


async def test_briefs_have_every_record_of_a_long_run_without_its_texts(
    http: aiohttp.ClientSession, runs: Runs
) -> None:
    found: list[Any] = []
    more, after = True, 0
    while more:
        _, page = await get(http, f"/runs/{runs.long}/briefs", params={"after": after})
        found += page["records"]
        after, more = page["after"], page["more"]
    assert [brief["number"] for brief in found] == list(range(1, len(found) + 1))
    assert sum(brief["kind"] == "generation" for brief in found) == 8 * 300
    assert max(len(brief["preview"]) for brief in found) <= 120


async def test_records_of_one_trajectory_come_in_full(http: aiohttp.ClientSession, runs: Runs) -> None:
    query = {"trajectory": "arm-3", "limit": 5, "after": 1_000}
    _, page = await get(http, f"/runs/{runs.long}/records", params=query)
    assert {record["trajectory"] for record in page["records"]} == {"arm-3"}
    assert len(page["records"]) == 5
    assert page["more"]
    assert page["records"][0]["number"] > 1_000
    thought = next(r["body"]["message"] for r in page["records"] if r["body"]["kind"] == "generation")
    assert len(thought["reasoning"]) > 2_000


async def test_a_run_is_followed_and_taken_up_again_from_the_last_record(
    http: aiohttp.ClientSession, served: PageServer
) -> None:
    spec = await histories.under_way(served.store, clock.now_ms() - 1_000, "Followed")
    (start,) = await served.store.log.append(spec.run, epoch=1, entries=[entries.note("first")])
    path = f"{API}/runs/{spec.run}/events"
    async with http.get(path, headers={"Last-Event-ID": str(start - 1)}) as response:
        assert response.content_type == "text/event-stream"
        events = events_of(response)
        kind, number, data = await anext(events)
        assert (kind, number, data["preview"]) == ("record", start, "first")
        await asyncio.gather(
            anext(events), served.store.log.publish(spec.run, [Delta(arm(0), 5, reasoning="hm")])
        )
        await served.store.log.append(spec.run, epoch=1, entries=[entries.note("second")])
        number = await anext(place async for kind, place, _ in events if kind == "record")
        assert number == start + 1
    (third,) = await served.store.log.append(spec.run, epoch=1, entries=[entries.note("while away")])
    async with http.get(path, headers={"Last-Event-ID": str(number)}) as response:
        events = events_of(response)
        assert (await anext(events))[1] == third
        last = entries.state_entry(RunState.FAILED)
        await served.store.log.finish(spec.run, epoch=1, ending=entries.failure(), entry=last)
        assert [kind async for kind, _, _ in events] == ["record", "end"]


async def test_a_run_is_asked_for_once_however_often_its_request_comes_and_cancelled(
    http: aiohttp.ClientSession, served: PageServer
) -> None:
    body = {"question": "Ever?", "policy": {"width": 2, "cost_usd_max": 0.5}, "request_id": "http-1"}
    status, made = await post(http, "/runs", body)
    again, same = await post(http, "/runs", body)
    assert (status, again) == (201, 200)
    run = made["summary"]["run_id"]
    assert same["summary"]["run_id"] == run
    assert made["policy"]["budget"]["cost_usd_max"] == 0.5
    assert not made["attached"]
    assert (await post(http, "/runs", {**body, "question": "Other?"}))[0] == 409
    status, _ = await post(http, f"/runs/{run}/cancel", {"reason": "enough"})
    assert status == 200
    async with http.get(f"{API}/runs/{run}/events") as response:
        assert [kind async for kind, _, _ in events_of(response)][-1] == "end"
    _, ended = await get(http, f"/runs/{run}")
    assert (ended["summary"]["state"], ended["failure"]["message"]) == ("cancelled", "enough")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"messages"}),
        (
            {"question": "x", "policy": {"width": 9, "cost_usd_max": -1}},
            {"policy.width", "policy.cost_usd_max"},
        ),
        ({"question": "x", "policy": {"widht": 2}}, {"policy.widht"}),
        ({"question": "x", "policy": {"deadline_s": 0}}, {"policy.deadline_s"}),
        ({"question": "x", "policy": {"width": "many"}}, {"policy.width"}),
        ({"question": "x", "surprise": 1}, {"surprise"}),
        ({"question": "x", "request_id": "y" * 200}, {"request_id"}),
    ],
)
async def test_a_request_that_cannot_be_accepted_names_every_field(
    http: aiohttp.ClientSession, body: Any, fields: set[str]
) -> None:
    status, said = await post(http, "/runs", body)
    assert status == 400
    assert said["error"]["code"] == "invalid_request"
    assert {violation["field"] for violation in said["error"]["violations"]} == fields


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/run-0123456789abcdef01234567", 404),
        ("/runs/run-0123456789abcdef01234567/events", 404),
        ("/runs/nonsense", 400),
        ("/runs?page_token=made-up", 400),
        ("/runs?page_size=0", 400),
        ("/runs?states=sleeping", 400),
        ("/runs?id=../../etc", 400),
        ("/runs?colour=red", 400),
    ],
)
async def test_what_is_not_there_or_makes_no_sense_is_refused_in_json(
    http: aiohttp.ClientSession, runs: Runs, path: str, status: int
) -> None:
    found, said = await get(http, path)
    assert found == status
    assert said["error"]["message"]


async def test_what_a_trajectory_is_called_and_where_to_go_on_are_checked(
    http: aiohttp.ClientSession, runs: Runs
) -> None:
    assert (await get(http, f"/runs/{runs.voted}/records?trajectory=arm-9"))[0] == 400
    assert (await get(http, f"/runs/{runs.voted}/events", headers={"Last-Event-ID": "x"}))[0] == 400
    assert (await get(http, f"/runs/{runs.voted}/briefs?after=-1"))[0] == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_what_another_sites_page_makes_a_browser_send_is_refused(
    http: aiohttp.ClientSession, runs: Runs, headers: dict[str, str]
) -> None:
    assert (await get(http, "/runs", headers=headers))[0] == 403
    assert (await post(http, "/runs", {"question": "x"}, headers=headers))[0] == 403


async def test_a_form_of_another_site_starts_no_run(http: aiohttp.ClientSession) -> None:
    async with http.post(
        f"{API}/runs", data='{"question": "x"}', headers={"Content-Type": "text/plain"}
    ) as sent:
        assert sent.status == 403


async def test_every_answer_forbids_what_comes_from_elsewhere(http: aiohttp.ClientSession) -> None:
    for path in ("/", "/runs/anything", "/page/main.js", f"{API}/server", "/page/missing.js"):
        async with http.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_files_of_the_page_are_sent_once(http: aiohttp.ClientSession) -> None:
    async with http.get("/page/main.js") as first:
        assert first.content_type == "text/javascript"
        tag = first.headers["ETag"]
    async with http.get("/page/main.js", headers={"If-None-Match": tag}) as second:
        assert second.status == 304
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/app.py", "/page/"):
        async with http.get(path) as refused:
            assert refused.status == 404


async def test_every_kind_of_error_has_a_status() -> None:
    def below(kind: type[HeavyError]) -> set[type[HeavyError]]:
        return {kind, *(one for child in kind.__subclasses__() for one in below(child))}

    made = {kind: kind.__new__(kind) for kind in below(HeavyError)}
    statuses = {kind: status_of(error) for kind, error in made.items()}
    assert statuses[errors.BudgetExhausted] == STATUSES[errors.LimitExceeded]
    assert statuses[errors.EngineTimeout] == STATUSES[errors.EngineError]
    assert all(400 <= status < 600 for status in statuses.values())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(page_store: StoreServer, tokens: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A server that asks for tokens, beside the open one on the same store."""
    server = PageServer(page_store.url, tokens_file=tokens)
    await server.start()
    async with aiohttp.ClientSession(server.url) as session:
        yield session
    await server.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_tenant_sees_its_own_runs_alone(guarded: aiohttp.ClientSession, runs: Runs) -> None:
    paths = [f"/runs/{runs.voted}{part}" for part in ("", "/briefs", "/records", "/events")]
    for path in ("/server", "/runs", *paths):
        assert (await get(guarded, path))[0] == 401
        assert (await get(guarded, path, headers=bearer("wrong-token-0123456789")))[0] == 401
    for path in paths:
        assert (await get(guarded, path, headers=bearer(OTHER)))[0] == 404
    assert (await post(guarded, f"/runs/{runs.live}/cancel", {}, headers=bearer(OTHER)))[0] == 404
    assert (await get(guarded, "/runs", headers=bearer(OTHER)))[1]["runs"] == []
    assert (await get(guarded, f"/runs/{runs.voted}", headers=bearer(TOKEN)))[0] == 200


async def test_a_file_of_a_run_is_bytes_to_be_saved_and_its_tenants_alone(
    http: aiohttp.ClientSession, guarded: aiohttp.ClientSession, served: PageServer, runs: Runs
) -> None:
    page = File("plot.svg", b"<svg onload='alert(1)'/>")
    (ref,) = await served.store.files.keep(runs.voted, [page])
    path = f"/runs/{runs.voted}/files/{ref.digest}"
    async with http.get(API + path) as response:
        assert await response.read() == page.data
        assert response.content_type == "application/octet-stream"
        assert response.headers["Content-Disposition"] == "attachment"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert (await get(http, f"/runs/{runs.failed}/files/{ref.digest}"))[0] == 404
    assert (await get(http, f"/runs/{runs.voted}/files/plot.svg"))[0] == 400
    assert (await get(guarded, path))[0] == 401
    assert (await get(guarded, path, headers=bearer(OTHER)))[0] == 404


async def test_files_come_with_a_run_in_base64_and_what_cannot_be_taken_is_named(
    http: aiohttp.ClientSession, served: PageServer
) -> None:
    data = File("data.csv", b"n\n\xff\n")
    given = {"name": data.name, "content": base64.b64encode(data.data).decode()}
    asked = {"question": "Sum?", "policy": {"tools": ["python"], "width": 1}, "files": [given]}
    status, detail = await post(http, "/runs", asked)
    assert status == 201
    (ref,) = detail["files"]
    assert (ref["name"], ref["size_bytes"]) == ("data.csv", 4)
    assert await served.store.files.read(detail["summary"]["run_id"], ref["digest"]) == data.data
    for wrong, field in (
        ([{**given, "name": "../x"}], "files[0].name"),
        ([{**given, "content": "not base64!"}], "files.0.content"),
        ([given, given], "files[1].name"),
    ):
        status, refused = await post(http, "/runs", {**asked, "files": wrong})
        assert status == 400
        assert [one["field"] for one in refused["error"]["violations"]] == [field]


async def test_the_fleet_is_shown_to_administrators_alone(
    guarded: aiohttp.ClientSession, served: PageServer
) -> None:
    status, said = await get(guarded, "/fleet", headers=bearer(TOKEN))
    assert (status, said["error"]["code"]) == (403, "forbidden")
    status, fleet = await get(guarded, "/fleet", headers=bearer(ADMIN))
    assert (status, set(fleet)) == (200, {"replicas", "runners"})
    assert not (await get(guarded, "/server", headers=bearer(TOKEN)))[1]["admin"]


async def test_a_credential_is_never_one_that_a_browser_sends_by_itself(
    guarded: aiohttp.ClientSession,
) -> None:
    for headers in ({"Cookie": f"token={TOKEN}; Authorization=Bearer {TOKEN}"},):
        assert (await get(guarded, "/runs", headers=headers))[0] == 401
    assert (await get(guarded, f"/runs?token={TOKEN}"))[0] == 401
