"""Whose rights a tool works with is part of its keys, and can be read in none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from heavy.tools.cache_key import Keys
from heavy.tools.config import read_tools

TOOLS = """
[tools.web_search]
provider = "tavily"
api_key_env = "SEARCH_KEY"

[mcp.files]
url = "http://127.0.0.1:1/mcp"
headers = { Authorization = "FILES_TOKEN" }
"""


def test_results_belong_to_the_secrets_a_tool_works_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tools.toml"
    file.write_text(TOOLS)
    monkeypatch.setenv("SEARCH_KEY", "search-secret")
    monkeypatch.setenv("FILES_TOKEN", "files-secret")
    config, keys = read_tools(str(file)), Keys(b"secret")
    rights = {name: keys.rights(config.rights(name)) for name in ("web_search", "files__read", "python")}
    assert rights["python"] == ""
    assert len({*rights.values()}) == 3
    assert "secret" not in "".join(rights.values())
    monkeypatch.setenv("FILES_TOKEN", "another")
    assert keys.rights(config.rights("files__read")) != rights["files__read"]
