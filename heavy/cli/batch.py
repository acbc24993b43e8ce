"""`heavy batch`: many questions, on this machine or as a Ray job, resumable after any death."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import click

from heavy.batch.budget import BatchBudget
from heavy.batch.directory import write_whole
from heavy.batch.page import page
from heavy.batch.questions import Questions, read_questions, said
from heavy.batch.runner import CONCURRENCY, CONCURRENCY_MAX, Batch, BatchEnd, BatchPlan, EndReason
from heavy.batch.summary import BatchSummary, summarise
from heavy.cli import exits
from heavy.cli.batch_screen import Screen, summary_text
from heavy.cli.options import connected, policy_flags, policy_of, server_flags
from heavy.cli.sitting import sit
from heavy.client import HeavyClient
from heavy.core.codec import dump
from heavy.core.errors import ConfigError

BATCH_PATIENCE_S = 300.0
SUMMARY_JSON = "summary.json"
SUMMARY_PAGE = "summary.html"


@click.group()
def batch() -> None:
    """Ask many questions, each once, whatever dies on the way.

    \b
    heavy batch run questions.jsonl --out answers
    heavy batch submit questions.jsonl --out /shared/answers --address http://head:8265
    heavy batch show answers

    A line of the input is one question:

    \b
    {"id": "q1", "question": "What is 17 * 23?", "metadata": {"any": "thing"}}
    {"id": "q2", "messages": [{"role": "user", "content": "..."}], "policy": {"width": 4}}
    """


@batch.command()
@click.argument("questions", metavar="INPUT.jsonl", type=click.Path(path_type=Path))
@click.option(
    "--out",
    "root",
    type=click.Path(path_type=Path),
    required=True,
    help="Where results go, and are found again.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, CONCURRENCY_MAX),
    default=CONCURRENCY,
    show_default=True,
    help="Questions out at once; fewer while the server is full.",
)
@click.option("--budget", type=click.FloatRange(0, min_open=True), metavar="USD", help="What all may cost.")
@click.option("--budget-tokens", type=click.IntRange(1), help="What all may take, prompt and output.")
@click.option("--logs", is_flag=True, help="Keep every record of each run, too: logs/RUN.jsonl.zst.")
@click.option("--retry-failed", is_flag=True, help="Ask again what has failed before.")
@click.option("--strict", is_flag=True, help="A malformed line ends it before anything is asked.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, nothing else.")
@server_flags(patience_s=BATCH_PATIENCE_S)
@policy_flags
def run(
    questions: Path,
    root: Path,
    concurrency: int,
    budget: float | None,
    budget_tokens: int | None,
    logs: bool,
    retry_failed: bool,
    strict: bool,
    as_json: bool,
    server: str,
    token: str | None,
    patience: float,
    **values: Any,
) -> None:
    """Ask every question of INPUT.jsonl that has no result in the directory yet.

    Run the same command again to go on after a death, a full disk, a budget reached or Ctrl-C: what was
    answered is kept, and runs under way at the server are found, not asked anew. Ctrl-C asks nothing more and
    waits for what is out; a second one leaves at once. Flags below such as --width and --max-cost are about
    each run.

    Exit codes: 0 all answered, 1 some failed or were malformed, 5 the budget was reached, 130 Ctrl-C; others
    as `heavy --help`.
    """
    plan = BatchPlan(
        policy=policy_of(values),
        concurrency_max=concurrency,
        budget=BatchBudget(budget, budget_tokens),
        logs=logs,
        retry_failed=retry_failed,
    )
    found = read_questions(questions, strict=strict)
    _say_left_out(questions, found)

    def work(client: HeavyClient) -> Awaitable[BatchEnd | None]:
        screen = Screen(quiet=as_json)
        return sit(Batch(client, found.questions, root, plan, screen.result), screen)

    ended = connected(server, token, patience, work)
    _summed_up(root, as_json=as_json)
    if ended is not None and ended.reason is EndReason.BUDGET:
        click.secho("heavy: the budget is reached; a larger one goes on from here", err=True, fg="yellow")
    _say_left_out(questions, found)  # again: thousands of lines may have gone by, and it is in the exit code
    sys.exit(_exit_code(ended, found))


@batch.command()
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object, nothing else.")
def show(root: Path, as_json: bool) -> None:
    """Sum up the batch in DIR, ended or not; writes summary.json and summary.html there."""
    _summed_up(root, as_json=as_json)


@batch.command(context_settings={"ignore_unknown_options": True})
@click.argument("questions", metavar="INPUT.jsonl", type=click.Path(path_type=Path))
@click.option(
    "--out", "root", type=click.Path(path_type=Path), required=True, help="Where results go, on the cluster."
)
@click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", help="Ray's job server, such as http://head:8265."
)
@click.option("--job-id", help="Your own name for the job.  [default: heavy-batch-...]")
@click.option("--command", default="heavy", show_default=True, help="How `heavy` is called on the cluster.")
@click.option("--send-token", is_flag=True, help="Give $HEAVY_TOKEN to the job; Ray shows it to its users.")
@click.option("--no-follow", is_flag=True, help="Return once it is submitted.")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def submit(questions: Path, root: Path, flags: tuple[str, ...], **values: Any) -> None:
    """Run the batch as a Ray job: `heavy batch run INPUT.jsonl --out DIR FLAGS`, on the cluster's head.

    FLAGS are those of `heavy batch run`. INPUT.jsonl and the directory must be where the cluster sees them.
    Ctrl-C leaves the job running and says how to come back. What died is submitted again in the same words
    and goes on.
    """
    from heavy.cli.submit import submit_batch

    words = [str(questions.absolute()), "--out", str(root.absolute()), *flags]
    run.make_context("heavy batch run", list(words))  # wrong flags are found here, not on the cluster
    sys.exit(submit_batch(words, **values))


@batch.command()
@click.argument("job_id")
@click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", help="Ray's job server, such as http://head:8265."
)
def follow(job_id: str, address: str | None) -> None:
    """Follow a job that `submit` began, from its first line on."""
    from heavy.cli.submit import follow_batch

    sys.exit(follow_batch(job_id, address))


def _say_left_out(file: Path, found: Questions) -> None:
    if found.faults:
        click.secho(f"heavy: {file}: left out {said(found.faults)}", err=True, fg="yellow")


def _summed_up(root: Path, *, as_json: bool) -> None:
    summary = summarise(root)
    write_whole(root / SUMMARY_JSON, dump(summary) + b"\n")
    note = _write_page(root, summary)
    if as_json:
        sys.stdout.write(dump(summary).decode() + "\n")
    else:
        click.echo(summary_text(summary))
        click.echo(f"{note}Results: {root / 'results.jsonl'}")


def _write_page(root: Path, summary: BatchSummary) -> str:
    """Write the page; what to say of it. Without matplotlib there is none, and that is no failure."""
    try:
        drawn = page(summary)
    except ConfigError as error:
        return f"No page: {error}\n"
    write_whole(root / SUMMARY_PAGE, drawn.encode())
    return f"Page: {root / SUMMARY_PAGE}\n"


def _exit_code(ended: BatchEnd | None, found: Questions) -> int:
    if ended is None or ended.reason is EndReason.STOPPED:
        return exits.INTERRUPTED
    if ended.reason is EndReason.BUDGET:
        return exits.BUDGET
    return exits.FAILED if ended.progress.failed or found.faults else exits.ANSWERED
