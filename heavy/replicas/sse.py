"""Server-sent events, read incrementally: bytes in, in pieces of any size; whole events out.

Follows the event-stream grammar of the HTML standard (lines end in LF, CRLF or CR; a blank line ends an
event; an event that the stream's end cuts off is dropped). Data stays bytes: what is in it is the caller's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from heavy.core.errors import MalformedStream

EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""Far above any real chunk of a completion; below what would hurt this process."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event. `name` is empty for the default type; lines of `data` are joined by a line feed."""

    data: bytes
    name: str = ""


class SseParser:
    """Turns pieces of a stream into events. `replica` names the sender in errors."""

    def __init__(self, replica: str = "", event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._replica = replica
        self._event_bytes_max = event_bytes_max
        self._partial: list[bytes] = []
        """Pieces of a line whose end has not come: joined once, so that tiny pieces cost linear time."""
        self._partial_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = ""
        self._at_start = True
        self._after_cr = False

    def feed(self, piece: bytes) -> list[SseEvent]:
        """The events that `piece` completes. Raises `MalformedStream` when one grows beyond the limit."""
        if not piece:
            return []
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]  # the second half of a CRLF that was cut in two
        self._after_cr = piece.endswith(b"\r")
        *ended, rest = _LINE_END.split(piece) if b"\r" in piece else piece.split(b"\n")
        events: list[SseEvent] = []
        for line in ended:
            self._line(self._whole(line), events)
            self._check_size()
        if rest:
            self._partial.append(rest)
            self._partial_bytes += len(rest)
            self._check_size()
        return events

    def _whole(self, end: bytes) -> bytes:
        """The line that `end` completes."""
        line = end
        if self._partial:
            line = b"".join((*self._partial, end))
            self._partial.clear()
            self._partial_bytes = 0
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        return line

    def _line(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            if self._data:
                events.append(SseEvent(b"\n".join(self._data), self._name))
            self._data, self._data_bytes, self._name = [], 0, ""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        # Comments (no field name), `id`, `retry` and unknown fields mean nothing here.

    def _check_size(self) -> None:
        if self._partial_bytes + self._data_bytes > self._event_bytes_max:
            raise MalformedStream(
                f"Replica {self._replica} sent one event of more than {self._event_bytes_max} bytes.",
                self._replica,
            )
