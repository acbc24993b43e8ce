"""A dataset file as questions: read whole, checked whole, before anything is asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heavy.core.errors import InvalidDataset
from heavy.evals.layouts import LAYOUTS, Fault, Layout, LayoutName, ReadAs, Skipped, detect
from heavy.evals.questions import Question
from heavy.evals.rows import Malformed, Row, rows

FAULTS_SHOWN: Final = 20
QUESTIONS_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Dataset:
    """The questions of a file. `skipped` counts rows left out, by reason; `digest` is of the file's bytes."""

    name: str
    layout: LayoutName
    questions: tuple[Question, ...]
    skipped: dict[str, int]
    digest: str


def read_dataset(path: Path, read_as: ReadAs, *, layout: LayoutName | None = None, limit: int = 0) -> Dataset:
    """Read a file in one of the layouts; None finds the layout out. `limit` 0 means all questions.

    Raises `InvalidDataset` naming each row that cannot be read, the first `FAULTS_SHOWN` of them, and every
    id that occurs twice.
    """
    if not path.is_file():
        raise InvalidDataset(f"{path} is not there, or is no file; give the path of a dataset file")
    faults: list[str] = []
    good: list[Row] = []
    for row in rows(path):
        if isinstance(row, Malformed):
            faults.append(f"{row.place} {row.problem}")
        else:
            good.append(row)
    chosen = LAYOUTS[layout or detect(path, good[0].values if good else {})]
    questions, skipped = _questions(path, good, chosen, read_as, faults)
    faults += _duplicates(questions)
    if faults:
        raise _refused(path, chosen.name, faults)
    if not questions:
        raise InvalidDataset(f"{path} has no question{_left_out(skipped)}")
    asked = tuple(question for question, _ in questions)
    return Dataset(path.name, chosen.name, asked[:limit] if limit else asked, dict(skipped), _digest(path))


def _questions(
    path: Path, good: Sequence[Row], layout: Layout, read_as: ReadAs, faults: list[str]
) -> tuple[list[tuple[Question, Row]], Counter[str]]:
    questions: list[tuple[Question, Row]] = []
    skipped: Counter[str] = Counter()
    if len(good) > QUESTIONS_MAX:
        raise InvalidDataset(f"{path} has {len(good)} rows; at most {QUESTIONS_MAX} are read")
    for row in good:
        match layout.read(row, read_as):
            case Question() as question:
                questions.append((question, row))
            case Skipped(reason):
                skipped[reason] += 1
            case Fault(problem):
                faults.append(f"{row.place} {problem}")
    return questions, skipped


def _duplicates(questions: Sequence[tuple[Question, Row]]) -> Iterator[str]:
    first: dict[str, Row] = {}
    for question, row in questions:
        if question.id in first:
            yield f"{row.place} has the id {question.id!r}, which {first[question.id].place} has already"
        else:
            first[question.id] = row


def _refused(path: Path, layout: LayoutName, faults: Sequence[str]) -> InvalidDataset:
    shown = "\n  ".join(faults[:FAULTS_SHOWN])
    more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    return InvalidDataset(
        f"{path} cannot be evaluated (read as {layout}); nothing was asked:\n  {shown}{more}"
    )


def _left_out(skipped: Counter[str]) -> str:
    return "".join(f"; {count} rows were left out: {reason}" for reason, count in skipped.items())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
