from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from heavy.config import Settings
from heavy.core.errors import ConfigError, StoreUnavailable
from heavy.store.embedded import EmbeddedValkey
from heavy.store.redis import connect

from tests_support.domain import run_spec

PARENT = """
import sys, time
from pathlib import Path
from heavy.store.embedded import EmbeddedValkey
valkey = EmbeddedValkey(Path(sys.argv[1]))
valkey.start()
print(valkey.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "data")
    yield server
    server.stop()


def eventually(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_what_a_run_wrote_is_there_after_a_restart(valkey: EmbeddedValkey) -> None:
    spec = run_spec()
    store = await connect(valkey.start(), Settings())
    await store.log.create(spec, owner="test", lease_s=60)
    await store.close()
    os.kill(valkey.pid, signal.SIGKILL)
    valkey.stop()
    store = await connect(valkey.start(), Settings())
    assert (await store.log.get(spec.run)).spec == spec
    await store.close()


def test_one_that_died_is_started_again_where_it_was_with_what_it_had(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        os.kill(valkey.pid, signal.SIGKILL)
        eventually(lambda: not valkey.alive)
        assert valkey.start() == url
        assert client.get("kept") == b"yes"


def test_starting_and_stopping_twice_is_once(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    pid = valkey.pid
    assert valkey.start() == url
    assert valkey.pid == pid
    assert valkey.url(1) == url.replace("db=0", "db=1")
    valkey.stop()
    valkey.stop()
    assert not running(pid)
    assert not Path(urlsplit(url).path).parent.exists()


def test_nobody_else_on_the_machine_reaches_it(valkey: EmbeddedValkey) -> None:
    socket = Path(urlsplit(valkey.start()).path)
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    with redis.Redis.from_url(valkey.url()) as client:
        assert client.config_get("port")["port"] == "0"


def test_one_data_directory_has_one_server(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    valkey.start()
    second = EmbeddedValkey(tmp_path / "data")
    with pytest.raises(ConfigError, match="Another embedded Valkey"):
        second.start()
    valkey.stop()
    second.start()
    second.stop()


def test_it_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not running(pid))


def test_one_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("not a directory")
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(StoreUnavailable, match="appendonlydir"):
        server.start()
    assert not [thread for thread in threading.enumerate() if "valkey" in thread.name]


def test_a_cache_may_evict_and_writes_nothing(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, role="cache", memory_mb=8)
    try:
        with redis.Redis.from_url(server.start()) as client:
            for i in range(200):
                client.set(f"k{i}", b"x" * 100_000)
            assert 0 < client.dbsize() < 200
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "valkey.log"}
    finally:
        server.stop()


async def test_a_cache_is_no_place_for_runs(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path, role="cache")
    try:
        with pytest.raises(ConfigError, match="noeviction"):
            await connect(server.start(), Settings())
    finally:
        server.stop()
