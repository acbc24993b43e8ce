"""Transcripts of a run's trajectories as text, rendered from its log when one is opened, and not before."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from heavy.core.errors import NotFound
from heavy.core.ids import RunId, TrajectoryId
from heavy.core.records import (
    Event,
    GenerationRecord,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    ToolResultRecord,
)
from heavy.core.runs import TraceCandidate
from heavy.core.traces import Segment
from heavy.store.api import RunLog
from heavy.store.reading import records_of

TRANSCRIPT_CHARS_MAX: Final = 16_000_000
"""Beyond it a transcript ends with a note; 256k tokens are about a million characters."""
CACHE_CHARS_MAX: Final = 24_000_000
"""Transcripts kept in memory, in all; the least recently read goes first and is read again when needed."""
CONTEXT_CHARS: Final = 240
"""Shown on each side of a match."""


@dataclass(frozen=True, slots=True)
class _Transcript:
    """A rendered trajectory: its text, where each step begins in it, and its final answer."""

    text: str
    steps: tuple[tuple[int, int], ...]
    answer: str

    def step_at(self, position: int) -> int:
        """The step to which the character at `position` belongs; -1 before the first."""
        found = bisect_right(self.steps, position, key=lambda step: step[0])
        return self.steps[found - 1][1] if found else -1

    def segment(self, start: int, length: int) -> Segment:
        """The stretch from `start`, empty beyond the end."""
        return Segment(self.text[start : start + length], start, len(self.text), self.step_at(start))


class StoreTraceReader:
    """Implements `TraceReader` over a run's log. Raises what the log raises, and `NotFound` for a label."""

    def __init__(
        self,
        log: RunLog,
        run: RunId,
        candidates: tuple[TraceCandidate, ...],
        *,
        cache_chars_max: int = CACHE_CHARS_MAX,
    ) -> None:
        self._log = log
        self._run = run
        self._trajectories = {candidate.label: candidate.trajectory for candidate in candidates}
        self._cache_chars_max = cache_chars_max
        self._kept: OrderedDict[str, _Transcript] = OrderedDict()
        self._turn = asyncio.Lock()

    async def labels(self) -> tuple[str, ...]:
        """The labels that can be opened."""
        return tuple(self._trajectories)

    async def answer(self, label: str) -> str:
        """The candidate's final answer; empty when it has none."""
        return (await self._open(label)).answer

    async def search(self, label: str, query: str, matches_max: int) -> tuple[Segment, ...]:
        """Stretches around the first matches that do not overlap, case-insensitive, in order."""
        if not query:
            return ()
        transcript = await self._open(label)
        found: list[Segment] = []
        reached = 0
        for match in re.finditer(re.escape(query), transcript.text, re.IGNORECASE):
            if len(found) >= matches_max:
                break
            if match.start() < reached:
                continue
            start = max(reached, match.start() - CONTEXT_CHARS)
            reached = min(match.end() + CONTEXT_CHARS, len(transcript.text))
            found.append(transcript.segment(start, reached - start))
        return tuple(found)

    async def read(self, label: str, start: int, length: int) -> Segment:
        """`length` characters of the transcript from `start` on."""
        return (await self._open(label)).segment(max(0, start), max(0, length))

    async def _open(self, label: str) -> _Transcript:
        """The transcript, rendered once; one at a time, so that eight at once do not all lie in memory."""
        trajectory = self._trajectories.get(label)
        if trajectory is None:
            raise NotFound(f"There is no candidate {label!r}; there are {', '.join(self._trajectories)}.")
        async with self._turn:
            transcript = self._kept.pop(label, None) or await self._render(trajectory)
            self._kept[label] = transcript
            while len(self._kept) > 1 and self._kept_chars() > self._cache_chars_max:
                self._kept.popitem(last=False)
            return transcript

    def _kept_chars(self) -> int:
        return sum(len(transcript.text) for transcript in self._kept.values())

    async def _render(self, trajectory: TrajectoryId) -> _Transcript:
        """Read the log page by page and keep what belongs to one trajectory, as text."""
        draft = _Draft()
        async with aclosing(records_of(self._log, self._run)) as records:
            async for record in records:
                if record.trajectory == trajectory:
                    draft.add(record)
                if draft.full:
                    break
        return draft.finish()


class _Draft:
    """A transcript in the making. Checkpoints of a generation are replaced by what follows them."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._steps: list[tuple[int, int]] = []
        self._length = 0
        self._partial: Record | None = None
        self._answer = ""

    @property
    def full(self) -> bool:
        """Whether it has reached its longest."""
        return self._length >= TRANSCRIPT_CHARS_MAX

    def add(self, record: Record) -> None:
        """Take in the next record of the trajectory."""
        match record.body:
            case PartialGenerationRecord():
                self._partial = record
            case GenerationRecord(message=message):
                self._partial = None
                self._write(record)
                if not message.tool_calls:
                    self._answer = message.content
            case LifecycleRecord(event=Event.TRAJECTORY_ENDED, outcome=outcome):
                self._flush()
                self._answer = outcome.answer if outcome and outcome.answer else self._answer
                self._write(record)
            case _:
                self._flush()
                self._write(record)

    def finish(self) -> _Transcript:
        """The transcript so far."""
        self._flush()
        if self.full:
            self._parts.append("\n[the transcript is longer than can be shown]\n")
        return _Transcript(
            "".join(self._parts)[: TRANSCRIPT_CHARS_MAX + 64], tuple(self._steps), self._answer
        )

    def _flush(self) -> None:
        """Write the last checkpoint of a generation that was never finished."""
        if self._partial is not None:
            partial, self._partial = self._partial, None
            self._write(partial)

    def _write(self, record: Record) -> None:
        if self.full:
            return
        if record.step >= 0 and (not self._steps or self._steps[-1][1] != record.step):
            self._steps.append((self._length, record.step))
            self._append(f"=== step {record.step} ===\n")
        for part in _rendered(record):
            self._append(part + "\n")

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


def _rendered(record: Record) -> Iterator[str]:
    """A record as lines of a transcript."""
    match record.body:
        case GenerationRecord(message=message) | PartialGenerationRecord(message=message):
            if message.reasoning:
                yield f"[reasoning]\n{message.reasoning}"
            if message.content:
                yield f"[says]\n{message.content}"
            for call in message.tool_calls:
                yield f"[calls {call.name}]\n{call.arguments}"
            if isinstance(record.body, PartialGenerationRecord):
                yield "[the generation was not finished]"
        case ToolResultRecord(name=name, content=content, unknown=True):
            yield f"[{name}: unknown whether it took effect]\n{content}"
        case ToolResultRecord(name=name, content=content, is_error=is_error):
            yield f"[{name} {'failed' if is_error else 'returned'}]\n{content}"
        case LifecycleRecord(event=Event.NOTE, detail=detail) if detail:
            yield f"[note] {detail}"
        case LifecycleRecord(event=Event.TRAJECTORY_ENDED, outcome=outcome) if outcome:
            yield f"[ended: {outcome.kind}{f', {outcome.reason}' if outcome.reason else ''}]"
        case _:
            return
