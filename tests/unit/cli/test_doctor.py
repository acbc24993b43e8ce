from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from heavy.cli.doctor import Examination, Finding, Health, show
from heavy.cli.main import cli


def examined(**environment: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", "--json"], env=environment)


def by_part(result: Result) -> dict[str, dict[str, str]]:
    return {finding["part"]: finding for finding in json.loads(result.output)["findings"]}


def test_a_machine_that_has_everything_is_told_so() -> None:
    result = examined()
    assert result.exit_code == 0, result.output
    found = by_part(result)
    for part in ("python", "store", "ray", "profiles", "openvino"):
        assert found[part]["health"] == "fine"
    assert "seccomp" in found["sandbox"]["seen"] or found["sandbox"]["mend"]


def test_what_is_missing_comes_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text('name = "x"\n')
    tools = tmp_path / "tools" / "tools.toml"
    tools.parent.mkdir()
    tools.write_text(
        '[tools.web_search]\nprovider = "exa"\napi_key_env = "HEAVY_TEST_UNSET"\n'
        f'[tools.python]\ncgroup = "{tmp_path}"\n'
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = examined(
            HEAVY_STORE_URL="redis://127.0.0.1:1/0",
            HEAVY_STORE_TIMEOUT_S="0.5",
            RAY_ADDRESS="127.0.0.1:1",
            HEAVY_PROFILE_DIRS=str(tmp_path),
            HEAVY_PORT=port,
            HEAVY_TOOLS_FILE=str(tools),
        )
    assert result.exit_code == 1
    found = by_part(result)
    assert "HEAVY_STORE_URL" in found["store"]["mend"]
    assert "ray start --head" in found["ray"]["mend"]
    assert "broken.toml" in found["profiles"]["seen"]
    assert f"{tmp_path} is no cgroup v2 directory" in found["sandbox"]["mend"]
    assert "HEAVY_TEST_UNSET, which is not set" in found["tools"]["seen"]
    assert str(tools) in found["tools"]["mend"]
    assert found[f"port {port}"]["health"] == "optional"
    assert "--port 0" in found[f"port {port}"]["mend"]


def test_a_setting_that_cannot_be_read_is_a_finding() -> None:
    result = examined(HEAVY_PORT="many")
    assert result.exit_code == 1
    assert "HEAVY_PORT" in by_part(result)["settings"]["seen"]


@pytest.mark.parametrize("width", [60, 160])
def test_findings_are_drawn_on_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    show(Examination((Finding("store", Health.MISSING, "x" * 100, "start it"),)), console)
    file = console.file
    assert isinstance(file, io.StringIO)
    assert max(map(len, file.getvalue().splitlines())) <= width
    assert "mend it: start it" in file.getvalue()
    assert "Something is missing" in file.getvalue()
