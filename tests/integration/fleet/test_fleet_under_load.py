"""What operators do while questions are being answered: updates, drains, two controllers, a stuck start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from heavy.coordinator.fleet import wanted_of
from heavy.core import clock
from heavy.core.errors import EngineUnavailable
from heavy.core.ids import arm, attempt_of, new_run_id, request_id
from heavy.core.messages import Message, Role
from heavy.core.policy import Sampling
from heavy.profiles.loader import ProfileBook
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationRequest
from heavy.replicas.http import HttpPool
from heavy.replicas.registry import ReplicaRegistry
from heavy.replicas.router import RoutedReplica
from workers.fleet import placement

from .conftest import Fleet, Nodes
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

MakeProfile = Callable[..., Profile]
STREAMS = 6


@asynccontextmanager
async def asking(fleet: Fleet, profile: Profile) -> AsyncIterator[list[str]]:
    """Generations without end on the profile for a block; the replicas that finished one, in order.

    Any generation that fails, or is broken off and goes on elsewhere, fails the block.
    """
    pool = HttpPool(STREAMS)
    registry = ReplicaRegistry.over_http(fleet.store.directory, ProfileBook([profile]), pool, silence_s=60.0)
    router, served, stop = RoutedReplica(registry), list[str](), asyncio.Event()

    async def ask(number: int) -> None:
        step = 0
        while not stop.is_set():
            request = GenerationRequest(
                request_id=request_id(new_run_id(), arm(number), step, 0),
                profile=profile.name,
                messages=(Message(Role.USER, f"What is {number} + {step}?"),),
                tools=(),
                sampling=Sampling(seed=number),
                tokens_max=200,
                deadline_ms=clock.now_ms() + 60_000,
            )
            async with aclosing(router.generate(request)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        assert attempt_of(event.request_id) == 0
                        served.append(event.replica)
            step += 1

    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            group.create_task(ask(number))
        try:
            yield served
        finally:
            stop.set()
    await pool.close()


async def test_an_update_under_load_breaks_no_generation_off(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(3)
    served, octet = fleet.served(), profile("octet")
    try:
        await served.ask([octet], None)
        await served.until_ready()
        before = {info.replica for info in await fleet.until_ready(2)}
        async with asking(fleet, octet) as answered:
            await until(lambda: _count(answered), lambda count: count > STREAMS, within_s=60.0)
            after = wanted_of(profile("octet", args=(*octet.serve.args, "--seed", "7")))
            await fleet.store.fleet.want(after)
            await fleet.until_ready(2, lambda info: info.revision == after.revision)
            await until(
                lambda: _members(fleet), lambda names: not names & before and len(names) == 2, within_s=90.0
            )
            seen = len(answered)
            await until(lambda: _count(answered), lambda count: count > seen + STREAMS, within_s=60.0)
        assert set(answered) - before, "the new ones answered, too"
    finally:
        await served.stop()
    assert placement.groups("heavy-") == {}


async def test_of_two_controllers_one_acts_and_the_other_takes_over(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(2)
    octet = profile("octet", replicas=1)
    first, second = fleet.served(), fleet.served()
    try:
        await first.ask([octet], None)
        await first.until_ready()
        await second.ask([octet], None)
        await second.until_ready()
        assert len(await fleet.store.fleet.members()) == 1
        await first.stop(keep=True)
        await fleet.store.fleet.want(wanted_of(profile("octet", replicas=2)))
        await fleet.until_ready(2)
    finally:
        await second.stop()
    assert placement.groups("heavy-") == {}


async def test_a_start_that_is_stuck_is_given_up_with_what_it_said_last(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(1)
    served = fleet.served()
    stuck = profile("octet", replicas=1, start_timeout_s=10.0, args=("--load-s", "600"))
    try:
        await served.ask([stuck], None)
        with pytest.raises(EngineUnavailable, match=r"did not answer within 10 s[\s\S]*Loading safetensors"):
            await served.until_ready()
    finally:
        await served.stop()
    assert placement.groups("heavy-") == {}


async def _count(answered: list[str]) -> int:
    return len(answered)


async def _members(fleet: Fleet) -> set[str]:
    return {member.replica for member in await fleet.store.fleet.members()}
