from __future__ import annotations

import io
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from heavy.cli.main import COMMANDS, cli, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_list_says_and_explains_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys\nfrom heavy.cli.main import cli\n"
        "try:\n    cli(['--help'], prog_name='heavy')\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('grpc', 'ray', 'rich', 'aiohttp', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"\n  {name}" in done.stdout


def test_a_name_that_is_no_command_is_answered_with_the_one_that_was_meant() -> None:
    done = CliRunner().invoke(cli, ["akk"])
    assert done.exit_code == 2
    assert "Did you mean 'ask'?" in done.output


class Interrupted(io.StringIO):
    """Standard input of a person who presses Ctrl-C instead."""

    def read(self, _size: int | None = -1) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["ask"], 130),
        (["akk"], 2),
        (["ask", "--widht", "3"], 2),
        (["--version"], 0),
        (["runs", "--server", "x"], 2),
    ],
)
def test_every_way_out_has_the_exit_code_that_is_documented(
    words: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Interrupted())
    monkeypatch.setattr(sys, "argv", ["heavy", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code
