"""`heavy record`: a run's tool calls and their results, frozen to a file that can be replayed offline."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path

import click

from heavy.cli.options import connected, server_flags
from heavy.cli.runs import find_run, records_so_far, run_argument
from heavy.client import HeavyClient
from heavy.tools.recording import Recording, recorded


@click.command()
@run_argument
@click.option(
    "--out", type=click.Path(dir_okay=False, writable=True), default="-", help="The file; - prints it."
)
@server_flags()
def record(run: str, out: str, server: str, token: str | None, patience: float) -> None:
    """Freeze the tool traffic of RUN (or the last one): every call of its arms and what it gave.

    To replay it offline, name the file in the tools file of a server (HEAVY_TOOLS_FILE):

    \b
    [replay]
    file = "run.jsonl"
    """
    recording = connected(server, token, patience, lambda client: _recorded(client, run))
    text = "".join(f"{line}\n" for line in recording.lines())
    if out == "-":
        sys.stdout.write(text)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{out} cannot be written: {error.strerror}") from error
    names = ", ".join(f"{tool} ({len(recording.of(tool))})" for tool in recording.tools) or "none"
    click.echo(f"{len(recording.calls)} calls of {recording.run} in {out}: {names}")


async def _recorded(client: HeavyClient, name: str) -> Recording:
    run = await find_run(client, name)
    async with aclosing(records_so_far(client, run)) as records:
        return await recorded(run.spec.run, records)
