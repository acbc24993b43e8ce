"""Runs whole trajectories offline: prompts, tool calls with real python results, final answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workers.abacus import answers, chat
from workers.abacus.chat import Message
from workers.abacus.interpreter import Interpreter
from workers.abacus.prompting import Candidate, aggregate_prompt
from workers.abacus.tasks import Problem
from workers.abacus.tasks.trace import TOOLS

TURNS_MAX = 8
TOKENS_PER_TURN = 256
TOKENS_AGGREGATE = 768
_CALLS = re.compile(r"<\|tool_calls_section_begin\|>(.*?)(?:<\|tool_calls_section_end\|>|$)", re.S)
_CALL = re.compile(r"<\|tool_call_begin\|>(.*?)<\|tool_call_argument_begin\|>(.*?)<\|tool_call_end\|>", re.S)


class Backend(Protocol):
    """Something that completes prompts."""

    name: str

    def generate(self, prompts: Sequence[str], temperature: float, tokens_max: int, seed: int) -> list[str]:
        """One completion per prompt, without the end marker, tool and thinking markers kept."""
        ...


@dataclass(slots=True)
class Trajectory:
    """One rollout: what was said, what it thought over all its turns, and how its tool calls were formed."""

    problem: Problem
    messages: list[Message]
    reasoning: list[str] = field(default_factory=list)
    answer: str | None = None
    calls: int = 0
    malformed: int = 0
    errors: int = 0
    ended: bool = False

    @property
    def right(self) -> bool:
        """Whether its answer is the true one."""
        return answers.is_right(self.answer, self.problem.answer)

    @property
    def thinking(self) -> str:
        """The thinking of all turns, as an aggregator is shown it."""
        return "\n".join(self.reasoning)


def parse_call(text: str, index: int) -> str | None:
    """The code of the one well-formed call in a tool-calls section, or None: markers, id and JSON must be
    right.
    """
    section = _CALLS.search(text)
    found = _CALL.findall(section.group(1)) if section else []
    if len(found) != 1 or found[0][0] != f"functions.python:{index}":
        return None
    try:
        arguments = json.loads(found[0][1])
    except ValueError:
        return None
    code = arguments.get("code") if isinstance(arguments, dict) else None
    return code if isinstance(code, str) else None


def solve(backend: Backend, problems: Sequence[Problem], temperature: float, seed: int) -> list[Trajectory]:
    """One trajectory per problem (repeat a problem to get several)."""
    made = [Trajectory(problem, [{"role": "user", "content": problem.question}]) for problem in problems]
    with Interpreter() as python:
        for turn in range(TURNS_MAX):
            open_ones = [trajectory for trajectory in made if not trajectory.ended]
            if not open_ones:
                break
            prompts = [chat.render(t.messages, TOOLS) for t in open_ones]
            texts = backend.generate(prompts, temperature, TOKENS_PER_TURN, seed * 100 + turn)
            for trajectory, text in zip(open_ones, texts, strict=True):
                _advance(trajectory, text, python)
    return made


def _advance(trajectory: Trajectory, text: str, python: Interpreter) -> None:
    thought, _, visible = text.partition("</think>")
    thought = thought.removeprefix("<think>")
    trajectory.reasoning.append(thought)
    if "<|tool_call" not in text:
        trajectory.answer = answers.extract(visible)
        trajectory.ended = True
        return
    index = trajectory.calls
    trajectory.calls += 1
    code = parse_call(text, index)
    if code is None:
        trajectory.malformed += 1
        trajectory.ended = True
        return
    arguments = _CALL.findall(text)[0][1]
    call = {
        "id": f"functions.python:{index}",
        "type": "function",
        "function": {"name": "python", "arguments": arguments},
    }
    turn = {"role": "assistant", "reasoning_content": thought, "content": "", "tool_calls": [call]}
    result = python.run(code)
    trajectory.errors += "Error: " in result
    trajectory.messages += [turn, {"role": "tool", "tool_call_id": call["id"], "content": result}]


def aggregate(
    backend: Backend, sets: Sequence[tuple[Problem, Sequence[Candidate]]], seed: int = 0
) -> list[tuple[str | None, tuple[str, ...], str]]:
    """For each problem with its candidates: the greedy aggregator's answer, what it cites, all it said."""
    prompts = [
        chat.render([{"role": "user", "content": aggregate_prompt(problem.question, candidates)}])
        for problem, candidates in sets
    ]
    texts = backend.generate(prompts, 0.0, TOKENS_AGGREGATE, seed)
    return [(answers.extract(answers.visible(text)), answers.cited(text), text) for text in texts]
