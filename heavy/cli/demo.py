"""`heavy demo`: bring everything up, ask one question, show the answer, take everything down."""

from __future__ import annotations

import asyncio
import sys

import click

from heavy.cli import exits
from heavy.cli.ask import ask_and_show
from heavy.cli.board import Board
from heavy.cli.interrupts import Interrupted
from heavy.cli.up import local_settings, running
from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.policy import AggregationMode
from workers.local import LocalPlan
from workers.shipped import DEMO_QUESTION, LOCAL_PROFILE, out_of_scope


@click.command()
@click.argument("question", required=False, default=DEMO_QUESTION)
@click.option("--profile", default=LOCAL_PROFILE, show_default=True, help="What answers.")
def demo(question: str, profile: str) -> None:
    """Show a heavy run on this machine: eight trajectories, real tool calls, a reflective pass, what it cost.

    Everything is real and local: a Valkey, a Ray cluster, a model server, a sandbox, a gRPC server. It takes
    about half a minute, needs no GPU and no network, and leaves nothing behind.
    """
    if notice := out_of_scope(profile, question):
        click.echo(notice)
        sys.exit(exits.FAILED)
    sys.exit(asyncio.run(_demo(question, profile)))


async def _demo(question: str, profile: str) -> int:
    settings = local_settings((), port=0, http_port=0).model_copy(update={"log_level": "WARNING"})
    try:
        with Board() as board:
            async with running(LocalPlan((profile,)), settings, board) as cluster:
                board.settle()
                click.echo(f"\nQuestion: {question}\n")
                async with HeavyClient(f"{cluster.settings.host}:{cluster.settings.port}") as client:
                    policy = PolicyDraft(aggregation=AggregationMode.REFLECTIVE)
                    return await ask_and_show(client, question, policy)
    except Interrupted:
        return exits.INTERRUPTED
