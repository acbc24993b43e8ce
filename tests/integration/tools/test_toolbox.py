"""From names to tools, with everything around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heavy.core.errors import ConfigError
from heavy.core.ids import RunId, arm
from heavy.core.messages import ToolCall
from heavy.core.tools import CacheState, ToolContext
from heavy.tools.cache import ToolCache
from heavy.tools.cache_server import CacheLimits
from heavy.tools.config import ToolsConfig
from heavy.tools.registry import open_tools
from heavy.tools.sandbox import jail
from heavy.tools.sandbox.level import WALLS
from heavy.tools.toolset import Toolset


async def test_python_is_sandboxed_and_cached(valkey: Any) -> None:
    cache = await ToolCache.connect(valkey.url, b"secret", CacheLimits(command_s=5.0))
    box = await open_tools(cache=cache)
    try:
        toolset = Toolset(box.select(("python",)))
        call = ToolCall("functions.python:0", "python", json.dumps({"code": "6 * 7"}))
        context = ToolContext(RunId("run-1"), arm(0), 0, "tenant", call.id, 20.0)
        outputs = [await toolset.call(call, context) for _ in range(2)]
    finally:
        await box.close()
        await box.close()
    assert [output.content for output in outputs] == ["42", "42"]
    assert [output.cache for output in outputs] == [CacheState.MISS, CacheState.HIT]
    assert box.missing == {}
    assert set(WALLS) <= set(box.sandbox.split("; "))


async def test_where_python_cannot_be_confined_it_is_missing_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jail, "_bwrap", lambda: "/nonexistent/bwrap")
    box = await open_tools()
    assert "nonexistent" in box.missing["python"]
    assert box.sandbox == ""
    with pytest.raises(jail.SandboxUnavailable):
        box.select(("python",))


async def test_names_that_are_no_tools_are_refused() -> None:
    box = await open_tools(ToolsConfig())
    with pytest.raises(ConfigError, match="get_answer"):
        box.select(("get_answer",))
