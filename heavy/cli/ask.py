"""`heavy ask`: one question, watched to its answer."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import click

from heavy.cli import draw, exits
from heavy.cli.files import read_files
from heavy.cli.options import connected, policy_flags, policy_of, server_flags
from heavy.cli.watching import Watch
from heavy.client import PATIENCE_S, HeavyClient
from heavy.core.codec import dump
from heavy.core.draft import PolicyDraft
from heavy.core.files import File

QUESTION_BYTES_MAX = 1 << 20


class Form(StrEnum):
    """For whom a run is shown: people (lanes, or lines in a pipe), or programs."""

    PEOPLE = "people"
    JSON = "json"
    EVENTS = "events"


@click.command()
@click.argument("question", required=False)
@click.option(
    "--file",
    "paths",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="A file for the arms' python sessions; repeatable.",
)
@click.option("--request-id", help="Your own id: asking again with it attaches to the same run.")
@click.option("--json", "as_json", is_flag=True, help="Print the ended run as one JSON object, nothing else.")
@click.option("--events", is_flag=True, help="Print every record and delta as one line of JSON, as it comes.")
@server_flags(patience_s=PATIENCE_S)
@policy_flags
def ask(
    question: str | None,
    server: str,
    token: str | None,
    paths: tuple[Path, ...],
    request_id: str | None,
    patience: float,
    as_json: bool,
    events: bool,
    **values: Any,
) -> None:
    """Ask QUESTION (or standard input) and watch the arms, the aggregation and the answer.

    At a terminal every trajectory has a lane; in a pipe, every event a line. Ctrl-C asks once whether to
    cancel the run (a second Ctrl-C is a yes; in a pipe nobody is asked), ends it in the engine and says what
    it cost. Exit codes: 0 answered, 1 not answered, 130 cancelled by Ctrl-C; others as `heavy --help`.
    """
    text = question if question is not None else _read_question()
    if not text.strip():
        raise click.UsageError("the question is empty; give it as an argument or on standard input")
    if as_json and events:
        raise click.UsageError("--json and --events each want all of the output: give one of them")
    policy, files = policy_of(values), read_files(paths)
    form = Form.JSON if as_json else Form.EVENTS if events else Form.PEOPLE

    def asked(client: HeavyClient) -> Awaitable[int]:
        return ask_and_show(client, text, policy, files=files, request_id=request_id, form=form)

    sys.exit(connected(server, token, patience, asked))


async def ask_and_show(
    client: HeavyClient,
    text: str,
    policy: PolicyDraft,
    *,
    files: Sequence[File] = (),
    request_id: str | None = None,
    form: Form = Form.PEOPLE,
) -> int:
    """Ask, show the run as it goes and as it ended; the exit code."""
    deltas = form is Form.EVENTS or (form is Form.PEOPLE and draw.console().is_terminal)
    stream = client.ask(text, policy, files=files, request_id=request_id, deltas=deltas)
    return await show_run(client, Watch(client, stream, cancels=True), form)


async def show_run(client: HeavyClient, watch: Watch, form: Form) -> int:
    """Follow a run in one form and show its end; the exit code."""
    console = draw.console()
    match form:
        case Form.JSON:
            await watch.follow(lambda _: None)
            sys.stdout.write(dump(await client.get(watch.run)).decode() + "\n")
        case Form.EVENTS:
            await watch.follow(watch.events(_line))
        case Form.PEOPLE if console.is_terminal:
            await watch.follow()
            console.print(draw.ending(watch.view))
        case Form.PEOPLE:
            await watch.follow(watch.lines(_line))
            for text in draw.ending_lines(watch.view):
                _line(text)
    return exits.of_run(watch.view.state, interrupted=watch.interrupted)


def _line(text: str) -> None:
    """A line that whoever reads the pipe has at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _read_question() -> str:
    if sys.stdin.isatty():
        raise click.UsageError('give a question, such as: heavy ask "What is 17 * 23?"')
    return sys.stdin.read(QUESTION_BYTES_MAX)
