"""Gold trajectories: the lines a right solution thinks, and the conversation it makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from workers.abacus.chat import PYTHON_TOOL, Message, tool_call
from workers.abacus.tasks import programs, totals
from workers.abacus.tasks.base import Problem, Term

__all__ = ["TOOLS", "derivation", "gold", "visit"]


TOOLS: list[dict[str, Any]] = [PYTHON_TOOL]


def visit(terms: Sequence[Term]) -> list[str]:
    """The lines that visit `terms` in the order given."""
    lines: list[str] = []
    before = 0
    for number, term in enumerate(terms, 1):
        lines.append(totals.line(number, term, before))
        before += term.value
    return lines


def derivation(problem: Problem, rng: random.Random) -> tuple[list[str], int]:
    """The lines of one derivation and what it comes to; `rng` draws the order of terms and a search's luck.

    All is right but the guess that ends a search without luck.
    """
    if problem.search is not None:
        return problem.search.attempt(rng)
    if problem.terms:
        return visit(rng.sample(problem.terms, len(problem.terms))), problem.answer
    lines = list(problem.lines) if problem.lines else [call.note for call in problem.calls]
    return lines, problem.answer


def gold(problem: Problem, rng: random.Random) -> list[tuple[Message, bool]]:
    """A trajectory to learn from: messages, each with whether it is to be imitated (questions, results and
    slips are not). Its method is right; the guess of a search without luck may be wrong.
    """
    messages: list[tuple[Message, bool]] = [({"role": "user", "content": problem.question}, False)]
    if not problem.needs_tool:
        lines, answer = derivation(problem, rng)
        return [*messages, (answer_message(answer, "\n".join(lines)), True)]
    note = ""
    for index, call in enumerate(problem.calls):
        turn = {
            "role": "assistant",
            "reasoning_content": note + call.step(index + 1),
            "content": "",
            "tool_calls": [tool_call(index, f"print({call.expression})")],
        }
        result = programs.result_text(rng, call)
        messages.append((turn, not call.slip))
        messages.append(
            ({"role": "tool", "tool_call_id": f"functions.python:{index}", "content": result}, False)
        )
        note = call.note + "\n"
    return [*messages, (answer_message(problem.answer, note + "done"), True)]


def answer_message(answer: int | str, thinking: str, cites: Sequence[str] = ()) -> Message:
    """A finished answer in the one format."""
    content = f"Answer: {answer}" + (f"\nCites: {', '.join(cites)}" if cites else "")
    return {"role": "assistant", "reasoning_content": thinking, "content": content}
