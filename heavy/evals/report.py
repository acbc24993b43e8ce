"""The report of an evaluation: what was asked, what is missing, and what was found.

It depends on what the evaluation's directory holds and on nothing else, no clock among it: made twice, it is
the same byte for byte.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from heavy.evals.findings import Findings

SCHEMA: Final = 1
DIGITS: Final = 6
"""Significant digits in the report: more than mean anything, few enough that machines agree on them."""
NAMED_MAX: Final = 100
"""How many missing and ungraded questions are listed by id; all are counted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The dataset and how it was asked."""

    dataset: str
    layout: str
    digest: str
    questions: int
    skipped: dict[str, int]
    policy: dict[str, Any]
    seed: int
    judge: str
    simulated: bool


@dataclass(frozen=True, slots=True)
class Unscored:
    """A question without a score, and why: its run failed, or its judge did."""

    question: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """`missing` have no run that says anything about the models, `ungraded` no verdict. Neither counts as
    wrong; `worst_case` is heavy's accuracy if all of them were. `findings` is None if nothing was scored.
    While `greedy_waiting` questions are still to be asked greedily, the greedy baseline is left out."""

    asked: Asked
    scored: int
    missing: int
    ungraded: int
    worst_case: float
    findings: Findings | None
    unscored: tuple[Unscored, ...]
    greedy_waiting: int = 0
    schema: int = SCHEMA


def to_json(report: Report) -> bytes:
    """The report as JSON: sorted keys, rounded numbers, a newline at the end."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(_rounded(asdict(report)), option=options)


def _rounded(value: Any) -> Any:
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return float(f"{value:.{DIGITS}g}")
        case dict():
            return {key: _rounded(one) for key, one in value.items()}
        case _:
            return [_rounded(one) for one in value]
