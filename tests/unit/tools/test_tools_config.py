"""The operator's tools file: what is on, and every mistake with its line and its mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from heavy.core.errors import ConfigError
from heavy.tools.cache_server import CacheLimits
from heavy.tools.config import CachePolicy, CacheSection, read_tools

WHOLE = """
[tools.python]
mode = "session"
cache = {scope = "run", ttl_s = 60}

[tools.web_search]
provider = "tavily"
api_key_env = "TAVILY_KEY"

[tools.web_fetch]
robots = "ignore"

[network]
block_hosts = ["Answers.Example."]
allow_private = ["127.0.0.1:8080"]

[mcp.time]
command = ["mcp-server-time"]
tools = ["get_*"]
env = {TOKEN = "TIME_TOKEN"}
cache_tools.get_current_time = {ttl_s = 5}

[mcp.files]
url = "https://files.example/mcp"
tools = ["read", "list"]
headers = {Authorization = "FILES_AUTHORIZATION"}
cache = {scope = "tenant"}

[redact]
env = ["OTHER_SECRET"]
"""


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "tools.toml"
    file.write_text(text)
    return str(file)


def test_without_a_file_there_is_python_alone() -> None:
    assert list(read_tools("").names) == ["python"]


def test_a_tool_is_on_when_the_file_has_its_table(tmp_path: Path) -> None:
    assert list(read_tools(written(tmp_path, "[tools.web_fetch]\n")).names) == ["web_fetch"]
    assert list(read_tools(written(tmp_path, "")).names) == []


def test_names_of_mcp_tools_are_those_the_operator_offers(tmp_path: Path) -> None:
    names = read_tools(written(tmp_path, WHOLE)).names
    assert list(names)[:3] == ["python", "web_search", "web_fetch"]
    assert {"time__*", "files__*", "files__read", "files__list"} <= set(names)
    assert "time__get_current_time" in names
    for unknown in ("time__convert", "files__write", "nobody__get_x", "time", "web", 7):
        assert unknown not in names


def test_cache_policies_are_per_tool_and_off_for_mcp_unless_given(tmp_path: Path) -> None:
    config = read_tools(written(tmp_path, WHOLE))
    assert config.cache_policy("python") == CachePolicy(scope="run", ttl_s=60)
    assert config.cache_policy("web_fetch") is None
    assert config.cache_policy("time__get_current_time") == CachePolicy(ttl_s=5)
    assert config.cache_policy("time__get_zone") == CachePolicy(scope="off")
    assert config.cache_policy("files__read") == CachePolicy(scope="tenant")


def test_every_variable_named_as_a_secret_is_known(tmp_path: Path) -> None:
    config = read_tools(written(tmp_path, WHOLE))
    assert config.environment_names() == {"TAVILY_KEY", "TIME_TOKEN", "FILES_AUTHORIZATION", "OTHER_SECRET"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tools.pyhton]\n", r":1: tools\.pyhton: is not a field of a tools file\. Did you mean 'python'"),
        ("\n[tools.python]\nmemory = 5\n", r":3: tools\.python\.memory: .*Did you mean 'memory_mib'"),
        ("[tools.python]\ncpu_s = 0\n", r":2: tools\.python\.cpu_s: is 0; input should be greater than 0"),
        ("[tools.python]\ncache = {scpoe = 'run'}\n", r":2: tools\.python\.cache\.scpoe: .*'scope'"),
        ("[tools.python]\npackages = ['/nonexistent']\n", r":2: tools\.python\.packages\.0: names '/nonexi"),
        ("[tools.web_search]\n", r":1: tools\.web_search\.provider: is missing; add provider ="),
        ("[tools.web_search]\nprovider = 'searxng'\n", r":1: tools\.web_search: .*needs url"),
        ("[tools.web_search]\nprovider = 'exa'\n", r":1: tools\.web_search: .*needs api_key_env"),
        ("[network]\nblock_hosts = ['https://x.org']\n", r":2: network\.block_hosts: .*no scheme"),
        ("[network]\nallow_private = ['localhost']\n", r":2: network\.allow_private: .*HOST:PORT"),
        ("[mcp.a__b]\nurl = 'http://x'\n", r":1: mcp\.a__b.*: is 'a__b'"),
        ("[mcp.a]\n", r":1: mcp\.a: .*command = .* or url ="),
        ("[mcp.a]\nurl = 'http://x'\ntool = []\n", r":3: mcp\.a\.tool: .*Did you mean 'tools'"),
        ("[mcp.a]\ncommand = ['x']\nenv = {A = 'sk-1234'}\n", r":3: mcp\.a\.env\.A: is 'sk-1234'"),
        ("tools = [\n", "this is not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_its_mend(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_tools(written(tmp_path, text))


def test_the_documented_file_is_a_valid_one_that_turns_everything_on() -> None:
    names = read_tools(str(Path(__file__).parents[3] / "docs" / "tools.toml")).names
    assert list(names)[:3] == ["python", "web_search", "web_fetch"]
    assert "time__get_current_time" in names


def test_the_documented_bounds_of_the_cache_are_its_defaults() -> None:
    config = read_tools(str(Path(__file__).parents[3] / "docs" / "tools.toml"))
    assert CacheLimits.of(config.cache) == CacheLimits.of(CacheSection()) == CacheLimits()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/nonexistent/tools\.toml: cannot be read"):
        read_tools("/nonexistent/tools.toml")
