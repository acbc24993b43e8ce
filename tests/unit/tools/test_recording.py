"""A run's tool traffic frozen to a file and served again, whatever trajectory asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heavy.core.errors import ConfigError
from heavy.core.ids import RunId, arm, new_run_id
from heavy.core.messages import ToolCall
from heavy.core.records import Record, RecordBody, ToolIntentRecord, ToolResultRecord
from heavy.core.tools import CacheState, Effects, ToolContext
from heavy.testing.tools import ScriptedTool, tool_spec
from heavy.tools.config import read_tools
from heavy.tools.history import Remembering
from heavy.tools.recording import Recording, load_recording, recorded
from heavy.tools.registry import open_tools
from heavy.tools.replay import ReplayedTool

RUN = new_run_id()


def context(index: int = 5) -> ToolContext:
    return ToolContext(RunId("another-run"), arm(index), 0, "tenant", "functions.look:0", 5.0)


class Log:
    """Records of calls, as a run's log has them."""

    def __init__(self) -> None:
        self.bodies: list[tuple[int, RecordBody]] = []

    def called(self, arguments: str, said: str, index: int = 0, tool: str = "look", **changes: Any) -> None:
        call_id = f"{tool}:{len(self.bodies)}"
        intent = ToolIntentRecord(ToolCall(call_id, tool, arguments), Effects.READ)
        values = {"is_error": False, "cache": CacheState.MISS, "duration_s": 0.1, **changes}
        self.bodies += [(index, intent), (index, ToolResultRecord(call_id, tool, said, **values))]

    async def records(self) -> AsyncIterator[Record]:
        for number, (index, body) in enumerate(self.bodies, start=1):
            yield Record(number, arm(index), 0, 0, body)

    async def frozen(self) -> Recording:
        return await recorded(RUN, self.records())


def write(folder: Path, recording: Recording) -> Path:
    path = folder / "run.jsonl"
    path.write_text("".join(f"{line}\n" for line in recording.lines()))
    return path


async def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = Log()
    log.called('{"q": 1.0, "a": "é"}', "found\nit")
    log.called('{"q": 2}', "no", is_error=True)
    log.called('{"q": 3}', "?", is_error=True, unknown=True)
    log.called("{broken", "The arguments are not valid JSON")
    log.bodies.append((0, ToolIntentRecord(ToolCall("open", "look", "{}"), Effects.WRITE)))
    recording = await log.frozen()
    assert [call.arguments for call in recording.calls] == ['{"a":"\\u00e9","q":1}', '{"q":2}', '{"q":3}']
    assert load_recording(write(tmp_path, recording)) == recording


async def test_a_call_is_answered_by_its_arguments_whatever_trajectory_makes_it() -> None:
    log = Log()
    log.called('{"q": 1}', "one")
    log.called('{"q": 2}', "two", index=3, is_error=True)
    tool = ScriptedTool(tool_spec("look"))
    replayed = ReplayedTool(tool, await log.frozen())
    assert (await replayed.call({"q": 1.0}, context())).content == "one"
    two = await replayed.call({"q": 2}, context(7))
    assert (two.content, two.is_error) == ("two", True)
    assert tool.calls == []


async def test_the_same_call_made_again_gets_the_next_result_in_each_trajectory() -> None:
    log = Log()
    for said in ("first", "second"):
        log.called("{}", said)
    replayed = ReplayedTool(ScriptedTool(tool_spec("look")), await log.frozen())
    for index in (0, 1):
        said = [(await replayed.call({}, context(index))).content for _ in range(3)]
        assert said == ["first", "second", "second"]


async def test_a_call_that_was_not_recorded_says_so_or_is_made_where_that_is_wanted() -> None:
    log = Log()
    log.called('{"q": 1}', "one")
    tool = ScriptedTool(tool_spec("look"), ["live"])
    output = await ReplayedTool(tool, await log.frozen()).call({"q": 9}, context())
    assert output.is_error
    assert "not recorded" in output.content
    assert RUN in output.content
    assert tool.calls == []
    assert (await ReplayedTool(tool, await log.frozen(), "live").call({"q": 9}, context())).content == "live"


async def test_a_stateful_tools_calls_are_answered_with_those_before_them() -> None:
    log = Log()
    for index, first in enumerate(("x = 1", "x = 2")):
        log.called(f'{{"code": "{first}"}}', "(no output)", index=index)
        log.called('{"code": "x"}', first[-1], index=index)
    recording = await log.frozen()
    for first, said in (("x = 2", "2"), ("x = 1", "1")):
        session = Remembering(ReplayedTool(ScriptedTool(tool_spec("look", stateful=True)), recording))
        await session.call({"code": first}, context())
        assert (await session.call({"code": "x"}, context())).content == said
    session = Remembering(ReplayedTool(ScriptedTool(tool_spec("look", stateful=True)), recording))
    assert "after" not in (await session.call({"code": "x"}, context())).content


async def test_an_unknown_write_stays_unknown() -> None:
    log = Log()
    log.called("{}", "?", is_error=True, unknown=True)
    replayed = ReplayedTool(ScriptedTool(tool_spec("look")), await log.frozen())
    assert (await replayed.call({}, context())).unknown


async def test_a_tools_file_with_a_recording_needs_nothing_else(tmp_path: Path) -> None:
    log = Log()
    log.called('{"path": "/etc/hosts"}', "127.0.0.1 localhost", tool="files__read")
    file = tmp_path / "tools.toml"
    file.write_text(f'[replay]\nfile = "{write(tmp_path, await log.frozen())}"\n')
    config = read_tools(str(file))
    assert "files__read" in config.names
    box = await open_tools(config)
    (tool,) = box.select(("files__read",))
    assert (await tool.call({"path": "/etc/hosts"}, context())).content == "127.0.0.1 localhost"
    assert "path" in tool.spec.parameters["properties"]
    theirs = box.shared_in_run(ScriptedTool(tool_spec("lookup", cacheable=True)))
    assert "not recorded" in (await theirs.call({}, context())).content
    await box.close()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no recording"),
        ("{}\n", "no recording"),
        ("not json\n", "no recording"),
        ('{"format": "heavy-tool-recording", "version": 99, "run": "r"}\n', "version 99"),
        ('{"format": "heavy-tool-recording", "version": 1, "run": "r"}\n{"tool": 1}\n', "line 2"),
    ],
)
def test_what_is_no_recording_is_said_by_line(tmp_path: Path, text: str, hint: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=hint):
        load_recording(path)
    file = tmp_path / "tools.toml"
    file.write_text('[replay]\nfile = "/nowhere"\n')
    with pytest.raises(ConfigError, match=r"replay\.file"):
        read_tools(str(file))
