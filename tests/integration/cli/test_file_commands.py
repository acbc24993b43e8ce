"""Files with a question and files out of its run, through the real command, gRPC, store and sandbox."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.errors import InvalidRequest, NotFound, RequestConflict
from heavy.core.files import File, FileRef, digest_of
from heavy.core.ids import new_run_id
from heavy.core.messages import Role
from heavy.replicas.api import GenerationRequest
from heavy.testing.replicas import Scripted
from heavy.tools.config import PythonSection, ToolsConfig, ToolsTable

from tests_support.whole import Whole, calls, said, whole

CODE = """
numbers = [int(line) for line in open('data.csv').read().split()[1:]]
open('plot.svg', 'w').write(f'<svg>{numbers}</svg>')
open('total.txt', 'w').write(str(sum(numbers)))
"""
ONE = PolicyDraft(width=1, tools=("python",))


@pytest.fixture
async def server(store_url: str) -> AsyncIterator[Whole]:
    """A Heavy whose model computes on the file it was given."""
    python = PythonSection(mode="session", timeout_s=60.0)
    async with whole(store_url, tools=ToolsConfig(tools=ToolsTable(python=python))) as running:
        running.script = computes
        yield running


def computes(request: GenerationRequest) -> Scripted:
    """Reads what is there, writes a picture, and gives a text back; then tells what it saw."""
    told = [message.content for message in request.messages if message.role is Role.TOOL]
    if told:
        return Scripted(f"Answer: {told[-1].count('42')}")
    return calls(json.dumps({"code": CODE, "return_files": ["total.txt"]}), name="python")


async def test_a_file_goes_into_every_arms_session_and_what_they_make_comes_back(
    server: Whole, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("n\n20\n22\n")
    asked = await said(
        server.address,
        "ask",
        "--width",
        2,
        "--tool",
        "python",
        "--json",
        "--file",
        tmp_path / "data.csv",
        "Sum?",
    )
    assert asked.code == 0, asked.err
    run = json.loads(asked.out)["spec"]
    assert [(one["name"], one["size_bytes"]) for one in run["files"]] == [("data.csv", 8)]
    assert server.asked()[0].endswith(
        "working directory of `python`, with this message:\n- data.csv (8 bytes)"
    )
    told = await said(server.address, "show", run["run"])
    assert "files      data.csv (8 bytes)" in told.out
    assert "files  total.txt (2 bytes), plot.svg (19 bytes)" in told.out

    out = tmp_path / "out"
    saved = await said(server.address, "show", run["run"], "--files", out)
    assert saved.code == 0, saved.err
    assert (out / "given" / "data.csv").read_text() == "n\n20\n22\n"
    for arm in ("arm-0", "arm-1"):
        assert (out / arm / "step-0" / "plot.svg").read_text() == "<svg>[20, 22]</svg>"
        assert (out / arm / "step-0" / "total.txt").read_text() == "42"
    (out / "given" / "data.csv").write_text("mine")
    again = await said(server.address, "show", run["run"], "--files", out)
    assert again.code == 1
    assert "data.csv  is there already" in again.err
    assert (out / "given" / "data.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("files", "policy", "problem"),
    [
        ([File("../etc/passwd", b"")], ONE, "files[0].name: '../etc/passwd' must be 1 to 100"),
        ([File("a", b""), File("a", b"x")], ONE, "files[1].name: 'a' is given twice"),
        ([File(f"f{n}", b"") for n in range(17)], ONE, "files: are 17; at most 16"),
        ([File("a", bytes((8 << 20) + 1))], ONE, "files: have 8388609 bytes together; at most 8388608"),
        ([File("a", b"")], PolicyDraft(tools=()), "files: could be read by python, which the run's tools"),
    ],
)
async def test_files_that_cannot_go_with_a_run_are_refused_and_it_is_said_why(
    server: Whole, files: list[File], policy: PolicyDraft, problem: str
) -> None:
    async with HeavyClient(server.address) as client:
        with pytest.raises(InvalidRequest) as refused:
            await client.create("Sum?", policy, files=files)
    assert problem in str(refused.value)


async def test_where_no_tool_takes_files_the_operator_is_told_what_to_set(store_url: str) -> None:
    async with whole(store_url) as plain, HeavyClient(plain.address) as client:
        with pytest.raises(InvalidRequest, match=r'mode = "session" under \[tools.python\]'):
            await client.create("Sum?", PolicyDraft(tools=("probe",)), files=[File("a", b"")])


async def test_a_file_belongs_to_its_run_its_tenant_and_its_request(store_url: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("ours:token-one-0123456789\ntheirs:token-two-0123456789\n")
    tools = ToolsConfig(tools=ToolsTable(python=PythonSection(mode="session")))
    async with (
        whole(store_url, tools=tools, tokens_file=str(tokens)) as guarded,
        HeavyClient(guarded.address, "token-one-0123456789") as ours,
        HeavyClient(guarded.address, "token-two-0123456789") as theirs,
    ):
        given = [File("data.csv", b"n\n42\n")]
        run = (await ours.create("Sum?", ONE, files=given, request_id="r")).spec
        (ref,) = run.files
        assert await ours.file(run.run, ref) == given[0]
        assert (await ours.create("Sum?", ONE, files=given, request_id="r")).spec.run == run.run
        with pytest.raises(RequestConflict):
            await ours.create("Sum?", ONE, files=[File("data.csv", b"n\n43\n")], request_id="r")
        for client, where, digest in (
            (theirs, run.run, ref.digest),
            (ours, new_run_id(), ref.digest),
            (ours, run.run, digest_of(b"other")),
        ):
            with pytest.raises(NotFound):
                await client.file(where, FileRef("data.csv", digest, 5))
        with pytest.raises(InvalidRequest, match="sha256"):
            await ours.file(run.run, FileRef("data.csv", "../x", 1))
