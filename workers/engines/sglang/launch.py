"""From the description of one SGLang server to its command line. Refuses what cannot work before it starts.

A server over several nodes is one process a node, told apart by `node_rank`; all of them meet at
`dist_init_addr`, and rank 0 answers HTTP. The CPU variant is one process with the shims of this directory.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from heavy.core.errors import ConfigError
from heavy.profiles.checks import HUB_ID, VARIABLE, flags_in, owner_of
from workers.engines.sglang.environment import CpuEnvironment, cpu_environment

PORT_MAX = 65_535
TP_MAX = 64
TRACED_AS = "heavy-engine"
"""The service that an engine's spans are of."""
TRACE_LEVEL = {"SGLANG_TRACE_LEVEL": "1"}
"""Queue, prefill and decode. Left to itself, SGLang sends a span for every token."""
CPU_TOTAL_TOKENS = 65_536
"""KV capacity on the CPU; left to itself, SGLang takes all of the machine's memory and zeroes it."""
ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class SglangServer:
    """One server, or one node's share of it."""

    model_path: str
    """A directory (absolute, or starting with `.` or `~`), or the `owner/name` of a hub."""
    served_model_name: str
    port: int
    host: str = "127.0.0.1"
    device: Literal["cuda", "cpu"] = "cuda"
    tp: int = 1
    """GPUs of the whole gang that share every layer."""
    nnodes: int = 1
    node_rank: int = 0
    dist_init_addr: str = ""
    """`host:port` of rank 0 where the ranks meet; for more than one node."""
    context_tokens: int = 0
    """0: the model's own."""
    tool_call_parser: str = "kimi_k2"
    reasoning_parser: str = "kimi_k2"
    traces: str = ""
    """Where its spans go: an OTLP endpoint, without TLS. Sent on the CPU, and elsewhere where `args` have
    `--enable-trace`, with which SGLang does not start unless its environment has OpenTelemetry's SDK and both
    OTLP exporters."""
    args: tuple[str, ...] = ()
    """More of SGLang's flags, as they stand on a command line."""
    env: Mapping[str, str] = field(default_factory=dict)
    engine_python: str = ""
    """The interpreter of an environment that has SGLang. Empty on the CPU: the one that Heavy builds."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start, with which additions to the environment, and where rank 0 will answer."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    base_url: str


def launch(server: SglangServer, cpu: CpuEnvironment | None = None) -> Launch:
    """The command of `server`. `cpu`: the CPU environment, by default the one in Heavy's cache.

    Raises `ConfigError` that lists everything that is wrong with the description.
    """
    cpu = cpu or cpu_environment()
    found = [*_about_model(server), *_about_network(server), *_about_gang(server)]
    found += [*_about_args(server), *_about_env(server), *_about_python(server, cpu)]
    if found:
        raise ConfigError(
            f"SGLang server {server.served_model_name or server.model_path!r}: " + " ".join(found)
        )
    on_cpu = server.device == "cpu"
    python = server.engine_python or str(cpu.python)
    host = f"[{server.host}]" if ":" in server.host else server.host
    return Launch(
        argv=(python, "-m", "sglang.launch_server", *_flags(server), *server.args),
        env={**(TRACE_LEVEL if server.traces else {}), **(_variables(server, cpu) if on_cpu else server.env)},
        base_url=f"http://{host}:{server.port}",
    )


def require_free_port(host: str, port: int) -> None:
    """Raise `ConfigError` if something listens there. SGLang itself finds out only after loading."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"SGLang cannot listen on {host}:{port} ({error.strerror}); choose another port or address."
            ) from error


def _flags(server: SglangServer) -> list[str]:
    flags = ["--model-path", _model(server), "--served-model-name", server.served_model_name]
    flags += ["--host", server.host, "--port", str(server.port), "--device", server.device]
    if server.tp > 1:
        flags += ["--tp", str(server.tp)]
    if server.nnodes > 1:
        flags += ["--nnodes", str(server.nnodes), "--node-rank", str(server.node_rank)]
        flags += ["--dist-init-addr", server.dist_init_addr]
    if server.context_tokens:
        flags += ["--context-length", str(server.context_tokens)]
    if server.tool_call_parser:
        flags += ["--tool-call-parser", server.tool_call_parser]
    if server.reasoning_parser:
        flags += ["--reasoning-parser", server.reasoning_parser]
    # A request says how it samples; what it leaves out must not come from a file beside the weights.
    defaults: list[tuple[str, ...]] = [("--enable-metrics",), ("--enable-cache-report",)]
    defaults += [("--sampling-defaults", "openai"), ("--constrained-json-disable-any-whitespace",)]
    if server.device == "cpu":
        defaults += [("--disable-overlap-schedule",), ("--sleep-on-idle",)]
        defaults += [("--max-total-tokens", str(CPU_TOTAL_TOKENS))]
    given = flags_in(server.args)
    if server.traces and (server.device == "cpu" or "--enable-trace" in given):
        endpoint = server.traces.partition("://")[2] or server.traces
        defaults += [("--enable-trace",), ("--otlp-traces-endpoint", endpoint)]
        defaults += [("--otlp-service-name", TRACED_AS)]
    return flags + [word for default in defaults if default[0] not in given for word in default]


def _variables(server: SglangServer, cpu: CpuEnvironment) -> dict[str, str]:
    """The CPU variant's variables under the server's own; its PYTHONPATH stays behind the shims."""
    paths = [cpu.variables["PYTHONPATH"], server.env.get("PYTHONPATH", "")]
    return {**cpu.variables, **server.env, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _model(server: SglangServer) -> str:
    return str(Path(server.model_path).expanduser().resolve()) if _is_path(server) else server.model_path


def _is_path(server: SglangServer) -> bool:
    return server.model_path.startswith((".", "/", "~"))


def _about_model(server: SglangServer) -> list[str]:
    found = []
    if not server.served_model_name or server.served_model_name.split() != [server.served_model_name]:
        found.append("served_model_name must be a name without spaces.")
    if _is_path(server):
        path = Path(_model(server))
        if not path.is_dir():
            found.append(
                f"model_path {server.model_path!r} is no directory; put the model there or correct it."
            )
        elif not (path / "config.json").is_file():
            found.append(f"model_path {server.model_path!r} has no config.json: it holds no model.")
    elif not HUB_ID.fullmatch(server.model_path):
        found.append(
            f"model_path {server.model_path!r} is neither a directory (start it with / or ./) nor owner/name."
        )
    if server.context_tokens < 0:
        found.append("context_tokens must be positive, or 0 for the model's own.")
    return found


def _about_network(server: SglangServer) -> list[str]:
    found = []
    if not 1 <= server.port <= PORT_MAX:
        found.append(f"port must be from 1 to {PORT_MAX}, not {server.port}.")
    if not server.host or any(letter.isspace() or letter == "/" for letter in server.host):
        found.append(f"host must be an address or a name, not {server.host!r}.")
    address = ADDRESS.fullmatch(server.dist_init_addr)
    if server.dist_init_addr and not (address and 1 <= int(address[2]) <= PORT_MAX):
        found.append(f"dist_init_addr must be host:port, not {server.dist_init_addr!r}.")
    elif address and server.nnodes == 1:
        found.append("dist_init_addr is for several nodes; leave it out or set nnodes.")
    elif not address and server.nnodes > 1:
        found.append("dist_init_addr (host:port of rank 0) is needed for several nodes.")
    return found


def _about_gang(server: SglangServer) -> list[str]:
    found = []
    if not 1 <= server.tp <= TP_MAX:
        found.append(f"tp must be from 1 to {TP_MAX}, not {server.tp}.")
    if server.nnodes < 1:
        found.append(f"nnodes must be at least 1, not {server.nnodes}.")
    elif not 0 <= server.node_rank < server.nnodes:
        found.append(f"node_rank must be from 0 to {server.nnodes - 1}, not {server.node_rank}.")
    elif server.tp % server.nnodes:
        found.append(f"tp {server.tp} cannot be spread evenly over {server.nnodes} nodes.")
    if server.device not in ("cuda", "cpu"):
        found.append(f"device must be cuda or cpu, not {server.device!r}.")
    elif server.device == "cpu" and (server.tp, server.nnodes) != (1, 1):
        found.append("on the CPU a server is one process: tp and nnodes must be 1.")
    return found


def _about_args(server: SglangServer) -> list[str]:
    found = []
    if server.args and not server.args[0].startswith("--"):
        found.append(f"args must begin with a flag, not {server.args[0]!r}.")
    if any("\0" in word for word in server.args):
        found.append("args must not contain NUL.")
    optional = {"context_tokens": server.context_tokens, "tool_call_dialect": server.tool_call_parser}
    free = [field for field, value in optional.items() if not value]
    return found + [
        f"{flag} in args is set by {owner} already; remove it from args."
        for flag in flags_in(server.args)
        if (owner := owner_of(flag, free))
    ]


def _about_env(server: SglangServer) -> list[str]:
    return [
        f"env {name!r} is no name of a variable, or its value holds a NUL."
        for name, value in server.env.items()
        if not VARIABLE.fullmatch(name) or "\0" in value
    ]


def _about_python(server: SglangServer, cpu: CpuEnvironment) -> list[str]:
    if server.engine_python:
        if shutil.which(os.path.expanduser(server.engine_python)):
            return []
        return [f"engine_python {server.engine_python!r} is no program that can be started."]
    if server.device != "cpu":
        return ["engine_python is needed: the Python of an environment in which SGLang is installed."]
    if not cpu.ready:
        return ["SGLang's CPU environment is not built yet; run `make sglang-env` once."]
    return []
