"""The aggregator's tools: open a candidate's transcript, whatever its length, in bounded pieces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from heavy.core.errors import NotFound
from heavy.core.tools import Effects, ToolContext, ToolOutput, ToolSpec
from heavy.core.traces import Segment, TraceReader
from heavy.tools.api import Tool
from heavy.tools.text import clip, fence

VERSION: Final = "1"
TIMEOUT_S: Final = 30.0
GET_ANSWER: Final = "get_answer"
SEARCH_TRAJECTORY: Final = "search_trajectory"
READ_SEGMENT: Final = "read_segment"


@dataclass(frozen=True, slots=True)
class TraceLimits:
    """How much one call shows."""

    segment_chars_max: int = 4_000
    answer_chars_max: int = 8_000
    matches_max: int = 8
    query_chars_max: int = 200


def trace_tools(reader: TraceReader, limits: TraceLimits | None = None) -> tuple[Tool, ...]:
    """get_answer, search_trajectory and read_segment over the candidates `reader` opens."""
    desk = _Desk(reader, limits or TraceLimits())
    return tuple(_TraceTool(spec, run) for spec, run in desk.tools())


class _TraceTool:
    """One of the three: a declaration and what it does."""

    def __init__(self, spec: ToolSpec, run: Callable[[Mapping[str, Any]], Awaitable[str]]) -> None:
        self._spec = spec
        self._run = run

    @property
    def spec(self) -> ToolSpec:
        """What it declares. Never cached: it reads what may still grow, and reading is cheap."""
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Read. A label that is not there is an error output which names those that are."""
        try:
            return ToolOutput(await self._run(arguments))
        except NotFound as error:
            return ToolOutput(error.message, is_error=True)


class _Desk:
    """Where transcripts are read: bounds what is asked for, fences what is shown."""

    def __init__(self, reader: TraceReader, limits: TraceLimits) -> None:
        self._reader = reader
        self._limits = limits

    def tools(self) -> tuple[tuple[ToolSpec, Callable[[Mapping[str, Any]], Awaitable[str]]], ...]:
        """Declarations and their functions."""
        limits = self._limits
        candidate = {"type": "string", "description": "The candidate's label."}
        query = {
            "type": "string",
            "minLength": 1,
            "maxLength": limits.query_chars_max,
            "description": "What to look for; upper and lower case are the same.",
        }
        start = {
            "type": "integer",
            "minimum": 0,
            "description": "Characters from the transcript's beginning.",
        }
        length = {"type": "integer", "minimum": 1, "description": "Characters to read."}
        answer = f"A candidate's final answer as it wrote it, up to {limits.answer_chars_max} characters."
        search = (
            f"Find text in a candidate's transcript: up to {limits.matches_max} places, each with its step "
            f"and position, from which {READ_SEGMENT} can read on."
        )
        read = f"Read part of a candidate's transcript, up to {limits.segment_chars_max} characters at once."
        return (
            (_spec(GET_ANSWER, answer, {"candidate": candidate}), self._answer),
            (_spec(SEARCH_TRAJECTORY, search, {"candidate": candidate, "query": query}), self._search),
            (
                _spec(READ_SEGMENT, read, {"candidate": candidate, "start": start, "length": length}),
                self._read,
            ),
        )

    async def _answer(self, arguments: Mapping[str, Any]) -> str:
        label = await self._known(arguments["candidate"])
        answer = await self._reader.answer(label)
        if not answer.strip():
            return f"Candidate {label} has no final answer. Its transcript can be read."
        return fence(f"answer of {label}", clip(answer, self._limits.answer_chars_max))

    async def _search(self, arguments: Mapping[str, Any]) -> str:
        label, query = await self._known(arguments["candidate"]), str(arguments["query"])
        found = await self._reader.search(label, query, self._limits.matches_max)
        if not found:
            return f"Nothing in the transcript of candidate {label} contains {query!r}."
        room = self._limits.segment_chars_max // len(found)
        return "\n\n".join(_shown(label, segment, room) for segment in found)

    async def _read(self, arguments: Mapping[str, Any]) -> str:
        label, start = await self._known(arguments["candidate"]), int(arguments["start"])
        length = min(int(arguments["length"]), self._limits.segment_chars_max)
        segment = await self._reader.read(label, start, length)
        if not segment.text:
            return (
                f"The transcript of candidate {label} has {segment.total} characters; nothing is at {start}."
            )
        return _shown(label, segment, length)

    async def _known(self, label: str) -> str:
        """The label as the reader knows it. Raises `NotFound`, naming those that are there."""
        labels = await self._reader.labels()
        wanted = str(label).strip().lower()
        for known in labels:
            if known.lower() == wanted:
                return known
        raise NotFound(
            f"There is no candidate {clip(str(label), 60)!r}. The candidates are: {', '.join(labels)}."
        )


def _shown(label: str, segment: Segment, chars_max: int) -> str:
    """A stretch under a line that says where it is, fenced: it is a candidate's text and nothing else."""
    text = segment.text[:chars_max]
    end = segment.start + len(text)
    where = f"Candidate {label}, step {segment.step}, characters {segment.start} to {end} of {segment.total}:"
    return f"{where}\n{fence(f'transcript of {label}', text)}"


def _spec(name: str, description: str, properties: Mapping[str, Any]) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": dict(properties),
            "required": list(properties),
            "additionalProperties": False,
        },
        version=VERSION,
        effects=Effects.READ,
        cacheable=False,
        timeout_s=TIMEOUT_S,
    )
