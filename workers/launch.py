"""From a profile to the command line of its engine. Pure, but for looking whether what it names is there."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from heavy.core.errors import ConfigError
from heavy.profiles.loader import fault_in
from heavy.profiles.schema import Profile
from workers.engines.sglang.launch import SglangServer, launch


@dataclass(frozen=True, slots=True)
class Place:
    """Where an engine process listens, and which rank of how many it is; `rendezvous` is where ranks meet.

    `traces` is where it sends its spans, an OTLP endpoint; empty: it sends none.
    """

    host: str
    port: int
    nodes: int = 1
    rank: int = 0
    rendezvous: str = ""
    """`host:port` on the node of rank 0; empty for one node."""
    traces: str = ""


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """What to start, with which additions to the environment, and where it will answer."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    base_url: str


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def model_path(profile: Profile) -> str:
    """The model's directory, made absolute from the profile's own; a hub id stays as it is.

    Raises `ConfigError` for a path that is not there.
    """
    text = profile.serve.model_path
    if not text.startswith((".", "/", "~")):
        return text
    path = (Path(profile.directory) / Path(text).expanduser()).resolve()
    if not path.is_dir():
        raise fault_in(
            profile,
            ("serve", "model_path"),
            f"{text!r} leads to {path}, which is no directory; put the model there or correct the path",
        )
    return str(path)


def engine_command(profile: Profile, place: Place) -> EngineCommand:
    """How one replica of `profile`, or one rank of it, is started there. Raises `ConfigError`."""
    build = _ENGINES.get(profile.engine)
    if build is None:
        raise ConfigError(f"Profile {profile.name}: engine {profile.engine!r} has no process to start.")
    return build(profile, place)


def require_startable(profile: Profile) -> None:
    """Raise `ConfigError` when this machine lacks what a profile needs to start: a model, a program, a key.

    Whether it has the GPUs is the cluster's to say.
    """
    key = profile.remote.api_key_env if profile.remote else ""
    if key and not os.environ.get(key, "").strip():
        raise fault_in(
            profile,
            ("remote", "api_key_env"),
            f"the key is read from {key}, which is not set; export {key}=..., with your key",
        )
    if profile.remote is None and not profile.serve.gpus:
        engine_command(profile, Place("127.0.0.1", 1))


def _own_server(module: str, *, needs_model: bool) -> Callable[[Profile, Place], EngineCommand]:
    def build(profile: Profile, place: Place) -> EngineCommand:
        python = profile.serve.engine_python or sys.executable
        if shutil.which(python) is None:
            raise fault_in(
                profile,
                ("serve", "engine_python"),
                f"{python!r} is no program that can be started; correct it, or leave it out",
            )
        model = ("--model-path", model_path(profile)) if needs_model else ()
        argv = (
            *(python, "-m", module, *model),
            *("--host", place.host, "--port", str(place.port), "--served-model-name", profile.model),
            *("--context-length", str(profile.context_tokens)),
            *_gang_flags(place),
            *(("--enable-trace", "--otlp-traces-endpoint", place.traces) if place.traces else ()),
            *profile.serve.args,
        )
        return EngineCommand(argv, dict(profile.serve.env), f"http://{place.host}:{place.port}")

    return build


def _gang_flags(place: Place) -> tuple[str, ...]:
    if place.nodes == 1:
        return ()
    ranks = ("--nnodes", str(place.nodes), "--node-rank", str(place.rank))
    return (*ranks, "--dist-init-addr", place.rendezvous)


def _sglang(profile: Profile, place: Place) -> EngineCommand:
    """SGLang on the GPUs that the profile asks for, or its CPU variant where it asks for none."""
    parser = "kimi_k2" if profile.tool_call_dialect == "kimi_k2" else ""
    server = SglangServer(
        model_path=model_path(profile),
        served_model_name=profile.model,
        host=place.host,
        port=place.port,
        nnodes=place.nodes,
        node_rank=place.rank,
        dist_init_addr=place.rendezvous,
        traces=place.traces,
        device="cuda" if profile.serve.gpus else "cpu",
        tp=max(1, profile.serve.gpus),
        context_tokens=profile.context_tokens,
        tool_call_parser=parser,
        reasoning_parser=parser,
        args=profile.serve.args,
        env=profile.serve.env,
        engine_python=profile.serve.engine_python or _sglang_python(profile),
    )
    try:
        started = launch(server)
    except ConfigError as error:
        raise fault_in(
            profile, ("serve",), f"cannot be started as it is: {str(error).rstrip('.')}"
        ) from error
    return EngineCommand(started.argv, started.env, started.base_url)


def _sglang_python(profile: Profile) -> str:
    """What an image of GPU nodes says about itself; on the CPU Heavy's own environment is used."""
    return os.environ.get("HEAVY_SGLANG_PYTHON", "") if profile.serve.gpus else ""


_ENGINES: dict[str, Callable[[Profile, Place], EngineCommand]] = {
    "openvino": _own_server("workers.engines.openvino", needs_model=True),
    "sglang": _sglang,
    "simulated": _own_server("workers.engines.simulated", needs_model=False),
}


def environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The engine's environment: ours with the additions, without what belongs to Heavy or to Ray alone."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HEAVY_", "RAY_"))}
    return {**inherited, **additions}
