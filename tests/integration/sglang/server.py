"""A real SGLang server on the CPU, started as production starts it, stopped whatever happens."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workers.engines.sglang.environment import cpu_environment
from workers.engines.sglang.launch import Launch, SglangServer, launch
from workers.engines.sglang.startup import Sign, classify

ABACUS = Path(__file__).parents[3] / "workers" / "abacus" / "weights" / "bf16"
CONTEXT_TOKENS = 4_096
NAME = "under-test"
LIMITS = {"running": 8, "queued": 8}
"""Requests at once. A burst on an idle server passes through the queue, so the queue holds a whole one."""
READY_S = 540.0
"""40 s on two idle cores; 270 s were seen on two with seven other processes each."""
STOP_S = 40.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    base_url: str
    signs: tuple[Sign, ...]
    """What its log said on the way, in order."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*args: str, traces: str = "") -> Iterator[Running]:
    """A server with more of SGLang's flags, for the length of a block; it may send spans."""
    assert cpu_environment().ready, "run `make sglang-env` once"
    server = SglangServer(
        model_path=str(ABACUS),
        served_model_name=NAME,
        port=free_port(),
        device="cpu",
        context_tokens=CONTEXT_TOKENS,
        traces=traces,
        args=args,
    )
    command = launch(server)
    with started(command) as (process, log):
        yield Running(command.base_url, tuple(until_ready(process, log)))


@contextmanager
def started(command: Launch) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """The process behind its guard, and its log from the beginning. Its whole session is gone afterwards."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.guard", *command.argv],
            env={**os.environ, **command.env},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            with open(f"/proc/self/fd/{log.fileno()}", "rb") as reader:
                yield process, reader
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the guard to end its session; order it to kill where that takes too long."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGALRM)
        process.wait(STOP_S)


def until_ready(process: subprocess.Popen[bytes], log: IO[bytes]) -> Iterator[Sign]:
    """The signs in the log until it is ready; fails with the log's end when it is not to be."""
    lines: list[str] = []
    rest = ""
    end = time.monotonic() + READY_S
    with ends(process) as ended:
        while True:
            *whole, rest = (rest + log.read().decode(errors="replace")).replace("\r", "\n").split("\n")
            for line in whole:
                lines.append(line)
                sign = classify(line)
                if sign is not None:
                    yield sign
                    assert sign.state != "failed", "\n".join([sign.detail, *lines[-20:]])
                    if sign.state == "ready":
                        return
            assert process.poll() is None, "\n".join([f"ended with {process.returncode}", *lines[-20:]])
            assert time.monotonic() < end, "\n".join([f"not ready in {READY_S} s", *lines[-20:]])
            ended.select(0.2)


@contextmanager
def ends(process: subprocess.Popen[bytes]) -> Iterator[selectors.BaseSelector]:
    """A selector that wakes when the process ends."""
    descriptor = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            yield selector
    finally:
        os.close(descriptor)
