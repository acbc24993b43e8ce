"""`heavy record`: a run's tool calls and their results, frozen to a file that can be replayed offline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import click

from heavy.cli.options import server_flags
from heavy.client import HeavyClient
from heavy.core.ids import RunId, is_run_id
from heavy.core.records import Record
from heavy.tools.recording import Recording, recorded

PATIENCE_S = 3.0


@click.command()
@click.argument("run")
@click.option(
    "--out", type=click.Path(dir_okay=False, writable=True), default="-", help="The file; - prints it."
)
@server_flags(patience_s=PATIENCE_S)
def record(run: str, out: str, server: str, token: str | None, patience: float) -> None:
    """Freeze the tool traffic of RUN: every call of its arms and what it gave.

    To replay it offline, name the file in the tools file of a server (HEAVY_TOOLS_FILE):

    \b
    [replay]
    file = "run.jsonl"
    """
    if not is_run_id(run):
        raise click.UsageError(f"{run!r:.80} is no run id; one looks like run- and 24 hex digits")
    recording = asyncio.run(_recorded(RunId(run), server, token, patience))
    text = "".join(f"{line}\n" for line in recording.lines())
    if out == "-":
        sys.stdout.write(text)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{out} cannot be written: {error.strerror}") from error
    names = ", ".join(f"{tool} ({len(recording.of(tool))})" for tool in recording.tools) or "none"
    click.echo(f"{len(recording.calls)} calls of {run} in {out}: {names}")


async def _recorded(run: RunId, server: str, token: str | None, patience_s: float) -> Recording:
    client = HeavyClient(server, token, patience_s=patience_s)
    async with client, aclosing(_so_far(client, run)) as records:
        return await recorded(run, records)


async def _so_far(client: HeavyClient, run: RunId) -> AsyncGenerator[Record]:
    """The records a run has now; one that is under way is not waited for."""
    last = (await client.get(run)).records
    if not last:
        return
    async with client.watch(run, deltas=False) as stream:
        async for record in stream:
            if isinstance(record, Record):
                yield record
                if record.number >= last:
                    return
