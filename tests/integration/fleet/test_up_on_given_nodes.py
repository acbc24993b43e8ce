"""`heavy up` on a cluster that was there before and is there afterwards: what it took is given back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ray.util import list_named_actors

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.ids import attempt_of
from heavy.core.policy import AggregationMode
from heavy.core.records import Delta, GenerationRecord
from heavy.core.runs import Run, RunState
from heavy.replicas.router import FAILOVER_STRIDE
from workers.fleet import placement

from .conftest import Fleet, Nodes
from tests_support.up import READY_WITHIN_S, Up, alive, processes_below
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SGLANG_WITHIN_S = 540.0
"""Two servers load beside each other: a minute on two idle cores."""
QUESTION = "Use python: start with 787, multiply by 11, subtract 512."
ANSWER = "8145"

Step = tuple[str, int]


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


@pytest.mark.sglang
async def test_a_run_on_two_sglang_servers_goes_on_when_one_is_killed_in_mid_generation(
    nodes: Nodes, fleet: Fleet
) -> None:
    await nodes.number(2)
    up = up_on(nodes, fleet, "abacus-sglang-nodes")
    await asyncio.to_thread(up.start, SGLANG_WITHIN_S)
    async with stopped_by_ctrl_c(up, fleet):
        assert len({nodes.of(info.pid) for info in await fleet.until_ready(2)}) == 2
        async with HeavyClient(up.address, patience_s=60.0) as client:
            run, said, before, generations = await watched_with_a_kill(client, fleet)
    assert run.state is RunState.COMPLETED
    assert run.result is not None
    assert run.result.short_answer == ANSWER
    lost = {step for step, r in generations.items() if attempt_of(r.request_id) >= FAILOVER_STRIDE}
    assert any(before.get(step) for step in lost), "the kill was in the middle of a generation"
    for step, generation in generations.items():
        whole = generation.message.reasoning + generation.message.content
        # Text on its way may lose its last piece to the record, which has it all; never one in between.
        assert whole.startswith(said[step]), "what a watcher saw has no gap and no repetition"
        assert said[step].startswith(before.get(step, ""))


async def watched_with_a_kill(
    client: HeavyClient, fleet: Fleet
) -> tuple[Run, dict[Step, str], dict[Step, str], dict[Step, GenerationRecord]]:
    """A run of eight arms with the busier server killed once both are busy.

    The run, what was seen of each step in all and before the kill, and what was recorded of each.
    """
    said, before, generations = defaultdict[Step, str](str), dict[Step, str](), dict[Step, GenerationRecord]()
    killing: asyncio.Task[None] | None = None

    async def kill() -> None:
        infos = await until(lambda: fleet.replicas("ready"), lambda infos: all(i.running for i in infos))
        victim = max(infos, key=lambda info: info.running)
        before.update({step: text for step, text in said.items() if step not in generations})
        for pid in processes_below(victim.pid) - {victim.pid}:
            os.kill(pid, signal.SIGKILL)

    policy = PolicyDraft(early_stop=False, aggregation=AggregationMode.VOTE)
    async with client.ask(QUESTION, policy) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                said[event.trajectory, event.step] += event.reasoning + event.content
                killing = killing or asyncio.create_task(kill())
            elif isinstance(event.body, GenerationRecord):
                generations[event.trajectory, event.step] = event.body
    assert killing is not None
    await killing
    assert stream.run is not None
    return await client.get(stream.run), said, before, generations
