"""The HTTP API, version 1, which the web page stands on. `docs/http-api.md` describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from aiohttp import web

from heavy.coordinator.api import Coordinator
from heavy.coordinator.defaults import DEADLINE_S, WIDTH
from heavy.core import codec
from heavy.core.fleet import ReplicaInfo, RunnerInfo
from heavy.core.ids import ARMS_MAX, RunId
from heavy.core.records import Record
from heavy.gateway import requests
from heavy.gateway.briefs import Brief, Briefs, Records, brief_of
from heavy.gateway.callers import Callers
from heavy.gateway.events import EventStreams
from heavy.gateway.requests import AskBody, BriefsQuery, CancelBody, EventsQuery, RecordsQuery, RunsQuery
from heavy.gateway.views import ModelView, RunList, detail_of, model_of, summary_of

PREFIX: Final = "/api/v1"
DEFAULT_REASON: Final = "Cancelled from the web page."
LOG_PAGE: Final = 500
"""Records read from the store at once, so that other callers have their turn between pages."""
SCANNED_MAX: Final = 8_000
"""Records looked at for one answer: a filter that matches little returns a short page, soon."""
ANSWER_BYTES_MAX: Final = 2 << 20
"""Where a page of full records ends early."""
COMPRESSED_BYTES_MIN: Final = 1_024


@dataclass(frozen=True, slots=True)
class ServerView:
    """What this server is, and what it may be asked for."""

    version: str
    tenant: str
    admin: bool
    open: bool
    """Whether it asks for no token."""
    models: tuple[ModelView, ...]
    default_profile: str
    tools: tuple[str, ...]
    file_tools: tuple[str, ...]
    """Those in whose working directory the caller's files stand."""
    width_default: int
    width_max: int
    deadline_default_s: float
    deadline_max_s: float


@dataclass(frozen=True, slots=True)
class FleetView:
    """What serves now."""

    replicas: tuple[ReplicaInfo, ...]
    runners: tuple[RunnerInfo, ...]


class Api:
    """The handlers, on the coordinator that the gRPC service stands on too."""

    def __init__(self, coordinator: Coordinator, callers: Callers) -> None:
        self._coordinator = coordinator
        self._callers = callers
        self.streams = EventStreams()

    def routes(self) -> list[web.RouteDef]:
        """Every path of the API."""
        run = PREFIX + "/runs/{run}"
        return [
            web.get(f"{PREFIX}/server", self.server),
            web.get(f"{PREFIX}/fleet", self.fleet),
            web.get(f"{PREFIX}/runs", self.list_runs),
            web.post(f"{PREFIX}/runs", self.create_run),
            web.get(run, self.get_run),
            web.post(f"{run}/cancel", self.cancel_run),
            web.get(f"{run}/briefs", self.briefs),
            web.get(f"{run}/records", self.records),
            web.get(f"{run}/files/{{digest}}", self.file),
            web.get(f"{run}/events", self.events, allow_head=False),
        ]

    async def server(self, request: web.Request) -> web.Response:
        """What this server is, and as whom the caller is known to it."""
        caller = self._callers.identify(request)
        policies = self._coordinator.policies
        served = tuple(sorted(policies.served))
        only = served[0] if len(served) == 1 else ""
        view = ServerView(
            version=version("heavy"),
            tenant=caller.tenant,
            admin=caller.admin,
            open=self._callers.open,
            models=tuple(model_of(name, policies.profiles) for name in served),
            default_profile=policies.settings.profile or only,
            tools=tuple(sorted(policies.tool_names)),
            file_tools=tuple(sorted(policies.file_tools)),
            width_default=WIDTH,
            width_max=ARMS_MAX,
            deadline_default_s=min(DEADLINE_S, policies.settings.deadline_max_s),
            deadline_max_s=policies.settings.deadline_max_s,
        )
        return answer(request, view)

    async def fleet(self, request: web.Request) -> web.Response:
        """Replicas and runners now, for administrators."""
        self._callers.require_admin(request)
        replicas, runners = await asyncio.gather(self._coordinator.replicas(), self._coordinator.runners())
        return answer(request, FleetView(replicas, runners))

    async def list_runs(self, request: web.Request) -> web.Response:
        """One page of the tenant's runs, newest first."""
        caller = self._callers.identify(request)
        wanted = requests.query(request, RunsQuery)
        page = await self._coordinator.list(
            caller.tenant,
            states=wanted.states,
            page_size=wanted.page_size,
            page_token=wanted.page_token,
            id_start=wanted.id_start,
        )
        profiles = self._coordinator.policies.profiles
        return answer(
            request, RunList(tuple(summary_of(run, profiles) for run in page.runs), page.next_token)
        )

    async def create_run(self, request: web.Request) -> web.Response:
        """Create a detached run (201), or find the one this request_id created (200)."""
        caller = self._callers.identify(request)
        policies = self._coordinator.policies
        wanted = requests.create_request(
            await requests.body(request, AskBody),
            caller.tenant,
            policies,
            traceparent=request.headers.get("traceparent", ""),
        )
        created = await self._coordinator.create(wanted)
        return answer(request, detail_of(created.run, policies.profiles), 201 if created.fresh else 200)

    async def get_run(self, request: web.Request) -> web.Response:
        """A run in full, without its log."""
        caller = self._callers.identify(request)
        run = await self._coordinator.get(caller.tenant, requests.run_id(request))
        return answer(request, detail_of(run, self._coordinator.policies.profiles))

    async def cancel_run(self, request: web.Request) -> web.Response:
        """Ask for a run to stop."""
        caller = self._callers.identify(request)
        reason = (await requests.body(request, CancelBody)).reason
        run = await self._coordinator.cancel(
            caller.tenant, requests.run_id(request), reason or DEFAULT_REASON
        )
        return answer(request, detail_of(run, self._coordinator.policies.profiles))

    async def briefs(self, request: web.Request) -> web.Response:
        """A stretch of a run's log in brief: what a timeline is drawn from."""
        caller, run = self._callers.identify(request), requests.run_id(request)
        wanted = requests.query(request, BriefsQuery)
        found: list[Brief] = []
        after, more = wanted.after, True
        while more and len(found) < wanted.limit:
            size = min(LOG_PAGE, wanted.limit - len(found))
            page = await self._coordinator.records(caller.tenant, run, after=after, limit=size)
            found += map(brief_of, page)
            after, more = (page[-1].number if page else after), len(page) == size
        return answer(request, Briefs(tuple(found), after, more))

    async def records(self, request: web.Request) -> web.Response:
        """A stretch of a run's log in full, of one trajectory where it is named."""
        caller, run = self._callers.identify(request), requests.run_id(request)
        wanted = requests.query(request, RecordsQuery)
        found: list[Record] = []
        after, more, room = wanted.after, False, ANSWER_BYTES_MAX
        async for record in self._log(caller.tenant, run, wanted.after):
            if wanted.lane and record.trajectory != wanted.lane:
                after = record.number
                continue
            room -= len(codec.dump(record))
            if found and (room < 0 or len(found) == wanted.limit):
                more = True
                break
            after = record.number
            found.append(record)
        more = more or after - wanted.after >= SCANNED_MAX
        return answer(request, Records(tuple(found), after, more))

    async def _log(self, tenant: str, run: RunId, after: int) -> AsyncIterator[Record]:
        """At most `SCANNED_MAX` records above `after`, page by page."""
        for _ in range(SCANNED_MAX // LOG_PAGE):
            page = await self._coordinator.records(tenant, run, after=after, limit=LOG_PAGE)
            for record in page:
                yield record
            if len(page) < LOG_PAGE:
                return
            after = page[-1].number

    async def file(self, request: web.Request) -> web.Response:
        """The content of a file of a run, as bytes to be saved: a browser is to make nothing of it."""
        caller, run = self._callers.identify(request), requests.run_id(request)
        data = await self._coordinator.file(caller.tenant, run, requests.digest(request))
        headers = {"Cache-Control": "no-store", "Content-Disposition": "attachment"}
        return web.Response(body=data, content_type="application/octet-stream", headers=headers)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Follow a run. `Last-Event-ID` wins over `after`: it is the later of the two."""
        caller, run = self._callers.identify(request), requests.run_id(request)
        wanted = requests.query(request, EventsQuery)
        await self._coordinator.get(caller.tenant, run)
        after = max(wanted.after, _last_event_id(request))
        events = self._coordinator.watch(caller.tenant, run, after=after, deltas=wanted.deltas)
        return await self.streams.send(request, events)


def answer(request: web.Request, value: object, status: int = 200) -> web.Response:
    """A value as JSON, compressed for who takes that. Never cached: another token may ask next."""
    data = codec.dump(value)
    response = web.Response(body=data, status=status, content_type="application/json", charset="utf-8")
    response.headers["Cache-Control"] = "no-store"
    if len(data) >= COMPRESSED_BYTES_MIN:
        response.enable_compression()
    return response


def _last_event_id(request: web.Request) -> int:
    given = request.headers.get("Last-Event-ID", "") or "0"
    if not given.isdecimal() or len(given) > 15:
        raise requests.invalid("Last-Event-ID", f"{given!r:.80} is no record number")
    return int(given)
