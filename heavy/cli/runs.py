"""`heavy runs`, `show`, `watch`, `cancel`: what became of runs, and what they are doing."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem
from rich.table import Table
from rich.text import Text

from heavy.cli import draw, exits
from heavy.cli.ask import Form, show_run
from heavy.cli.files import save_files
from heavy.cli.options import connected, server_flags
from heavy.cli.plain import on_one_line
from heavy.cli.story import Story
from heavy.cli.watching import Watch
from heavy.client import HeavyClient
from heavy.core import clock
from heavy.core.codec import dump
from heavy.core.errors import HeavyError, NotFound
from heavy.core.ids import RunId
from heavy.core.records import Record
from heavy.core.runs import Run, RunState

RUNS_SHOWN: Final = 20
LAST: Final = "last"
NO_RUN: Final = "There is no run yet: `heavy ask` makes one."
COMPLETIONS: Final = 30
COMPLETION_PATIENCE_S: Final = 0.3

_STATE_STYLE = {RunState.COMPLETED: "green", RunState.FAILED: "red", RunState.CANCELLED: "yellow"}
_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Since(click.ParamType[int]):
    """A stretch of time such as 90s, 15m, 2h or 7d, in milliseconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds, or a usage error."""
        found = _SPAN.match(str(value))
        if found is None:
            self.fail(f"{value!r} is no stretch of time; write one such as 90s, 15m, 2h or 7d", param, ctx)
        return int(timedelta(**{_UNITS[found[2]]: float(found[1])}).total_seconds() * 1000)


def _complete_run(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest runs, where a server answers at once."""

    async def newest() -> list[CompletionItem]:
        found = []
        server = ctx.params.get("server") or "127.0.0.1:50051"
        async with HeavyClient(server, ctx.params.get("token"), patience_s=COMPLETION_PATIENCE_S) as client:
            async for run in client.list(page_size=COMPLETIONS):
                if run.spec.run.startswith(incomplete):
                    found.append(CompletionItem(run.spec.run, help=on_one_line(_question(run), 50)))
                if len(found) == COMPLETIONS:
                    break
        return found

    try:
        return asyncio.run(newest())
    except HeavyError:
        return []


run_argument = click.argument("run", default=LAST, shell_complete=_complete_run)


@click.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([s.value for s in RunState]),
    help="Only these; repeatable.",
)
@click.option("--since", type=Since(), help="Only what was asked within 90s, 15m, 2h, 7d.")
@click.option("--question", default="", help="Only runs whose question contains this.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=RUNS_SHOWN, show_default=True, help="How many at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print each run as one line of JSON.")
@server_flags()
def runs(
    states: tuple[str, ...],
    since: int | None,
    question: str,
    limit: int,
    as_json: bool,
    server: str,
    token: str | None,
    patience: float,
) -> None:
    """List runs, newest first: state, when, how long, what it cost, the question and the answer."""
    wanted = {RunState(state) for state in states}
    after_ms = 0 if since is None else clock.now_ms() - since

    async def listed(client: HeavyClient) -> int:
        found: list[Run] = []
        async for run in client.list(states=wanted):
            if run.spec.created_ms < after_ms or len(found) == limit:
                break
            if question.casefold() in _question(run).casefold():
                found.append(run)
        if as_json:
            for run in found:
                sys.stdout.write(dump(run).decode() + "\n")
        elif found:
            console = draw.console()
            console.print(runs_table(found, console.width, clock.now_ms()))
        else:
            click.echo("No run matches." if wanted or since or question else NO_RUN)
        return exits.ANSWERED

    sys.exit(connected(server, token, patience, listed))


@click.command()
@run_argument
@click.option("--trajectory", help="Only this one: arm-0 to arm-7, or aggregator.")
@click.option("--full", is_flag=True, help="Leave nothing out of long texts.")
@click.option(
    "--files",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Save the run's files (its caller's, plots, what the arms gave back) into this directory.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run and all of its records as one JSON object."
)
@server_flags()
def show(
    run: str,
    trajectory: str | None,
    full: bool,
    directory: Path | None,
    as_json: bool,
    server: str,
    token: str | None,
    patience: float,
) -> None:
    """Tell RUN (or the last one) as a story: what each trajectory thought, did and got, step by step.

    Steps are numbered as the answer's evidence cites them.
    """

    async def told(client: HeavyClient) -> int:
        found = await find_run(client, run)
        log = [record async for record in records_so_far(client, found)]
        records = [record for record in log if trajectory in (None, record.trajectory)]
        if trajectory is not None and not records:
            names = sorted({record.trajectory for record in log if record.trajectory})
            raise NotFound(f"{found.spec.run} has no trajectory {trajectory!r}; it has {', '.join(names)}.")
        if directory is not None:
            return await save_files(client, found, records, directory)
        if as_json:
            listed = ",".join(dump(record).decode() for record in records)
            sys.stdout.write(f'{{"run":{dump(found).decode()},"records":[{listed}]}}\n')
            return exits.ANSWERED
        story = Story(found, records, full=full)
        now_ms = clock.now_ms()
        parts = story.whole(now_ms) if trajectory is None else story.trajectory(records[0].trajectory)
        console = draw.console()
        for part in parts:
            console.print(part)
        return exits.ANSWERED

    sys.exit(connected(server, token, patience, told))


@click.command()
@run_argument
@click.option("--events", is_flag=True, help="Print every record and delta as one line of JSON, as it comes.")
@click.option("--json", "as_json", is_flag=True, help="Wait, and print the ended run as one JSON object.")
@server_flags()
def watch(run: str, events: bool, as_json: bool, server: str, token: str | None, patience: float) -> None:
    """Watch RUN (or the last one) from its first record to its end; Ctrl-C leaves it alone.

    Exit codes are those of `heavy ask`.
    """
    if as_json and events:
        raise click.UsageError("--json and --events each want all of the output: give one of them")
    form = Form.JSON if as_json else Form.EVENTS if events else Form.PEOPLE

    async def watched(client: HeavyClient) -> int:
        found = await find_run(client, run)
        stream = client.watch(found.spec.run, deltas=form is not Form.JSON)
        return await show_run(client, Watch(client, stream, cancels=False), form)

    sys.exit(connected(server, token, patience, watched))


@click.command()
@run_argument
@click.option("--reason", default="cancelled from the command line", show_default=True, help="For people.")
@click.option("--json", "as_json", is_flag=True, help="Print the ended run as one JSON object, nothing else.")
@server_flags()
def cancel(run: str, reason: str, as_json: bool, server: str, token: str | None, patience: float) -> None:
    """Cancel RUN (or the last one), wait for its end and say what it cost.

    Its generations end in the engine; what its trajectories had written stays readable with `heavy show`.
    """

    async def cancelled(client: HeavyClient) -> int:
        found = await find_run(client, run)
        was_final = found.state.final
        await client.cancel(found.spec.run, reason)
        async with client.watch(found.spec.run, after=found.records, deltas=False) as stream:
            if not was_final:
                async for _ in stream:
                    pass
        ended = await client.get(found.spec.run)
        cost = draw.cost_text(ended.ledger.total) if ended.ledger else "nothing"
        if as_json:
            sys.stdout.write(dump(ended).decode() + "\n")
        elif was_final:
            click.echo(f"{ended.spec.run} had already ended: {ended.state.value}, cost {cost}.")
        else:
            click.echo(f"{ended.spec.run} {ended.state.value}, cost {cost}.")
        return exits.ANSWERED

    sys.exit(connected(server, token, patience, cancelled))


def runs_table(found: list[Run], width: int, now_ms: int) -> Table:
    """Runs on any width: the answer joins in where there is room."""
    wide = width >= draw.NARROW_COLUMNS
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    if wide:
        for name in ("took", "cost", "agree"):
            table.add_column(name, justify="right", no_wrap=True)
    table.add_column("question", ratio=3, no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("answer", ratio=2, no_wrap=True, overflow="ellipsis")
    for run in found:
        took_s = ((run.ended_ms or now_ms) - run.spec.created_ms) / 1000
        cost = draw.cost_text(run.ledger.total) if run.ledger else ""
        share = f"{run.result.agreement.share:.0%}" if run.result else ""
        middle = [draw.span_text(took_s), cost, share] if wide else []
        table.add_row(
            run.spec.run,
            Text(run.state.value, style=_STATE_STYLE.get(run.state, "cyan")),
            draw.span_text((now_ms - run.spec.created_ms) / 1000),
            *middle,
            on_one_line(_question(run), 200),
            *([_answer(run)] if wide else []),
        )
    return table


def _answer(run: Run) -> Text:
    if run.result is not None:
        said = "(abstained)" if run.result.abstained else on_one_line(run.result.short_answer, 100)
        return Text(said)
    return Text(on_one_line(run.failure.message, 100) if run.failure else "", style="dim")


def _question(run: Run) -> str:
    return run.spec.messages[-1].content if run.spec.messages else ""


async def find_run(client: HeavyClient, name: str) -> Run:
    """A run by its id, or the last one. Raises `NotFound`, `InvalidRequest`."""
    if name != LAST:
        return await client.get(RunId(name))
    async for run in client.list(page_size=1):
        return run
    raise NotFound(NO_RUN)


async def records_so_far(client: HeavyClient, run: Run) -> AsyncGenerator[Record]:
    """What the log of a run has now; of one under way, what it had when it was looked up."""
    if not run.records:
        return
    async with client.watch(run.spec.run, deltas=False) as stream:
        async for event in stream:
            if isinstance(event, Record):
                yield event
                if event.number >= run.records:
                    return
