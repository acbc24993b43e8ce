"""The gold work of an aggregator: derive the answer anew, every candidate in sight, and say who agrees."""

from __future__ import annotations

import random
from collections.abc import Sequence

from workers.abacus.prompting import Candidate, rows
from workers.abacus.tasks.base import Problem
from workers.abacus.tasks.trace import reasoning_lines


def aggregate(
    problem: Problem, candidates: Sequence[Candidate], rng: random.Random
) -> tuple[str, str, list[str]]:
    """The gold aggregation: its thinking, its answer, the labels it cites.

    Where nobody came to the same answer, its own derivation likely slipped: then it keeps the
    most frequent answer. What takes a tool is not computed but read off the candidates, line by line.
    """
    answers = rows(candidates)
    agreeing = dict(answers).get(str(problem.answer), [])
    thought = [] if problem.needs_tool and not agreeing else reasoning_lines(problem, rng)
    if agreeing or not answers:
        thought.append(f"= {problem.answer}: {', '.join(agreeing) or 'none'}")
        return "\n".join(thought), str(problem.answer), agreeing
    thought.append("none" if problem.needs_tool else f"= {problem.answer}: none")
    return "\n".join(thought), *answers[0]
