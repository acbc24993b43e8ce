"""Checks a candidate's lines one by one: the gold work of an aggregator.

Every line is derived anew from the question and from what was true before, in the candidate's own order.
The first line that differs ends the audit with the right line and the word `bad`; a sound one ends with
`= X ok`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workers.abacus.prompting import Candidate, rows
from workers.abacus.tasks import totals
from workers.abacus.tasks.base import Problem
from workers.abacus.tasks.trace import reasoning_lines

_VISIT = re.compile(r"\d+ (?:(\d+)\*(\d+)=|(\d+)(?:\+(\d+))?)")
_PLAIN = re.compile(r"step \d+|done|fails, again")


@dataclass(frozen=True, slots=True)
class Audit:
    """What an auditor writes about one candidate, and whether the candidate survived."""

    lines: tuple[str, ...]
    sound: bool


def audit(problem: Problem, reasoning: str, answer: str | None) -> Audit:
    """Audit one candidate against the truth."""
    written = [line for line in reasoning.split("\n") if line and not _PLAIN.fullmatch(line)]
    checked, sound = _terms(problem, written) if problem.terms else _fixed(problem, written)
    if sound:
        sound = answer == str(problem.answer)
        checked.append(f"= {problem.answer} " + ("ok" if sound else "bad"))
    return Audit(tuple(checked), sound)


def _terms(problem: Problem, written: Sequence[str]) -> tuple[list[str], bool]:
    """Terms are told apart by their quantity: a right quantity under a wrong name is no wrong step."""
    left = list(problem.terms)
    checked: list[str] = []
    before = 0
    for number, line in enumerate(written, 1):
        meant = _quantity(line, number)
        term = next((term for term in left if (term.times, term.amount) == meant), None)
        if term is None:
            known = meant is not None and any((t.times, t.amount) == meant for t in problem.terms)
            checked.append(f"{number} {_told(*meant)} twice bad" if meant and known else "bad")
            return checked, False
        left.remove(term)
        right = totals.line(number, term, before)
        before += term.value
        if line.rpartition(" ")[0] != right.rpartition(" ")[0]:
            checked.append(f"{right} bad")
            return checked, False
        checked.append(right)
    if left:
        checked.append(f"{_told(left[0].times, left[0].amount)} missing bad")
        return checked, False
    return checked, True


def _quantity(line: str, number: int) -> tuple[int | None, int] | None:
    """The (times, amount) a line visits, or None where it reads like no visit."""
    match = _VISIT.match(line)
    if match is None:
        return None
    times, grouped, first, added = match.groups()
    if times is not None:
        return int(times), int(grouped)
    plain = first if number == 1 else added
    return (None, int(plain)) if plain else None


def _told(times: int | None, amount: int) -> str:
    return str(amount) if times is None else f"{times}*{amount}"


def _fixed(problem: Problem, written: Sequence[str]) -> tuple[list[str], bool]:
    expected = list(problem.lines) or [call.note for call in problem.calls]
    checked: list[str] = []
    for index, right in enumerate(expected):
        if index >= len(written):
            checked.append("missing bad")
            return checked, False
        if written[index] != right:
            # Nobody can do a tool's arithmetic in the head: there only the expression is written anew.
            shown = right.partition("=")[0] if problem.calls else right
            checked.append(f"{shown} bad")
            return checked, False
        checked.append(right)
    if len(written) > len(expected):
        checked.append("more bad")
        return checked, False
    return checked, True


def aggregate(
    problem: Problem, candidates: Sequence[Candidate], rng: random.Random
) -> tuple[str, str, list[str]]:
    """The gold aggregation: its thinking, its answer, the labels it cites.

    It audits the first candidate of each answer, the most frequent answer first, and stops at the first
    sound one. If none is sound it derives the answer anew, or keeps the most frequent one where that
    takes a tool.
    """
    by_label = {candidate.label: candidate for candidate in candidates}
    answers = rows(candidates)
    thought: list[str] = []
    for answer, labels in answers:
        candidate = by_label[labels[0]]
        result = audit(problem, candidate.reasoning, answer)
        thought += [f"[{labels[0]}]", *result.lines]
        if result.sound:
            return "\n".join(thought), answer, labels
    thought.append("none")
    if not problem.needs_tool:
        thought += reasoning_lines(problem, rng)
        answer = str(problem.answer)
    else:
        answer = answers[0][0] if answers else "none"
    return "\n".join(thought), answer, dict(answers).get(answer, [])
