"""Finding runs: by request_id, by tenant, and those that have not ended.

The indexes live apart from the runs (other cluster slots), so they are changed by commands of their own:
a run is stored first and indexed after, hence an entry whose run is missing is always an old one, and is
taken out by whoever comes across it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from heavy.core.ids import RunId
from heavy.core.runs import RunSpec
from heavy.store.keys import LIVE, RunKeys, index_member, request_key, run_of_member, tenant_key
from heavy.store.link import Link
from heavy.store.scripts import FORGET

CLEANED_PER_CREATE: Final = 16
LIVE_SCANNED_MAX: Final = 8192
LIVE_PER_READ: Final = 256


class RunIndex:
    """The three indexes over runs."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def claimed(self, tenant: str, request_id: str) -> RunId | None:
        """The run that this request_id created, if any."""

        async def read(client: Any) -> bytes | None:
            found: bytes | None = await client.get(request_key(tenant, request_id))
            return found

        found = await self._link.call("look a request up", read)
        return RunId(found.decode()) if found else None

    async def claim(self, spec: RunSpec, ttl_ms: int) -> RunId:
        """Note that this request_id created this run; the run that holds it now, maybe an earlier one."""

        async def write(client: Any) -> bytes | None:
            found: bytes | None = await client.set(
                request_key(spec.tenant, spec.request_id), spec.run, nx=True, px=ttl_ms, get=True
            )
            return found

        found = await self._link.call("note a request", write)
        return RunId(found.decode()) if found else spec.run

    async def forget_claim(self, tenant: str, request_id: str, run: RunId) -> None:
        """Free a request_id whose run is gone."""
        await self._link.script("free a request", FORGET, [request_key(tenant, request_id)], [run])

    async def add(self, spec: RunSpec, ttl_ms: int) -> None:
        """List a stored run; the tenant's oldest entries are checked and, where gone, taken out."""
        key = tenant_key(spec.tenant)

        async def write(client: Any) -> list[bytes]:
            pipeline = client.pipeline(transaction=False)
            pipeline.zadd(LIVE, {spec.run: spec.created_ms})
            pipeline.zadd(key, {index_member(spec.created_ms, spec.run): 0})
            pipeline.pexpire(key, ttl_ms, nx=True)
            pipeline.pexpire(key, ttl_ms, gt=True)
            pipeline.zrange(key, 0, CLEANED_PER_CREATE - 1)
            oldest: list[bytes] = (await pipeline.execute())[-1]
            return oldest

        oldest = [member.decode() for member in await self._link.call("list a run", write)]
        await self.drop_gone(spec.tenant, oldest)

    async def remove(self, spec: RunSpec) -> None:
        """Take a run out of the listing: it lost its request_id to an earlier one."""

        async def write(client: Any) -> None:
            pipeline = client.pipeline(transaction=False)
            pipeline.zrem(LIVE, spec.run)
            pipeline.zrem(tenant_key(spec.tenant), index_member(spec.created_ms, spec.run))
            pipeline.delete(*RunKeys(spec.run).all)
            await pipeline.execute()

        await self._link.call("take a run back", write)

    async def older(self, tenant: str, before: str, count: int, *, least: str = "") -> list[str]:
        """At most `count` index members below `before` (empty: from the newest on), newest first.

        None is below `least`.
        """

        async def read(client: Any) -> list[bytes]:
            found: list[bytes] = await client.zrevrangebylex(
                tenant_key(tenant),
                f"({before}" if before else "+",
                f"[{least}" if least else "-",
                start=0,
                num=count,
            )
            return found

        return [member.decode() for member in await self._link.call("list runs", read)]

    async def drop(self, tenant: str, members: Sequence[str]) -> None:
        """Take members out of a tenant's index whose runs are gone."""

        async def write(client: Any) -> None:
            await client.zrem(tenant_key(tenant), *members)

        if members:
            await self._link.call("clean the list of runs", write)

    async def drop_gone(self, tenant: str, members: Sequence[str]) -> None:
        """Take out those of `members` whose runs are gone."""

        async def read(client: Any) -> list[int]:
            pipeline = client.pipeline(transaction=False)
            for member in members:
                pipeline.exists(RunKeys(run_of_member(member)).run)
            found: list[int] = await pipeline.execute()
            return found

        there = await self._link.call("check listed runs", read)
        await self.drop(tenant, [member for member, found in zip(members, there, strict=True) if not found])

    async def not_live(self, runs: Sequence[RunId]) -> None:
        """Take ended or vanished runs off the list of those under way."""

        async def write(client: Any) -> None:
            await client.zrem(LIVE, *runs)

        if runs:
            await self._link.call("take runs off the live list", write)

    async def ownerless(self, limit: int) -> list[RunId]:
        """At most `limit` runs of the live list that hold no lease, oldest first; the scan is bounded."""
        found: list[RunId] = []
        for start in range(0, LIVE_SCANNED_MAX, LIVE_PER_READ):
            runs, leased = await self._live(start)
            found += [run for run, held in zip(runs, leased, strict=True) if not held]
            if len(found) >= limit or len(runs) < LIVE_PER_READ:
                break
        return found[:limit]

    async def _live(self, start: int) -> tuple[list[RunId], list[int]]:
        async def read(client: Any) -> tuple[list[RunId], list[int]]:
            members = await client.zrange(LIVE, start, start + LIVE_PER_READ - 1)
            runs = [RunId(member.decode()) for member in members]
            pipeline = client.pipeline(transaction=False)
            for run in runs:
                pipeline.exists(RunKeys(run).lease)
            return runs, (await pipeline.execute() if runs else [])

        return await self._link.call("look for runs without an owner", read)
