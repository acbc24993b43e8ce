"""Broken tool calls and what becomes of them: published failure classes, and good calls broken at random.

The sources name where a class was reported; the examples are our own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from heavy.agent.hygiene import accept
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.policy import Sampling
from heavy.core.records import GenerationTiming
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.replicas.api import Finished, GenerationRequest, TokenUsage
from heavy.tools.toolset import Toolset

CORPUS = Path(__file__).parents[2] / "fixtures" / "broken_calls.json"


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


SCHEMAS = {
    "python": _object(["code"], code={"type": "string"}),
    "search": _object(
        ["query"],
        query={"type": "string"},
        count={"type": "integer"},
        fresh={"type": "boolean"},
        sites={"type": "array", "items": {"type": "string"}},
    ),
    "clock": _object([]),
}


class Fate(StrEnum):
    """What became of a call that was meant."""

    REPAIRED = "repaired"
    """It is carried out as it was meant."""
    TOLD = "told"
    """It is not carried out, and the model hears why."""
    UNSEEN = "unseen"
    """What is left is a good call as it stands, but another one: nobody can see that."""
    WRONG = "wrong"
    """It was mended into something else than what was meant."""


@dataclass(frozen=True, slots=True)
class Case:
    """One broken generation. `meant` None: nobody can know, so nothing may be carried out."""

    kind: str
    finished: Finished
    meant: tuple[str, Mapping[str, Any]] | None
    source: str = "generated"


class _Declared:
    """A tool that is only declared."""

    def __init__(self, name: str) -> None:
        self.spec = ToolSpec(name, name, SCHEMAS[name], "1", Effects.PURE, cacheable=False)

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        raise AssertionError("nothing is executed here")


TOOLSET = Toolset([_Declared(name) for name in SCHEMAS])
REQUEST = GenerationRequest(
    request_id="0",
    profile="k2",
    messages=(Message(Role.USER, "What does tin cost?"),),
    tools=TOOLSET.specs,
    sampling=Sampling(),
    tokens_max=1_000,
    deadline_ms=0,
)


def corpus() -> list[Case]:
    """The published classes, one example each."""
    return [
        Case(
            kind=case["class"],
            finished=generation(case.get("calls", ()), case.get("reasoning", ""), case.get("content", "")),
            meant=tuple(case["meant"]) if case["meant"] else None,
            source=case["source"],
        )
        for case in json.loads(CORPUS.read_text(encoding="utf-8"))
    ]


def mutations(seed: int, count: int) -> Iterator[Case]:
    """Good calls broken in one of the ways of `MUTATIONS`, drawn from the seed."""
    rng = random.Random(seed)
    for _ in range(count):
        values = _values(rng)
        kind = rng.choice(list(MUTATIONS))
        text = MUTATIONS[kind](json.dumps(values), values, rng)
        yield Case(f"mutation: {kind}", generation([["search", text]]), ("search", values))


async def fate(case: Case) -> Fate:
    """What the agent makes of it, up to the point where the tool would run."""
    turn = accept(case.finished, REQUEST, "kimi_k2")
    readings = [(call.name, await TOOLSET.read(call)) for call in turn.message.tool_calls]
    carried_out = [(name, dict(r.arguments.values)) for name, r in readings if r.arguments is not None]
    if not carried_out:
        return Fate.TOLD
    meant = None if case.meant is None else (case.meant[0], dict(case.meant[1]))
    if carried_out == [meant]:
        return Fate.REPAIRED
    return Fate.WRONG if any(reading.repairs for _, reading in readings) else Fate.UNSEEN


def generation(calls: Any, reasoning: str = "", content: str = "") -> Finished:
    """A generation with these calls (name and arguments each) and texts."""
    return Finished(
        content=content,
        reasoning=reasoning,
        tool_calls=tuple(ToolCall("", name, text) for name, text in calls),
        finish_reason=FinishReason.STOP,
        usage=TokenUsage(),
        replica="r",
        model="m",
        timing=GenerationTiming(0.0, 0.0, 0.0),
    )


def _values(rng: random.Random) -> dict[str, Any]:
    words = [
        "tin",
        "it's 4 o'clock",
        'say "no"',
        "a{b}",
        "x, y: z",
        "über",
        "true",
        "12",
        "line\nbreak",
        "\\d+",
    ]
    values: dict[str, Any] = {"query": " ".join(rng.choices(words, k=rng.randint(1, 3)))}
    if rng.random() < 0.6:
        values["count"] = rng.randint(-3, 4_000)
    if rng.random() < 0.4:
        values["fresh"] = rng.random() < 0.5
    if rng.random() < 0.3:
        values["sites"] = rng.choices(["a.example", "b.example/[x]"], k=rng.randint(0, 2))
    items = list(values.items())
    rng.shuffle(items)
    return dict(items)


def _without(text: str, at: int) -> str:
    return text[:at] + text[at + 1 :]


def _spelled(values: dict[str, Any]) -> str:
    return json.dumps({key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()})


MUTATIONS: dict[str, Any] = {
    "last brace missing": lambda text, values, rng: text[:-1],
    "brace too many": lambda text, values, rng: text + "}" * rng.randint(1, 3),
    "comma before the end": lambda text, values, rng: text[:-1] + ",}",
    "Python's spelling": lambda text, values, rng: repr(values),
    "keys without quotes": lambda text, values, rng: text.replace('"query":', "query:").replace(
        '"count":', "count:"
    ),
    "code fence": lambda text, values, rng: f"```json\n{text}\n```",
    "encoded twice": lambda text, values, rng: json.dumps(text),
    "values as strings": lambda text, values, rng: _spelled(values),
    "raw line breaks": lambda text, values, rng: text.replace("\\n", "\n"),
    "escapes lost": lambda text, values, rng: text.replace('\\"', '"'),
    "cut anywhere": lambda text, values, rng: text[: rng.randrange(1, len(text))],
    "a character lost": lambda text, values, rng: _without(text, rng.randrange(len(text))),
    "a mark lost": lambda text, values, rng: _without(
        text, rng.choice([i for i, mark in enumerate(text) if mark in '{}[]:,"'])
    ),
    "a mark too many": lambda text, values, rng: (
        text[: (at := rng.randrange(len(text)))] + rng.choice('{}[]:,"') + text[at:]
    ),
    "ended in prose": lambda text, values, rng: f"{text}\nThat should do it.",
}
