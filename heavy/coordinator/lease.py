"""Keeping a run's lease while it is under way, and saying so when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from heavy.core import clock
from heavy.core.errors import LeaseLost, StoreUnavailable
from heavy.core.ids import RunId
from heavy.store.api import Leases

RENEWALS_PER_LEASE = 3


@asynccontextmanager
async def kept(leases: Leases, run: RunId, epoch: int, lease_s: float) -> AsyncIterator[None]:
    """Renew the lease around a block. When it is lost, the block is cancelled and `LeaseLost` raised."""
    owner = asyncio.current_task()
    assert owner is not None
    lost: list[LeaseLost] = []

    async def keep() -> None:
        try:
            await _renew(leases, run, epoch, lease_s)
        except LeaseLost as error:
            lost.append(error)
            owner.cancel()

    keeper = asyncio.create_task(keep())
    try:
        yield
    except asyncio.CancelledError:
        if lost and owner.uncancel() == 0:
            raise lost[0] from None
        raise
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def _renew(leases: Leases, run: RunId, epoch: int, lease_s: float) -> None:
    renewed_at_s = clock.monotonic_s()
    while True:
        await asyncio.sleep(lease_s / RENEWALS_PER_LEASE)
        try:
            await leases.renew(run, epoch=epoch, lease_s=lease_s)
            renewed_at_s = clock.monotonic_s()
        except StoreUnavailable as error:
            if clock.monotonic_s() - renewed_at_s >= lease_s:
                raise LeaseLost(
                    f"The lease of {run} could not be renewed for {lease_s:g} s: {error}"
                ) from error
