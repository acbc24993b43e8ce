from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from heavy.batch.results import BatchResult, Failure, ResultState
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError
from heavy.core.ids import AGGREGATOR, RUN_LEVEL, RunId, TrajectoryId, arm
from heavy.core.ledger import Ledger, Spend
from heavy.core.policy import AggregationMode
from heavy.core.records import Event, LifecycleRecord, Record
from heavy.core.runs import AggregationMethod, Outcome, OutcomeKind, RunState
from heavy.evals.datasets import Dataset
from heavy.evals.evaluation import Evaluation, Setting, begin, open_evaluation
from heavy.evals.judging import JudgePrompt
from heavy.evals.layouts import LayoutName
from heavy.evals.questions import GraderName, Question
from heavy.evals.rolling import arms_at, greedy_policy, whole_arms
from heavy.evals.rollouts import answered, rollout_of, with_arms

QUESTIONS = (Question("q1", "1+1?", "2", GraderName.NUMERIC, tools=()),)
DATASET = Dataset("d.jsonl", LayoutName.PLAIN, QUESTIONS, {}, "00")
SETTING = Setting("d.jsonl", "plain", "00", {}, PolicyDraft(width=2), False, 0, "")


def begun(directory: Path, dataset: Dataset = DATASET, setting: Setting = SETTING) -> Evaluation:
    return begin(directory, dataset, setting, JudgePrompt())


def test_the_same_evaluation_goes_on_and_another_is_refused_with_what_differs(tmp_path: Path) -> None:
    first = begun(tmp_path / "e")
    assert begun(tmp_path / "e") == first == open_evaluation(tmp_path / "e")
    with pytest.raises(ConfigError, match="seed was 0 and is now 1"):
        begun(tmp_path / "e", setting=replace(SETTING, seed=1))
    with pytest.raises(ConfigError, match="another evaluation: deadline_s was None and is now 9"):
        begun(tmp_path / "e", setting=replace(SETTING, policy=PolicyDraft(width=2, deadline_s=9.5)))
    others = replace(DATASET, questions=(replace(QUESTIONS[0], answer="3"),))
    with pytest.raises(ConfigError, match="questions are others"):
        begun(tmp_path / "e", dataset=others)


def test_the_judges_prompt_is_kept_as_it_was(tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ answer }} or {{ truth }}? correct: yes or no")
    prompt = JudgePrompt.of_file(template)
    evaluation = begin(tmp_path / "e", DATASET, SETTING, prompt)
    kept = template.read_text()
    template.write_text("something else")
    assert evaluation.judge_prompt.text() == kept
    with pytest.raises(ConfigError, match="judge's prompt"):
        begin(tmp_path / "e", DATASET, SETTING, JudgePrompt.of_file(template))


def test_a_directory_without_an_evaluation_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heavy eval DATASET --out"):
        open_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    (tmp_path / "questions.jsonl").write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_evaluation(tmp_path)


def test_every_arm_runs_to_its_own_end_unless_told_otherwise() -> None:
    assert whole_arms(PolicyDraft(), 4) == PolicyDraft(width=4, early_stop=False, quorum=4)
    assert whole_arms(PolicyDraft(early_stop=True, quorum=2), 4).early_stop is True
    alone = greedy_policy(PolicyDraft(width=4, arms=("a", "b", "c", "d"), temperature=1.0, seed=3))
    assert (alone.width, alone.arms, alone.temperature, alone.seed) == (1, ("a",), 0.0, 3)
    assert alone.aggregation is AggregationMode.VOTE


def result() -> BatchResult:
    outcomes = (
        Outcome(
            arm(1),
            OutcomeKind.CUT,
            "straggler",
            answer="Answer: 3",
            spend=Spend(tokens_output=3),
            profile="p",
        ),
        Outcome(arm(0), OutcomeKind.COMPLETED, answer="Answer: 2", spend=Spend(tokens_output=2), profile="p"),
        Outcome(AGGREGATOR, OutcomeKind.COMPLETED, answer="Answer: 2", spend=Spend(tokens_output=5)),
    )
    spends = {str(o.trajectory): o.spend for o in outcomes}
    return BatchResult(
        id="q1",
        attempt=1,
        request_id="r",
        run_id="run-0",
        state=ResultState.COMPLETED,
        answer="Answer: 2",
        method=AggregationMethod.REFLECTIVE,
        outcomes=outcomes,
        ledger=Ledger(Spend(tokens_output=10), spends),
        created_ms=1_000,
        ended_ms=9_000,
    )


def records() -> Iterator[Record]:
    def record(trajectory: TrajectoryId, at_ms: int, body: LifecycleRecord) -> Record:
        return Record(1, trajectory, -1, at_ms, body)

    yield record(RUN_LEVEL, 3_000, LifecycleRecord(Event.RUN_STATE, state=RunState.RUNNING))
    for index, took_ms in ((0, 2_000), (1, 4_000)):
        yield record(arm(index), 3_000, LifecycleRecord(Event.TRAJECTORY_STARTED))
        yield record(arm(index), 3_000 + took_ms, LifecycleRecord(Event.TRAJECTORY_ENDED))
    yield record(AGGREGATOR, 7_000, LifecycleRecord(Event.TRAJECTORY_STARTED))
    yield record(AGGREGATOR, 8_500, LifecycleRecord(Event.TRAJECTORY_ENDED))


def test_a_log_says_what_each_arm_and_the_whole_run_took() -> None:
    rollout = rollout_of(result(), records())
    assert rollout.run == RunId("run-0")
    assert [(a.index, a.kind, a.spend.tokens_output, a.latency_s) for a in rollout.arms] == [
        (0, OutcomeKind.COMPLETED, 2, 2.0),
        (1, OutcomeKind.CUT, 3, 4.0),
    ]
    heavy = rollout.heavy
    assert (heavy.spend.tokens_output, heavy.aggregation.tokens_output) == (10, 5)
    assert (heavy.latency_s, heavy.aggregation_s) == (6.0, 1.5), "waiting for its turn is not counted"


def test_a_run_that_failed_of_itself_is_missing_and_one_without_an_answer_is_wrong() -> None:
    failed = replace(result(), state=ResultState.FAILED, answer="")
    assert not answered(replace(failed, failure=Failure("deadline", "It passed.")))
    none = replace(failed, failure=Failure("no_usable_outcome", "None."))
    silent = Outcome(arm(0), OutcomeKind.FAILED, "no_answer")
    assert answered(replace(none, outcomes=(silent, Outcome(arm(1), OutcomeKind.COMPLETED))))
    assert not answered(replace(none, outcomes=(silent, Outcome(arm(1), OutcomeKind.FAILED, "runner_lost"))))
    assert not answered(replace(none, outcomes=(silent, Outcome(arm(1), OutcomeKind.CUT, "deadline"))))
    assert rollout_of(replace(result(), abstained=True), records()).heavy.text == ""


def test_arms_aggregated_anew_keep_their_price_and_their_time() -> None:
    rollout = rollout_of(result(), records())
    again = replace(
        rollout,
        heavy=replace(rollout.heavy, spend=Spend(tokens_output=7), latency_s=1.0, text="Answer: 5"),
    )
    one = with_arms(again, rollout, (1,))
    assert (one.text, one.spend.tokens_output, one.latency_s) == ("Answer: 5", 7 + 3, 1.0 + 4.0)
    both = with_arms(again, rollout, (0, 1))
    assert (both.spend.tokens_output, both.latency_s) == (7 + 2 + 3, 5.0)


def test_which_arms_are_aggregated_anew_depends_on_seed_and_question_and_every_arm_has_its_turn(
    tmp_path: Path,
) -> None:
    evaluation = begun(tmp_path / "e", setting=replace(SETTING, policy=PolicyDraft(width=8)))
    questions = [replace(QUESTIONS[0], id=f"q{n}") for n in range(60)]
    runs = {q.id: result() for q in questions}
    drawn = [arms_at(evaluation, runs, q, 3).arms for q in questions]
    assert drawn == [arms_at(evaluation, runs, q, 3).arms for q in questions]
    assert all(len(set(arms)) == 3 and list(arms) == sorted(arms) for arms in drawn)
    assert {index for arms in drawn for index in arms} == set(range(8))
