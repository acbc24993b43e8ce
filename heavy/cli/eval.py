"""`heavy eval`: a dataset through heavy mode, scored in every way on the same trajectories."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from heavy.batch.budget import BatchBudget
from heavy.batch.runner import CONCURRENCY, CONCURRENCY_MAX
from heavy.cli.options import F, policy_flags, policy_of, server_flags
from heavy.core.errors import ConfigError

EVAL_PATIENCE_S = 300.0
GRADERS = ("exact", "numeric", "symbolic", "choice", "judge")
LAYOUTS = ("plain", "aime", "gpqa", "hle")


class _DatasetFirst(click.Group):
    """`heavy eval DATASET` is `heavy eval run DATASET`: a first word that is no subcommand is a dataset."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


class _Widths(click.ParamType[tuple[int, ...]]):
    """Numbers of arms, separated by commas: "2,4"."""

    name = "K[,K]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            widths = tuple(sorted({int(part) for part in str(value).split(",")}))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers of arms, such as 2,4", param, ctx)
        if widths[0] < 1:
            self.fail(f"{value!r} asks for fewer than one arm", param, ctx)
        return widths


@click.group("eval", cls=_DatasetFirst)
def evaluate() -> None:
    """Ask every question of a dataset once in heavy mode, and score the same trajectories as single answers,
    as the vote of k arms and as heavy: accuracy with 95% intervals, cost, latency, agreement, calibration.

    \b
    heavy eval aime25.jsonl --out aime25     ask, grade, report
    heavy eval aime25.jsonl --out aime25     the same again goes on where it ended, paying for nothing twice
    heavy eval report aime25                 the report again, from the stored logs alone
    """


_READING = (
    click.option("--format", "layout", type=click.Choice(LAYOUTS), help="Its layout.  [default: found out]"),
    click.option("--limit", type=click.IntRange(min=1), help="The first so many questions."),
    click.option(
        "--grader", type=click.Choice(GRADERS), help="For all questions.  [default: each row's own]"
    ),
    click.option(
        "--tolerance-abs", type=click.FloatRange(0), default=0.0, help="How far numbers may be off."
    ),
    click.option(
        "--tolerance-rel", type=click.FloatRange(0), default=0.0, help="The same, as a part of the true one."
    ),
    click.option(
        "--instructions",
        metavar="FILE",
        help="Said after each question in place of the layout's own words; `none` says nothing.",
    ),
)
_ASKING = (
    click.option(
        "--greedy", is_flag=True, help="Also ask each question once at temperature 0: one more baseline."
    ),
    click.option(
        "--heavy-at",
        type=_Widths(),
        default=(),
        help="Also aggregate K of the same arms anew, to see heavy at smaller widths.",
    ),
    click.option(
        "--early-stop/--whole-arms",
        default=False,
        help="Let the server cut arms that no longer matter.  [default: whole arms: all can be scored]",
    ),
    click.option(
        "--concurrency",
        type=click.IntRange(1, CONCURRENCY_MAX),
        default=CONCURRENCY,
        show_default=True,
        help="Questions out at once; fewer while the server is full.",
    ),
    click.option(
        "--budget",
        type=click.FloatRange(0, min_open=True),
        metavar="USD",
        help="What all may cost, a judge apart.",
    ),
    click.option("--budget-tokens", type=click.IntRange(1), help="What all may take, prompt and output."),
    click.option("--retry-failed", is_flag=True, help="Ask again what has failed before."),
)
_JUDGING = (
    click.option("--judge-profile", metavar="NAME", help="The judge is a profile of this server."),
    click.option("--judge-url", metavar="URL", help="Or any OpenAI-compatible address: http://host/v1."),
    click.option("--judge-model", metavar="NAME", help="Its model."),
    click.option("--judge-key-env", metavar="NAME", help="The variable that holds its key."),
    click.option(
        "--judge-prompt",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="A prompt of your own: a Jinja template with question, truth, response, answer.",
    ),
    click.option(
        "--judge-timeout", type=click.FloatRange(0, min_open=True), default=300.0, metavar="SECONDS"
    ),
    click.option(
        "--judge-attempts",
        type=click.IntRange(1, 20),
        default=3,
        show_default=True,
        help="How often one answer is tried.",
    ),
    click.option(
        "--judge-concurrency",
        type=click.IntRange(1, 256),
        default=8,
        show_default=True,
        help="Answers judged at once.",
    ),
)
_REPORTING = (
    click.option("--group-by", multiple=True, metavar="LABEL[,LABEL]", help="Report by labels; repeatable."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, nothing else."),
)


def _flags(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for flag in reversed([flag for group in groups for flag in group]):
            command = flag(command)
        return command

    return decorate


@evaluate.command("run", short_help="Ask, grade and report; go on after any death.")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where everything is kept.  [default: DATASET's name and -eval]",
)
@_flags(_READING, _ASKING, _REPORTING, _JUDGING)
@server_flags(patience_s=EVAL_PATIENCE_S)
@policy_flags
def run(dataset: Path, out: Path | None, group_by: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Ask every question of DATASET and write the report into DIR.

    DATASET is JSON lines (question, answer, and what docs/evaluation.md lists), or a published file of AIME,
    GPQA or HLE, as .jsonl, .csv, .tsv or .parquet. --max-cost and --max-tokens cap one question, --budget all
    of them. Ctrl-C lets what is under way end and reports; a second one leaves at once. The same command goes
    on where it ended.

    Exit codes: 0 all scored, 1 some without a score, 5 the budget was reached, 130 Ctrl-C; others as `heavy
    --help`.
    """
    evaluating = _evaluating()
    given = flags.pop

    judging = evaluating.Judging(
        profile=given("judge_profile"),
        url=given("judge_url"),
        model=given("judge_model"),
        key_env=given("judge_key_env"),
        prompt=given("judge_prompt"),
        timeout_s=given("judge_timeout"),
        limits=evaluating.JudgeLimits(given("judge_concurrency"), given("judge_attempts")),
    )
    reading = evaluating.Reading(
        layout=given("layout"),
        limit=given("limit"),
        grader=given("grader"),
        tolerance_abs=given("tolerance_abs"),
        tolerance_rel=given("tolerance_rel"),
        instructions=given("instructions"),
    )
    sitting = evaluating.Sitting(
        concurrency_max=given("concurrency"),
        budget=BatchBudget(given("budget"), given("budget_tokens")),
        retry_failed=given("retry_failed"),
        heavy_at=given("heavy_at"),
    )
    server = evaluating.Server(given("server"), given("token"), given("patience"))
    greedy, early_stop = given("greedy"), given("early_stop")
    policy = policy_of(flags)
    policy = replace(policy, seed=policy.seed or 0, early_stop=True if early_stop else None)
    if sitting.heavy_at and sitting.heavy_at[-1] >= (policy.width or evaluating.ARMS_MAX):
        raise click.UsageError("--heavy-at is for fewer arms than the width")
    evaluation = evaluating.begun(
        dataset, out or Path(f"{dataset.stem}-eval"), reading, judging, policy, greedy=greedy
    )
    groups = _groups(group_by)
    sys.exit(evaluating.ask_and_report(evaluation, server, sitting, judging, groups, as_json=as_json))


@evaluate.command("report", short_help="The report again, from the stored logs alone.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@_flags(_REPORTING)
def report(directory: Path, group_by: tuple[str, ...], as_json: bool) -> None:
    """Compute the report of DIRECTORY again. No server is needed and nothing is generated: what a judge has
    not judged stays ungraded. The JSON is the same byte for byte.
    """
    sys.exit(_evaluating().report_again(directory, _groups(group_by), as_json=as_json))


def _groups(given: tuple[str, ...]) -> list[tuple[str, ...]] | None:
    return [tuple(part.strip() for part in one.split(",")) for one in given] or None


def _evaluating() -> ModuleType:
    """What does the work. It needs packages that serving does not: raises `ConfigError` without them."""
    try:
        return importlib.import_module("heavy.cli.evaluating")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("heavy", ""):
            raise
        raise ConfigError(
            f"`heavy eval` needs the package {error.name}; install it with: pip install 'heavy[reports]'"
        ) from error
