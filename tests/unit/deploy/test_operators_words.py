"""What operators are told to type, set and look for exists: commands, variables, messages."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from heavy.cli.main import cli
from heavy.config import Settings
from heavy.profiles.loader import load_profiles
from workers.fleet.placement import bundles_of, missing

from tests_support.up import ROOT

DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
COMMAND = re.compile(r"`(heavy [^`]+)`|^\s*(?:\$ )?(heavy [a-z][^#\n]*)", re.MULTILINE)
VARIABLE = re.compile(r"\bHEAVY_[A-Z][A-Z0-9_]*[A-Z0-9]")
SOURCES = [path.read_text() for room in ("heavy", "workers") for path in sorted((ROOT / room).rglob("*.py"))]


def typed() -> Iterator[tuple[str, list[str]]]:
    """Every `heavy` command line of documents, compose file and manifests, with where it stands."""
    for document in DOCUMENTS:
        for found in COMMAND.finditer(document.read_text()):
            yield document.name, shlex.split(found[1] or found[2])[1:]
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    containers = [
        container
        for resource in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "heavy.yaml").read_text())
        if resource["kind"] == "Deployment"
        for container in resource["spec"]["template"]["spec"]["containers"]
    ]
    lines = [one.get("command", one.get("args", ())) for one in (*services.values(), *containers)]
    yield from (("deploy", ["up", *line[1:]]) for line in lines if line and line[0] == "heavy-serve")
    served = re.search(r"exec heavy (.*) \"\$@\"", (ROOT / "deploy" / "images" / "serve.sh").read_text())
    assert served is not None
    yield "serve.sh", shlex.split(served[1])


def parsed(words: list[str]) -> None:
    """Read a command line as the command would, without doing it. Raises `click.UsageError`."""
    command: click.Command = cli
    context = click.Context(cli, info_name="heavy")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if command.get_command(context, words[0]) is None and "run" in command.list_commands(context):
            words = ["run", *words]  # `heavy eval DATASET`
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    with contextlib.suppress(click.BadOptionUsage):  # a flag that is only named, without its value
        command.make_parser(context).parse_args([word for word in words if word != "..."])


@pytest.mark.parametrize(("where", "words"), list(typed()), ids=lambda part: str(part)[:60])
def test_every_command_that_is_written_down_is_one_with_those_flags(where: str, words: list[str]) -> None:
    parsed(words)


def test_a_flag_that_is_not_there_is_seen() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(["replicas", "update", "NAME", "--fiel", "x"])


def files() -> Iterator[Path]:
    yield from DOCUMENTS
    yield from (path for path in (ROOT / "deploy").rglob("*") if path.suffix != ".pyc" and path.is_file())


@pytest.mark.parametrize("path", list(files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_is_named_is_a_setting_or_is_read(path: Path) -> None:
    named = set(VARIABLE.findall(path.read_text()))
    known = {f"HEAVY_{field.upper()}" for field in Settings.model_fields}
    known |= {name for source in SOURCES for name in VARIABLE.findall(source)}
    known |= set(VARIABLE.findall((ROOT / "Makefile").read_text()))
    own = set(re.findall(r"\$\{(\w+)", (ROOT / "deploy" / "compose.yaml").read_text()))  # compose's own
    assert named - known - own == set()


def test_every_message_that_operators_look_for_is_one_that_is_said() -> None:
    """The first column of the table of what to do; numbers in it are examples."""
    said = " ".join(re.sub(r"\{[^{}]*\}", "", source).replace("\\", "") for source in SOURCES)
    said = re.sub(r"\"\s*\n\s*f?\"", "", said)
    said += " ".join(missing(bundles_of(load_profiles().get("kimi-k2-thinking")), []).split())
    table = (ROOT / "docs" / "operations.md").read_text().partition("## What to do when")[2]
    rows = re.findall(r"^\| (?!---|what you see)([^|]*) \|", table.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 5
    for quoted in re.findall(r"`([^`]+)`", " ".join(rows)):
        for part in re.split(r"\s*(?:\b\d+|\.\.\.|;|\bADDRESS\b)\s*", quoted):
            assert part in said, f"nobody says {quoted!r}"


def test_the_kv_budgets_of_profiles_are_those_of_the_page() -> None:
    """What may be reserved is what the page counts, or a little less."""
    book = load_profiles()
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| [^|]+\| `([\w.-]+)` \|(?:[^|]*\|){2} about (\d+)k tokens \|", page, re.MULTILINE)
    assert {name for name, _ in rows} == {name for name in book if book.get(name).engine == "sglang"}
    for name, thousands in rows:
        budget = book.get(name).routing.kv_tokens_max
        assert 0.95 <= budget / (int(thousands) * 1000) <= 1.0, name
