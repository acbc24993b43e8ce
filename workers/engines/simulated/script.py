"""A script for the simulated engine: what it says at each step of every conversation.

    {"steps": [{"tool": "python", "arguments": {"code": "print(1)"}, "reasoning_tokens": 20, "repeat": 20},
               {"answer": "Answer: 42", "reasoning_tokens": 5}]}

A step calls `tool` (or each tool of `calls`, a list of {"tool", "arguments"}) or gives `answer`; `repeat`
writes it several times. In texts and arguments `{step}` becomes the step's number and `{seed}` the request's
seed. The step a request is at is the number of assistant turns with tool calls since the last user message. A
conversation that outlives its script gets the last answer again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

STEPS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """One tool call; `arguments` is an object, or a string to be sent as it is."""

    tool: str
    arguments: dict[str, Any] | str


@dataclass(frozen=True, slots=True)
class ScriptedStep:
    """One generation. Without calls it is an answer."""

    calls: tuple[ScriptedCall, ...]
    answer: str
    reasoning_tokens: int


class _Call(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tool: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] | str = {}


class _Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tool: str | None = None
    arguments: dict[str, Any] | str = {}
    calls: list[_Call] = []
    answer: str | None = None
    reasoning_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    repeat: Annotated[int, Field(ge=1, le=STEPS_MAX)] = 1


class _Script(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: Annotated[list[_Step], Field(min_length=1)]


def parse_script(text: str) -> tuple[ScriptedStep, ...]:
    """The steps of a script. Raises ValueError naming what is wrong with it."""
    try:
        script = _Script.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"the script is not valid: {error}") from error
    steps = [step for raw in script.steps for step in [_scripted(raw)] * raw.repeat]
    if len(steps) > STEPS_MAX:
        raise ValueError(f"the script has {len(steps)} steps; at most {STEPS_MAX} are allowed")
    return tuple(steps)


def load_script(path: Path) -> tuple[ScriptedStep, ...]:
    """The steps of a script file. Raises OSError or ValueError."""
    return parse_script(path.read_text(encoding="utf-8"))


def _scripted(raw: _Step) -> ScriptedStep:
    calls = [ScriptedCall(call.tool, call.arguments) for call in raw.calls]
    if raw.tool is not None:
        calls.insert(0, ScriptedCall(raw.tool, raw.arguments))
    if bool(calls) == (raw.answer is not None):
        raise ValueError("a step of a script either calls tools or answers: give tool, calls or answer")
    return ScriptedStep(tuple(calls), raw.answer or "", raw.reasoning_tokens)
