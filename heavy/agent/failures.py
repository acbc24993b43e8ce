"""What was tried and failed: the one thing about earlier steps that no compaction may take from the model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from heavy.agent.repetition import call_key
from heavy.core.messages import ToolCall
from heavy.core.records import ToolResultRecord

ARGUMENTS_CHARS: Final = 160
ERROR_CHARS: Final = 240


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that failed, `times` over; arguments and error are shortened to one line each."""

    tool: str
    arguments: str
    error: str
    times: int = 1


class FailureLedger:
    """The latest `kept_max` distinct calls that failed and have not worked since; older ones are counted."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._failures: OrderedDict[str, Failure] = OrderedDict()
        self._errors: OrderedDict[str, str] = OrderedDict()
        self.forgotten = 0

    def observe(self, calls: Sequence[ToolCall], results: Sequence[ToolResultRecord]) -> None:
        """Take in the results of one step; those without a call among `calls` are no matter."""
        by_id = {call.id: call for call in calls}
        for result in results:
            call = by_id.get(result.call_id)
            if call is not None:
                self._note(call, result)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What failed, the latest last."""
        return tuple(self._failures.values())

    def error_of(self, call_id: str) -> str:
        """Why the call with this id failed; empty where it did not, or long ago."""
        return self._errors.get(call_id, "")

    def _note(self, call: ToolCall, result: ToolResultRecord) -> None:
        key = call_key(call)
        self._errors.pop(result.call_id, None)
        known = self._failures.pop(key, None)
        if not result.is_error:
            return
        error = _line(result.content, ERROR_CHARS)
        fresh = Failure(call.name, _line(call.arguments, ARGUMENTS_CHARS), error)
        self._failures[key] = replace(fresh, times=known.times + 1) if known else fresh
        self._errors[result.call_id] = error
        if len(self._failures) > self._kept_max:
            self._failures.popitem(last=False)
            self.forgotten += 1
        while len(self._errors) > self._kept_max:
            self._errors.popitem(last=False)


def _line(text: str, chars_max: int) -> str:
    """The text on one line; of a long one its beginning and, where errors say what they are, its end."""
    line = " ".join(text[: 8 * chars_max].split())
    if len(text) > 8 * chars_max:
        line += " " + " ".join(text[-chars_max:].split())
    if len(line) <= chars_max:
        return line
    half = (chars_max - 3) // 2
    return f"{line[:half]} … {line[-half:]}"
