"""The life of an engine server's process: flags, the ready line, drain on SIGTERM, death with its parent."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable

import orjson

from heavy.telemetry.tracing import Tracing
from workers.engines.api.generation import Engine
from workers.engines.api.server import EngineServer

_PR_SET_PDEATHSIG = 1  # prctl(2)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that every engine server of ours has."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    parser.add_argument("--served-model-name", default="", help="name in /v1/models and in completions")
    parser.add_argument("--max-running-requests", type=int, default=None, help="generations that run at once")
    parser.add_argument("--max-queued-requests", type=int, default=256, help="generations that may wait")
    parser.add_argument("--max-total-tokens", type=int, default=None, help="KV capacity in tokens")
    parser.add_argument("--context-length", type=int, default=None, help="prompt plus completion, in tokens")
    parser.add_argument(
        "--drain-s", type=float, default=30.0, help="time for what is in flight after SIGTERM"
    )
    parser.add_argument("--enable-trace", action="store_true", help="send a span for every generation")
    parser.add_argument("--otlp-traces-endpoint", default="", help="where spans go: OTLP over gRPC")
    parser.add_argument("--otlp-service-name", default="heavy-engine", help="the service that spans are of")
    parser.add_argument("--die-with-parent", action="store_true", help="exit when the starting process dies")


def serve(arguments: argparse.Namespace, build: Callable[[], Engine]) -> int:
    """Run a server until SIGTERM or SIGINT. Returns the exit status."""
    if arguments.die_with_parent:
        die_with_parent()
    return asyncio.run(_serve(arguments, build))


async def _serve(arguments: argparse.Namespace, build: Callable[[], Engine]) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    tracing = Tracing(
        arguments.otlp_traces_endpoint if arguments.enable_trace else "", arguments.otlp_service_name
    )
    server = EngineServer(build(), tracing)
    try:
        port = await server.start(arguments.host, arguments.port)
    except (OSError, ValueError, RuntimeError) as error:
        sys.stderr.write(f"The server cannot start: {error}\n")
        await server.stop()
        return 1
    announce({"event": "ready", "host": arguments.host, "port": port})
    await told.wait()
    clean = await server.drain(arguments.drain_s)
    await server.stop()
    await asyncio.to_thread(tracing.shutdown)
    announce({"event": "stopped", "drained": clean})
    return 0


def announce(event: dict[str, object]) -> None:
    """One line of JSON on standard output, for whoever started this process."""
    try:
        sys.stdout.write(orjson.dumps(event).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.write("standard output is gone; serving on\n")


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the parent dies. Does nothing elsewhere."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request took effect
        os._exit(1)
