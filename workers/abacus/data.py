"""Turns problems into training text: segments, each with whether its tokens are to be imitated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from workers.abacus import chat
from workers.abacus.prompting import LABELS, Candidate, aggregate_prompt
from workers.abacus.tasks import LEVELS, Problem, make_problem, programs
from workers.abacus.tasks.aggregation import aggregate
from workers.abacus.tasks.stumble import candidates
from workers.abacus.tasks.trace import TOOLS, answer_message, gold

Segments = list[tuple[str, bool]]
SLIP_SHARE = 0.15
# imagined searches drawn again until somebody found it: checks that hold are rare
LUCKY_SHARE, LUCKY_DRAWS = 0.7, 30
DECLARED_SHARE = 0.6  # how often a question that needs no tool is asked with `python` declared


@dataclass(frozen=True, slots=True)
class Mix:
    """How often each kind of example is drawn, and how wide imagined aggregations are.

    `imagined` is the share of aggregations among the examples, `checked` that among those of searches;
    `loops` is the share of `programs` drawn from their two highest levels whatever else is said.
    """

    families: dict[str, float]
    imagined: float
    checked: float
    width_max: int = 8
    loops: float = 0.0


MIXES = {
    # hardly any long examples: mostly arithmetic and reading
    "first": Mix(
        {"chains": 0.25, "totals": 0.2, "stories": 0.2, "programs": 0.1, "pairs": 0.13, "remainders": 0.12},
        imagined=0.05,
        checked=0.3,
        width_max=3,
    ),
    "base": Mix(
        {
            "chains": 0.12,
            "totals": 0.15,
            "stories": 0.12,
            "programs": 0.18,
            "pairs": 0.27,
            "remainders": 0.16,
        },
        imagined=0.25,
        checked=0.55,
    ),
    # loops of three and four calls before all, and the rest kept up
    "practice": Mix(
        {"chains": 0.12, "totals": 0.12, "stories": 0.12, "programs": 0.4, "pairs": 0.14, "remainders": 0.1},
        imagined=0.12,
        checked=0.55,
        loops=0.7,
    ),
    # everything that is asked for, tool loops still the largest part
    "finish": Mix(
        {
            "chains": 0.14,
            "totals": 0.16,
            "stories": 0.14,
            "programs": 0.24,
            "pairs": 0.18,
            "remainders": 0.14,
        },
        imagined=0.2,
        checked=0.55,
        loops=0.6,
    ),
}
"""The mixes in examples, not tokens: that with which the base phase begins, the one it goes on with (and the
aggregation phase, too), and those of the two last phases."""


def example(rng: random.Random, mix: Mix, easy: float = 0.0) -> Segments:
    """One example; `easy` in 0..1 is the share of problems drawn from the lowest levels."""
    family = rng.choices(list(mix.families), list(mix.families.values()))[0]
    levels = LEVELS[family]
    if family == "programs" and rng.random() < mix.loops:
        level = rng.choice(levels[-2:])
    else:
        level = rng.choice(levels[:2] if rng.random() < easy else levels)
    problem = make_problem(family, level, "train", rng.randrange(1 << 40))
    if rng.random() < (mix.checked if problem.search is not None else mix.imagined):
        return imagined(rng, problem, mix.width_max)
    if problem.needs_tool and rng.random() < SLIP_SHARE:
        problem = programs.with_slip(rng, problem)
    return solution(problem, rng)


def imagined(rng: random.Random, problem: Problem, width_max: int = 8) -> Segments:
    """An aggregation over imagined candidates, mostly few of them: short examples teach more a second."""
    width = min(width_max, rng.choice((2, 2, 3, 3, 4, 5, 8)))
    rate = rng.choice((0.08, 0.15, 0.25))
    made = candidates(problem, rng, width, rate)
    if problem.search is not None and rng.random() < LUCKY_SHARE:
        for _ in range(LUCKY_DRAWS):
            if any(candidate.short_answer == str(problem.answer) for candidate in made):
                break
            made = candidates(problem, rng, width, rate)
    return aggregation(problem, made, rng)


def solution(problem: Problem, rng: random.Random) -> Segments:
    """A gold trajectory; only what the assistant writes is imitated, and no slips."""
    tools = TOOLS if problem.needs_tool or rng.random() < DECLARED_SHARE else []
    segments: Segments = []
    turns = gold(problem, rng)
    pending = chat.render([], tools, prompt=False)
    for message, imitate in turns:
        if message["role"] == "assistant":
            segments.append((pending + chat.GENERATION_PROMPT, False))
            segments.append((chat.completion(message), imitate))
            pending = ""
        else:
            pending += chat.render([message], prompt=False)
    return segments


def aggregation(problem: Problem, made: Sequence[Candidate], rng: random.Random) -> Segments:
    """A gold aggregation over candidates, relabelled in a random order."""
    shuffled = rng.sample(list(made), len(made))
    relabelled = [
        Candidate(label, candidate.short_answer, candidate.reasoning, candidate.outcome)
        for label, candidate in zip(LABELS, shuffled, strict=False)
    ]
    thought, answer, cites = aggregate(problem, relabelled, rng)
    prompt = chat.render([{"role": "user", "content": aggregate_prompt(problem.question, relabelled)}])
    return [(prompt, False), (chat.completion(answer_message(answer, thought, cites)), True)]
