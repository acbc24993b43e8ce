"""Calls always come back as values the model can act on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from heavy.core.errors import ConfigError
from heavy.core.ids import RunId, arm
from heavy.core.messages import ToolCall
from heavy.core.tools import ToolContext, ToolOutput
from heavy.testing.tools import FailingTool, ScriptedTool, SlowTool, tool_spec
from heavy.tools.presentation import Presentation
from heavy.tools.toolset import Toolset

CODE = {
    "type": "object",
    "properties": {"code": {"type": "string"}, "times": {"type": "integer", "minimum": 1}},
    "required": ["code"],
    "additionalProperties": False,
}


def context(timeout_s: float = 5.0) -> ToolContext:
    return ToolContext(RunId("run-1"), arm(0), 0, "tenant", "functions.echo:0", timeout_s)


def call(name: str, arguments: object) -> ToolCall:
    return ToolCall(
        "functions.echo:0", name, arguments if isinstance(arguments, str) else json.dumps(arguments)
    )


def echo(**options: Any) -> ScriptedTool:
    return ScriptedTool(tool_spec("echo", parameters=CODE, **options))


async def test_a_good_call_reaches_the_tool_with_its_arguments_and_its_time() -> None:
    tool = echo(timeout_s=2.0)
    output = await Toolset([tool]).call(call("echo", {"code": "1"}), context(5.0))
    assert (output.content, output.is_error, output.meta) == ("done", False, {})
    arguments, seen = tool.calls[0]
    assert arguments == {"code": "1"}
    assert seen.timeout_s == 2.0


async def test_an_unknown_tool_is_answered_with_those_that_exist() -> None:
    output = await Toolset([echo()]).call(call("browse", {}), context())
    assert output.is_error
    assert "'browse'" in output.content
    assert "echo" in output.content


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"code": 5}', ["code", "expected string", "integer 5"]),
        ("{}", ["code"]),
        ('{"code": "x", "times": 0}', ["times", "minimum", "0"]),
        ('{"code": "x", "speed": 1}', ["speed"]),
        ('["code"]', ["object", "array"]),
        ("[" * 100_000, ["not valid JSON"]),
        ('{"code": NaN}', ["NaN"]),
        ("I would like to run some code", ["not valid JSON"]),
        ('{"code": "print(1', ["cut off"]),
        ("x" * 1_000_001, ["characters long"]),
    ],
)
async def test_unusable_arguments_are_explained_and_never_reach_the_tool(text: str, words: list[str]) -> None:
    tool = echo()
    output = await Toolset([tool]).call(call("echo", text), context())
    assert output.is_error
    assert output.deterministic
    assert tool.calls == []
    for word in words:
        assert word in output.content
    assert len(output.content) < 2_500


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        ("{'code': 'x'}", "json_repair"),
        ('{"code": "x",}', "json_repair"),
        ('{"code": "x"', "json_repair"),
        ('{"code": "a\nb"}', "control_characters"),
        ('{"code": "x"}}', "unwrapped"),
        ('```json\n{"code": "x"}\n```', "unwrapped"),
        (json.dumps('{"code": "x"}'), "unwrapped"),
        ('{"code": "x", "times": "2"}', "coerced"),
    ],
)
async def test_broken_json_whose_meaning_is_plain_is_mended_and_says_so(text: str, repair: str) -> None:
    tool = echo()
    toolset = Toolset([tool])
    output = await toolset.call(call("echo", text), context())
    assert not output.is_error
    assert (await toolset.read(call("echo", text))).repairs == (repair,)
    assert tool.calls[0][0]["code"] in ("x", "a\nb")


async def test_no_arguments_at_all_are_an_empty_object_where_the_schema_allows_it() -> None:
    tool = ScriptedTool(tool_spec("ping"))
    toolset = Toolset([tool, echo()])
    assert (await toolset.read(call("ping", ""))).repairs == ("arguments_filled",)
    assert not (await toolset.call(call("ping", ""), context())).is_error
    assert (await toolset.call(call("echo", ""), context())).is_error


async def test_a_repair_that_does_not_fit_the_schema_is_not_used() -> None:
    tool = echo()
    output = await Toolset([tool]).call(call("echo", "{'core': 'x'}"), context())
    assert output.is_error
    assert tool.calls == []


async def test_an_exception_in_a_tool_is_an_error_output() -> None:
    tool = FailingTool(tool_spec("bad"), RuntimeError("the disk is full " * 1_000))
    output = await Toolset([tool]).call(call("bad", {}), context())
    assert output.is_error
    assert not output.deterministic
    assert "RuntimeError: the disk is full" in output.content
    assert len(output.content) <= 2_000


async def test_a_tool_that_takes_too_long_is_stopped_and_said_to_be() -> None:
    tool = SlowTool(tool_spec("slow", timeout_s=0.05))
    output = await Toolset([tool]).call(call("slow", {}), context())
    assert output.is_error
    assert not output.deterministic
    assert "0.05 s" in output.content
    assert tool.cancelled == 1
    assert output.duration_s >= 0.05


async def test_a_time_out_inside_a_tool_is_not_taken_for_ours() -> None:
    output = await Toolset([FailingTool(tool_spec("bad"), TimeoutError("dns"))]).call(
        call("bad", {}), context()
    )
    assert "TimeoutError: dns" in output.content


async def test_being_cancelled_propagates_and_stops_the_tool() -> None:
    tool = SlowTool(tool_spec("slow"))
    task = asyncio.create_task(Toolset([tool]).call(call("slow", {}), context()))
    await tool.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tool.cancelled == 1


async def test_a_tool_that_loses_a_task_of_its_own_does_not_cancel_its_caller() -> None:
    tool = FailingTool(tool_spec("bad"), asyncio.CancelledError())
    output = await Toolset([tool]).call(call("bad", {}), context())
    assert output.is_error
    assert "CancelledError" in output.content


async def test_long_output_keeps_its_head_and_tail_within_the_limit() -> None:
    tool = ScriptedTool(tool_spec("long"), ["A" * 50_000 + "Z" * 50_000])
    output = await Toolset([tool], Presentation(chars_max=1_000)).call(call("long", {}), context())
    assert len(output.content) <= 1_000
    assert output.content.startswith("A" * 500)
    assert output.content.endswith("Z" * 300)
    assert "of 100000 characters left out" in output.content


async def test_output_that_no_encoder_would_take_is_made_harmless() -> None:
    tool = ScriptedTool(tool_spec("odd"), [ToolOutput("a\ud800b")])
    output = await Toolset([tool]).call(call("odd", {}), context())
    assert output.content.encode() == b"a\\ud800b"


def test_two_tools_of_one_name_and_a_schema_that_is_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="'echo'"):
        Toolset([echo(), echo()])
    with pytest.raises(ConfigError, match="JSON schema"):
        Toolset([ScriptedTool(tool_spec("bad", parameters={"type": "colour"}))])


async def test_a_schema_never_sends_the_server_to_fetch_something() -> None:
    remote = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    tool = ScriptedTool(tool_spec("remote", parameters=remote))
    output = await Toolset([tool]).call(call("remote", {"x": 1}), context())
    assert output.is_error
    assert "schema could not be applied" in output.content
