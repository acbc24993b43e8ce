"""Telling a trajectory that works from one that goes in circles. A state machine without IO or clock."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from heavy.agent.limits import StuckLimits
from heavy.core.messages import ToolCall
from heavy.core.records import ToolResultRecord


@dataclass(frozen=True, slots=True)
class Reminder:
    """One call has been made `count` times: the model should hear of it."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a step: remind of something, or stop with a reason (empty: go on)."""

    reminders: tuple[Reminder, ...] = ()
    stuck: str = ""


@dataclass(slots=True)
class RepetitionWatch:
    """Sees each step's calls and results once, in order.

    A call is its name and canonical arguments. An action is a step's calls with their results, so asking
    again for something that changes is no repetition; an error counts by its tool and text, whatever the
    arguments were. Memory: a 16-byte digest per distinct call.
    """

    limits: StuckLimits
    _calls: Counter[bytes] = field(default_factory=Counter)
    _actions: deque[bytes] = field(default_factory=deque)
    _excused: set[bytes] = field(default_factory=set)
    _error: bytes = b""
    _errors: int = 0

    def observe(self, calls: Sequence[ToolCall], results: Sequence[ToolResultRecord]) -> Verdict:
        """Take in one step that made calls; `results` in the order of `calls`."""
        counted = self._count(calls)
        self._remember(_digest(*(call_key(c) for c in calls), *(r.content for r in results)))
        self._note_errors(results)
        return Verdict(
            reminders=tuple(
                Reminder(name, count)
                for name, count in counted.values()
                if count in self.limits.same_call_remind_at
            ),
            stuck=self._stuck(max((count for _, count in counted.values()), default=0)),
        )

    def excuse(self) -> None:
        """Outputs were taken from the model's sight: asking for each of them once more is no repetition."""
        self._excused.update(self._calls)

    def _count(self, calls: Sequence[ToolCall]) -> dict[bytes, tuple[str, int]]:
        """Each distinct call of the step, counted once: copies within a step are executed once too."""
        distinct = {_digest(call_key(call)): call.name for call in calls}
        counted = distinct.keys() - self._excused
        self._excused -= distinct.keys()
        self._calls.update(counted)
        return {key: (distinct[key], self._calls[key]) for key in distinct if key in counted}

    def _remember(self, action: bytes) -> None:
        self._actions.append(action)
        while len(self._actions) > max(self.limits.same_action_stop_at, self.limits.alternating_stop_at):
            self._actions.popleft()

    def _note_errors(self, results: Sequence[ToolResultRecord]) -> None:
        """A step counts as the same error when all its results are errors, the same as the step before."""
        failed = bool(results) and all(result.is_error for result in results)
        error = _digest(*(f"{r.name}\0{r.content}" for r in results)) if failed else b""
        self._errors = self._errors + 1 if error and error == self._error else int(failed)
        self._error = error

    def _stuck(self, most_calls: int) -> str:
        if most_calls >= self.limits.same_call_stop_at:
            return f"the same call was made {most_calls} times"
        if self._errors >= self.limits.same_error_stop_at:
            return f"the same error came {self._errors} times in a row"
        if self._same(self.limits.same_action_stop_at):
            return (
                f"the same action with the same result came {self.limits.same_action_stop_at} times in a row"
            )
        if self._alternates(self.limits.alternating_stop_at):
            return f"two actions alternated for {self.limits.alternating_stop_at} steps"
        return ""

    def _same(self, steps: int) -> bool:
        latest = list(self._actions)[-steps:]
        return len(latest) == steps and len(set(latest)) == 1

    def _alternates(self, steps: int) -> bool:
        latest = list(self._actions)[-steps:]
        return len(latest) == steps and len(set(latest[::2])) == len(set(latest[1::2])) == 1


def call_key(call: ToolCall) -> str:
    """What makes two calls the same: the name, and the arguments whatever their spacing and order."""
    try:
        arguments = json.dumps(json.loads(call.arguments), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        arguments = call.arguments.strip()
    return f"{call.name}\0{arguments}"


def _digest(*parts: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
