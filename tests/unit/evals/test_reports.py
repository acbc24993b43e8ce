from __future__ import annotations

import json
import re

from heavy.evals.analysis import findings
from heavy.evals.page import page
from heavy.evals.report import Asked, Report, Unscored, to_json
from heavy.evals.scoring import ScoredQuestion
from heavy.evals.tables import markdown

from tests_support.scored import many, scored


def report(questions: list[ScoredQuestion], *unscored: Unscored, simulated: bool = False) -> Report:
    total = len(questions) + len(unscored)
    asked = Asked("a<b>.jsonl", "plain", "00", total, {"had an image": 2}, {"width": 8}, 0, "", simulated)
    found = findings(questions) if questions else None
    right = sum(q.heavy.right for q in questions) / total
    return Report(asked, len(questions), len(unscored), 0, right, found, unscored)


def test_json_is_the_same_every_time_and_holds_no_more_digits_than_mean_something() -> None:
    once, again = (to_json(report(many(40, seed=1))) for _ in range(2))
    assert once == again
    read = json.loads(once)
    assert read["findings"]["questions"] == 40
    numbers = re.findall(rb"\d+\.(\d+)", once)
    assert max(map(len, numbers)) <= 9


def test_the_page_is_whole_by_itself_and_the_same_every_time() -> None:
    made = page(report(many(40, seed=1)))
    assert made == page(report(many(40, seed=1)))
    assert made.count("<svg") >= 5
    assert "<script" not in made
    outside = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?!#)([^"\')\s>]+)', made)
    assert [link for link in outside if not link.startswith("#")] == []
    ids = re.findall(r'<(?:clipPath|path|g) id="([mp][0-9a-f]{10})"', made)
    assert len(ids) == len(set(ids))
    assert "currentColor" in made
    assert "<b>" not in made


def test_what_has_no_score_is_counted_and_named() -> None:
    said = markdown(report(many(9, seed=1), Unscored("q|9", "deadline: it passed")))
    assert "10 questions, 9 scored" in said
    assert "1 have no usable run" in said
    assert "q\\|9" in said
    assert "2 rows left out: had an image" in said


def test_figures_of_the_simulated_engine_say_that_they_are() -> None:
    made_up = report([scored("a", [(0, True)], True, simulated=True)], simulated=True)
    assert "SIMULATED" in markdown(made_up)
    assert "SIMULATED" in page(made_up)


def test_a_report_of_nothing_still_says_what_happened() -> None:
    said = report([], Unscored("q1", "it has not been asked yet"))
    assert "it has not been asked yet" in markdown(said)
    assert "it has not been asked yet" in page(said)
    assert json.loads(to_json(said))["findings"] is None
