"""Asking a dataset: the batch of heavy runs, and beside it the greedy baseline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from heavy.batch.budget import UNLIMITED, BatchBudget
from heavy.batch.directory import read_results
from heavy.batch.questions import Question as Asked
from heavy.batch.runner import CONCURRENCY, Batch, BatchPlan
from heavy.client import HeavyClient
from heavy.core.draft import PolicyDraft
from heavy.core.ledger import NOTHING_SPENT, Spend
from heavy.core.messages import Message, Role
from heavy.core.policy import AggregationMode
from heavy.evals.evaluation import Evaluation
from heavy.evals.questions import Question


@dataclass(frozen=True, slots=True)
class Sitting:
    """How one sitting of an evaluation asks; none of it changes what is asked."""

    concurrency_max: int = CONCURRENCY
    budget: BatchBudget = UNLIMITED
    retry_failed: bool = False


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


def batches(client: HeavyClient, evaluation: Evaluation, sitting: Sitting) -> Iterator[tuple[str, Batch]]:
    """The batches of an evaluation, to be run one after the other, each with what it is for.

    The budget is for all of them: a later one gets what the earlier ones left, in this sitting or another.
    """
    setting = evaluation.setting
    asked = [("heavy", evaluation.heavy, setting.policy)]
    if setting.greedy:
        asked.append(("greedy", evaluation.greedy, greedy_policy(setting.policy)))
    questions = [_asked(question) for question in evaluation.questions]
    for name, root, policy in asked:
        others = [spent(other) for _, other, _ in asked if other != root]
        plan = BatchPlan(
            policy,
            sitting.concurrency_max,
            _left(sitting.budget, sum(others, NOTHING_SPENT)),
            logs=True,
            retry_failed=sitting.retry_failed,
        )
        yield name, Batch(client, questions, root, plan)


def spent(root: Path) -> Spend:
    """What all runs of a batch have cost so far."""
    return sum((result.spend for result in read_results(root)), NOTHING_SPENT)


def _left(budget: BatchBudget, elsewhere: Spend) -> BatchBudget:
    cost, tokens = budget.cost_usd_max, budget.tokens_max
    return BatchBudget(
        None if cost is None else max(0.0, cost - elsewhere.cost_usd),
        None if tokens is None else max(0, tokens - elsewhere.tokens),
    )


def _asked(question: Question) -> Asked:
    return Asked(question.id, (Message(Role.USER, question.prompt),), PolicyDraft(tools=question.tools))
