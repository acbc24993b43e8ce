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
    most frequent answer.
    """
    if problem.search is not None:
        return _check(problem.search, candidates)
    if problem.needs_tool:
        return _read_off(problem, candidates)
    answers = rows(candidates)
    agreeing = dict(answers).get(str(problem.answer), [])
    thought = derivation(problem, rng)[0]
    thought.append(f"= {problem.answer}: {', '.join(agreeing) or 'none'}")
    if agreeing or not answers:
        return "\n".join(thought), str(problem.answer), agreeing
    return "\n".join(thought), *answers[0]


def _read_off(problem: Problem, candidates: Sequence[Candidate]) -> tuple[str, str, list[str]]:
    """What takes a tool: it goes through the question as an arm does, and reads each result off whoever made
    that call. Where nobody made it, or nobody came to the end, it keeps the most frequent answer.
    """
    answers = rows(candidates)
    known = {line for candidate in candidates for line in candidate.reasoning.split("\n")}
    thought: list[str] = []
    for number, call in enumerate(problem.calls, 1):
        thought.append(call.step(number))
        if call.note not in known:
            thought.append(f"{call.expression} none")
            break
        thought.append(call.note)
    else:
        agreeing = dict(answers).get(str(problem.answer), [])
        thought.append(f"= {problem.answer}: {', '.join(agreeing) or 'none'}")
        if agreeing:
            return "\n".join(thought), str(problem.answer), agreeing
    answer, labels = answers[0] if answers else ("none", [])
    return "\n".join(thought), answer, labels


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
