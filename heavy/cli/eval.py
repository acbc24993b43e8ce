"""`heavy eval`: a dataset through heavy mode, scored in every way on the same trajectories."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heavy.cli import exits
from heavy.cli.interrupts import on_interrupt
from heavy.cli.options import policy_flags, policy_of
from heavy.client import HeavyClient
from heavy.core.errors import ConfigError

if TYPE_CHECKING:
    from heavy.batch.runner import Batch, BatchEnd, Progress
    from heavy.evals.evaluation import Evaluation
    from heavy.evals.judging import AskJudge
    from heavy.evals.report import Report

WIDTH = 8
PROGRESS_EVERY_S = 2.0
GRADERS = ("exact", "numeric", "symbolic", "choice", "judge")
LAYOUTS = ("plain", "aime", "gpqa", "hle")


class _DatasetFirst(click.Group):
    """`heavy eval DATASET` is `heavy eval run DATASET`: a first word that is no subcommand is a dataset."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("eval", cls=_DatasetFirst, short_help="Score a dataset: single, vote and heavy, with prices.")
def evaluate() -> None:
    """Ask every question of a dataset once in heavy mode, and score the same trajectories as single answers,
    as the vote of k arms and as heavy: accuracy with 95% intervals, cost, latency, agreement, calibration.

    \b
    heavy eval aime25.jsonl --out aime25     ask, grade, report
    heavy eval aime25.jsonl --out aime25     the same again goes on where it ended, paying for nothing twice
    heavy eval report aime25                 the report again, from the stored logs alone
    """


@dataclass(frozen=True, slots=True)
class _Judging:
    """Who judges, from the flags."""

    profile: str | None
    url: str | None
    model: str | None
    key_env: str | None
    timeout_s: float

    def identity(self) -> str:
        """What verdicts are kept under; empty where nobody judges."""
        if self.url and not self.model:
            raise click.UsageError("--judge-url needs --judge-model")
        if self.profile and self.url:
            raise click.UsageError("give --judge-profile or --judge-url, not both")
        if self.profile:
            return f"profile {self.profile}"
        return f"{self.model} at {self.url}" if self.url else ""

    @contextlib.asynccontextmanager
    async def judge(self, client: HeavyClient) -> AsyncIterator[AskJudge | None]:
        """The judge, ready to be asked."""
        from heavy.evals.judging import ServedJudge, UrlJudge

        if self.url and self.model:
            key = os.environ.get(self.key_env, "") if self.key_env else ""
            if self.key_env and not key:
                raise ConfigError(
                    f"--judge-key-env names {self.key_env}, which is not set; set it to the key"
                )
            async with UrlJudge(self.url, self.model, key, timeout_s=self.timeout_s) as judge:
                yield judge
        else:
            yield ServedJudge(client, self.profile, self.timeout_s) if self.profile else None


def _judge_flags(command: Any) -> Any:
    for flag in (
        click.option(
            "--judge-concurrency",
            type=click.IntRange(1, 256),
            default=8,
            show_default=True,
            help="Answers judged at once.",
        ),
        click.option(
            "--judge-attempts",
            type=click.IntRange(1, 20),
            default=3,
            show_default=True,
            help="How often one answer is tried.",
        ),
        click.option(
            "--judge-timeout",
            type=float,
            default=300.0,
            show_default=True,
            metavar="SECONDS",
            help="How long one verdict may take.",
        ),
        click.option(
            "--judge-prompt",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="A prompt of your own: a Jinja template with question, truth, response, answer.",
        ),
        click.option("--judge-key-env", metavar="NAME", help="The variable that holds its key."),
        click.option("--judge-model", help="Its model."),
        click.option("--judge-url", help="Or any OpenAI-compatible base URL: http://host/v1."),
        click.option("--judge-profile", help="The judge is a profile of this server."),
    ):
        command = flag(command)
    return command


@evaluate.command("run", short_help="Ask, grade and report; go on after any death.")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where everything is kept.  [default: DATASET's name and -eval]",
)
@click.option(
    "--format", "layout", type=click.Choice(LAYOUTS), help="How to read it.  [default: by its columns]"
)
@click.option("--limit", type=click.IntRange(min=1), help="The first so many questions.")
@click.option("--grader", type=click.Choice(GRADERS), help="For every question.  [default: each row's own]")
@click.option("--tolerance-rel", type=float, default=0.0, help="How far numbers may be off, as a part.")
@click.option("--tolerance-abs", type=float, default=0.0, help="The same, absolutely.")
@click.option(
    "--instructions", metavar="FILE", help="Said after each question, in place of the layout's own; or: none."
)
@click.option(
    "--greedy", is_flag=True, help="Also ask each question once at temperature 0: one more baseline."
)
@click.option(
    "--early-stop/--whole-arms",
    default=False,
    show_default=True,
    help="Let the server cut arms that no longer matter: cheaper, and those arms cannot be scored.",
)
@click.option("--concurrency", type=int, default=16, show_default=True, help="Questions asked at once.")
@click.option("--budget", "budget_usd", type=float, metavar="USD", help="Cap on all questions together.")
@click.option("--budget-tokens", type=int, help="The same in tokens.")
@click.option("--retry-failed", is_flag=True, help="Ask again what failed in an earlier sitting.")
@click.option(
    "--group-by", multiple=True, metavar="LABEL[,LABEL]", help="Report by these columns; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, nothing else.")
@click.option(
    "--server",
    default="127.0.0.1:50051",
    envvar="HEAVY_SERVER",
    show_default=True,
    help="host:port of the server.",
)
@click.option(
    "--token", envvar="HEAVY_TOKEN", help="Bearer token, where the server wants one ($HEAVY_TOKEN)."
)
@_judge_flags
@policy_flags
def run(dataset: Path, out: Path | None, server: str, token: str | None, as_json: bool, **flags: Any) -> None:
    """Ask every question of DATASET and write the report into DIR.

    DATASET is JSON lines (question, answer, and what docs/evaluation.md lists), or a published file of AIME,
    GPQA or HLE, as .jsonl, .csv, .tsv or .parquet. --max-cost and --max-tokens cap one question, --budget all
    of them. Ctrl-C lets what is under way end, a second one leaves at once; the same command goes on.
    """
    _need_extra()
    directory = out or Path(f"{dataset.stem}-eval")
    judging = _Judging(
        profile=flags.pop("judge_profile"),
        url=flags.pop("judge_url"),
        model=flags.pop("judge_model"),
        key_env=flags.pop("judge_key_env"),
        timeout_s=flags.pop("judge_timeout"),
    )
    group_by = _groups(flags.pop("group_by"))
    sitting = {
        name: flags.pop(name) for name in ("concurrency", "budget_usd", "budget_tokens", "retry_failed")
    }
    at_once, attempts = flags.pop("judge_concurrency"), flags.pop("judge_attempts")
    evaluation = _begin(dataset, directory, judging.identity(), flags)

    async def work() -> int:
        from heavy.evals.evaluate import report_of
        from heavy.evals.judging import JudgeLimits

        async with HeavyClient(server, token) as client:
            interrupted = await _roll_out(client, evaluation, sitting)
            async with judging.judge(client) as judge:
                limits = JudgeLimits(concurrency=at_once, attempts=attempts)
                report = await report_of(evaluation, ask=judge, limits=limits, group_by=group_by)
        _show(directory, report, as_json=as_json)
        return exits.INTERRUPTED if interrupted else _code(report)

    sys.exit(asyncio.run(work()))


@evaluate.command("report", short_help="The report again, from the stored logs alone.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--group-by", multiple=True, metavar="LABEL[,LABEL]", help="Report by these columns; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, nothing else.")
def report(directory: Path, group_by: tuple[str, ...], as_json: bool) -> None:
    """Compute the report of DIRECTORY again. No server is needed and nothing is generated: what a judge has
    not judged stays ungraded. The JSON is the same byte for byte.
    """
    _need_extra()
    from heavy.evals.evaluate import report_of
    from heavy.evals.evaluation import open_evaluation

    evaluation = open_evaluation(directory)
    found = asyncio.run(report_of(evaluation, group_by=_groups(group_by)))
    _show(directory, found, as_json=as_json)
    sys.exit(_code(found))


def _begin(dataset: Path, directory: Path, judge: str, flags: dict[str, Any]) -> Evaluation:
    from heavy.evals.datasets import read_dataset
    from heavy.evals.evaluation import Setting, begin
    from heavy.evals.judging import JudgePrompt
    from heavy.evals.layouts import LayoutName, ReadAs
    from heavy.evals.questions import GraderName, Tolerance
    from heavy.evals.rolling import whole_arms

    seed = flags["seed"] = flags["seed"] or 0
    prompt_file, grader, layout = flags.pop("judge_prompt"), flags.pop("grader"), flags.pop("layout")
    read_as = ReadAs(
        seed=seed,
        grader=GraderName(grader) if grader else None,
        open_grader=GraderName.JUDGE if judge else GraderName.SYMBOLIC,
        tolerance=Tolerance(flags.pop("tolerance_abs"), flags.pop("tolerance_rel")),
        instructions=_instructions(flags.pop("instructions")),
    )
    found = read_dataset(
        dataset, read_as, layout=LayoutName(layout) if layout else None, limit=flags.pop("limit") or 0
    )
    if not judge and any(q.grader is GraderName.JUDGE for q in found.questions):
        raise click.UsageError(
            "the dataset wants a judge; give --judge-profile, or --judge-url and --judge-model"
        )
    greedy, early_stop = flags.pop("greedy"), flags.pop("early_stop")
    policy = policy_of(flags)
    policy = whole_arms(replace(policy, early_stop=early_stop or None), policy.width or WIDTH)
    setting = Setting(found.name, found.layout, found.digest, found.skipped, policy, greedy, seed, judge)
    prompt = JudgePrompt.of_file(prompt_file) if prompt_file else JudgePrompt()
    return begin(directory, found, setting, prompt)


async def _roll_out(client: HeavyClient, evaluation: Evaluation, sitting: dict[str, Any]) -> bool:
    """Ask what has no result; whether it was interrupted."""
    from heavy.batch.budget import BatchBudget
    from heavy.batch.runner import EndReason
    from heavy.evals.rolling import Sitting, batches

    how = Sitting(
        sitting["concurrency"],
        BatchBudget(sitting["budget_usd"], sitting["budget_tokens"]),
        sitting["retry_failed"],
    )
    for name, batch in batches(client, evaluation, how):
        end = await _watched(name, batch)
        if end is None or end.reason is EndReason.STOPPED:
            return True
        if end.reason is EndReason.BUDGET:
            click.echo(f"{name}: the budget is spent; the report is of what was answered", err=True)
            return False
    return False


async def _watched(name: str, batch: Batch) -> BatchEnd | None:
    """Run a batch, saying where it stands. The first Ctrl-C lets what is out end; None: the second left."""
    running = asyncio.create_task(batch.run())
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            running.cancel()
        else:
            batch.stop()
            click.echo(f"\n{name}: waiting for what is under way; Ctrl-C again leaves at once", err=True)

    with on_interrupt(interrupt):
        while not (await asyncio.wait({running}, timeout=PROGRESS_EVERY_S))[0]:
            click.echo(_standing(name, batch.progress), err=True, nl=not sys.stderr.isatty())
    click.echo(_standing(name, batch.progress), err=True)
    return None if running.cancelled() else running.result()


def _standing(name: str, now: Progress) -> str:
    left = "" if now.left_s is None else f", {now.left_s:,.0f} s left"
    start = "\r\x1b[K" if sys.stderr.isatty() else ""
    return (
        f"{start}{name}: {now.done} of {now.total} questions, {now.failed} failed, {now.out} under way, "
        f"{now.per_s:.2f}/s{left}, ${now.cost_usd:.4f}, {now.tokens:,} tokens"
    )


def _show(directory: Path, found: Report, *, as_json: bool) -> None:
    from heavy.evals.evaluate import write_report
    from heavy.evals.report import to_json
    from heavy.evals.tables import markdown

    written = write_report(directory, found)
    if as_json:
        sys.stdout.buffer.write(to_json(found))
        sys.stdout.flush()
        return
    click.echo(markdown(found))
    click.echo(f"report: {written['html']}  (also .json, .md)")


def _code(found: Report) -> int:
    return exits.ANSWERED if found.scored and not found.missing and not found.ungraded else exits.FAILED


def _groups(given: tuple[str, ...]) -> list[tuple[str, ...]] | None:
    return [tuple(part.strip() for part in one.split(",")) for one in given] or None


def _instructions(given: str | None) -> str | None:
    if given is None or given == "none":
        return None if given is None else ""
    try:
        return Path(given).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--instructions {given} cannot be read: {error}") from error


def _need_extra() -> None:
    """Reports and datasets need packages that serving does not."""
    try:
        import matplotlib  # noqa: F401
        import numpy  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"`heavy eval` needs the package {error.name}; install it with: pip install 'heavy[reports]'"
        ) from error
