"""The command line of an SGLang server, and what is refused before it starts."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heavy.core.errors import ConfigError
from workers.engines.sglang.environment import MARK, SHIMS, CpuEnvironment
from workers.engines.sglang.launch import SglangServer, launch, require_free_port

K2 = SglangServer(
    model_path="moonshotai/Kimi-K2-Thinking",
    served_model_name="kimi-k2-thinking",
    port=30_000,
    host="10.0.0.7",
    tp=16,
    nnodes=2,
    node_rank=1,
    dist_init_addr="10.0.0.6:20000",
    args=("--trust-remote-code", "--kv-cache-dtype", "fp8_e4m3"),
    engine_python="python3",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def built(tmp_path: Path) -> CpuEnvironment:
    environment = CpuEnvironment(tmp_path / "env")
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    (environment.root / MARK).write_text("{}")
    return environment


def value(argv: tuple[str, ...], flag: str) -> str:
    assert argv.count(flag) == 1, (flag, argv)
    return argv[argv.index(flag) + 1]


def test_a_gang_over_two_nodes_is_told_who_it_is_and_where_to_meet() -> None:
    command = launch(K2)
    assert command.argv[:3] == ("python3", "-m", "sglang.launch_server")
    found = {
        flag: value(command.argv, flag) for flag in ("--tp", "--nnodes", "--node-rank", "--dist-init-addr")
    }
    assert found == {"--tp": "16", "--nnodes": "2", "--node-rank": "1", "--dist-init-addr": "10.0.0.6:20000"}
    assert value(command.argv, "--device") == "cuda"
    assert value(command.argv, "--tool-call-parser") == value(command.argv, "--reasoning-parser") == "kimi_k2"
    assert command.argv[-3:] == K2.args
    assert command.env == {}
    assert command.base_url == "http://10.0.0.7:30000"


def test_the_cpu_variant_runs_in_the_environment_heavy_builds(model: Path, built: CpuEnvironment) -> None:
    server = SglangServer(
        str(model), "m", 1234, device="cpu", env={"PYTHONPATH": "/mine", "OMP_NUM_THREADS": "2"}
    )
    command = launch(server, built)
    assert command.argv[0] == str(built.python)
    assert value(command.argv, "--max-total-tokens") == "65536"
    assert {"--sleep-on-idle", "--enable-metrics", "--enable-cache-report"} <= set(command.argv)
    assert value(command.argv, "--sampling-defaults") == "openai"
    assert command.env["PYTHONPATH"].split(":") == [str(SHIMS), "/mine"]
    assert command.env["SGLANG_USE_CPU_ENGINE"] == "1"
    assert command.env["OMP_NUM_THREADS"] == "2"
    assert command.base_url == "http://127.0.0.1:1234"


def test_a_default_gives_way_to_the_same_flag_in_args(model: Path, built: CpuEnvironment) -> None:
    for args in (("--max-total-tokens", "9000"), ("--max-total-tokens=9000",)):
        command = launch(SglangServer(str(model), "m", 1234, device="cpu", args=args), built)
        assert "65536" not in command.argv


def test_parsers_left_empty_are_the_args_to_give(model: Path) -> None:
    server = replace(K2, tool_call_parser="", args=("--tool-call-parser", "qwen25"))
    assert value(launch(server).argv, "--tool-call-parser") == "qwen25"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_path": "/nowhere/at/all"}, "model_path '/nowhere/at/all' is no directory"),
        ({"model_path": ""}, "model_path '' is neither a directory"),
        ({"model_path": "kimi"}, "neither a directory"),
        ({"served_model_name": "two words"}, "served_model_name must be a name without spaces"),
        ({"port": 0}, "port must be from 1 to 65535, not 0"),
        ({"port": 70_000}, "not 70000"),
        ({"host": "a b"}, "host must be"),
        ({"tp": 0}, "tp must be from 1 to 64"),
        ({"tp": 15}, "tp 15 cannot be spread evenly over 2 nodes"),
        ({"node_rank": 2}, "node_rank must be from 0 to 1, not 2"),
        ({"nnodes": 0}, "nnodes must be at least 1"),
        ({"dist_init_addr": ""}, "dist_init_addr (host:port of rank 0) is needed"),
        ({"dist_init_addr": "host"}, "dist_init_addr must be host:port"),
        ({"dist_init_addr": "host:99999"}, "dist_init_addr must be host:port"),
        ({"nnodes": 1, "node_rank": 0}, "dist_init_addr is for several nodes"),
        ({"device": "cpu"}, "tp and nnodes must be 1"),
        ({"device": "tpu"}, "device must be cuda or cpu"),
        ({"context_tokens": -1}, "context_tokens must be positive"),
        ({"args": ("8",)}, "args must begin with a flag"),
        ({"args": ("--port", "1")}, "--port in args is set by Heavy already"),
        ({"args": ("--tp-size=8",)}, "--tp-size in args is set by serve.gpus already"),
        ({"args": ("--dist", "x:1")}, "--dist in args is set by serve.nodes already"),
        ({"args": ("--reasoning-parser", "x")}, "set by tool_call_dialect already"),
        ({"env": {"A B": "1"}}, "'A B' is no name of a variable"),
        ({"engine_python": ""}, "engine_python is needed"),
        ({"engine_python": "/no/python"}, "'/no/python' is no program"),
    ],
)
def test_nonsense_is_refused_in_words(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch(replace(K2, **change))
    assert said in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        launch(replace(K2, port=0, tp=0, engine_python=""))
    assert all(part in str(caught.value) for part in ("kimi-k2-thinking", "port", "tp", "engine_python"))


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        launch(replace(K2, model_path=str(tmp_path)))


def test_an_environment_that_is_not_built_is_told_with_the_command(model: Path, tmp_path: Path) -> None:
    server = SglangServer(str(model), "m", 1234, device="cpu")
    with pytest.raises(ConfigError, match="make sglang-env"):
        launch(server, CpuEnvironment(tmp_path / "none"))


def test_a_taken_port_is_refused_before_the_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)
