"""The replica of a profile without Ray around it: what it announces from its start to its end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from heavy.config import Settings
from heavy.core.fleet import ReplicaInfo
from heavy.profiles.loader import load_profiles
from heavy.store.redis import RedisStore
from workers.replica import Replica

from tests_support.up import PROFILES, alive, processes_below
from tests_support.waiting import until


@asynccontextmanager
async def running(store_url: str, log_dir: str = "", **serve: object) -> AsyncIterator[Replica]:
    """A replica of the brisk engine, with another serve section, for a block."""
    brisk = load_profiles([PROFILES]).get("brisk")
    profile = brisk.model_copy(update={"serve": brisk.serve.model_copy(update=serve)})
    settings = Settings(store_url=store_url, engine_log_dir=log_dir)
    replica = Replica("brisk-0", profile, settings.environment())
    await replica.start()
    try:
        yield replica
    finally:
        await replica.stop()


@pytest.fixture
async def replica(store_url: str) -> AsyncIterator[Replica]:
    async with running(store_url) as replica:
        yield replica


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


def serve_args(*args: str) -> Callable[[Path, int], dict[str, object]]:
    return lambda _, port: {"args": [arg.format(port=port) for arg in args]}


def own_python(text: str) -> Callable[[Path, int], dict[str, object]]:
    """An "interpreter" of the engine's environment that does something else."""

    def serve(directory: Path, _: int) -> dict[str, object]:
        script = directory / "python"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        return {"engine_python": str(script)}

    return serve


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (serve_args("--port", "{port}"), ["Its port is taken", "address already in use"]),
        (serve_args("--no-such-flag"), ["has no such argument: --no-such-flag. Correct the profile's args."]),
        (own_python("echo out of luck; exit 3"), ["ended at once with status 3", "out of luck"]),
        (own_python("exit 3"), ["ended at once with status 3. It said nothing. By hand: /"]),
        (lambda *_: {"engine_python": "/no/python"}, ["'/no/python' is no program that can be started"]),
    ],
    ids=["a taken port", "an unknown argument", "it exits at once", "it exits saying nothing", "no program"],
)
async def test_an_engine_that_cannot_start_is_given_up_with_what_to_do(
    store_url: str,
    store: RedisStore,
    tmp_path: Path,
    wrong: Callable[[Path, int], dict[str, object]],
    says: list[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with running(store_url, **wrong(tmp_path, taken.getsockname()[1])):
            (info,) = await until(store.directory.replicas, lambda infos: in_state("failed", infos))
    assert info.given_up
    for part in says:
        assert part in info.detail


async def test_a_full_disk_for_logs_is_said_and_the_engine_serves_on(
    store_url: str, store: RedisStore, tmp_path: Path
) -> None:
    file = tmp_path / "heavy-engines" / "brisk-0.log"
    file.parent.mkdir()
    file.symlink_to("/dev/full")
    async with running(store_url, str(tmp_path)):
        (info,) = await until(
            store.directory.replicas, lambda infos: in_state("ready", infos) and bool(infos[0].detail)
        )
        assert info.detail.endswith(f"{file} (No space left on device); it serves on: make room there")
        async with aiohttp.ClientSession() as http, http.get(f"{info.base_url}/health") as response:
            assert response.status == 200
        file.unlink()
        await until(store.directory.replicas, lambda infos: not infos[0].detail)
    lines = file.read_text().splitlines()
    assert lines[0] == "[heavy] lines missing here: 1"
    assert '"stopped"' in lines[-1]
