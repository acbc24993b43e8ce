"""A question with its true answer, and how an answer to it is graded."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class GraderName(StrEnum):
    """How an answer is compared with the true one."""

    EXACT = "exact"
    NUMERIC = "numeric"
    SYMBOLIC = "symbolic"
    CHOICE = "choice"
    JUDGE = "judge"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be off: absolutely, or as a part of the true value. Zero is exact."""

    absolute: float = 0.0
    relative: float = 0.0


EXACT = Tolerance()


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a dataset, as it is asked and graded.

    `prompt` is all the model sees. `answer` is the true answer; for a choice, the letter. `choices` are
    the option texts in the order they were shown, where the dataset has them. `tools` None leaves the
    tools to the policy. `labels` are the row's other columns, by which reports group.
    """

    id: str
    prompt: str
    answer: str
    grader: GraderName
    choices: tuple[str, ...] = ()
    tolerance: Tolerance = EXACT
    tools: tuple[str, ...] | None = None
    labels: dict[str, str] = field(default_factory=dict)
