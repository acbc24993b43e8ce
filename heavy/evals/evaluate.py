"""From an evaluation's directory to its report: grade every rollout, compute, write. Nothing is generated
here but verdicts, and those only with a judge at hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from heavy.aggregation.equivalence import Equivalence
from heavy.batch.directory import read_log, read_results, write_whole
from heavy.batch.results import BatchResult, latest
from heavy.core.codec import dump
from heavy.core.draft import PolicyDraft
from heavy.core.errors import HeavyError, JudgeFailed, first_of
from heavy.evals.analysis import findings
from heavy.evals.evaluation import Evaluation
from heavy.evals.grading import Graders
from heavy.evals.judging import LIMITS, AskJudge, JudgeLimits, ModelJudge
from heavy.evals.page import page
from heavy.evals.questions import Question
from heavy.evals.report import NAMED_MAX, Asked, Report, Unscored, to_json
from heavy.evals.rolling import arms_at
from heavy.evals.rollouts import HeavyRollout, Rollout, answered, rollout_of, with_arms
from heavy.evals.scoring import ScoredQuestion, score
from heavy.evals.tables import markdown
from heavy.evals.verdicts import KeptEquivalence, Verdicts

REPORT: Final = "report"
SCORES: Final = "scores.jsonl"
MATHS_TIMEOUT_S: Final = 30.0
MATHS_START_TIMEOUT_S: Final = 600.0
"""How long the symbolic library may take for one pair, and to start. Nobody waits here, and verdicts are
kept: a busy machine should not make them."""
NOT_ASKED: Final = "it has not been asked yet"
NO_GREEDY: Final = "its greedy run failed"


@dataclass(frozen=True, slots=True)
class _Results:
    """The latest result of every question, of each batch there is; `again` by the number of arms."""

    heavy: dict[str, BatchResult]
    greedy: dict[str, BatchResult]
    again: dict[int, dict[str, BatchResult]]

    @classmethod
    def of(cls, evaluation: Evaluation) -> _Results:
        """As the directory has them. Raises `ConfigError` when they cannot be read."""
        return cls(
            heavy=latest(read_results(evaluation.heavy)),
            greedy=latest(read_results(evaluation.greedy)) if evaluation.setting.greedy else {},
            again={k: latest(read_results(evaluation.heavy_at(k))) for k in evaluation.heavy_ats},
        )

    def greedy_waiting(self, evaluation: Evaluation) -> int:
        """How many questions with an answer have not been asked greedily, where they shall be."""
        if not evaluation.setting.greedy:
            return 0
        return sum(answered(result) and name not in self.greedy for name, result in self.heavy.items())


@dataclass(frozen=True, slots=True)
class _Rolled:
    """A question with what its runs came to; `why_not` is empty where they can be scored."""

    question: Question
    rollout: Rollout | None
    greedy: Rollout | None
    heavy_at: dict[int, HeavyRollout]
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A report, and the questions it was computed from."""

    report: Report
    scored: tuple[ScoredQuestion, ...]


async def evaluated(
    evaluation: Evaluation,
    *,
    ask: AskJudge | None = None,
    limits: JudgeLimits = LIMITS,
    group_by: Sequence[tuple[str, ...]] | None = None,
) -> Evaluated:
    """Grade what there is and compute the report. Without `ask`, only verdicts already kept are used.

    Raises `ConfigError` when results or logs cannot be read.
    """
    results = _Results.of(evaluation)
    waiting = results.greedy_waiting(evaluation)
    scored: list[ScoredQuestion] = []
    missing: list[Unscored] = []
    ungraded: list[Unscored] = []
    with Verdicts(evaluation.verdicts) as verdicts:
        equivalence = Equivalence(MATHS_TIMEOUT_S, MATHS_START_TIMEOUT_S)
        same = KeptEquivalence(equivalence, verdicts)
        judge = ModelJudge(evaluation.setting.judge, evaluation.judge_prompt, verdicts, ask, limits)
        graders = Graders(same, judge if evaluation.setting.judge else None)

        async def take(rolled: _Rolled) -> None:
            if rolled.rollout is None:
                missing.append(Unscored(rolled.question.id, rolled.why_not))
                return
            try:
                scored.append(
                    await score(
                        rolled.question,
                        rolled.rollout,
                        graders,
                        same,
                        greedy=rolled.greedy,
                        heavy_at=rolled.heavy_at,
                    )
                )
            except JudgeFailed as error:
                ungraded.append(Unscored(rolled.question.id, str(error)))

        try:
            await _each(_rolled_out(evaluation, results, with_greedy=not waiting), take, limits.concurrency)
        finally:
            await equivalence.close()
    order = {question.id: index for index, question in enumerate(evaluation.questions)}
    scored.sort(key=lambda q: order[q.question.id])
    report = _report(evaluation, scored, missing, ungraded, order, group_by)
    return Evaluated(replace(report, greedy_waiting=waiting), tuple(scored))


def write_report(directory: Path, made: Evaluated) -> Path:
    """Write the report as JSON, Markdown and a page, and a line of scores a question; where the page is."""
    page_path = directory / f"{REPORT}.html"
    write_whole(directory / f"{REPORT}.json", to_json(made.report))
    write_whole(directory / f"{REPORT}.md", markdown(made.report).encode())
    write_whole(directory / SCORES, b"".join(dump(question) + b"\n" for question in made.scored))
    write_whole(page_path, page(made.report).encode())
    return page_path


def _rolled_out(evaluation: Evaluation, results: _Results, *, with_greedy: bool) -> Iterator[_Rolled]:
    """Each question with its rollouts, logs read one by one. Without greedy ones while some are to come:
    all questions are scored in the same ways.
    """
    heavy = results.heavy
    for question in evaluation.questions:
        why_not = _unusable(heavy.get(question.id))
        alone = results.greedy.get(question.id) if with_greedy else None
        if not why_not and alone is not None and not answered(alone):
            why_not = NO_GREEDY
        if why_not:
            yield _Rolled(question, None, None, {}, why_not)
            continue
        rollout = _rollout(evaluation.heavy, heavy[question.id])
        at = {
            k: with_arms(
                _rollout(evaluation.heavy_at(k), again[question.id]),
                rollout,
                arms_at(evaluation, heavy, question, k).arms,
            )
            for k, again in results.again.items()
            if question.id in again and answered(again[question.id])
        }
        yield _Rolled(question, rollout, _rollout(evaluation.greedy, alone) if alone else None, at)


def _unusable(result: BatchResult | None) -> str:
    if result is None:
        return NOT_ASKED
    if answered(result):
        return ""
    failure = result.failure
    return f"{failure.code}: {failure.message}" if failure else result.state.value


def _rollout(root: Path, result: BatchResult) -> Rollout:
    return rollout_of(result, read_log(root, result))


async def _each(rolled: Iterator[_Rolled], take: Any, at_once: int) -> None:
    """Take each, `at_once` at a time, in whatever order they end. Raises what the first to fail raised."""

    async def worker() -> None:
        for one in rolled:
            await take(one)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
    except* HeavyError as failures:
        raise first_of(failures) from failures


def _report(
    evaluation: Evaluation,
    scored: Sequence[ScoredQuestion],
    missing: Sequence[Unscored],
    ungraded: Sequence[Unscored],
    order: Mapping[str, int],
    group_by: Sequence[tuple[str, ...]] | None,
) -> Report:
    setting, total = evaluation.setting, len(evaluation.questions)
    unscored = sorted((*missing, *ungraded), key=lambda one: order[one.question])
    return Report(
        asked=Asked(
            dataset=setting.dataset,
            layout=setting.layout,
            digest=setting.digest,
            questions=total,
            skipped=setting.skipped,
            policy=_said(setting.policy),
            seed=setting.seed,
            judge=setting.judge,
            simulated=any(q.simulated for q in scored),
        ),
        scored=len(scored),
        missing=len(missing),
        ungraded=len(ungraded),
        worst_case=sum(q.heavy.right for q in scored) / total,
        findings=findings(scored, seed=setting.seed, group_by=group_by) if scored else None,
        unscored=tuple(unscored[:NAMED_MAX]),
    )


def _said(policy: PolicyDraft) -> dict[str, Any]:
    """What a policy says; what it leaves to the server is left out."""
    said = {f.name: getattr(policy, f.name) for f in fields(PolicyDraft)}
    return {name: value for name, value in said.items() if value not in (None, (), "")}
