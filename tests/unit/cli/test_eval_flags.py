"""What `heavy eval` refuses before it asks anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from heavy.cli.eval import evaluate
from heavy.core.errors import ConfigError, InvalidDataset

from tests_support.datasets import write_jsonl


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "d.jsonl", [{"id": "a", "question": "1+1?", "answer": 2}])


def called(*words: object) -> Result:
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def test_a_dataset_may_come_without_the_word_run(dataset: Path) -> None:
    for words in ((dataset,), ("run", dataset), ("--grader", "judge", dataset)):
        refused = called(*words, "--grader", "judge")
        assert refused.exit_code == 2
        assert "--judge-profile" in refused.output


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--width", "2", "--heavy-at", "2"], "fewer arms than the width"),
        (["--heavy-at", "two"], "no list of numbers"),
        (["--heavy-at", "0,2"], "fewer than one arm"),
        (["--judge-url", "http://x/v1"], "needs --judge-model"),
        (["--judge-url", "http://x/v1", "--judge-model", "m", "--judge-profile", "p"], "not both"),
        (["--instructions", "/nowhere"], "cannot be read"),
        (["--concurrency", "0"], "--concurrency"),
        (["--aggregation", "magic"], "--aggregation"),
    ],
)
def test_flags_that_cannot_work_are_refused(
    dataset: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    out = tmp_path / "out"
    refused = called(dataset, "--out", out, *flags)
    assert refused.exit_code == 2
    assert words in refused.output
    assert not out.exists()


def test_a_dataset_that_is_not_there_and_a_directory_without_an_evaluation_are_told_of(
    tmp_path: Path,
) -> None:
    assert isinstance(called(tmp_path / "no.jsonl").exception, InvalidDataset)
    assert isinstance(called("report", tmp_path).exception, ConfigError)


def test_the_help_of_the_group_is_not_taken_for_a_dataset() -> None:
    assert "heavy eval report" in called("--help").output
