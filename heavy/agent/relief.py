"""What gives way when the context is full: the policies, each as stages from the mildest on. Pure functions.

| policy            | stages                                                                        |
|-------------------|-------------------------------------------------------------------------------|
| hide_tool_outputs | hide all outputs but the last turn's; then those                              |
| keep_last         | hide all but the last k; then but k/2, k/4 ... 1; then all                    |
| discard_all       | drop every turn but the last; hide its outputs; drop it as well               |
| summarise         | the same, after the model has written down what it has (see `trajectory`)     |
| fail              | none                                                                          |
| for a last answer | the policy's own; then drop the older half of the turns, and again; then all  |

The opening (the caller's conversation) is never dropped, only its tool outputs may be hidden. What failed
stays: an output that is hidden leaves its error behind, turns that are dropped leave a note that lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from heavy.agent.failures import ERROR_CHARS, FailureLedger
from heavy.core.messages import Message, Role
from heavy.core.policy import ContextPolicy
from heavy.profiles.schema import Profile
from heavy.prompts import render

Messages = tuple[Message, ...]

HIDDEN: Final = "[This tool output was hidden to make room. Call the tool again if you need it.]"
HIDDEN_FAILURE: Final = "[This tool output was hidden to make room. The call had failed: {error}]"
_SUMMARY_OUTPUTS: Final = (16, 4)
"""How many outputs a summary is made from where all of them do not fit."""
_HALVINGS: Final = 6
_HIDDEN_PREFIX: Final = "[This tool output was hidden to make room."


@dataclass(frozen=True, slots=True)
class Stage:
    """One way to make room. An `eager` one is used while room is short, others only while there is none."""

    apply: Callable[[Messages], Messages]
    eager: bool = False


class Relief:
    """One trajectory's policy at work. `opening` messages at the beginning are the caller's and stay."""

    def __init__(
        self, policy: ContextPolicy, keep_last: int, profile: Profile, failures: FailureLedger
    ) -> None:
        self.policy = policy
        self.opening = 0
        self.summary = ""
        """What the model has written down of the turns that were dropped."""
        self._keep_last = keep_last
        self._profile = profile
        self._failures = failures
        self._note: Message | None = None
        self._dropped_turns = 0

    def stages(self, *, last: bool = False) -> Iterator[Stage]:
        """The policy's stages, the mildest first.

        For the `last` generation turns give way under every policy but `fail`, the older half first: an
        answer from what is left is better than none.
        """
        yield from self._stages()
        if last and self.policy is not ContextPolicy.FAIL:
            yield from (Stage(self._drop_older_half) for _ in range(_HALVINGS))
            yield Stage(self._drop_all)

    def _stages(self) -> Iterator[Stage]:
        match self.policy:
            case ContextPolicy.HIDE_TOOL_OUTPUTS:
                yield Stage(self.hide_before_last_turn, eager=True)
                yield Stage(self.hide_all)
            case ContextPolicy.KEEP_LAST:
                kept = self._keep_last
                while kept > 0:
                    yield Stage(self._hider(kept), eager=True)
                    kept //= 2
                yield Stage(self.hide_all)
            case ContextPolicy.DISCARD_ALL | ContextPolicy.SUMMARISE:
                yield Stage(self.drop_before_last_turn, eager=True)
                yield Stage(self.hide_all)
                yield Stage(self._drop_all)
                yield Stage(self._drop_summary)
            case ContextPolicy.FAIL:
                return

    def ever_shorter(self, messages: Messages) -> Iterator[Messages]:
        """The conversation for a reader of its own, with fewer and fewer outputs: what was learnt stays."""
        yield messages
        for kept in _SUMMARY_OUTPUTS:
            yield self.hide_but(messages, kept)
        yield self.hide_all(messages)

    def hide_all(self, messages: Messages) -> Messages:
        """Every tool output hidden, those of the last turn too."""
        return self._hidden(messages, len(messages))

    def hide_before_last_turn(self, messages: Messages) -> Messages:
        """Every tool output hidden but those of the last turn, which the model has not worked with yet."""
        return self._hidden(messages, _last_turn(messages))

    def hide_but(self, messages: Messages, kept: int) -> Messages:
        """Every tool output hidden but the last `kept`."""
        outputs = [index for index, message in enumerate(messages) if message.role is Role.TOOL]
        return self._hidden(messages, outputs[-kept] if kept <= len(outputs) else 0)

    def drop_before_last_turn(self, messages: Messages) -> Messages:
        """Every turn of the model's dropped but the last, with a note in their place."""
        return self._drop(messages, max(_last_turn(messages), self.opening))

    def droppable_share(self, messages: Messages) -> float:
        """Which part of the conversation's text dropping would take away, 0 to 1."""
        start, end = self._body(messages), max(_last_turn(messages), self.opening)
        sizes = [_chars(message) for message in messages]
        return sum(sizes[start:end]) / max(1, sum(sizes))

    def _hider(self, kept: int) -> Callable[[Messages], Messages]:
        return lambda messages: self.hide_but(messages, kept)

    def _drop_older_half(self, messages: Messages) -> Messages:
        start = self._body(messages)
        turns = [i for i in range(start, len(messages)) if messages[i].role is Role.ASSISTANT]
        return self._drop(messages, turns[len(turns) // 2]) if len(turns) > 1 else messages

    def _drop_all(self, messages: Messages) -> Messages:
        return self._drop(messages, len(messages))

    def _drop_summary(self, messages: Messages) -> Messages:
        """The last resort: a note without the summary."""
        if not self.summary or self._note is None:
            return messages
        self.summary = ""
        return self._noted(messages[: self.opening], messages[self._body(messages) :])

    def _drop(self, messages: Messages, end: int) -> Messages:
        start = self._body(messages)
        if start >= end:
            return messages
        self._dropped_turns += sum(message.role is Role.ASSISTANT for message in messages[start:end])
        return self._noted(messages[: self.opening], messages[end:])

    def _body(self, messages: Messages) -> int:
        """Where the model's own turns begin: behind the opening and the note, if there is one."""
        noted = self._note is not None and messages[self.opening : self.opening + 1] == (self._note,)
        return min(self.opening + noted, len(messages))

    def _noted(self, opening: Messages, rest: Messages) -> Messages:
        text = render(
            self._profile,
            "context_dropped",
            turns=self._dropped_turns,
            summary=self.summary,
            failures=self._failures.failures,
            forgotten=self._failures.forgotten,
        )
        self._note = Message(Role.USER, text) if text else None
        return (*opening, self._note, *rest) if self._note else opening + rest

    def _hidden(self, messages: Messages, end: int) -> Messages:
        """Outputs before `end` replaced by a marker wherever that makes them shorter; all else as it is."""
        return tuple(
            self._marked(message) if index < end and message.role is Role.TOOL else message
            for index, message in enumerate(messages)
        )

    def _marked(self, message: Message) -> Message:
        error = self._failures.error_of(message.tool_call_id)
        marker = HIDDEN_FAILURE.format(error=error) if error else HIDDEN
        short = len(message.content) <= len(HIDDEN_FAILURE) + ERROR_CHARS
        if len(message.content) <= len(marker) or (short and message.content.startswith(_HIDDEN_PREFIX)):
            return message
        return replace(message, content=marker)


def _last_turn(messages: Messages) -> int:
    """Where the last turn of the model's begins; the end where there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role is Role.ASSISTANT:
            return index
    return len(messages)


def _chars(message: Message) -> int:
    return len(message.content) + len(message.reasoning) + sum(len(c.arguments) for c in message.tool_calls)
