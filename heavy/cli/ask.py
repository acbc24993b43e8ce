"""`heavy ask`: one question, watched to its answer."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from heavy.cli import draw, exits
from heavy.cli.options import policy_flags, policy_of, server_flags
from heavy.cli.watching import Watch
from heavy.client import PATIENCE_S, HeavyClient
from heavy.core.codec import dump
from heavy.core.draft import PolicyDraft

QUESTION_BYTES_MAX = 1 << 20


@click.command()
@click.argument("question", required=False)
@click.option("--request-id", help="Your own id: asking again with it attaches to the same run.")
@click.option("--json", "as_json", is_flag=True, help="Print the ended run as one JSON object, nothing else.")
@server_flags(patience_s=PATIENCE_S)
@policy_flags
def ask(
    question: str | None,
    server: str,
    token: str | None,
    request_id: str | None,
    patience: float,
    as_json: bool,
    **values: Any,
) -> None:
    """Ask QUESTION (or standard input) and watch the arms, the aggregation and the answer.

    At a terminal every trajectory has a lane; in a pipe, every event a line. Ctrl-C cancels the run in the
    engine, waits for its end and says what it cost.
    """
    text = question if question is not None else _read_question()
    if not text.strip():
        raise click.UsageError("the question is empty; give it as an argument or on standard input")
    policy = policy_of(values)

    async def run() -> int:
        async with HeavyClient(server, token, patience_s=patience) as client:
            return await ask_and_show(client, text, policy, request_id=request_id, as_json=as_json)

    sys.exit(asyncio.run(run()))


async def ask_and_show(
    client: HeavyClient,
    text: str,
    policy: PolicyDraft,
    *,
    request_id: str | None = None,
    as_json: bool = False,
) -> int:
    """Ask, show the run as it goes and as it ended; the exit code."""
    console = draw.console()
    live = console.is_terminal and not as_json
    watch = Watch(client, client.ask(text, policy, request_id=request_id, deltas=live))
    await watch.follow(live=live, line=(lambda _: None) if as_json else console.out)
    view = watch.view
    if as_json:
        run = await client.get(watch.run)
        sys.stdout.write(dump(run).decode() + "\n")
    else:
        console.print(draw.ending(view))
    return exits.of_run(view.state, interrupted=watch.interrupted)


def _read_question() -> str:
    if sys.stdin.isatty():
        raise click.UsageError('give a question, such as: heavy ask "What is 17 * 23?"')
    return sys.stdin.read(QUESTION_BYTES_MAX)
