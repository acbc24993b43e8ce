"""A generation put together from its chunks: text, tool calls by index, usage, the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from heavy.core.messages import FinishReason, Message, ToolCall
from heavy.core.tools import ToolSpec
from heavy.replicas.api import TextDelta, TokenUsage
from heavy.replicas.openai_json import (
    CallPart,
    Chunk,
    WireUsage,
    estimated_prompt_tokens,
    estimated_tokens,
    well_formed,
)

CALLS_MAX: Final = 256
"""Tool calls of one generation; more than any model means to make."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Calls:
    """Tool calls, put together from pieces as various servers cut them.

    A piece belongs to the call of its index. Where the index is missing, an id or a name begins a new call
    and anything else continues the last one. A known index that comes with another id and a name is a new
    call too: some servers number every call 0.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def add(self, part: CallPart) -> None:
        """Append a piece. Raises ValueError beyond `CALLS_MAX` calls."""
        call = self._of(part)
        call.id = call.id or part.id
        if part.name and part.name != call.name:  # the whole name may be repeated, or come in pieces
            call.name += part.name
        if part.arguments:
            call.arguments.append(part.arguments)

    def whole(self) -> tuple[ToolCall, ...]:
        """The calls in the order in which they began. Ids that never came are empty."""
        return tuple(
            ToolCall(well_formed(call.id), well_formed(call.name), well_formed("".join(call.arguments)))
            for call in self._calls
        )

    def _of(self, part: CallPart) -> _Call:
        if part.index is None:
            last = self._calls[-1] if self._calls else None
            return self._new() if last is None or _begins(part, last) else last
        call = self._by_index.get(part.index)
        if call is None or (part.name and _other(part.id, call.id)):
            call = self._by_index[part.index] = self._new()
        return call

    def _new(self) -> _Call:
        if len(self._calls) >= CALLS_MAX:
            raise ValueError(f"holds more than {CALLS_MAX} tool calls")
        self._calls.append(_Call())
        return self._calls[-1]


def _begins(part: CallPart, last: _Call) -> bool:
    return _other(part.id, last.id) or bool(part.name and last.name and last.arguments)


def _other(given: str, known: str) -> bool:
    return bool(given and known and given != known)


class Assembly:
    """Collects chunks. `finish` is None until the server has said why it ended."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls = Calls()
        self._usage: WireUsage | None = None
        self.finish: FinishReason | None = None
        self.filtered = False
        self.model = ""
        self.begun = False
        """Whether anything that the model said has come."""

    def add(self, chunks: Iterable[Chunk]) -> TextDelta | None:
        """Take chunks in; their fresh text, if there is any. Raises ValueError for impossible tool calls."""
        content: list[str] = []
        reasoning: list[str] = []
        for chunk in chunks:
            if chunk.content:
                content.append(chunk.content)
            if chunk.reasoning:
                reasoning.append(chunk.reasoning)
            for part in chunk.calls:
                self._calls.add(part)
            self.begun = self.begun or bool(chunk.content or chunk.reasoning or chunk.calls or chunk.finish)
            self.finish = chunk.finish or self.finish
            self.filtered = self.filtered or chunk.filtered
            self.model = chunk.model or self.model
            self._usage = chunk.usage or self._usage
        if not content and not reasoning:
            return None
        self._content += content
        self._reasoning += reasoning
        return TextDelta(reasoning=well_formed("".join(reasoning)), content=well_formed("".join(content)))

    @property
    def content(self) -> str:
        """The whole visible text."""
        return well_formed("".join(self._content))

    @property
    def reasoning(self) -> str:
        """The whole reasoning."""
        return well_formed("".join(self._reasoning))

    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls."""
        return self._calls.whole()

    def usage(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> TokenUsage:
        """Tokens as the server counted them; what it left out is estimated (`estimated_tokens`).

        Reasoning tokens that were not counted, or counted as none although there is reasoning, are the
        reasoning's share of all text the model wrote, applied to the output tokens.
        """
        spoken = self.content + "".join(call.name + call.arguments for call in self.calls())
        thought = self.reasoning
        counted = self._usage
        if counted is None:
            reasoning = estimated_tokens(thought)
            return TokenUsage(
                prompt=estimated_prompt_tokens(messages, tools),
                reasoning=reasoning,
                output=reasoning + estimated_tokens(spoken),
            )
        reasoning = min(counted.reasoning or 0, counted.output)
        if thought and not reasoning:
            reasoning = round(counted.output * len(thought) / (len(thought) + len(spoken)))
        return TokenUsage(counted.prompt, min(counted.cached, counted.prompt), reasoning, counted.output)
