from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heavy.batch.directory import Manifest
from heavy.batch.page import page
from heavy.batch.results import BatchResult, Failure, ResultState
from heavy.batch.summary import Distribution, summary_of
from heavy.cli.batch_screen import summary_text
from heavy.core.draft import PolicyDraft
from heavy.core.ids import AGGREGATOR, arm
from heavy.core.ledger import Ledger, Spend
from heavy.core.runs import AggregationMethod, Agreement, AnswerGroup, Outcome, OutcomeKind

MANIFEST = Manifest("batch-0", "digest", 6, PolicyDraft(), 1_700_000_000_000)
HOSTILE = '<script>alert("x")</script>'


def answered(name: str, cost: float, attempt: int = 1, share: float = 0.5) -> BatchResult:
    spend = Spend(tokens_prompt=100, tokens_output=10, cost_usd=cost)
    return BatchResult(
        name,
        attempt,
        f"r-{name}",
        "",
        ResultState.COMPLETED,
        answer="It is 42.",
        short_answer=HOSTILE,
        method=AggregationMethod.VOTE,
        agreement=Agreement((AnswerGroup("42", (arm(0),)), AnswerGroup("41", (arm(1),))), share),
        outcomes=(
            Outcome(arm(0), OutcomeKind.COMPLETED, answer="42"),
            Outcome(arm(1), OutcomeKind.CUT, "early_stop"),
            Outcome(AGGREGATOR, OutcomeKind.COMPLETED),
        ),
        ledger=Ledger(spend, {}),
        latency_s=cost * 100,
        simulated=True,
    )


def failed(name: str, code: str = "no_usable_outcome") -> BatchResult:
    ledger = Ledger(Spend(cost_usd=0.5), {})
    return BatchResult(
        name, 1, "r", "", ResultState.FAILED, ledger=ledger, failure=Failure(code, f"{HOSTILE} went wrong")
    )


RESULTS = [
    failed("a"),
    answered("b", 0.1),
    answered("a", 0.3, attempt=2),
    failed("c"),
    failed("d", "cancelled"),
]


def test_a_summary_counts_questions_once_and_money_every_time() -> None:
    summary = summary_of(MANIFEST, RESULTS)
    assert (summary.questions, summary.answered, summary.failed, summary.unasked) == (6, 2, 2, 2)
    assert summary.spend.cost_usd == pytest.approx(0.5 + 0.1 + 0.3 + 0.5 + 0.5)
    assert summary.cost_usd.mean == pytest.approx(0.2)
    assert summary.methods == {"vote": 2}
    assert summary.arms == {"completed": 2, "cut (early_stop)": 2}
    assert [(kind.code, kind.count, kind.ids) for kind in summary.failures] == [
        ("cancelled", 1, ("d",)),
        ("no_usable_outcome", 1, ("c",)),
    ]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_values_in_order(values: list[float]) -> None:
    found = Distribution.of(values)
    ranked = [found.min, found.p10, found.p50, found.p90, found.p99, found.max]
    assert ranked == sorted(ranked)
    assert set(ranked) <= set(values)
    assert math.isclose(found.mean * found.count, found.total, rel_tol=1e-9)


def test_the_page_stands_alone_says_what_was_simulated_and_escapes_what_others_wrote() -> None:
    text = page(summary_of(MANIFEST, RESULTS))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(?:src|href)=[\"']?http", text)
    assert text.count("<svg") == 5
    assert "made up by the simulated engine" in text
    assert "currentColor" in text
    assert "#010203" not in text
    assert page(summary_of(MANIFEST, RESULTS)) == text


def test_a_batch_without_results_has_a_page_and_a_text() -> None:
    summary = summary_of(MANIFEST, [])
    assert "0 of 6 answered" in summary_text(summary)
    assert "<svg" in page(summary)


def test_what_costs_nothing_is_not_drawn_around_less_than_nothing() -> None:
    free = [replace(result, ledger=None) for result in RESULTS]
    assert "\N{MINUS SIGN}" not in page(summary_of(MANIFEST, free))
