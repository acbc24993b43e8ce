"""`heavy up` on a cluster that was there before and is there afterwards: what it took is given back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ray.util import list_named_actors

from workers.fleet import placement

from .conftest import Fleet, Nodes
from tests_support.up import READY_WITHIN_S, Up, alive, processes_below
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def up_on(nodes: Nodes, fleet: Fleet, profile: str) -> Up:
    env = {"RAY_ADDRESS": nodes.cluster.address, "HEAVY_STORE_URL": fleet.settings.store_url}
    return Up([profile], "--runners", "1", env=env)


@asynccontextmanager
async def stopped_by_ctrl_c(up: Up, fleet: Fleet) -> AsyncIterator[None]:
    """Ctrl-C after the block, and then nothing of it is left: no group, no actor, no engine process."""
    try:
        yield
        engines = set[int]().union(
            *(processes_below(info.pid) for info in await fleet.replicas() if info.pid)
        )
        assert engines
    finally:
        status = await asyncio.to_thread(up.stop, signal.SIGINT)
    said = "".join(up.output)
    assert status == 0, said
    assert "Traceback" not in said
    assert placement.groups("heavy-") == {}
    assert list_named_actors(all_namespaces=True) == []
    assert alive(engines) == set()
    assert await fleet.store.fleet.members() == ()
    assert await fleet.store.fleet.wanted() == ()


async def test_ctrl_c_gives_back_what_serves_and_what_still_waits_for_room(
    nodes: Nodes, fleet: Fleet
) -> None:
    await nodes.number(1)
    up = up_on(nodes, fleet, "octet")
    up.begin()
    async with stopped_by_ctrl_c(up, fleet):
        await until(lambda: fleet.replicas("ready"), bool, within_s=READY_WITHIN_S)
        await until(lambda: fleet.replicas("pending"), lambda infos: len(infos) == 1)
        assert sorted(placement.groups("heavy-").values()) == ["CREATED", "PENDING"]
