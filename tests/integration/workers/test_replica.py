"""The replica of a profile without Ray around it: what it announces from its start to its end."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest

from heavy.config import Settings
from heavy.core.fleet import ReplicaInfo
from heavy.profiles.loader import load_profiles
from heavy.store.redis import RedisStore
from workers.replica import Replica

from tests_support.up import PROFILES, alive, processes_below
from tests_support.waiting import until


@pytest.fixture
async def replica(store_url: str) -> AsyncIterator[Replica]:
    profile = load_profiles([PROFILES]).get("brisk")
    running = Replica("brisk-0", profile, Settings(store_url=store_url).environment())
    await running.start()
    yield running
    await running.stop()


def in_state(state: str, infos: tuple[ReplicaInfo, ...]) -> bool:
    return [info.state for info in infos] == [state]


async def test_a_replica_is_announced_while_it_serves_drains_and_is_gone_after(
    replica: Replica, store: RedisStore
) -> None:
    (info,) = await until(store.directory.replicas, lambda infos: in_state("ready", infos))
    below = processes_below(info.pid)
    await replica.drain()
    await until(store.directory.replicas, lambda infos: in_state("draining", infos))
    assert alive(below) == below
    await replica.stop()
    assert await store.directory.replicas() == ()
    assert alive(below) == set()


async def test_a_hung_engine_is_shown_as_failed_until_it_answers_again(
    replica: Replica, store: RedisStore
) -> None:
    (info,) = await until(store.directory.replicas, lambda infos: in_state("ready", infos))
    (server,) = processes_below(info.pid) - {info.pid}
    os.kill(server, signal.SIGSTOP)
    try:
        (hung,) = await until(store.directory.replicas, lambda infos: in_state("failed", infos))
        assert "does not answer" in hung.detail
    finally:
        os.kill(server, signal.SIGCONT)
    await until(store.directory.replicas, lambda infos: in_state("ready", infos))
