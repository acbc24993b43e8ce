"""Kimi K2's own tool-call markup, where it leaked into text. Pure functions.

Format (Moonshot's tool-call guidance for Kimi K2): a section holds calls, a call holds a header of the
form `functions.{name}:{index}` and JSON arguments. Models leave the thinking block open before a section,
leave the section markers out, or are cut in the middle; engines then hand the markup on as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import orjson

from heavy.core.messages import ToolCall
from heavy.core.repairs import Repair

_SECTION_BEGIN: Final = "<|tool_calls_section_begin|>"
_SECTION_END: Final = "<|tool_calls_section_end|>"
_CALL_BEGIN: Final = "<|tool_call_begin|>"
_ARGUMENTS: Final = "<|tool_call_argument_begin|>"
_CALL_END: Final = "<|tool_call_end|>"
_MARKERS: Final = (_SECTION_BEGIN, _SECTION_END, _CALL_BEGIN, _ARGUMENTS, _CALL_END)

_HINT: Final = "<|tool_c"
"""What every marker starts with: text without it needs no second look."""
_MARKER: Final = re.compile("|".join(re.escape(marker) for marker in _MARKERS))
_SINGULAR: Final = re.compile(r"<\|tool_call_section_(begin|end)\|>")
_HEADER: Final = re.compile(r"^(?:functions\.)?(?P<name>.*?)(?::\d+)?$", re.DOTALL)


def call_id(name: str, index: int) -> str:
    """The id K2 expects: `index` counts the calls of the whole conversation from 0."""
    return f"functions.{name}:{index}"


def bare_name(header: str) -> str:
    """The tool's name in a call header such as `functions.search:3`; empty when there is none."""
    match = _HEADER.match(header.strip())
    return match["name"].strip() if match else ""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What a text is without its markup, and the calls that the markup stood for, still without ids."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    repairs: tuple[str, ...] = ()


def salvage(text: str) -> Salvaged:
    """Take tool-call markup out of `text`. Text without markup comes back as it is.

    A call without its end marker counts only when its arguments are a complete JSON object: half a call
    must never run.
    """
    if _HINT not in text:
        return Salvaged(text)
    scan = _Scan()
    for piece in _pieces(_SINGULAR.sub(r"<|tool_calls_section_\1|>", text)):
        scan.take(piece)
    scan.end()
    return Salvaged("".join(scan.kept).rstrip(), tuple(scan.calls), tuple(dict.fromkeys(scan.repairs)))


def is_json_object(text: str) -> bool:
    """Whether `text` is one complete JSON object."""
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


def _pieces(text: str) -> Iterator[str]:
    """The text cut at its markers, markers included; half a marker at the very end is left out."""
    text = _without_half_marker(text)
    position = 0
    for match in _MARKER.finditer(text):
        if match.start() > position:
            yield text[position : match.start()]
        yield match.group()
        position = match.end()
    if position < len(text):
        yield text[position:]


def _without_half_marker(text: str) -> str:
    start = max(text.rfind("<|"), 0)
    tail = text[start:]
    half = len(tail) >= len(_HINT) and tail not in _MARKERS and _begins_marker(tail)
    return text[:start] if half else text


def _begins_marker(text: str) -> bool:
    return any(marker.startswith(text) for marker in _MARKERS)


@dataclass(slots=True)
class _Scan:
    """Reads pieces one by one. `header` and `arguments` are None outside of those parts of a call."""

    kept: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    in_section: bool = False
    header: str | None = None
    arguments: str | None = None

    def take(self, piece: str) -> None:
        """Read the next piece."""
        if piece not in _MARKERS or (piece == _ARGUMENTS and self.arguments is not None):
            self._text(piece)
        elif piece == _ARGUMENTS and self.header is not None:
            self.arguments = ""
        elif piece == _CALL_END and self.header is not None:
            self._close(complete=True)
        else:
            self._boundary(piece)

    def end(self) -> None:
        """The text is over."""
        if self.in_section or self.header is not None:
            self.repairs.append(Repair.TRUNCATED_SECTION)
        self._close(complete=False)
        if not self.calls and not self.repairs:
            self.repairs.append(Repair.MARKERS_REMOVED)

    def _text(self, piece: str) -> None:
        if self.arguments is not None:
            self.arguments += piece
        elif self.header is not None:
            self.header += piece
        elif not self.in_section or not _begins_marker(piece.strip()):
            self.kept.append(piece)

    def _boundary(self, marker: str) -> None:
        """A marker that begins or ends something else: whatever call was open ends here."""
        self._close(complete=False)
        if marker == _CALL_BEGIN:
            self.header = ""
        elif marker in (_SECTION_BEGIN, _SECTION_END):
            self.in_section = marker == _SECTION_BEGIN
        else:
            self.repairs.append(Repair.MARKERS_REMOVED)

    def _close(self, *, complete: bool) -> None:
        if self.header is None:
            return
        name, arguments = bare_name(self.header), self.arguments
        self.header = self.arguments = None
        if not name or arguments is None:
            self.repairs.append(Repair.UNREADABLE_CALL_DROPPED)
        elif not complete and not is_json_object(arguments):
            self.repairs.append(Repair.TRUNCATED_CALL_DROPPED)
        else:
            self.calls.append(ToolCall(id="", name=name, arguments=arguments.strip()))
