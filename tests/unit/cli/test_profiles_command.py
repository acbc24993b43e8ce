from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from heavy.cli.main import cli
from heavy.cli.profiles import known_profiles, toml_lines
from heavy.profiles.schema import Profile


def test_every_profile_is_listed_with_its_engine() -> None:
    done = CliRunner().invoke(cli, ["profiles", "--json"])
    listed = {one["name"]: one["engine"] for one in map(json.loads, done.output.splitlines())}
    assert listed["abacus"] == "openvino"
    assert listed["kimi-k2-thinking"] == "sglang"
    shown = CliRunner().invoke(cli, ["profiles"])
    assert "abacus (default)" in shown.output


@pytest.mark.parametrize("name", list(known_profiles()))
def test_what_is_shown_of_a_profile_is_toml_that_says_the_same(name: str) -> None:
    profile = known_profiles().get(name)
    written = "\n".join(toml_lines(profile.model_dump(mode="json", exclude_defaults=True)))
    where = {"directory": profile.directory, "file": profile.file}
    read = Profile.model_validate({**tomllib.loads(written), **where})
    assert read == profile


def test_checking_a_file_names_the_line_and_the_fault(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(
        'name = "mine"\ntitle = "Mine"\nengine = "simulated"\nmodel = "m"\ncontext_tokens = 4096\n'
    )
    bad.write_text(good.read_text() + "contxt = 3\n")
    assert CliRunner().invoke(cli, ["profiles", "check", str(good)]).exit_code == 0
    done = CliRunner().invoke(cli, ["profiles", "check", str(good), str(bad)])
    assert done.exit_code == 78
    assert f"{good}: right" in done.output
    assert "bad.toml:6: contxt" in done.output


def test_a_profile_that_is_not_there_is_answered_with_the_one_that_was_meant() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heavy.cli.main", "profiles", "show", "abacsu"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Did you mean 'abacus'?" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_something_a_shell_can_read(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_HEAVY_COMPLETE" in done.output


def test_profiles_and_commands_are_completed() -> None:
    def completed(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "heavy.cli.main"],
            env={
                **os.environ,
                "_HEAVY_COMPLETE": "bash_complete",
                "COMP_WORDS": "heavy " + " ".join(words),
                "COMP_CWORD": str(len(words)),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert completed("profiles", "show", "aba") == ["abacus"]
    assert completed("up", "--profile", "aba") == ["abacus"]
    assert completed("ru") == ["runs"]
