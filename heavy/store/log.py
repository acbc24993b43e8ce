"""Run records and their logs on Redis: `heavy.store.api.RunLog`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from heavy.core.codec import dump
from heavy.core.errors import (
    FieldViolation,
    HeavyError,
    InvalidRequest,
    RequestConflict,
    StoreUnavailable,
)
from heavy.core.files import File, digest_of
from heavy.core.ids import RunId, is_run_id
from heavy.core.records import Delta, Entry, Record
from heavy.core.runs import FINAL_STATES, TRANSITIONS, Run, RunSpec, RunState
from heavy.store import scripts
from heavy.store.api import Created, Ending, RunPage
from heavy.store.follow import Following
from heavy.store.index import RunIndex
from heavy.store.keys import RunKeys, members_between, run_of_member
from heavy.store.link import Argument, Link, new_token
from heavy.store.refusals import lease_lost, not_found
from heavy.store.runs import ending_fields_of, fields_of, load_runs
from heavy.store.stream import dump_deltas, record_of

ENTRIES_PER_APPEND_MAX: Final = 1000
PAGE_MAX: Final = 200
SCANNED_PER_PAGE_MAX: Final = 1000
"""Runs looked at for one page: a filter that matches little returns a short page and a token, soon."""
DELTAS_KEPT: Final = 500
DELTAS_TTL_S: Final = 60.0
CREATE_ATTEMPTS: Final = 3


class RedisRunLog:
    """Runs and their logs. A run's keys are kept for `retention_s` after it ended."""

    def __init__(self, link: Link, retention_s: float) -> None:
        self._link = link
        self._index = RunIndex(link)
        self._retention_s = retention_s

    async def create(
        self, spec: RunSpec, *, owner: str, lease_s: float, files: Sequence[File] = ()
    ) -> Created:
        """Store a run under a fresh lease, or find the one its request_id created."""
        for _ in range(CREATE_ATTEMPTS):
            claimed = await self._index.claimed(spec.tenant, spec.request_id) if spec.request_id else None
            if claimed is None:
                claimed = await self._store(spec, owner, lease_s, files)
            found = (await load_runs(self._link, [claimed]))[0]
            if found is not None:
                return self._created(spec, found)
            await self._index.forget_claim(spec.tenant, spec.request_id, claimed)
        raise HeavyError(f"The request {spec.request_id!r} names runs that vanish; send it again.")

    async def get(self, run: RunId) -> Run:
        """The run record. Raises `NotFound`."""
        RunKeys(run)
        found = (await load_runs(self._link, [run]))[0]
        if found is None:
            raise not_found(run)
        return found

    async def list(
        self,
        tenant: str,
        *,
        states: frozenset[RunState],
        page_size: int,
        page_token: str,
        id_start: str = "",
    ) -> RunPage:
        """The tenant's runs, newest first, at most `PAGE_MAX`; a page may be short and yet have a next."""
        least, most = members_between(id_start)
        before = _member_of_token(page_token) or most
        size = max(1, min(page_size, PAGE_MAX))
        count = PAGE_MAX if states or id_start else size + 1
        runs: list[Run] = []
        scanned = 0
        while scanned < SCANNED_PER_PAGE_MAX:
            members = await self._index.older(tenant, before, count, least=least)
            if not members:
                return RunPage(tuple(runs), "")
            found = await load_runs(self._link, [run_of_member(member) for member in members])
            await self._index.drop(tenant, [m for m, run in zip(members, found, strict=True) if run is None])
            for member, run in zip(members, found, strict=True):
                if len(runs) == size:
                    return RunPage(tuple(runs), before)
                before = member
                if run is not None and _wanted(run, states, id_start):
                    runs.append(run)
            scanned += len(members)
        return RunPage(tuple(runs), before)

    async def append(self, run: RunId, *, epoch: int, entries: Sequence[Entry]) -> tuple[int, ...]:
        """Number and append entries in one atomic step. Raises `LeaseLost`, `NotFound`."""
        if not 0 < len(entries) <= ENTRIES_PER_APPEND_MAX:
            raise ValueError(
                f"{len(entries)} entries at once; between 1 and {ENTRIES_PER_APPEND_MAX} are taken"
            )
        first = await self._append(run, epoch, None, entries)
        return tuple(range(first, first + len(entries)))

    async def transition(self, run: RunId, *, epoch: int, state: RunState, entry: Entry) -> None:
        """Move a run to a state that is not final, with the entry that says so. Raises `LeaseLost`."""
        if state in FINAL_STATES:
            raise ValueError(f"{state} is final: finish ends a run")
        await self._append(run, epoch, state, [entry])

    async def finish(self, run: RunId, *, epoch: int, ending: Ending, entry: Entry) -> bool:
        """End a run atomically; False when it had ended already. Raises `LeaseLost`, `NotFound`."""
        keys, token = RunKeys(run), new_token()
        arguments: list[Argument] = [
            epoch,
            token,
            _states_before(ending.state),
            int(self._retention_s * 1000),
            dump(entry),
            *ending_fields_of(ending),
        ]
        answer, *rest = await self._link.script(
            f"end {run}",
            scripts.FINISH,
            [keys.run, keys.lease, *keys.kept[1:]],
            arguments,
        )
        if answer == b"ended":
            return bool(rest[0])
        _check(run, epoch, answer, rest, ending.state)
        with contextlib.suppress(StoreUnavailable):  # it has ended; whoever finds the entry removes it
            await self._index.not_live([run])
        return True

    async def read(self, run: RunId, *, after: int, limit: int) -> tuple[Record, ...]:
        """At most `limit` records with numbers above `after`. Raises `NotFound`."""
        keys = RunKeys(run)

        async def read(client: Any) -> tuple[int, list[Any]]:
            pipeline = client.pipeline(transaction=False)
            pipeline.exists(keys.run)
            pipeline.xrange(keys.log, min=f"{after + 1}-0", count=limit)
            there, items = await pipeline.execute()
            return there, items

        there, items = await self._link.call(f"read the log of {run}", read)
        if not there:
            raise not_found(run)
        return tuple(record_of(item) for item in items)

    def follow(self, run: RunId, *, after: int, deltas: bool) -> AsyncGenerator[Record | tuple[Delta, ...]]:
        """Records from a number on as they come, deltas between them; ends after the final record.

        Raises `NotFound`, `StoreUnavailable`, and `Overloaded` when too many logs are followed already.
        """
        return Following(self._link, run, after, deltas).items()

    async def publish(self, run: RunId, deltas: Sequence[Delta]) -> None:
        """Show fresh text to whoever follows: one attempt, and old text falls out."""
        keys = RunKeys(run)
        arguments: list[Argument] = [dump_deltas(deltas), DELTAS_KEPT, int(DELTAS_TTL_S * 1000)]
        if deltas:
            await self._link.once("show fresh text", scripts.PUBLISH, [keys.run, keys.deltas], arguments)

    async def _store(self, spec: RunSpec, owner: str, lease_s: float, files: Sequence[File]) -> RunId:
        """Store, index and claim a new run; the run its request_id belongs to in the end."""
        keys = RunKeys(spec.run)
        ttl_ms = max(0, spec.deadline_ms - spec.created_ms) + int(self._retention_s * 1000)
        given: dict[str, Argument] = {digest_of(file.data): file.data for file in files}
        contents = [part for pair in given.items() for part in pair]
        arguments: list[Argument] = [int(lease_s * 1000), ttl_ms, len(contents), *contents]
        arguments += fields_of(spec, owner)
        await self._link.script("create a run", scripts.CREATE, [keys.run, keys.lease, keys.files], arguments)
        await self._index.add(spec, ttl_ms)
        if not spec.request_id:
            return spec.run
        holder = await self._index.claim(spec, ttl_ms)
        if holder != spec.run:
            await self._index.remove(spec)
        return holder

    def _created(self, spec: RunSpec, found: Run) -> Created:
        if found.spec.run != spec.run and found.spec.fingerprint != spec.fingerprint:
            raise RequestConflict(
                f"The request_id {spec.request_id!r} created {found.spec.run} from other messages or another"
                " policy; use a new request_id for a new request."
            )
        return Created(found, fresh=found.spec.run == spec.run)

    async def _append(self, run: RunId, epoch: int, state: RunState | None, entries: Sequence[Entry]) -> int:
        keys, token, bodies = RunKeys(run), new_token(), [dump(entry) for entry in entries]
        before = _states_before(state) if state else ""
        answer, *rest = await self._link.script(
            f"append to the log of {run}",
            scripts.APPEND,
            [keys.run, keys.lease, keys.log, keys.tokens],
            [epoch, token, state or "", before, *bodies],
        )
        _check(run, epoch, answer, rest, state)
        return int(rest[0])


def _wanted(run: Run, states: frozenset[RunState], id_start: str) -> bool:
    return (not states or run.state in states) and run.spec.run.startswith(id_start)


def _check(run: RunId, epoch: int, answer: bytes, rest: Sequence[Any], state: RunState | None) -> None:
    if answer == b"gone":
        raise not_found(run)
    if answer == b"lost":
        raise lease_lost(run, epoch)
    if answer == b"state":
        raise HeavyError(f"{run} cannot go from {rest[0].decode()} to {state}.")


def _states_before(state: RunState) -> str:
    """The states from which `state` may be reached, as scripts search them: ,a,b,"""
    return "," + "".join(f"{before}," for before, allowed in TRANSITIONS.items() if state in allowed)


def _member_of_token(token: str) -> str:
    """The index member a page token stands for. Raises `InvalidRequest`."""
    created, _, run = token.partition("-")
    if token and not (created.isdecimal() and len(created) == 15 and is_run_id(run)):
        raise InvalidRequest((FieldViolation("page_token", "is not one that this server gave out"),))
    return token
