from __future__ import annotations

from dataclasses import replace

import pytest

from heavy.evals.analysis import findings
from heavy.evals.findings import Findings, Way

from tests_support.scored import answered, many, scored

RIGHT, WRONG = (0, True), (1, False)


def way(found: Findings, name: str) -> Way:
    return next(one for one in found.ways if one.name == name)


def three() -> Findings:
    """One that all get right, one that only heavy does, one that only the vote does."""
    return findings(
        [
            scored("a", [RIGHT, RIGHT, RIGHT, RIGHT], True),
            scored("b", [WRONG, WRONG, RIGHT, (2, False)], True),
            scored("c", [RIGHT, RIGHT, WRONG, (2, False)], False),
        ]
    )


def test_the_same_trajectories_are_scored_in_every_way() -> None:
    found = three()
    assert way(found, "single").accuracy.value == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)
    assert way(found, "vote@4").accuracy.value == pytest.approx(2 / 3)
    assert way(found, "heavy").accuracy.value == pytest.approx(2 / 3)
    assert way(found, "any@4").accuracy.value == 1.0
    decided = found.decisions
    assert (decided.both_right, decided.heavy_alone_right, decided.vote_alone_right, decided.both_wrong) == (
        1,
        1,
        1,
        0,
    )
    assert decided.gap_won is not None
    assert decided.gap_won.value == pytest.approx(0.0)


def test_each_way_has_its_own_price() -> None:
    found = three()
    assert way(found, "single").tokens == 110
    assert way(found, "vote@4").tokens == 4 * 110
    assert way(found, "heavy").tokens == 1100
    assert way(found, "single").latency_s == 2.5
    assert way(found, "vote@4").latency_s == 4.0
    assert way(found, "heavy").latency_s == 20.0
    assert found.price.premium is not None
    assert found.price.premium.value == pytest.approx(10.0)
    assert found.price.slowdown is not None
    assert found.price.slowdown.value == pytest.approx(8.0)
    gain = 2 / 3 - (1 + 1 / 4 + 1 / 2) / 3
    assert found.price.cost_per_extra_right == pytest.approx((1100 - 110) / gain)
    assert found.price.aggregation_share == pytest.approx(400 / 3300)
    assert found.price.cost_unit == "tokens"


def test_nothing_is_said_of_a_price_where_there_is_no_gain() -> None:
    found = findings([scored("a", [RIGHT, RIGHT], False), scored("b", [RIGHT, RIGHT], True)])
    assert found.price.cost_per_extra_right is None
    assert found.decisions.gap_won is None


def test_the_curve_runs_from_a_single_arm_to_the_vote_of_all() -> None:
    found = findings(many(120, seed=4))
    assert [point.k for point in found.curve] == list(range(1, 9))
    first, last = found.curve[0], found.curve[-1]
    single, vote = way(found, "single"), way(found, "vote@8")
    assert first.vote.value == pytest.approx(single.accuracy.value)
    assert first.any.value == pytest.approx(single.accuracy.value)
    assert (first.cost, first.latency_s) == (pytest.approx(single.tokens), pytest.approx(single.latency_s))
    assert last.vote == vote.accuracy
    assert last.heavy == way(found, "heavy").accuracy
    anys = [point.any.value for point in found.curve]
    assert anys == sorted(anys)
    assert all(point.any.value >= point.vote.value for point in found.curve)


def test_agreement_is_set_against_correctness() -> None:
    found = three()
    assert [(one.leading, one.questions, one.vote.value, one.heavy.value) for one in found.agreement] == [
        (2, 2, 0.5, 0.5),
        (4, 1, 1.0, 1.0),
    ]


def test_labels_group_by_themselves_and_together_in_the_order_of_their_values() -> None:
    questions = many(60, seed=1)
    found = findings(questions)
    assert [grouping.labels for grouping in found.groups] == [("family",), ("level",)]
    assert [row.values for row in found.groups[1].rows] == [(str(level),) for level in range(12)]
    assert sum(row.questions for row in found.groups[0].rows) == 60
    both = findings(questions, group_by=[("family", "level")])
    assert {row.values for row in both.groups[0].rows} == {
        (q.question.labels["family"], q.question.labels["level"]) for q in questions
    }
    assert both.groups[0].rows[0].greedy is not None


def test_a_label_with_a_value_for_nearly_every_question_is_no_group() -> None:
    questions = [scored(f"q{i}", [RIGHT], True, labels={"title": f"t{i}", "one": "same"}) for i in range(40)]
    assert findings(questions).groups == ()


def test_confidences_are_calibrated_for_every_way_that_states_them() -> None:
    found = findings(many(30, seed=2))
    assert set(found.calibration) == {"single", "heavy"}
    assert found.calibration["single"].stated == 240
    assert findings([scored("a", [RIGHT], True)]).calibration == {}


def test_findings_are_the_same_every_time() -> None:
    assert findings(many(50, seed=3), seed=9) == findings(many(50, seed=3), seed=9)


def test_a_greedy_baseline_stands_beside_the_rest_only_where_every_question_has_one() -> None:
    some = [scored("a", [RIGHT], True, greedy=True), scored("b", [RIGHT], True)]
    assert "greedy" not in [one.name for one in findings(some).ways]
    everywhere = findings([scored("a", [RIGHT], True, greedy=True)])
    assert everywhere.gains.heavy_over_greedy is not None


def test_heavy_at_a_smaller_width_stands_in_the_curve_where_every_question_has_it() -> None:
    questions = [
        replace(
            one, heavy_at={2: answered(index % 2 == 0, tokens=300)} | ({3: answered(True)} if index else {})
        )
        for index, one in enumerate(many(10, seed=1))
    ]
    curve = {point.k: point for point in findings(questions).curve}
    assert curve[2].heavy is not None
    assert (curve[2].heavy.value, curve[2].heavy_cost) == (0.5, 330)
    assert curve[3].heavy is None
