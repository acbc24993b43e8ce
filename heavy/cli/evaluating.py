"""What `heavy eval` does once its flags are read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from heavy.batch.runner import EndReason
from heavy.cli import exits
from heavy.cli.batch_screen import Screen
from heavy.cli.sitting import sit
from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError
from heavy.core.ids import ARMS_MAX
from heavy.evals.datasets import read_dataset
from heavy.evals.evaluate import Evaluated, evaluated, write_report
from heavy.evals.evaluation import Evaluation, Setting, begin, open_evaluation
from heavy.evals.judging import AskJudge, JudgeLimits, JudgePrompt, ServedJudge, UrlJudge
from heavy.evals.layouts import LayoutName, ReadAs
from heavy.evals.questions import GraderName, Tolerance
from heavy.evals.report import Report, to_json
from heavy.evals.rolling import Sitting, batches, whole_arms
from heavy.evals.tables import markdown

Groups = Sequence[tuple[str, ...]] | None


@dataclass(frozen=True, slots=True)
class Judging:
    """Who judges, and how it is asked."""

    profile: str | None
    url: str | None
    model: str | None
    key_env: str | None
    prompt: Path | None
    timeout_s: float
    limits: JudgeLimits

    @property
    def identity(self) -> str:
        """What verdicts are kept under; empty where nobody judges. Raises `UsageError`."""
        if self.url and not self.model:
            raise click.UsageError("--judge-url needs --judge-model")
        if self.profile and self.url:
            raise click.UsageError("give --judge-profile or --judge-url, not both")
        if self.profile:
            return f"profile {self.profile}"
        return f"{self.model} at {self.url}" if self.url else ""

    def template(self) -> JudgePrompt:
        """The prompt. Raises `ConfigError` when it cannot be filled in."""
        return JudgePrompt.of_file(self.prompt) if self.prompt else JudgePrompt()

    @contextlib.asynccontextmanager
    async def judge(self, client: HeavyClient) -> AsyncIterator[AskJudge | None]:
        """The judge, ready to be asked; None where nobody judges."""
        if not (self.url and self.model):
            yield ServedJudge(client, self.profile, self.timeout_s) if self.profile else None
            return
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        if self.key_env and not key:
            raise ConfigError(f"--judge-key-env names {self.key_env}, which is not set; set it to the key")
        async with UrlJudge(self.url, self.model, key, timeout_s=self.timeout_s) as judge:
            yield judge


@dataclass(frozen=True, slots=True)
class Reading:
    """How a dataset is read, from the flags."""

    layout: str | None
    limit: int | None
    grader: str | None
    tolerance_abs: float
    tolerance_rel: float
    instructions: str | None


@dataclass(frozen=True, slots=True)
class Server:
    """Which server, for whom, and how long it is tried."""

    address: str
    token: str | None
    patience_s: float


def begun(
    dataset: Path,
    directory: Path,
    reading: Reading,
    judging: Judging,
    policy: PolicyDraft,
    *,
    greedy: bool,
) -> Evaluation:
    """The evaluation, written down before anything is asked, or found again. `policy` has a seed.

    Raises `InvalidDataset`, `ConfigError`, `UsageError`.
    """
    seed, judge = policy.seed or 0, judging.identity
    read_as = ReadAs(
        seed=seed,
        grader=GraderName(reading.grader) if reading.grader else None,
        open_grader=GraderName.JUDGE if judge else GraderName.SYMBOLIC,
        tolerance=Tolerance(reading.tolerance_abs, reading.tolerance_rel),
        instructions=_instructions(reading.instructions),
    )
    layout = LayoutName(reading.layout) if reading.layout else None
    found = read_dataset(dataset, read_as, layout=layout, limit=reading.limit or 0)
    if not judge and any(question.grader is GraderName.JUDGE for question in found.questions):
        raise click.UsageError(
            "the dataset wants a judge; give --judge-profile, or --judge-url and --judge-model"
        )
    setting = Setting(
        dataset=found.name,
        layout=found.layout,
        digest=found.digest,
        skipped=found.skipped,
        policy=whole_arms(policy, policy.width or ARMS_MAX),
        greedy=greedy,
        seed=seed,
        judge=judge,
    )
    return begin(directory, found, setting, judging.template())


def ask_and_report(
    evaluation: Evaluation,
    server: Server,
    sitting: Sitting,
    judging: Judging,
    group_by: Groups,
    *,
    as_json: bool,
) -> int:
    """Ask what has no result, judge what has no verdict, report; the exit code."""

    async def work() -> tuple[EndReason | None, Evaluated]:
        async with (
            HeavyClient(server.address, server.token, patience_s=server.patience_s) as client,
            judging.judge(client) as judge,  # before anything is asked: it may want a key that is not there
        ):
            reason = await _asked(client, evaluation, sitting, quiet=as_json)
            return reason, await evaluated(evaluation, ask=judge, limits=judging.limits, group_by=group_by)

    reason, made = asyncio.run(work())
    _show(evaluation.directory, made, as_json=as_json)
    if reason in (None, EndReason.STOPPED):
        return exits.INTERRUPTED
    return exits.BUDGET if reason is EndReason.BUDGET else _code(made.report)


def report_again(directory: Path, group_by: Groups, *, as_json: bool) -> int:
    """The report from what the directory holds; the exit code."""
    made = asyncio.run(evaluated(open_evaluation(directory), group_by=group_by))
    _show(directory, made, as_json=as_json)
    return _code(made.report)


async def _asked(
    client: HeavyClient, evaluation: Evaluation, sitting: Sitting, *, quiet: bool
) -> EndReason | None:
    """Run the batches; why the last one ended, None when it was left."""
    screen = Screen(quiet=quiet, aside=True)
    names = set()
    for name, batch in batches(client, evaluation, sitting, screen.result):
        names.add(name)
        screen.say(f"{name}: {batch.progress.total:,} questions")
        end = await sit(batch, screen)
        if end is None or end.reason is not EndReason.COMPLETE:
            return end.reason if end else None
    if any(f"heavy at {k}" not in names for k in sitting.heavy_at):
        screen.say("heavy at smaller widths waits until every question has its run: --retry-failed")
    return EndReason.COMPLETE


def _show(directory: Path, made: Evaluated, *, as_json: bool) -> None:
    page = write_report(directory, made)
    if as_json:
        sys.stdout.buffer.write(to_json(made.report))
        sys.stdout.flush()
    else:
        click.echo(f"{markdown(made.report)}\nPage: {page}  (and .json, .md; each question: scores.jsonl)")


def _code(report: Report) -> int:
    whole = report.scored and not (report.missing or report.ungraded or report.greedy_waiting)
    return exits.ANSWERED if whole else exits.FAILED


def _instructions(given: str | None) -> str | None:
    if given is None or given == "none":
        return None if given is None else ""
    try:
        return Path(given).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--instructions {given} cannot be read: {error}") from error
