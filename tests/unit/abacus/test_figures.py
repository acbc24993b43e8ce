"""The figures: what a set of trajectories comes to, offline and from a batch's directory."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from heavy.batch.directory import BatchDirectory
from heavy.batch.results import BatchResult, ResultState
from heavy.core.ids import AGGREGATOR, RunId, arm, new_run_id
from heavy.core.ledger import NOTHING_SPENT
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.records import GenerationRecord, GenerationTiming, Record
from heavy.core.repairs import Repair
from heavy.core.runs import AggregationMethod, Citation, Outcome, OutcomeKind
from workers.abacus.evaluate import measure, summarise, table, vote
from workers.abacus.service import GREEDY, HEAVY, questions, rows
from workers.abacus.tasks import distinct, make_problem

TRUTH = {
    make_problem("pairs", 1, "dev", i).question: make_problem("pairs", 1, "dev", i).answer for i in range(4)
}


class Luck:
    """Three arms of eight are right, the others all differ; greedy is wrong; the aggregator is right."""

    name = "luck"

    def generate(self, prompts: Sequence[str], temperature: float, tokens_max: int, seed: int) -> list[str]:
        return [self._say(prompt, temperature, number) for number, prompt in enumerate(prompts)]

    def _say(self, prompt: str, temperature: float, number: int) -> str:
        truth = next(answer for question, answer in TRUTH.items() if question in prompt)
        if "Aggregate." in prompt:
            label = re.search(rf"\[([A-H])\]\nx\n= {truth}\n", prompt)
            assert label is not None
            return f"<think>y</think>Answer: {truth}\nCites: {label[1]}"
        right = temperature > 0 and number % 8 < 3
        return f"<think>x</think>Answer: {truth if right else 1000 + number}"


def test_offline_figures_are_those_of_the_trajectories() -> None:
    made = measure(Luck(), "pairs", 1, "dev", range(4))
    assert [row["single"] for row in made] == [3 / 8] * 4
    for row in made:
        assert (row["greedy"], row["vote"], row["heavy"], row["any"]) == (False, True, True, True)
        assert row["cites_hold"]
    (summary,) = summarise(made)
    assert summary["heavy"][0] == 1.0
    assert summary["share_of_gap"] is None
    assert "| pairs | 1 | 4 | 0.375 " in table([summary])


def test_a_tie_goes_to_the_answer_given_first() -> None:
    assert vote(["7", "5", None, "5", "7"]) == "7"
    assert vote([None, None]) is None


def test_each_problem_is_asked_heavily_and_greedily_with_one_truth() -> None:
    asked = questions(itertools.islice(distinct("remainders", 1, "dev"), 3))
    assert len(asked) == len({question.id for question in asked}) == 6
    for heavy, greedy in zip(asked[::2], asked[1::2], strict=True):
        assert heavy.messages == greedy.messages
        assert heavy.metadata == greedy.metadata
        assert replace(heavy.policy, seed=None) == HEAVY
        assert replace(greedy.policy, seed=None) == GREEDY


def test_rows_are_read_off_a_batch_with_calls_counted_from_its_logs(tmp_path: Path) -> None:
    given = ["9", "8", "9", "7", "7", "7", "3", "7"]
    with BatchDirectory(tmp_path) as directory:
        for kind, answers in (("heavy", given), ("greedy", ["9"])):
            run = new_run_id()
            log = directory.log(run)
            log.add(called(1, '{"code": "print(1)"}'))
            if kind == "heavy":
                log.add(called(2, '{"code": 1}'))
                log.add(called(3, '{"code": "print(1)"}', Repair.ID_REPLACED))
            directory.append(ended(kind, run, answers, log.finish()))
        directory.append(ended("heavy", new_run_id(), given, "", index=1))
    (row,) = rows(tmp_path, "pairs", 1)
    assert (row["single"], row["vote"], row["heavy"], row["any"], row["greedy"]) == (
        2 / 8,
        False,
        True,
        True,
        True,
    )
    assert (row["calls"], row["malformed"]) == (4, 2)
    assert row["dispute"]
    assert row["cites_hold"]


def called(number: int, arguments: str, *repairs: Repair) -> Record:
    """A generation that calls the tool."""
    message = Message(Role.ASSISTANT, tool_calls=(ToolCall("functions.python:0", "python", arguments),))
    timing = GenerationTiming(0.0, 0.0, 0.0)
    spend, reason = NOTHING_SPENT, FinishReason.TOOL_CALLS
    body = GenerationRecord(message, reason, spend, "r", "abacus", "q", timing, repairs)
    return Record(number, arm(0), 0, 0, body)


def ended(kind: str, run: RunId, given: list[str], log: str, index: int = 0) -> BatchResult:
    """A run that has answered 9, which is the truth, with the arms saying what is given."""
    outcomes = [Outcome(arm(i), OutcomeKind.COMPLETED, answer=f"Answer: {x}") for i, x in enumerate(given)]
    if len(given) > 1:
        outcomes.append(Outcome(AGGREGATOR, OutcomeKind.COMPLETED, answer="Answer: 9\nCites: A, C"))
    return BatchResult(
        id=f"{kind}/{index}",
        attempt=1,
        request_id=f"{kind}-{index}",
        run_id=run,
        state=ResultState.COMPLETED,
        answer="Answer: 9",
        short_answer="9",
        method=AggregationMethod.REFLECTIVE if len(given) > 1 else AggregationMethod.SINGLE,
        citations=(Citation(arm(0)), Citation(arm(2))) if len(given) > 1 else (),
        outcomes=tuple(outcomes),
        log=log,
        metadata=json.loads(json.dumps({"index": index, "answer": 9})),
    )
