"""Files that go with a question, and those that come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from heavy.cli import exits
from heavy.cli.plain import plain
from heavy.client import HeavyClient
from heavy.core.errors import NotFound
from heavy.core.files import FILES_BYTES_MAX, File, FileRef, is_file_name
from heavy.core.records import Record, ToolResultRecord
from heavy.core.runs import Run


def read_files(paths: Sequence[Path]) -> tuple[File, ...]:
    """The files at `paths`, by their last names. Raises click's UsageError for what no server takes."""
    if sum(path.stat().st_size for path in paths) > FILES_BYTES_MAX:
        raise click.UsageError(f"the files are larger than {FILES_BYTES_MAX >> 20} MiB together")
    try:
        return tuple(File(path.name, path.read_bytes()) for path in paths)
    except OSError as error:
        raise click.UsageError(f"{error.filename} cannot be read: {error.strerror}") from error


async def save_files(client: HeavyClient, run: Run, records: Sequence[Record], directory: Path) -> int:
    """Write a run's files below `directory` and name each; whether all could be, as an exit code.

    Nothing is overwritten.
    """
    places, failed = list(_places(run, records)), 0
    for place, ref in places:
        target, problem = directory.joinpath(*place, ref.name), "is no plain file name"
        if all(map(is_file_name, (*place, ref.name))):  # a server is not trusted with our paths
            problem = await _saved(client, run, ref, target)
        click.echo(f"{plain(str(target))}  {problem or f'{ref.size_bytes:,} bytes'}", err=bool(problem))
        failed += bool(problem)
    if not places:
        click.echo(f"{run.spec.run} has no files.", err=True)
    return exits.FAILED if failed else exits.ANSWERED


def _places(run: Run, records: Sequence[Record]) -> Iterator[tuple[tuple[str, ...], FileRef]]:
    """Each file, and the directory it belongs into: the caller's own, then by trajectory and step."""
    for ref in run.spec.files:
        yield ("given",), ref
    for record in records:
        if isinstance(record.body, ToolResultRecord):
            for ref in record.body.files:
                yield (record.trajectory, f"step-{record.step}"), ref


async def _saved(client: HeavyClient, run: Run, ref: FileRef, target: Path) -> str:
    """Save one file; what went wrong, or empty."""
    if not ref.digest:
        return "was not kept: the run had no room for it"
    try:
        file = await client.file(run.spec.run, ref)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            out.write(file.data)
    except FileExistsError:
        return "is there already"
    except NotFound as error:
        return str(error)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from error
    return ""
