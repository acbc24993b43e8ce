"""An evaluation on disk: what was decided before anything was asked, and where everything stands.

DIR/evaluation.json   the dataset, how it is asked and graded: fixed once written
DIR/questions.jsonl   the questions as they are asked, with their true answers
DIR/judge.jinja       the judge's prompt, where a judge grades
DIR/heavy, DIR/greedy the runs' results and logs, as `heavy.batch` keeps them
DIR/heavy-at-K        the same, of runs that aggregate K of the arms anew
DIR/verdicts.jsonl    what a judge or the symbolic library found
DIR/report.*          made from all of the above, as often as one likes
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from heavy.batch.directory import write_whole
from heavy.core.codec import dump, load
from heavy.core.draft import PolicyDraft
from heavy.core.errors import ConfigError
from heavy.evals.datasets import Dataset
from heavy.evals.judging import JudgePrompt
from heavy.evals.questions import Question

SETTING: Final = "evaluation.json"
QUESTIONS: Final = "questions.jsonl"
JUDGE_PROMPT: Final = "judge.jinja"
VERDICTS: Final = "verdicts.jsonl"
HEAVY_AT: Final = "heavy-at-"


@dataclass(frozen=True, slots=True)
class Setting:
    """What an evaluation is: changing any of it would make another one."""

    dataset: str
    layout: str
    digest: str
    skipped: dict[str, int]
    policy: PolicyDraft
    greedy: bool
    seed: int
    judge: str
    """Which model judges; empty where none does."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation's directory, read."""

    directory: Path
    setting: Setting
    questions: tuple[Question, ...]

    @property
    def heavy(self) -> Path:
        """Where the runs are."""
        return self.directory / "heavy"

    @property
    def greedy(self) -> Path:
        """Where the greedy runs are."""
        return self.directory / "greedy"

    def heavy_at(self, k: int) -> Path:
        """Where the runs are that aggregate k of the arms anew."""
        return self.directory / f"{HEAVY_AT}{k}"

    @property
    def heavy_ats(self) -> tuple[int, ...]:
        """The k for which there are such runs."""
        found = (path.name.removeprefix(HEAVY_AT) for path in self.directory.glob(f"{HEAVY_AT}*"))
        return tuple(sorted(int(k) for k in found if k.isdecimal()))

    @property
    def verdicts(self) -> Path:
        """Where verdicts are kept."""
        return self.directory / VERDICTS

    @property
    def judge_prompt(self) -> JudgePrompt:
        """The judge's prompt as it was when the evaluation began."""
        return JudgePrompt(str(self.directory.resolve()), f"./{JUDGE_PROMPT}")


def begin(directory: Path, dataset: Dataset, setting: Setting, judge_prompt: JudgePrompt) -> Evaluation:
    """Write an evaluation down, or find the same one there and go on with it.

    Raises `ConfigError` when the directory holds another evaluation, naming what differs, and `HeavyError`
    when nothing can be written.
    """
    if (directory / SETTING).exists():
        found = open_evaluation(directory)
        _same(found, setting, dataset.questions, judge_prompt)
        return found
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be made: {error.strerror}; give another --out") from error
    write_whole(directory / JUDGE_PROMPT, judge_prompt.text().encode())
    write_whole(directory / QUESTIONS, b"".join(dump(question) + b"\n" for question in dataset.questions))
    write_whole(directory / SETTING, dump(setting) + b"\n")
    return Evaluation(directory, setting, dataset.questions)


def open_evaluation(directory: Path) -> Evaluation:
    """The evaluation in a directory. Raises `ConfigError` when there is none, or its files are broken."""
    try:
        setting = load(Setting, (directory / SETTING).read_bytes())
        lines = (directory / QUESTIONS).read_bytes().splitlines()
        return Evaluation(directory, setting, tuple(load(Question, line) for line in lines))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{directory} holds no evaluation ({Path(error.filename).name} is missing); "
            "make one with: heavy eval DATASET --out DIR"
        ) from error
    except (OSError, ValidationError) as error:
        raise ConfigError(f"The evaluation in {directory} cannot be read: {error}") from error


def _same(found: Evaluation, setting: Setting, questions: Iterable[Question], prompt: JudgePrompt) -> None:
    was, now = _flat(found.setting), _flat(setting)
    differ = [
        f"{name} was {was[name]!r:.100} and is now {now[name]!r:.100}"
        for name in now
        if was[name] != now[name]
    ]
    if not differ and found.questions != tuple(questions):
        differ = ["its questions are others (another limit, grader, tolerance or instructions)"]
    if not differ and found.judge_prompt.text() != prompt.text():
        differ = ["the judge's prompt is another"]
    if differ:
        raise ConfigError(
            f"{found.directory} holds another evaluation: {'; '.join(differ)}. "
            "Give the same flags to go on with it, or another --out."
        )


def _flat(setting: Setting) -> dict[str, Any]:
    """A setting field by field, those of its policy among them."""
    parts = ((part, f.name) for part in (setting.policy, setting) for f in fields(part))
    return {name: getattr(part, name) for part, name in parts if name != "policy"}
