"""Gold trajectories: the lines a right solution thinks, and the conversation it makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from workers.abacus.chat import PYTHON_TOOL, Message, tool_call
from workers.abacus.tasks import programs, totals
from workers.abacus.tasks.base import Problem, Term

__all__ = ["gold", "reasoning_lines", "tools_for", "visit"]


def tools_for(problem: Problem) -> list[dict[str, Any]]:
    """The tools a problem is asked with."""
    return [PYTHON_TOOL] if problem.needs_tool else []


def visit(terms: Sequence[Term]) -> list[str]:
    """The lines that visit `terms` in the order given."""
    lines: list[str] = []
    before = 0
    for number, term in enumerate(terms, 1):
        lines.append(totals.line(number, term, before))
        before += term.value
    return lines


def reasoning_lines(problem: Problem, rng: random.Random) -> list[str]:
    """The lines of one right derivation; terms are visited in an order drawn from `rng`."""
    if problem.terms:
        return visit(rng.sample(problem.terms, len(problem.terms)))
    return list(problem.lines) if problem.lines else [call.note for call in problem.calls]


def gold(problem: Problem, rng: random.Random) -> list[tuple[Message, bool]]:
    """A right trajectory: messages, each with whether it is to be imitated (questions, results and slips are
    not).
    """
    messages: list[tuple[Message, bool]] = [({"role": "user", "content": problem.question}, False)]
    if not problem.needs_tool:
        thinking = "\n".join(reasoning_lines(problem, rng))
        return [*messages, (answer_message(problem.answer, thinking), True)]
    note = ""
    for index, call in enumerate(problem.calls):
        turn = {
            "role": "assistant",
            "reasoning_content": f"{note}step {index + 1}",
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
