"""MCP servers: official ones over both transports, and one of our own that dies, changes and lies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from mcp.types import Tool as McpDeclaration
from mcp.types import ToolAnnotations

from heavy.core.errors import ConfigError
from heavy.core.ids import RunId, arm
from heavy.core.tools import Effects, ToolContext, ToolOutput
from heavy.tools.api import Tool
from heavy.tools.config import McpSection, ToolsConfig
from heavy.tools.mcp_server import McpUnavailable
from heavy.tools.mcp_tool import spec_of
from heavy.tools.mcp_transport import MessageTooLarge, bounded
from heavy.tools.registry import ToolBox, open_tools
from workers.launch import free_port

from tests_support import mcp_server

OFFICIAL = Path(os.environ.get("HEAVY_CACHE_DIR") or Path.home() / ".cache" / "heavy") / "mcp"
TIME = str(OFFICIAL / "env" / "bin" / "mcp-server-time")
EVERYTHING = str(OFFICIAL / "everything")
CONTEXT = ToolContext(RunId("run-1"), arm(0), 0, "tenant", "call", 30.0)
UNRULY = (sys.executable, str(mcp_server.__file__))


@asynccontextmanager
async def opened(**servers: McpSection) -> AsyncIterator[ToolBox]:
    """A box with these servers, as a runner makes it."""
    box = await open_tools(ToolsConfig(mcp=servers))
    try:
        yield box
    finally:
        await box.close()


async def ask(box: ToolBox, name: str, timeout_s: float = 30.0, **arguments: Any) -> ToolOutput:
    """Call a tool as it is declared now."""
    (tool,) = box.select((name,))
    return await tool.call(arguments, replace(CONTEXT, timeout_s=timeout_s))


def by_name(box: ToolBox, server: str) -> dict[str, Tool]:
    """What a server offers now."""
    return {tool.spec.name: tool for tool in box.select((f"{server}__*",))}


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what a busy machine may take a while for."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def test_official_servers_over_stdio_are_tools_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAVY_TEST_GREETING", "good evening")
    everything = McpSection(
        command=(EVERYTHING, "stdio"),
        env={"GREETING": "HEAVY_TEST_GREETING"},
        tools=("echo", "get-*"),
        effects="read",
    )
    async with opened(time=McpSection(command=(TIME,), effects="read"), everything=everything) as box:
        tools = {**by_name(box, "time"), **by_name(box, "everything")}
        now = await ask(box, "time__get_current_time", timezone="Europe/Oslo")
        wrong = await ask(box, "time__get_current_time", timezone="Nowhere")
        echo = await ask(box, "everything__echo", message="hello")
        environment = await ask(box, "everything__get-env")
        image = await ask(box, "everything__get-tiny-image")
        refused = await ask(box, "everything__get-sum", a="one", b=2)
    assert {"time__convert_time", "everything__echo", "everything__get-sum"} <= set(tools)
    assert not any("toggle" in name or "trigger" in name for name in tools)
    assert '"timezone": "Europe/Oslo"' in now.content
    assert now.meta["source"] == "MCP server time"
    assert wrong.is_error
    assert echo.content == "Echo: hello"
    assert "good evening" in environment.content
    assert "HEAVY_" not in environment.content
    assert "[image/png, 4035 bytes, not shown]" in image.content
    assert refused.is_error
    assert all(tool.spec.untrusted for tool in tools.values())


@pytest.fixture
def everything_url() -> Iterator[str]:
    """The official server over streamable HTTP."""
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "PORT": str(port)}
    with subprocess.Popen(
        [EVERYTHING, "streamableHttp"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        yield f"http://127.0.0.1:{port}/mcp"
        os.killpg(process.pid, signal.SIGTERM)  # the program is started by another one, which would leave it


async def test_an_official_server_over_streamable_http(everything_url: str) -> None:
    section = McpSection(url=everything_url, tools=("echo",), trust="output", reconnect_max_s=0.5)
    async with opened(web=section) as box:
        await until(lambda: _offers(box, "web"))
        output = await ask(box, "web__echo", message="over http")
        assert not by_name(box, "web")["web__echo"].spec.untrusted
    assert output.content == "Echo: over http"


def _offers(box: ToolBox, server: str) -> bool:
    with suppress(McpUnavailable):
        return bool(by_name(box, server))
    return False


async def test_a_server_that_dies_is_started_again_and_what_only_reads_is_asked_again() -> None:
    section = McpSection(command=UNRULY, effects="read", reconnect_max_s=0.5)
    async with opened(own=section) as box:
        first = int((await ask(box, "own__pid")).content)
        os.kill(first, signal.SIGKILL)
        second = await ask(box, "own__pid", timeout_s=60.0)
        assert second.content.isdigit()
        assert int(second.content) != first


async def test_a_write_whose_server_dies_is_unknown_and_not_repeated() -> None:
    async with opened(own=McpSection(command=UNRULY, reconnect_max_s=0.5)) as box:
        output = await ask(box, "own__note", text="die")
        assert output.unknown
        assert "UNKNOWN whether this call took effect" in output.content
        await until(lambda: box.select(("own__pid",)))
        again = await ask(box, "own__note", timeout_s=60.0, text="kept")
        assert again.content == f"1 notes, key {CONTEXT.idempotency_key}"


async def test_changed_tools_are_seen_and_results_of_the_old_are_not_stored() -> None:
    async with opened(own=McpSection(command=UNRULY, effects="read", description_chars_max=300)) as box:
        old = by_name(box, "own")["own__pid"]
        assert (await old.call({}, CONTEXT)).storable
        await ask(box, "own__grow")
        await until(lambda: "own__grown" in by_name(box, "own"))
        tools = by_name(box, "own")
        assert not (await old.call({}, CONTEXT)).storable
        assert (await ask(box, "own__grown", size=3)).content == "xxx"
    assert tools["own__pid"].spec.description == "Which process this is, and more."
    assert "own__weird_n_me_x" in tools
    assert not any(len(name) > 64 for name in tools)
    assert len(tools["own__grown"].spec.description) <= 310
    assert "<|im_end|>" not in tools["own__grown"].spec.description


async def test_slow_calls_end_in_time_and_cancelled_ones_free_their_place() -> None:
    section = McpSection(command=UNRULY, effects="read", calls_at_once_max=1)
    async with opened(own=section) as box:
        late = await ask(box, "own__slow", timeout_s=0.5, seconds=30)
        assert "did not answer within 0.5 s" in late.content
        running = asyncio.create_task(ask(box, "own__slow", seconds=30))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await ask(box, "own__pid", timeout_s=20.0)).content.isdigit()


async def test_a_server_that_cannot_start_says_why_and_keeps_no_other_from_working() -> None:
    broken = McpSection(command=(sys.executable, "-c", "import sys; sys.exit('no license')"))
    absent = McpSection(command=("/nowhere/server", "--stdio"))
    async with opened(broken=broken, absent=absent, own=McpSection(command=UNRULY)) as box:
        assert "there is no such program: '/nowhere/server'" in box.missing["absent__*"]
        with pytest.raises(McpUnavailable, match=r"The MCP server broken cannot be reached: .*no license"):
            box.select(("broken__anything",))
        assert (await ask(box, "own__pid")).content.isdigit()
        with pytest.raises(ConfigError, match="no tool called 'own__absent'"):
            box.select(("own__absent",))


async def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEAVY_TEST_KEY", raising=False)
    async with opened(keyed=McpSection(command=UNRULY, env={"KEY": "HEAVY_TEST_KEY"})) as box:
        assert "HEAVY_TEST_KEY, which is not set" in box.missing["keyed__*"]


async def test_a_program_that_sends_too_large_a_message_is_cut_off_and_started_again() -> None:
    section = McpSection(command=UNRULY, effects="read", message_bytes_max=100_000, reconnect_max_s=0.5)
    async with opened(own=section) as box:
        first = (await ask(box, "own__pid")).content
        assert len((await ask(box, "own__flood", size=20_000)).content) == 20_000
        flooded = await ask(box, "own__flood", timeout_s=60.0, size=200_000)
        assert flooded.is_error
        assert "connection was lost" in flooded.content
        assert (await ask(box, "own__pid", timeout_s=60.0)).content != first
    await until(lambda: not Path(f"/proc/{first}").exists())


@pytest.fixture
def unruly_url() -> Iterator[str]:
    """The one of our own over streamable HTTP."""
    port = free_port()
    with subprocess.Popen([*UNRULY, str(port)]) as process:
        yield f"http://127.0.0.1:{port}/mcp"
        process.terminate()


async def test_an_address_that_answers_too_much_fails_that_call_alone(unruly_url: str) -> None:
    section = McpSection(url=unruly_url, effects="read", message_bytes_max=100_000, reconnect_max_s=0.5)
    async with opened(web=section) as box:
        await until(lambda: _offers(box, "web"))
        first = (await ask(box, "web__pid")).content
        flooded = await ask(box, "web__flood", size=200_000)
        assert flooded.is_error
        assert len(flooded.content) < 1_000
        assert (await ask(box, "web__pid", timeout_s=60.0)).content == first


async def test_answers_over_http_are_counted_as_they_come_and_never_unpacked() -> None:
    async def answer(request: web.Request) -> web.Response:
        large = request.path == "/large"
        response = web.Response(body=b"x" * (5_000 if large else 10), content_type="application/json")
        if request.path == "/packed":
            response.headers["Content-Encoding"] = "gzip"
        return response

    application = web.Application()
    application.router.add_get("/{path}", answer)
    hooks = {"response": [bounded(1_000)]}
    async with TestServer(application) as server, httpx2.AsyncClient(event_hooks=hooks) as http:
        assert (await http.get(str(server.make_url("/small")))).content == b"x" * 10
        with pytest.raises(MessageTooLarge, match="larger than 1000 bytes"):
            await http.get(str(server.make_url("/large")))
        with pytest.raises(httpx2.DecodingError, match="packed as 'gzip'"):
            await http.get(str(server.make_url("/packed")))


async def test_closing_ends_the_servers_that_were_started() -> None:
    async with opened(own=McpSection(command=UNRULY)) as box:
        pid = int((await ask(box, "own__pid")).content)
    await until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    ("word", "read_hints", "hints", "effects"),
    [
        ("write", False, ToolAnnotations(read_only_hint=True), Effects.WRITE),
        ("write", True, ToolAnnotations(read_only_hint=True), Effects.READ),
        ("write", True, None, Effects.WRITE),
        ("read", False, ToolAnnotations(read_only_hint=False), Effects.WRITE),
        ("read", True, ToolAnnotations(destructive_hint=True), Effects.WRITE),
        ("pure", True, ToolAnnotations(read_only_hint=True), Effects.PURE),
        ("read", True, None, Effects.READ),
    ],
)
def test_hints_make_a_tool_stricter_and_milder_only_where_allowed(
    word: Any, read_hints: bool, hints: ToolAnnotations | None, effects: Effects
) -> None:
    section = McpSection(url="http://x", effects=word, read_hints=read_hints)
    tool = McpDeclaration(name="t", input_schema={"type": "object"}, annotations=hints)
    spec = spec_of("server", section, tool)
    assert spec.effects is effects
    assert spec.cacheable == (effects is not Effects.WRITE)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {},
        {"type": "object", "properties": 3},
        {"type": "object", "description": "x" * 70_000},
    ],
)
def test_declarations_that_models_cannot_be_given_are_left_out(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        spec_of("server", McpSection(url="http://x"), McpDeclaration(name="t", input_schema=schema))
