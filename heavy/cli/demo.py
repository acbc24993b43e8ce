"""`heavy demo`: bring everything up, ask, show the answers, take everything down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import click

from heavy.cli import exits
from heavy.cli.ask import ask_and_show
from heavy.cli.board import Board
from heavy.cli.interrupts import Interrupted
from heavy.cli.options import complete_profile
from heavy.cli.up import local_settings, running
from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.policy import AggregationMode
from workers.local import LocalPlan
from workers.shipped import DEMO_QUESTIONS, LOCAL_PROFILE, out_of_scope


@click.command()
@click.argument("question", required=False)
@click.option(
    "--profile",
    default=LOCAL_PROFILE,
    show_default=True,
    shell_complete=complete_profile,
    help="What answers.",
)
def demo(question: str | None, profile: str) -> None:
    """Show a heavy run on this machine: eight trajectories, real tool calls, a reflective pass, what it cost.

    Everything is real and local: a Valkey, a Ray cluster, a model server, a sandbox, a gRPC server. It takes
    about half a minute, needs no GPU and no network, and leaves nothing behind. Without a QUESTION it asks
    two of its own.
    """
    questions = DEMO_QUESTIONS if question is None else (question,)
    if notice := out_of_scope(profile, questions[0]):
        click.echo(notice)
        sys.exit(exits.FAILED)
    sys.exit(asyncio.run(_demo(questions, profile)))


async def _demo(questions: Sequence[str], profile: str) -> int:
    """The first status of a run that was not answered, or that of an answer."""
    settings = local_settings((), port=0, http_port=0).model_copy(update={"log_level": "WARNING"})
    try:
        with Board() as board:
            async with running(LocalPlan((profile,)), settings, board) as cluster:
                board.settle()
                policy = PolicyDraft(aggregation=AggregationMode.REFLECTIVE)
                async with HeavyClient(f"{cluster.settings.host}:{cluster.settings.port}") as client:
                    for question in questions:
                        click.echo(f"\nQuestion: {question}\n")
                        status = await ask_and_show(client, question, policy)
                        if status != exits.ANSWERED:
                            return status
                return exits.ANSWERED
    except Interrupted:
        return exits.INTERRUPTED
