from __future__ import annotations

import io

import pytest
from rich.console import Console

from heavy.batch.results import BatchResult, Failure, ResultState
from heavy.batch.runner import Progress
from heavy.cli.batch_screen import bar, left_text, progress_text, rate_text, result_text

PROGRESS = Progress(
    total=2000, answered=490, failed=10, out=12, limit=16, cost_usd=3.25, tokens=10, here=300, elapsed_s=600.0
)


@pytest.mark.parametrize("width", [30, 60, 100, 160])
def test_the_bar_says_everything_at_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(bar(PROGRESS, width))
    file = console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    flat = " ".join(text.split())
    for part in ("500 of 2,000", "10 failed", "12 out", "30.0/min", "$3.2500", "0:50:00 left"):
        assert part in flat
    assert max(map(len, text.splitlines())) <= width


def test_a_line_says_the_same_as_the_bar() -> None:
    assert progress_text(PROGRESS) == ("-- 500 of 2,000, 10 failed, 12 out, 30.0/min, $3.2500, 0:50:00 left")


def test_without_an_answer_nobody_knows_how_long_it_takes() -> None:
    fresh = Progress(10, 0, 0, 1, 16, 0.0, 0, 0, 5.0)
    assert left_text(fresh) == "time left unknown"
    assert rate_text(Progress(10, 8, 0, 1, 16, 0.0, 0, 8, 4.0)) == "2.0/s"


def test_a_failure_says_its_code_and_reason_on_one_line() -> None:
    failed = BatchResult("q1", 1, "r", "", ResultState.FAILED, failure=Failure("lost", "It\nbroke"))
    assert "q1  failed  lost: It broke" in result_text(failed).plain
