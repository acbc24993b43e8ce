"""Asking a dataset: the batch of heavy runs, and beside it the greedy baseline."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heavy.batch.budget import UNLIMITED, BatchBudget
from heavy.batch.directory import read_results
from heavy.batch.questions import Question as Asked
from heavy.batch.results import BatchResult, latest
from heavy.batch.runner import CONCURRENCY, Batch, BatchPlan
from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.ids import ARMS_MAX, RunId, derive_seed
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode, ArmsFrom
from heavy.evals.evaluation import Evaluation
from heavy.evals.questions import Question
from heavy.evals.rollouts import answered


@dataclass(frozen=True, slots=True)
class Sitting:
    """How one sitting of an evaluation asks; none of it changes what other sittings asked.

    `heavy_at` are smaller widths at which the same trajectories are aggregated anew.
    """

    concurrency_max: int = CONCURRENCY
    budget: BatchBudget = UNLIMITED
    retry_failed: bool = False
    heavy_at: tuple[int, ...] = ()


def whole_arms(policy: PolicyDraft, width: int) -> PolicyDraft:
    """A policy under which every arm comes to its own end, unless it says otherwise itself.

    A server cuts arms that can no longer change the answer. That is cheaper, and it would leave nothing to
    score those arms by: the answers that come late are not like those that come early.
    """
    return replace(
        policy,
        width=width,
        early_stop=False if policy.early_stop is None else policy.early_stop,
        quorum=width if policy.quorum is None else policy.quorum,
    )


def greedy_policy(policy: PolicyDraft) -> PolicyDraft:
    """The same question to one arm at temperature 0."""
    return replace(
        policy, width=1, quorum=1, arms=policy.arms[:1], temperature=0.0, aggregation=AggregationMode.VOTE
    )


def batches(
    client: HeavyClient,
    evaluation: Evaluation,
    sitting: Sitting,
    on_result: Callable[[BatchResult], None] = lambda _: None,
) -> Iterator[tuple[str, Batch]]:
    """The batches of an evaluation, to be run one after the other, each with what it is for.

    The budget is for all of them: each gets what the others left, in this sitting or another.
    """
    roots = [evaluation.heavy, evaluation.greedy, *map(evaluation.heavy_at, sitting.heavy_at)]
    for name, root, policy, questions in _asked(evaluation, sitting.heavy_at):
        elsewhere = sum((spent(other) for other in roots if other != root), NOTHING_SPENT)
        plan = BatchPlan(
            policy,
            sitting.concurrency_max,
            _left(sitting.budget, elsewhere),
            logs=True,
            retry_failed=sitting.retry_failed,
            retriable=lambda result: not answered(result),
        )
        yield name, Batch(client, questions, root, plan, on_result)


def _asked(
    evaluation: Evaluation, heavy_at: Sequence[int]
) -> Iterator[tuple[str, Path, PolicyDraft, list[Asked]]]:
    """What each batch asks, decided when its turn comes: later ones stand on what earlier ones brought."""
    policy, questions = evaluation.setting.policy, evaluation.questions
    plain = [_question(question, PolicyDraft(tools=question.tools)) for question in questions]
    yield "heavy", evaluation.heavy, policy, plain
    if evaluation.setting.greedy:
        yield "greedy", evaluation.greedy, greedy_policy(policy), plain
    runs = latest(read_results(evaluation.heavy))
    if not whole(evaluation, runs):
        return
    for k in heavy_at:
        taken = [
            _question(
                question, PolicyDraft(tools=question.tools, arms_from=arms_at(evaluation, runs, question, k))
            )
            for question in questions
        ]
        yield (
            f"heavy at {k}",
            evaluation.heavy_at(k),
            replace(policy, width=k, quorum=k, arms=policy.arms[:1]),
            taken,
        )


def whole(evaluation: Evaluation, runs: Mapping[str, BatchResult]) -> bool:
    """Whether every question has a run that can be scored: arms are taken over from all or from none."""
    return all(question.id in runs and answered(runs[question.id]) for question in evaluation.questions)


def arms_at(evaluation: Evaluation, runs: Mapping[str, BatchResult], question: Question, k: int) -> ArmsFrom:
    """The k arms of a question's run that heavy at k aggregates: drawn by the seed, each subset as likely."""
    width = evaluation.setting.policy.width or ARMS_MAX
    drawn = random.Random(derive_seed(evaluation.setting.seed, "arms", question.id, k))
    return ArmsFrom(RunId(runs[question.id].run_id), tuple(sorted(drawn.sample(range(width), k))))


def spent(root: Path) -> Spend:
    """What all runs of a batch have cost so far."""
    return sum((result.spend for result in read_results(root)), NOTHING_SPENT)


def _left(budget: BatchBudget, elsewhere: Spend) -> BatchBudget:
    cost, tokens = budget.cost_usd_max, budget.tokens_max
    return BatchBudget(
        None if cost is None else max(0.0, cost - elsewhere.cost_usd),
        None if tokens is None else max(0, tokens - elsewhere.tokens),
    )


def _question(question: Question, policy: PolicyDraft) -> Asked:
    return Asked(question.id, (Message(Role.USER, question.prompt),), policy)
