"""Replicas come with the load and go with it: the whole of Heavy on nodes with GPUs on paper."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import pytest
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.ids import attempt_of
from heavy.core.policy import AggregationMode
from heavy.core.records import GenerationRecord
from heavy.core.runs import RunState
from workers.fleet import placement

from .conftest import Fleet, Nodes, stopped_by_ctrl_c, up_on
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SCALED = ("crowded", "hoarding")
"""One of which grows when generations wait for a place, the other when its KV memory fills."""
MOST = 2
WITHIN_S = 90.0


@dataclass
class Answered:
    """What questions without end have come to."""

    runs: list[str] = field(default_factory=list)
    """The profile of each run that has ended with an answer."""
    generations: list[GenerationRecord] = field(default_factory=list)


async def test_replicas_come_when_load_lasts_and_go_when_it_is_over_and_no_generation_is_broken_off(
    nodes: Nodes, fleet: Fleet
) -> None:
    await nodes.number(1)
    up = up_on(nodes, fleet, *SCALED)
    await asyncio.to_thread(up.start)
    numbers: list[int] = []

    async def members(profile: str) -> int:
        count = sum(member.profile == profile for member in await fleet.store.fleet.members())
        numbers.append(count)
        return count

    async with (
        stopped_by_ctrl_c(up, fleet),
        HeavyClient(up.address, patience_s=60.0) as client,
        asking(client, width=2) as throughout,
    ):
        async with asking(client, width=8, at_once=2) as load:
            await until(lambda: demand(nodes), lambda asked: asked == [{"GPU": 4.0}] * len(SCALED), WITHIN_S)
            assert sorted(placement.groups("heavy-").values()) == ["CREATED", "CREATED", "PENDING", "PENDING"]
            nodes.add()
            await fleet.until_ready(MOST * len(SCALED))
            already = Counter(load.runs)
            for profile in SCALED:
                await until(partial(members, profile), lambda _: go_on(load, already), WITHIN_S)
        for profile in SCALED:
            await until(partial(members, profile), lambda count: count == 1, WITHIN_S)
    assert max(numbers) == MOST
    generations = throughout.generations + load.generations
    assert len({generation.replica for generation in generations}) == MOST * len(SCALED)
    assert {attempt_of(generation.request_id) for generation in generations} == {0}


def go_on(load: Answered, already: Counter[str]) -> bool:
    """Whether some more runs of each profile have ended since."""
    since = Counter(load.runs) - already
    return all(since[profile] >= 4 for profile in SCALED)


@asynccontextmanager
async def asking(client: HeavyClient, width: int, at_once: int = 1) -> AsyncIterator[Answered]:
    """So many runs at once on each profile, over and over, for a block. Any that fails fails the block."""
    answered, stop = Answered(), asyncio.Event()

    async def ask(profile: str) -> None:
        policy = PolicyDraft(width, (profile,), tools=(), early_stop=False, aggregation=AggregationMode.VOTE)
        while not stop.is_set():
            async with client.ask("What is 6 times 7?", policy, deltas=False) as stream:
                bodies = [event.body async for event in stream]
            assert stream.run is not None
            run = await client.get(stream.run)
            assert run.state is RunState.COMPLETED, run.failure
            answered.runs.append(profile)
            answered.generations += [body for body in bodies if isinstance(body, GenerationRecord)]

    async with asyncio.TaskGroup() as group:
        for profile, _ in product(SCALED, range(at_once)):
            group.create_task(ask(profile))
        try:
            yield answered
        finally:
            stop.set()


async def demand(nodes: Nodes) -> list[dict[str, float]]:
    """The bundles that Ray's autoscaler is told are waited for."""
    state = await asyncio.to_thread(get_cluster_resource_state, GcsClient(address=nodes.cluster.address))
    gangs = state.pending_gang_resource_requests
    return [dict(request.resources_bundle) for gang in gangs for request in gang.requests]
