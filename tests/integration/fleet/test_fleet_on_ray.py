"""Replicas on nodes with GPUs on paper: placed, lost, updated, scaled, and given back to the last bundle."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from heavy.coordinator.fleet import wanted_of
from heavy.core.errors import EngineUnavailable
from heavy.core.fleet import ReplicaInfo, Wanted
from heavy.profiles.schema import Profile
from workers.fleet import placement
from workers.fleet.served import ServedProfiles

from .conftest import Fleet, Nodes
from tests_support.up import processes_below
from tests_support.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

MakeProfile = Callable[..., Profile]


@asynccontextmanager
async def serving(fleet: Fleet, *profiles: Profile, wait: bool = True) -> AsyncIterator[ServedProfiles]:
    """The profiles served for a block; afterwards the cluster holds nothing of theirs."""
    served = fleet.served()
    try:
        await served.ask(profiles, None)
        if wait:
            await served.until_ready()
        yield served
    finally:
        await served.stop()
    assert placement.groups("heavy-") == {}


async def change(fleet: Fleet, name: str, **changes: object) -> Wanted:
    return await fleet.store.fleet.change(name, lambda wanted: replace(wanted, **changes))


async def test_each_replica_has_a_node_and_its_loading_is_seen(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(2)
    async with serving(fleet, profile("octet", args=("--load-s", "2"))):
        ready = await fleet.until_ready(2)
        assert len({info.base_url for info in ready}) == 2
        assert sorted(placement.groups("heavy-").values()) == ["CREATED", "CREATED"]
    told = [detail for _, state, detail in fleet.said if state == "starting"]
    assert any("loading weights" in detail for detail in told)


async def test_what_the_cluster_lacks_is_said_and_a_node_that_comes_is_used(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(1)
    async with serving(fleet, profile("octet"), wait=False):
        await fleet.until_ready(1)
        (waiting,) = await until(lambda: fleet.replicas("pending"), lambda infos: len(infos) == 1)
        assert waiting.detail == "needs 8 GPU on one node; 0 of 1 such nodes have that much free"
        nodes.add()
        await fleet.until_ready(2)


async def test_a_replica_whose_node_is_lost_comes_up_elsewhere(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(2)
    async with serving(fleet, profile("octet", replicas=1)):
        (before,) = await fleet.until_ready(1)
        nodes.lose(nodes.of(before.pid))
        (after,) = await fleet.until_ready(1, lambda info: info.replica != before.replica)
        assert after.base_url != before.base_url


async def test_a_gang_lives_on_two_nodes_and_a_lost_rank_takes_it_elsewhere_as_a_whole(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile, tmp_path: Path
) -> None:
    await nodes.number(3)
    fleet.settings = fleet.settings.model_copy(update={"engine_log_dir": str(tmp_path)})
    log = tmp_path / "heavy-engines" / "gang-0-rank-1.log"
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    async with serving(fleet, profile("gang")):
        (before,) = await fleet.until_ready(1, lambda info: "make room there" in info.detail)
        assert before.detail.startswith("rank 1 on ")
        assert len(before.nodes) == 2
        follower = await rank_process("--node-rank 1")
        os.kill(follower, signal.SIGKILL)
        again = await fleet.until_ready(1, lambda info: info.since_ms > before.since_ms)
        assert again[0].replica == before.replica, "a crashed process is restarted in place"
        follower = await rank_process("--node-rank 1")
        nodes.lose(nodes.of(follower))
        (after,) = await fleet.until_ready(1, lambda info: info.replica != before.replica)
        assert len(after.nodes) == 2


async def test_a_hung_engine_is_ended_and_restarted(nodes: Nodes, fleet: Fleet, profile: MakeProfile) -> None:
    await nodes.number(1)
    async with serving(fleet, profile("octet", replicas=1, hung_restart_s=1.0)):
        (before,) = await fleet.until_ready(1)
        (engine,) = processes_below(before.pid) - {before.pid}
        os.kill(engine, signal.SIGSTOP)
        (after,) = await fleet.until_ready(1, lambda info: info.pid != before.pid)
        assert after.replica == before.replica


async def test_a_profile_that_cannot_be_read_is_its_own_failure_and_the_others_are_minded(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(1)
    async with serving(fleet, profile("octet", replicas=1)):
        foreign = replace(
            wanted_of(profile("gang")), profile="foreign", definition='{"of": "another version"}'
        )
        await fleet.store.fleet.want(foreign)
        (failure,) = await until(fleet.store.fleet.failures, bool)
        assert failure.profile == "foreign"
        assert "cannot be read by this version" in failure.reason
        await change(fleet, "octet", replicas=0, replicas_min=0)
        await fleet.until_ready(0)
        await fleet.store.fleet.unwant("foreign")


async def test_a_rolling_update_never_serves_with_fewer_than_the_minimum(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(2)
    async with serving(fleet, profile("octet")):
        before = await fleet.until_ready(2)
        fewest = 2
        after = wanted_of(profile("octet", args=("--seed", "7")))
        await fleet.store.fleet.want(after)

        async def renewed() -> bool:
            nonlocal fewest
            ready = await fleet.replicas("ready")
            fewest = min(fewest, len(ready))
            return sum(info.revision == after.revision for info in ready) == 2

        await until(renewed, bool, within_s=90.0)
        assert fewest >= 1, "two nodes have no room for a third: one at a time"
        assert not {info.replica for info in before} & {i.replica for i in await fleet.replicas("ready")}


async def test_a_profile_that_cannot_start_is_quarantined_with_its_last_words(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(1)
    served = fleet.served()
    try:
        await served.ask([profile("octet", replicas=1, args=("--nonsense",))], None)
        with pytest.raises(EngineUnavailable, match=r"status 2[\s\S]*unrecognized arguments: --nonsense"):
            await served.until_ready()
    finally:
        await served.stop()
    assert placement.groups("heavy-") == {}


async def test_a_port_that_somebody_takes_while_an_engine_loads_costs_that_start_and_no_more(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(2)
    slow = ("--load-s", "5")  # it binds its port when it has loaded
    async with serving(fleet, profile("octet", replicas=1, replicas_max=2, args=slow)):
        await change(fleet, "octet", replicas=2)
        (loading,) = await until(lambda: loading_now(fleet), bool, within_s=60.0)
        with socket.create_server(("127.0.0.1", int(loading.base_url.rpartition(":")[2]))):
            ready = await fleet.until_ready(2)
        (failures,) = await fleet.store.fleet.failures()
    assert loading.replica not in {info.replica for info in ready}
    assert "address already in use" in failures.reason
    assert failures.count == 1


async def loading_now(fleet: Fleet) -> list[ReplicaInfo]:
    """Those whose process has its port and does not listen on it yet."""
    return [info for info in await fleet.replicas("starting") if "loading" in info.detail]


async def test_a_drain_replaces_the_replica_and_more_are_wanted_and_fewer(
    nodes: Nodes, fleet: Fleet, profile: MakeProfile
) -> None:
    await nodes.number(2)
    async with serving(fleet, profile("octet", replicas=1, replicas_max=2)):
        (before,) = await fleet.until_ready(1)
        await change(fleet, "octet", drained=(before.replica,))
        await fleet.until_ready(1, lambda info: info.replica != before.replica)
        await change(fleet, "octet", replicas=2)
        await fleet.until_ready(2)
        await change(fleet, "octet", replicas=1)
        await until(fleet.store.fleet.members, lambda members: len(members) == 1, within_s=60.0)


async def rank_process(flag: str) -> int:
    """The engine process below this one whose command line has the flag; other people have theirs."""

    async def found() -> list[int]:
        lines, ours = command_lines(), processes_below(os.getpid())
        return [
            pid
            for pid, line in lines.items()
            if pid in ours and "engines.simulated" in line and flag in line and "workers.guard" not in line
        ]

    return (await until(found, lambda pids: len(pids) == 1))[0]


def command_lines() -> dict[int, str]:
    """The command line of every process."""
    lines = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines[int(entry.parent.name)] = entry.read_text().replace("\0", " ")
    return lines
