"""What leaves over HTTP: a generation's events as one JSON completion, or as server-sent chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from workers.engines.api.errors import ApiError
from workers.engines.api.generation import Event, Finished, TextDelta, ToolCallDelta, Usage

DONE = b"data: [DONE]\n\n"


def usage_json(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object, with SGLang's `reasoning_tokens` beside it."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "reasoning_tokens": usage.reasoning,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def merged(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring deltas of one kind joined: fewer chunks when the reader is slow."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if (
            isinstance(event, TextDelta)
            and isinstance(last, TextDelta)
            and not (last.content and event.reasoning)
        ):
            joined[-1] = TextDelta(last.content + event.content, last.reasoning + event.reasoning)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta) and _continues(last, event):
            joined[-1] = ToolCallDelta(last.index, last.id, last.name, last.arguments + event.arguments)
        else:
            joined.append(event)
    return joined


def _continues(last: ToolCallDelta, event: ToolCallDelta) -> bool:
    return last.index == event.index and not event.id and not event.name


def sse(payload: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def sse_error(error: ApiError) -> bytes:
    """An error in the middle of a stream, where the status line is long gone."""
    return sse(error.body())


@dataclass(slots=True)
class Envelope:
    """What all chunks of one completion share."""

    model: str
    rid: str
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        if not self.rid:
            self.rid = uuid.uuid4().hex

    def _wrap(self, kind: str, choices: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        return {
            "id": self.rid,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "usage": usage_json(usage) if usage is not None else None,
        }

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        """One chunk of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse(self._wrap("chat.completion.chunk", [choice], None))

    def usage_chunk(self, usage: Usage) -> bytes:
        """The chunk without choices that `stream_options.include_usage` asks for."""
        return sse(self._wrap("chat.completion.chunk", [], usage))

    def completion(self, transcript: Transcript, finished: Finished) -> bytes:
        """The whole answer as one JSON object."""
        choice = {
            "index": 0,
            "message": transcript.message(),
            "logprobs": None,
            "finish_reason": finished.reason,
        }
        return orjson.dumps(self._wrap("chat.completion", [choice], finished.usage))


def delta_json(event: TextDelta | ToolCallDelta) -> dict[str, Any]:
    """A delta in OpenAI's form."""
    if isinstance(event, TextDelta):
        delta: dict[str, Any] = {}
        if event.reasoning:
            delta["reasoning_content"] = event.reasoning
        if event.content:
            delta["content"] = event.content
        return delta
    call: dict[str, Any] = {"index": event.index, "function": {"arguments": event.arguments}}
    if event.id:
        call["id"] = event.id
        call["type"] = "function"
    if event.name:
        call["function"]["name"] = event.name
    return {"tool_calls": [call]}


@dataclass(slots=True)
class Transcript:
    """Deltas collected into the message of a completion that is not streamed."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, event: TextDelta | ToolCallDelta) -> None:
        """Append a delta."""
        if isinstance(event, TextDelta):
            self.content.append(event.content)
            self.reasoning.append(event.reasoning)
            return
        call = self.calls.setdefault(
            event.index,
            {"index": event.index, "id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["id"] += event.id
        call["function"]["name"] += event.name
        call["function"]["arguments"] += event.arguments

    def message(self) -> dict[str, Any]:
        """The assistant's message; absent parts are null, as OpenAI has them."""
        content, reasoning = "".join(self.content), "".join(self.reasoning)
        calls = [self.calls[index] for index in sorted(self.calls)]
        return {
            "role": "assistant",
            "content": content if content or not calls else None,
            "reasoning_content": reasoning or None,
            "tool_calls": calls or None,
        }
