"""A trajectory's python session lives as long as the trajectory, on a runner as it is put together."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from heavy.core.records import ToolResultRecord
from heavy.core.runs import OutcomeKind
from heavy.testing.replicas import Scripted
from heavy.tools.config import PythonSection, ToolsConfig, ToolsTable
from heavy.tools.registry import ToolBox, open_tools

from tests_support.up import processes_below


@pytest.fixture
def packages(tmp_path: Path) -> str:
    """A directory with a package of the operator's."""
    (tmp_path / "bridges").mkdir()
    (tmp_path / "bridges" / "__init__.py").write_text("LOAD = 40\n")
    tmp_path.chmod(0o755)
    return str(tmp_path)


@pytest.fixture
async def box(packages: str) -> AsyncIterator[ToolBox]:
    """Python sessions in which the package can be imported."""
    python = PythonSection(mode="session", packages=(packages,), timeout_s=20.0)
    box = await open_tools(ToolsConfig(tools=ToolsTable(python=python)))
    yield box
    await box.close()


async def test_state_lasts_over_steps_and_goes_with_the_trajectory(
    make_desk: Callable[..., Any], calls: Callable[..., Scripted], box: ToolBox
) -> None:
    before = processes_below(os.getpid())
    desk = make_desk(tools={"box": box})
    cells = iter(["import bridges\nx = bridges.LOAD", "x + 2"])

    def script(request: object) -> Scripted:
        code = next(cells, None)
        if code is None:
            assert processes_below(os.getpid()) - before
            return Scripted(content="Answer: 42")
        return calls(json.dumps({"code": code}), name="python")

    desk.script = script
    spec = await desk.accept(tools=("python",))
    outcome = await desk.host.run(spec)
    results = [body for body in await desk.bodies(spec.run) if isinstance(body, ToolResultRecord)]
    assert outcome.kind is OutcomeKind.COMPLETED
    assert [result.content for result in results] == ["(no output)", "42"]
    assert not processes_below(os.getpid()) - before
