from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from heavy.core.errors import ConfigError
from heavy.profiles.loader import load_profiles, parse_profile, read_profile
from heavy.profiles.schema import Profile, ServeSection
from workers.launch import Place, engine_command, environment, free_port, model_path, require_startable
from workers.shipped import DEMO_QUESTIONS, LOCAL_PROFILE, PROFILE_DIRECTORIES, out_of_scope

from tests_support.up import PROFILES

BOOK = load_profiles([*PROFILE_DIRECTORIES, PROFILES])


def with_serve(profile: Profile, **changes: object) -> Profile:
    return profile.model_copy(update={"serve": profile.serve.model_copy(update=changes)})


def test_kimi_k2_becomes_an_sglang_command_with_its_gpus_and_parsers() -> None:
    profile = with_serve(BOOK.get("kimi-k2-thinking"), engine_python=sys.executable)
    argv = engine_command(profile, Place("127.0.0.1", 30_000)).argv
    line = " ".join(argv)
    for part in (
        "--model-path moonshotai/Kimi-K2-Thinking",
        "--tp 8",
        "--tool-call-parser kimi_k2",
        "--reasoning-parser kimi_k2",
        "--context-length 262144",
        "--port 30000",
    ):
        assert line.count(part) == 1, part


def test_our_own_engines_get_model_port_name_and_context() -> None:
    command = engine_command(BOOK.get(LOCAL_PROFILE), Place("127.0.0.1", 1234))
    line = " ".join(command.argv)
    assert "-m workers.engines.openvino --model-path /" in line
    assert "--port 1234 --served-model-name abacus --context-length 4096" in line
    assert command.base_url == "http://127.0.0.1:1234"


def test_an_engine_that_is_to_send_spans_is_told_where() -> None:
    place = Place("127.0.0.1", 1234, traces="http://collector:4317")
    line = " ".join(engine_command(BOOK.get(LOCAL_PROFILE), place).argv)
    assert "--enable-trace --otlp-traces-endpoint http://collector:4317" in line
    assert "trace" not in " ".join(engine_command(BOOK.get(LOCAL_PROFILE), Place("127.0.0.1", 1234)).argv)


def test_sglang_of_ones_own_sends_spans_only_where_its_environment_is_said_to_have_what_it_takes() -> None:
    place = Place("127.0.0.1", 30_000, traces="http://collector:4317")
    able = with_serve(BOOK.get("kimi-k2-thinking"), engine_python=sys.executable)
    assert "trace" not in " ".join(engine_command(able, place).argv)
    line = " ".join(engine_command(with_serve(able, args=("--enable-trace",)), place).argv)
    assert line.count("--enable-trace") == 1
    assert "--otlp-traces-endpoint collector:4317 --otlp-service-name heavy-engine" in line


def test_a_model_path_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    profile = with_serve(BOOK.get(LOCAL_PROFILE), model_path="./nowhere")
    with pytest.raises(ConfigError, match=r"serve\.model_path: './nowhere' leads to"):
        model_path(profile.model_copy(update={"directory": str(tmp_path)}))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[remote]\nbase_url = "http://x/v1"\napi_key_env = "NO_KEY"', 8, "export NO_KEY=..., with your key"),
        ('[serve]\nmodel_path = "./nowhere"', 7, "put the model there or correct the path"),
        ('[serve]\nmodel_path = "."', 6, "has no config.json: it holds no model"),
        ('[serve]\nmodel_path = "."\nengine_python = "/no/python"', 8, "is no program that can be started"),
    ],
    ids=["no key", "no model", "no model in the directory", "no program"],
)
def test_what_this_machine_lacks_is_said_by_line_before_anything_starts(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    engine = "remote" if "remote" in text else "openvino" if "python" in text else "sglang"
    file = tmp_path / "mine.toml"
    head = f'name = "mine"\ntitle = "Mine"\nengine = "{engine}"\nmodel = "m"\ncontext_tokens = 4096\n'
    file.write_text(head + text)
    with pytest.raises(ConfigError, match=rf"mine\.toml:{line}: .*{re.escape(says)}"):
        require_startable(read_profile(file))


def test_a_profile_whose_file_is_elsewhere_is_told_by_its_name(tmp_path: Path) -> None:
    text = 'name = "mine"\ntitle = "Mine"\nengine = "openvino"\nmodel = "m"\ncontext_tokens = 4096\n[serve]\n'
    profile = parse_profile(f'{text}model_path = "{tmp_path}/nowhere"', "sent.toml")
    with pytest.raises(ConfigError, match=r"Profile mine: serve\.model_path: .* is no directory"):
        require_startable(profile)


def test_profiles_whose_parts_are_here_or_another_nodes_can_be_started() -> None:
    for name in (LOCAL_PROFILE, "simulated", "remote-openai", "kimi-k2-thinking"):
        require_startable(BOOK.get(name))


def test_a_remote_profile_has_no_process_to_start() -> None:
    with pytest.raises(ConfigError, match="no process"):
        engine_command(BOOK.get("remote-openai"), Place("127.0.0.1", 1))


def test_an_engine_inherits_nothing_of_heavys_or_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAVY_STORE_URL", "redis://:secret@127.0.0.1/0")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    found = environment({"EXTRA": "1"})
    assert found["EXTRA"] == "1"
    assert not [name for name in found if name.startswith(("HEAVY_", "RAY_"))]


def test_free_ports_are_free() -> None:
    assert len({free_port() for _ in range(8)}) > 1


def test_the_demo_asks_what_abacus_knows_and_says_so_where_it_does_not() -> None:
    assert all(out_of_scope(LOCAL_PROFILE, question) == "" for question in DEMO_QUESTIONS)
    notice = out_of_scope(LOCAL_PROFILE, "Who was the first king of France?")
    assert "attach a real model" in notice
    assert out_of_scope("simulated", "Who was the first king of France?") == ""


def test_every_shipped_profile_names_its_model_and_size() -> None:
    assert ServeSection().replicas == 1
    for name in BOOK:
        assert len(BOOK.get(name).title) > 8
