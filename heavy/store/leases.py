"""Who owns a run, on Redis: `heavy.store.api.Leases`."""

from __future__ import annotations

from typing import Any

from heavy.core.errors import LeaseLost
from heavy.core.ids import RunId
from heavy.core.runs import Run
from heavy.store import scripts
from heavy.store.index import RunIndex
from heavy.store.keys import RunKeys
from heavy.store.link import Argument, Link, new_token
from heavy.store.refusals import lease_lost
from heavy.store.runs import load_runs


class RedisLeases:
    """Leases are keys that expire; their epochs come from a counter in the run record."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._index = RunIndex(link)

    async def renew(self, run: RunId, *, epoch: int, lease_s: float) -> None:
        """Extend the lease. Raises `LeaseLost`."""
        arguments: list[Argument] = [epoch, int(lease_s * 1000)]
        answer, *_ = await self._link.script(
            f"renew the lease of {run}", scripts.RENEW, [RunKeys(run).lease], arguments
        )
        if answer == b"lost":
            raise lease_lost(run, epoch)

    async def held(self, run: RunId, *, epoch: int) -> bool:
        """Whether `epoch` still owns the run."""
        key = RunKeys(run).lease

        async def read(client: Any) -> bytes | None:
            found: bytes | None = await client.get(key)
            return found

        return await self._link.call(f"read the lease of {run}", read) == str(epoch).encode()

    async def release(self, run: RunId, *, epoch: int) -> None:
        """Give a lease up early; no error when it is gone already."""
        await self._link.script(f"release the lease of {run}", scripts.RELEASE, [RunKeys(run).lease], [epoch])

    async def expired(self, limit: int) -> tuple[Run, ...]:
        """Runs that are not final and have no owner, oldest first."""
        runs = await self._index.ownerless(limit)
        found = await load_runs(self._link, runs)
        await self._index.not_live(
            [run for run, record in zip(runs, found, strict=True) if record is None or record.state.final]
        )
        return tuple(record for record in found if record is not None and not record.state.final)

    async def take(self, run: RunId, *, owner: str, lease_s: float) -> int:
        """Take over an ownerless run; the new epoch. Raises `LeaseLost` when there is nothing to take."""
        keys = RunKeys(run)
        arguments: list[Argument] = [int(lease_s * 1000), owner, new_token()]
        answer, *rest = await self._link.script(
            f"take {run} over", scripts.TAKE, [keys.run, keys.lease], arguments
        )
        if answer != b"ok":
            raise LeaseLost(f"{run} has an owner, has ended or is gone: it cannot be taken over.")
        return int(rest[0])
