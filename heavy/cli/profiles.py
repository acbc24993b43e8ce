"""`heavy profiles`: which models can be served, what one says, and whether a file of one's own is right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.table import Table
from rich.text import Text

from heavy.cli import draw, exits
from heavy.cli.options import complete_profile
from heavy.config import Settings
from heavy.core.errors import ConfigError, HeavyError
from heavy.profiles.faults import SET_BY_LOADER
from heavy.profiles.loader import ProfileBook, load_profiles, read_profile
from heavy.profiles.schema import Profile
from workers.shipped import LOCAL_PROFILE, PROFILE_DIRECTORIES

WIDE_COLUMNS = 100
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

profiles_dir_flag = click.option(
    "--profiles-dir", multiple=True, type=click.Path(exists=True, file_okay=False), help="More profiles."
)


def known_profiles(directories: tuple[str, ...] = ()) -> ProfileBook:
    """Built-in, shipped and configured ones. Raises `ConfigError`."""
    return load_profiles((*directories, *Settings.read().profile_directories, *PROFILE_DIRECTORIES))


def profiles_like(incomplete: str) -> list[CompletionItem]:
    """Profiles whose names begin so, for a shell."""
    try:
        book = known_profiles()
    except HeavyError:
        return []
    return [CompletionItem(n, help=p.title) for n, p in book.by_name.items() if n.startswith(incomplete)]


@click.group(invoke_without_command=True)
@profiles_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a profile, nothing else.")
@click.pass_context
def profiles(context: click.Context, profiles_dir: tuple[str, ...], as_json: bool) -> None:
    """List the profiles that can be served: a profile says how a model is served and spoken to.

    \b
    heavy profiles show kimi-k2-thinking     everything one says
    heavy profiles check my-model.toml       whether a file of one's own is right
    heavy up --profile NAME                  serve one
    """
    context.obj = profiles_dir
    if context.invoked_subcommand is not None:
        return
    book = known_profiles(profiles_dir)
    if as_json:
        for profile in book.by_name.values():
            sys.stdout.write(profile.model_dump_json() + "\n")
        return
    console = draw.console()
    console.print(profiles_table(book, console.width))


@profiles.command()
@click.argument("name", shell_complete=complete_profile)
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object, defaults included.")
@click.pass_obj
def show(directories: tuple[str, ...], name: str, as_json: bool) -> None:
    """Show everything that profile NAME says, as TOML; what it leaves to the defaults is left out."""
    profile = known_profiles(directories).get(name)
    if as_json:
        sys.stdout.write(profile.model_dump_json() + "\n")
        return
    click.echo(f"# from {profile.file}")
    click.echo("\n".join(toml_lines(profile.model_dump(mode="json", exclude_defaults=True))))


@profiles.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
def check(files: tuple[Path, ...]) -> None:
    """Check profile FILES before anything is served: each fault by line, with what would mend it."""
    wrong = 0
    for file in files:
        try:
            profile = read_profile(file)
        except ConfigError as error:
            wrong += 1
            click.secho(str(error), fg="red", err=True)
        else:
            click.echo(f"{file}: right. {profile.name}, {profile.title}, engine {profile.engine}")
    sys.exit(exits.CONFIG if wrong else exits.ANSWERED)


def profiles_table(book: ProfileBook, width: int) -> Table:
    """Profiles on any width."""
    wide = width >= WIDE_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("profile", no_wrap=True)
    table.add_column("engine", no_wrap=True)
    if wide:
        table.add_column("context", justify="right", no_wrap=True)
        table.add_column("US$ in / out", justify="right", no_wrap=True)
    table.add_column("model", ratio=1, no_wrap=True, overflow="ellipsis")
    for name, profile in book.by_name.items():
        middle = [f"{profile.context_tokens:,}", _price(profile)] if wide else []
        mark = " (default)" if name == LOCAL_PROFILE else ""
        table.add_row(Text.assemble((name, "bold"), (mark, "dim")), profile.engine, *middle, profile.title)
    return table


def _price(profile: Profile) -> str:
    """Per million tokens; a dash where tokens are not what it bills by."""
    prices = profile.prices
    given = prices.usd_per_million_prompt_tokens, prices.usd_per_million_output_tokens
    return f"{given[0]:g} / {given[1]:g}" if any(given) else "-"


def toml_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Values of a profile as TOML: scalars and lists first, then one table a section."""
    sections = {key: value for key, value in values.items() if isinstance(value, dict)}
    for key, value in values.items():
        if key not in sections and key not in SET_BY_LOADER and value is not None:
            yield f"{key} = {_toml(value)}"
    for key, section in sections.items():
        yield f"\n[{key}]"
        for name, value in section.items():
            if value is not None:
                yield f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    """A scalar, a list of scalars, or an inline table: JSON's strings, numbers and lists are TOML's too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
