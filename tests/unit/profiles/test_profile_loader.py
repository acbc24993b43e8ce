"""Profiles from TOML: what is built in, what is one's own, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.core.errors import ConfigError, NotFound
from heavy.profiles.faults import line_of
from heavy.profiles.loader import load_profiles, read_profile

GOOD = """# A comment.
name = "mine"
title = "Mine"
engine = "simulated"
model = "m"
context_tokens = 4096

[serve]
args = [
    "--seed", "1",
]
in_flight_max = 8

[sampling.arm]
temperature = 0.7
"""


def written(directory: Path, text: str, name: str = "mine.toml") -> Path:
    file = directory / name
    file.write_text(text)
    return file


def fault(directory: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_profile(written(directory, text))
    return str(caught.value)


def test_the_built_in_profiles_are_whole() -> None:
    book = load_profiles()
    assert set(book) >= {"kimi-k2-thinking", "remote-openai", "simulated"}
    k2 = book.get("kimi-k2-thinking")
    assert k2.context_tokens == 262144
    protocols = {name: (p.steps_max, p.output_tokens_per_step_max) for name, p in k2.presets.items()}
    assert protocols == {
        "hle-tools": (120, 48_000),
        "agentic-search": (300, 24_000),
        "no-tools": (1, 96_000),
        "no-tools-long": (1, 128_000),
    }
    assert k2.tool_call_dialect == "kimi_k2"
    assert k2.prices.usd_per_gpu_hour > 0
    assert [name for name in book if book.get(name).simulated] == ["simulated"]


def test_k2_over_two_nodes_is_a_gang_of_sixteen_gpus() -> None:
    one, two = load_profiles().get("kimi-k2-thinking"), load_profiles().get("kimi-k2-thinking-2-nodes")
    assert (two.serve.nodes, two.serve.gpus) == (2, 16)
    assert two.presets == one.presets


def test_keys_of_remote_profiles_are_named_and_never_held() -> None:
    remotes = [p for p in load_profiles().by_name.values() if p.remote is not None]
    assert {name.partition("-")[2].partition("-")[0] for name in (p.name for p in remotes)} == {
        *("moonshot", "openai", "xai", "openrouter")
    }
    assert all(
        p.remote.api_key_env.endswith("_API_KEY") or not p.remote.api_key_env for p in remotes if p.remote
    )


def test_every_profile_of_a_real_model_says_what_it_costs() -> None:
    for profile in load_profiles().by_name.values():
        prices = profile.prices
        if profile.engine == "sglang":
            assert prices.usd_per_gpu_hour > 0, profile.name
        if profile.remote and profile.remote.api_key_env:
            cached = prices.usd_per_million_cached_tokens
            assert 0 < (cached or 0) < prices.usd_per_million_prompt_tokens, profile.name
            assert prices.usd_per_million_prompt_tokens < prices.usd_per_million_output_tokens, profile.name


def test_a_profile_of_ones_own_knows_its_directory_and_replaces_the_built_in_one(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace('"mine"', '"simulated"'))
    book = load_profiles([tmp_path])
    assert book.get("simulated").title == "Mine"
    assert book.get("simulated").directory == str(tmp_path)
    assert len(book) == len(load_profiles())


def test_an_unknown_profile_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(NotFound, match="Did you mean 'kimi-k2-thinking'"):
        load_profiles().get("kimi-k2-thinkin")
    with pytest.raises(NotFound, match=r"Known: .*kimi-k2-thinking"):
        load_profiles().get("zzz")


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (
            ('title = "Mine"', 'titel = "Mine"'),
            3,
            "titel: is not a field of a profile. Did you mean 'title'?",
        ),
        (
            ("in_flight_max", "inflight_max"),
            12,
            "serve.inflight_max: is not a field of a profile. Did you mean",
        ),
        (
            ("temperature = 0.7", "temperature = 7"),
            15,
            "sampling.arm.temperature: is 7; input should be less",
        ),
        (("temperature = 0.7", "zzz = 7"), 15, "Known here: temperature, top_p."),
        (('"--seed", "1"', "1"), 9, "serve.args.0: is 1; input should be a valid string"),
        (('"simulated"', '"vllm"'), 4, "engine: is 'vllm'; input should be 'sglang'"),
        (('name = "mine"', 'name = "Not Good"'), 2, "name: is 'Not Good'"),
        (('engine = "simulated"', 'engine = "remote"'), 4, "add a [remote] section"),
        (('engine = "simulated"', 'engine = "sglang"'), 8, "serve.model_path: is missing"),
        (('title = "Mine"\n', ""), 1, 'title: is missing; add title = "..."'),
        (
            ("[sampling.arm]", '[prompts]\nsystem = "./no.jinja"\n[sampling.arm]'),
            15,
            "not there beside the prof",
        ),
        (
            ("[sampling.arm]", '[prompts]\nsystem = "no.jinja"\n[sampling.arm]'),
            15,
            "not there among the built-in",
        ),
        (("[sampling.arm]", '[remote]\nbase_url = "x"\n[sampling.arm]'), 14, "remove it"),
        (("# A comment.", 'directory = "/tmp"'), 1, "is set by the loader"),
    ],
)
def test_a_wrong_profile_is_told_file_line_field_and_mend(
    tmp_path: Path, change: tuple[str, str], line: int, says: str
) -> None:
    said = fault(tmp_path, GOOD.replace(*change))
    assert f"mine.toml:{line}: " in said
    assert says in said


SERVED = """name = "mine"
title = "Mine"
engine = "sglang"
model = "m"
context_tokens = 32768

[serve]
model_path = "Qwen/Qwen3-14B-AWQ"
gpus = 1
"""
REMOTE = """name = "mine"
title = "Mine"
engine = "remote"
model = "m"
context_tokens = 32768

[remote]
base_url = "https://api.openai.com/v1"
"""


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (
            SERVED + 'args = ["--port", "1"]',
            10,
            "serve.args: has --port, which Heavy sets already; remove it",
        ),
        (SERVED + 'args = ["--tp-size=8"]', 10, "has --tp-size, which serve.gpus sets already"),
        (SERVED + 'args = ["--context", "9"]', 10, "has --context, which context_tokens sets already"),
        (
            SERVED.replace("gpus = 1", "gpus = true"),
            9,
            "serve.gpus: is True; input should be a valid integer",
        ),
        (SERVED.replace("32768", '"32768"'), 5, "is '32768'; input should be a valid integer"),
        (SERVED + 'args = ["8"]', 10, "begins with '8'; it must begin with a flag"),
        (SERVED + 'env = { "A B" = "x" }', 10, "serve.env.A B: is no name of a variable"),
        (SERVED + "nodes = 2", 9, "is 1, which does not spread evenly over serve.nodes = 2"),
        (SERVED.replace("gpus = 1", "nodes = 2"), 9, "serve.nodes: must be 1 without GPUs; set serve.gpus"),
        (SERVED + "resources = { GPU = 8 }", 10, "has GPU, which serve.gpus sets already; remove it"),
        (SERVED.replace("Qwen/Qwen3-14B-AWQ", "qwen"), 8, "neither a directory (begin it with / or ./) nor"),
        (SERVED.replace('"sglang"', '"openvino"'), 8, "it must be a directory: begin it with / or ./"),
        (SERVED + "[serve.scale]\nkv_high = 0.2\nkv_low = 0.5", 12, "not less than kv_high = 0.2"),
        (SERVED + "[limits]\nanswer_tokens_reserved = 32768", 11, "no room is left; lower it"),
        (SERVED + "[routing]\nkv_token_max = 9", 11, "Did you mean 'kv_tokens_max'? Correct or remove it"),
        (SERVED + "[routing]\nkv_tokens_max = -9", 11, "is -9; input should be greater than or equal to 0"),
        (SERVED + "[routing]\nkv_tokens_max = 9", 11, "less than output_tokens_reserved = 4096"),
        (SERVED + "[prices]\nusd_per_gpu_hour = -1", 11, "is -1; input should be greater than or equal to 0"),
        (REMOTE.replace("https://", ""), 8, "must be a URL such as"),
        (REMOTE + 'api_key_env = "sk-0123-secret"', 9, "must be the name of an environment variable"),
    ],
)
def test_fields_that_contradict_each_other_are_told_before_anything_starts(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    said = fault(tmp_path, text)
    assert f"mine.toml:{line}: " in said
    assert says in said
    assert "secret" not in said


def test_what_one_engine_is_told_by_heavy_another_takes_from_its_args(tmp_path: Path) -> None:
    for engine in ("openvino", "sglang"):
        text = SERVED.replace('"sglang"', f'"{engine}"').replace("Qwen/", "./")
        args = ("--device", "GPU") if engine == "openvino" else ("--tool-call-parser", "qwen")
        profile = read_profile(written(tmp_path, f'{text}args = ["{args[0]}", "{args[1]}"]'))
        assert profile.serve.args == args


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    said = fault(tmp_path, GOOD.replace("4096", "-1").replace("0.7", '"hot"'))
    assert len(said.splitlines()) == 2
    said = fault(tmp_path, SERVED.replace("gpus = 1", "nodes = 2") + 'args = ["--port", "1"]')
    assert len(said.splitlines()) == 2


def test_what_is_not_toml_is_told_with_its_place(tmp_path: Path) -> None:
    assert "mine.toml:2: this is not TOML" in fault(tmp_path, 'name = "x"\nb = = 1\n')
    assert "mine.toml:3: this is not TOML" in fault(tmp_path, 'name = "x"\n\nb = """1\n')


def test_two_profiles_of_ones_own_with_one_name_are_an_error(tmp_path: Path) -> None:
    written(tmp_path, GOOD, "a.toml")
    written(tmp_path, GOOD, "b.toml")
    with pytest.raises(ConfigError, match="rename one of them"):
        load_profiles([tmp_path])


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no directory"):
        load_profiles([tmp_path / "nowhere"])


def test_a_template_outside_the_profiles_directory_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    written(tmp_path, "secret", "secret.jinja")
    said = fault(tmp_path / "inside", GOOD + '[prompts]\nsystem = "./../secret.jinja"\n')
    assert "not there beside the profile" in said


@given(st.text(max_size=200), st.lists(st.text(max_size=5), max_size=4))
def test_finding_a_line_never_fails(text: str, path: list[str]) -> None:
    assert 1 <= line_of(text, tuple(path)) <= max(1, len(text.splitlines()))
