"""The gold work of an aggregator, every candidate in sight: check what can be checked, else derive anew."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workers.abacus.prompting import Candidate, rows
from workers.abacus.tasks.base import Problem, Search
from workers.abacus.tasks.trace import derivation


def aggregate(
    problem: Problem, candidates: Sequence[Candidate], rng: random.Random
) -> tuple[str, str, list[str]]:
    """The gold aggregation: its thinking, its answer, the labels it cites.

    Where nobody came to the same answer, its own derivation likely slipped: then it keeps the
    most frequent answer. What takes a tool is not computed but read off the candidates, line by line.
    """
    if problem.search is not None:
        return _check(problem.search, candidates)
    answers = rows(candidates)
    agreeing = dict(answers).get(str(problem.answer), [])
    thought = [] if problem.needs_tool and not agreeing else derivation(problem, rng)[0]
    if agreeing or not answers:
        thought.append(f"= {problem.answer}: {', '.join(agreeing) or 'none'}")
        return "\n".join(thought), str(problem.answer), agreeing
    thought.append("none" if problem.needs_tool else f"= {problem.answer}: none")
    return "\n".join(thought), *answers[0]


def _check(search: Search, candidates: Sequence[Candidate]) -> tuple[str, str, list[str]]:
    """Every different answer is checked, the most frequent first, until one holds."""
    answers = rows(candidates)
    lines: list[str] = []
    for answer, labels in answers:
        line, holds = search.check(int(answer)) if answer.isdecimal() else (f"{answer}: no", False)
        lines.append(line)
        if holds:
            lines.append(f"= {answer}: {', '.join(labels)}")
            return "\n".join(lines), answer, labels
    lines.append("none")
    answer, labels = answers[0] if answers else ("none", [])
    return "\n".join(lines), answer, labels
