"""Splits a model's text, piece by piece, into reasoning, content and tool calls.

    CONTENT --<think>--> REASONING --</think>--> CONTENT
    CONTENT --section--> SECTION --call--> HEAD --arguments--> ARGUMENTS --call end--> SECTION
    SECTION --section end--> CONTENT
    CONTENT --<tool_call>--> OBJECT --</tool_call>--> CONTENT

However the text is cut into pieces, the joined result is the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum, auto

from workers.engines.api.generation import TextDelta, ToolCallDelta
from workers.engines.formats.markers import OutputFormat
from workers.engines.formats.scan import first, held

HEAD_CHARACTERS_MAX = 512
CUT = ""  # stands for a marker where an endless id is cut
HEAD = re.compile(r"^(?:functions\.)?(?P<name>.+?)(?::\d+)?$", re.DOTALL)
NAME = re.compile(r'"name"\s*:\s*"((?:[^"\\]|\\.)*)"')

Delta = TextDelta | ToolCallDelta


class State(Enum):
    """Where in the text the splitter is."""

    CONTENT = auto()
    REASONING = auto()
    SECTION = auto()
    HEAD = auto()
    ARGUMENTS = auto()
    OBJECT = auto()


class Splitter:
    """Text in, deltas out. `calls_offered` false: calls are shown as plain text, without markers."""

    def __init__(
        self,
        output: OutputFormat,
        *,
        in_reasoning: bool = False,
        calls_offered: bool = True,
        first_index: int = 0,
    ) -> None:
        self._format = output
        self._calls_offered = calls_offered
        self._first_index = first_index
        self._state = State.REASONING if in_reasoning else State.CONTENT
        self._pending = ""
        self._object = ""
        self._trimming = in_reasoning and self._trims
        self.calls = 0
        self._table: dict[State, dict[str, Callable[[], list[Delta]]]] = self._transitions()

    @property
    def reasoning(self) -> bool:
        """Whether the text is inside the reasoning now."""
        return self._state is State.REASONING

    def feed(self, text: str) -> list[Delta]:
        """More text; the deltas that are certain by now."""
        self._pending += text
        deltas: list[Delta] = []
        while (found := self._next_marker()) is not None:
            at, marker = found
            enter = self._open_arguments if marker == CUT else self._table[self._state][marker]
            deltas += self._take(self._pending[:at], last=True)
            self._pending = self._pending[at + len(marker) :]
            deltas += enter()
        keep = held(self._pending, self._table[self._state])
        if self._state is State.HEAD:
            keep = len(self._pending)  # an id is used whole
        ready, self._pending = (
            self._pending[: len(self._pending) - keep],
            self._pending[len(self._pending) - keep :],
        )
        return _kept(deltas + self._take(ready, last=False))

    def finish(self) -> list[Delta]:
        """No more text: everything that was held back, an unfinished call included."""
        text, self._pending = self._pending, ""
        deltas = self._take(text, last=True)
        if self._state is State.OBJECT:
            deltas += self._close_object()
        self._state = State.CONTENT
        return _kept(deltas)

    def _next_marker(self) -> tuple[int, str] | None:
        """Where the state ends. An endless id is cut at its limit, as if its arguments began there."""
        found = first(self._pending, tuple(self._table[self._state]))
        if self._state is State.HEAD and (found is None or found[0] > HEAD_CHARACTERS_MAX):
            certain = HEAD_CHARACTERS_MAX + max(len(marker) for marker in self._table[State.HEAD])
            if len(self._pending) >= certain:
                return HEAD_CHARACTERS_MAX, CUT
        return found

    # -- text within a state

    def _take(self, text: str, last: bool) -> list[Delta]:
        """Text of the present state; `last` when the state ends after it."""
        match self._state:
            case State.CONTENT:
                return [TextDelta(content=self._trimmed(text))]
            case State.REASONING:
                return [TextDelta(reasoning=self._reasoned(text, last))]
            case State.HEAD:
                return self._head(text) if last and text.strip() else []
            case State.ARGUMENTS:
                return [self._argument(text)]
            case State.OBJECT:
                self._object += text
        return []

    def _trimmed(self, text: str) -> str:
        """Without the line breaks that follow a marker."""
        if self._trimming:
            text = text.lstrip("\n")
            self._trimming = not text
        return text

    def _reasoned(self, text: str, last: bool) -> str:
        """Without the line breaks next to the markers; those at the end wait until more is known."""
        text = self._trimmed(text)
        if not self._trims:
            return text
        shown = text.rstrip("\n")
        if not last:
            self._pending = text[len(shown) :] + self._pending
        return shown

    @property
    def _trims(self) -> bool:
        return self._format.reasoning is not None and self._format.reasoning.trims_newlines

    def _head(self, text: str) -> list[Delta]:
        """The id of a marked call: `functions.name:idx`, or whatever the model wrote instead."""
        match = HEAD.match(text.strip())
        assert match is not None  # the text is not blank
        return [self._begin(match["name"], text.strip())]

    def _begin(self, name: str, call_id: str) -> Delta:
        """The first delta of the next call."""
        self.calls += 1
        if self._calls_offered:
            return ToolCallDelta(self.calls - 1, call_id, name)
        return TextDelta(content=call_id)

    def _argument(self, text: str) -> Delta:
        if self._calls_offered:
            return ToolCallDelta(self.calls - 1, arguments=text)
        return TextDelta(content=text)

    # -- markers

    def _transitions(self) -> dict[State, dict[str, Callable[[], list[Delta]]]]:
        """For each state its markers and what they do."""
        table: dict[State, dict[str, Callable[[], list[Delta]]]] = {state: {} for state in State}
        reasoning, calls = self._format.reasoning, self._format.calls
        if reasoning is not None:
            table[State.CONTENT] |= {reasoning.begin: self._to(State.REASONING, trim=True)}
            table[State.CONTENT] |= {reasoning.end: self._to(State.CONTENT, trim=True)}
            table[State.REASONING] |= {reasoning.end: self._to(State.CONTENT, trim=True)}
            table[State.REASONING] |= {reasoning.begin: self._to(State.REASONING)}
        if calls is None:
            return table
        outer = [State.CONTENT, State.REASONING] if calls.ends_reasoning else [State.CONTENT]
        if calls.style == "json":
            for state in outer:
                table[state][calls.call_begin] = self._to(State.OBJECT)
            table[State.OBJECT] = {calls.call_end: self._close_object, calls.call_begin: self._next_object}
            return table
        for state in outer:
            table[state] |= {
                calls.section_begin: self._to(State.SECTION),
                calls.call_begin: self._to(State.HEAD),
            }
            table[state] |= {calls.section_end: self._to(State.CONTENT), calls.call_end: self._to(state)}
        inner = {
            calls.call_begin: self._to(State.HEAD),
            calls.call_end: self._to(State.SECTION),
            calls.section_end: self._to(State.CONTENT),
        }
        table[State.SECTION] = dict(inner)
        table[State.HEAD] = inner | {calls.arguments_begin: self._open_arguments}
        table[State.ARGUMENTS] = dict(inner)
        return table

    def _to(self, state: State, trim: bool = False) -> Callable[[], list[Delta]]:
        def enter() -> list[Delta]:
            self._state = state
            self._trimming = trim and self._trims
            return []

        return enter

    def _open_arguments(self) -> list[Delta]:
        """The marker before the arguments; a call whose id was blank begins here, nameless."""
        self._state = State.ARGUMENTS
        return []

    def _next_object(self) -> list[Delta]:
        """A second call begins although the first was not closed."""
        deltas = self._close_object()
        self._state = State.OBJECT
        return deltas

    def _close_object(self) -> list[Delta]:
        """The object of a call is complete; a broken one keeps its text as arguments, to be seen."""
        text, self._object = self._object.strip(), ""
        self._state = State.CONTENT
        self._trimming = True
        if not text:
            return []
        name, arguments = _call_of(text)
        if not self._calls_offered:
            self.calls += 1
            return [TextDelta(content=text)]
        begin = self._begin(name, f"functions.{name}:{self._first_index + self.calls}")
        return [begin, self._argument(arguments)]


def _call_of(text: str) -> tuple[str, str]:
    """Name and arguments (JSON text, spaced as chat templates write it) of a call's object."""
    try:
        call = json.loads(text, strict=False)  # models write line breaks into strings
    except ValueError:
        call = None
    if isinstance(call, dict) and isinstance(call.get("name"), str):
        arguments = call.get("arguments", call.get("parameters", {}))
        return call["name"], arguments if isinstance(arguments, str) else json.dumps(
            arguments, ensure_ascii=False
        )
    match = NAME.search(text)
    return (match[1] if match else "", text)


def _kept(deltas: list[Delta]) -> list[Delta]:
    """Without the empty ones."""
    return [
        delta
        for delta in deltas
        if not (isinstance(delta, TextDelta) and not (delta.content or delta.reasoning))
    ]
