"""A record in brief: what a timeline needs of it, without the texts. A long run has thousands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heavy.core.ledger import Spend
from heavy.core.messages import Message
from heavy.core.records import (
    GenerationRecord,
    GenerationTiming,
    LifecycleRecord,
    PartialGenerationRecord,
    Record,
    ToolIntentRecord,
    ToolResultRecord,
)
from heavy.core.runs import Outcome, RunState
from heavy.core.tools import CacheState

PREVIEW_CHARS: Final = 120


@dataclass(frozen=True, slots=True)
class Brief:
    """One record: number, trajectory ("" for the run), step (-1 for none), when, what kind, and a preview.

    The rest depends on the kind. A generation began `timing` before `at_ms`, a tool result `duration_s`.
    """

    number: int
    trajectory: str
    step: int
    at_ms: int
    kind: str
    preview: str = ""
    timing: GenerationTiming | None = None
    spend: Spend | None = None
    finish_reason: str = ""
    replica: str = ""
    model: str = ""
    repairs: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    tokens_output: int = 0
    call_id: str = ""
    name: str = ""
    is_error: bool = False
    unknown: bool = False
    cache: CacheState | None = None
    duration_s: float = 0.0
    event: str = ""
    state: RunState | None = None
    outcome: Outcome | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Briefs:
    """Records in brief. `after` is the number of the last one looked at; `more`: others follow it."""

    records: tuple[Brief, ...]
    after: int
    more: bool


@dataclass(frozen=True, slots=True)
class Records:
    """Records in full; the rest as in `Briefs`."""

    records: tuple[Record, ...]
    after: int
    more: bool


def brief_of(record: Record) -> Brief:
    """A record without its texts."""
    place = (record.number, str(record.trajectory), record.step, record.at_ms, record.body.kind)
    match record.body:
        case GenerationRecord() as body:
            return Brief(
                *place,
                preview=_said(body.message),
                timing=body.timing,
                spend=body.spend,
                finish_reason=body.finish_reason.value,
                replica=body.replica,
                model=body.model,
                repairs=body.repairs,
                tools=tuple(call.name for call in body.message.tool_calls),
            )
        case PartialGenerationRecord() as body:
            return Brief(
                *place, preview=_said(body.message), tokens_output=body.tokens_output, event=body.reason
            )
        case ToolIntentRecord() as body:
            return Brief(
                *place, preview=_line(body.call.arguments), call_id=body.call.id, name=body.call.name
            )
        case ToolResultRecord() as body:
            return Brief(
                *place,
                preview=_line(body.content),
                call_id=body.call_id,
                name=body.name,
                is_error=body.is_error,
                unknown=body.unknown,
                cache=body.cache,
                duration_s=body.duration_s,
            )
        case LifecycleRecord() as body:
            return Brief(
                *place,
                preview=body.detail,
                event=body.event.value,
                state=body.state,
                outcome=body.outcome,
                profile=body.profile,
            )


def _said(message: Message) -> str:
    return _line(message.content.strip() or message.reasoning)


def _line(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: PREVIEW_CHARS * 4].split())
    return line if len(line) < PREVIEW_CHARS else line[: PREVIEW_CHARS - 1] + "…"
