"""The life of an engine server's process: ready line, drain, exit, death with its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "tests" / "fixtures" / "models" / "tiny-k2-int4"
WAIT_S = 20.0
ENGINES = {
    "simulated": ["workers.engines.simulated", "--profile", "laptop", "--answer-tokens", "2000"],
    "openvino": ["workers.engines.openvino", "--model-path", str(MODEL), "--threads", "1"],
}


@pytest.fixture(params=sorted(ENGINES))
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", *ENGINES[request.param], "--port", "0", "--drain-s", "10"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    yield started
    started.kill()
    started.wait()
    assert started.stdout is not None
    started.stdout.close()


def ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["event"] == "ready"
    return f"http://{line['host']}:{line['port']}"


async def test_after_sigterm_what_runs_ends_and_nothing_new_is_taken(process: subprocess.Popen[str]) -> None:
    url = await asyncio.to_thread(ready, process)
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 100,
        "stream": True,
        "ignore_eos": True,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/v1/chat/completions", json=body) as stream,
    ):
        await stream.content.readany()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_S):
            while True:
                async with session.get(url + "/health") as health:
                    if health.status == 503:
                        break
        async with session.post(url + "/v1/chat/completions", json=body) as refused:
            assert refused.status == 503
            assert refused.headers["Retry-After"]
        tail = await stream.content.read()
    assert tail.endswith(b"data: [DONE]\n\n")
    assert await asyncio.to_thread(process.wait, WAIT_S) == 0
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"event": "stopped", "drained": True}


def test_it_dies_with_the_process_that_started_it_when_told_to() -> None:
    inner = [sys.executable, "-m", *ENGINES["simulated"], "--die-with-parent"]
    start = f"import subprocess; child = subprocess.Popen({inner!r})"
    program = f"{start}; print(child.pid, flush=True); child.wait()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as outer:
        assert outer.stdout is not None
        child = int(outer.stdout.readline())
        assert json.loads(outer.stdout.readline())["event"] == "ready"
        outer.kill()
    deadline = time.monotonic() + WAIT_S
    while alive(child):
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["workers.engines.openvino", "--model-path", "/nowhere"], "lacks openvino_model.xml"),
        (["workers.engines.simulated", "--mistake", "typo=1"], "names are"),
        (["workers.engines.simulated", "--script", "/nowhere.json"], "nowhere.json"),
    ],
)
def test_a_wrong_flag_is_explained(arguments: list[str], complaint: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
