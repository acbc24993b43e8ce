"""What models and callers get wrong in tool calls, mended before it can spread. Pure functions.

Two doors: `accept` takes a finished generation in, `normalise` takes a caller's history in. After both, call
ids are unique and, for Kimi K2, read `functions.{name}:{index}` over the whole conversation; every result
refers to a call and every call has a result. What was right already comes back unchanged.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import json_repair

from heavy.agent import k2
from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.repairs import Repair
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationRequest

K2_DIALECT: Final = "kimi_k2"

NO_RESULT: Final = "No result: the call was not carried out to its end."

_NAME_CHARS_MAX: Final = 64
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]")
_MENDED_CHARS_MAX: Final = 8_000
"""Longer arguments are not mended for the history: the repair is quadratic at worst."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A generation as the conversation goes on with it, and what had to be mended."""

    message: Message
    finish_reason: FinishReason
    repairs: tuple[str, ...] = ()


def accept(finished: Finished, request: GenerationRequest, dialect: str) -> Turn:
    """Take in what a model said: calls salvaged (K2), named, numbered; half a call never survives."""
    repairs: list[str] = []
    reasoning, content, calls = finished.reasoning, finished.content, list(finished.tool_calls)
    if dialect == K2_DIALECT:
        reasoning, content, calls = _salvaged(finished, repairs)
    if finished.finish_reason is FinishReason.LENGTH and calls and not k2.is_json_object(calls[-1].arguments):
        calls.pop()
        repairs.append(Repair.TRUNCATED_CALL_DROPPED)
    if calls and request.tool_choice == "none":
        calls.clear()
        repairs.append(Repair.CALLS_DROPPED)
    declared = {spec.name for spec in request.tools}
    named = [_named(call, declared, repairs) for call in calls]
    numbered = _numbered(named, _ids(request.messages), dialect, repairs)
    return Turn(
        message=Message(Role.ASSISTANT, content, reasoning, tuple(numbered)),
        finish_reason=_reason(finished.finish_reason, bool(numbered)),
        repairs=tuple(dict.fromkeys(repairs)),
    )


def _reason(said: FinishReason, calls: bool) -> FinishReason:
    if calls and said is FinishReason.STOP:
        return FinishReason.TOOL_CALLS
    if not calls and said is FinishReason.TOOL_CALLS:
        return FinishReason.STOP
    return said


def _salvaged(finished: Finished, repairs: list[str]) -> tuple[str, str, list[ToolCall]]:
    """Markup out of both texts. Its calls count only where the engine has read none itself."""
    thought, spoken = k2.salvage(finished.reasoning), k2.salvage(finished.content)
    repairs += [*thought.repairs, *spoken.repairs]
    if finished.tool_calls:
        if thought.calls or spoken.calls:
            repairs.append(Repair.MARKERS_REMOVED)
        return thought.text, spoken.text, list(finished.tool_calls)
    if thought.calls:
        repairs.append(Repair.SALVAGED_FROM_REASONING)
    if spoken.calls:
        repairs.append(Repair.SALVAGED_FROM_CONTENT)
    return thought.text, spoken.text, [*thought.calls, *spoken.calls]


def _named(call: ToolCall, declared: set[str], repairs: list[str]) -> ToolCall:
    """A name that every server takes back, and arguments that are not simply missing."""
    name = call.name
    if name not in declared:
        bare = k2.bare_name(name)
        name = bare if bare in declared else _NOT_IN_NAMES.sub("_", bare)[:_NAME_CHARS_MAX] or "unnamed"
    if name != call.name:
        repairs.append(Repair.NAME_CLEANED)
    arguments = call.arguments
    if not arguments.strip():
        arguments = "{}"
        repairs.append(Repair.ARGUMENTS_FILLED)
    return call if (name, arguments) == (call.name, call.arguments) else ToolCall(call.id, name, arguments)


def _ids(messages: Sequence[Message]) -> list[str]:
    return [call.id for message in messages for call in message.tool_calls]


def _numbered(
    calls: Iterable[ToolCall], earlier: Sequence[str], dialect: str, repairs: list[str]
) -> list[ToolCall]:
    """Calls with ids of their own; `earlier` are the ids of the conversation so far, in order."""
    taken = set(earlier)
    numbered: list[ToolCall] = []
    for index, call in enumerate(calls, start=len(earlier)):
        given = _id_for(call, index, taken, dialect)
        taken.add(given)
        # An id that was simply missing (salvaged, or an engine that leaves it out) is no repair.
        if call.id and given != call.id:
            repairs.append(Repair.ID_REPLACED)
        numbered.append(call if given == call.id else replace(call, id=given))
    return numbered


def _id_for(call: ToolCall, index: int, taken: set[str], dialect: str) -> str:
    if dialect == K2_DIALECT:
        return k2.call_id(call.name, index)
    if call.id and call.id not in taken:
        return call.id
    while (fresh := f"call_{index}") in taken:
        index += 1
    return fresh


def normalise(messages: Sequence[Message], dialect: str) -> tuple[Message, ...]:
    """A conversation that every server takes: ids unique, results right after their calls, none missing.

    Results that refer to no call are dropped; calls without a result get one that says so. A conversation
    that is valid already comes back equal, and normalising twice is normalising once.
    """
    done: list[Message] = []
    ids: list[str] = []
    for stretch in _stretches(messages):
        first, rest = stretch[0], stretch[1:]
        calls = _numbered(first.tool_calls, ids, dialect, [])
        ids += [call.id for call in calls]
        if first.role is not Role.TOOL:
            done.append(_with_calls(first, calls))
        done += _answers(first.tool_calls, calls, rest)
        done += [message for message in rest if message.role is not Role.TOOL]
    return tuple(done)


def _stretches(messages: Sequence[Message]) -> list[list[Message]]:
    """The conversation cut before each assistant turn: what follows one may belong to its calls."""
    stretches: list[list[Message]] = []
    for message in messages:
        if message.role is Role.ASSISTANT or not stretches:
            stretches.append([])
        stretches[-1].append(message)
    return stretches


def _with_calls(message: Message, calls: list[ToolCall]) -> Message:
    return message if tuple(calls) == message.tool_calls else replace(message, tool_calls=tuple(calls))


def _answers(old: Sequence[ToolCall], new: Sequence[ToolCall], rest: Sequence[Message]) -> list[Message]:
    """The results of one turn under their calls' new ids, in the order they came, then what is missing."""
    waiting: dict[str, deque[ToolCall]] = {}
    for before, after in zip(old, new, strict=True):
        waiting.setdefault(before.id, deque()).append(after)
    answered: list[Message] = []
    for message in rest:
        if message.role is Role.TOOL and (calls := waiting.get(message.tool_call_id)):
            call_id = calls.popleft().id
            same = call_id == message.tool_call_id
            answered.append(message if same else replace(message, tool_call_id=call_id))
    unanswered = {call.id for calls in waiting.values() for call in calls}
    answered += [result_message(call, NO_RESULT) for call in new if call.id in unanswered]
    return answered


def result_message(call: ToolCall, content: str) -> Message:
    """What a model is told about one of its calls."""
    return Message(Role.TOOL, content, tool_call_id=call.id, name=call.name)


def outgoing(message: Message, profile: Profile) -> Message:
    """A turn as it is sent back to the model.

    Reasoning goes back with the turns that carry tool calls (K2 degrades without it) where the profile says
    so; elsewhere templates drop it anyway. Arguments that are no JSON object become one: servers
    parse the history they are sent and refuse the whole request otherwise.
    """
    keep = profile.send_reasoning_back and bool(message.tool_calls)
    reasoning = message.reasoning if keep else ""
    calls = tuple(_parsable(call) for call in message.tool_calls)
    if (reasoning, calls) == (message.reasoning, message.tool_calls):
        return message
    return replace(message, reasoning=reasoning, tool_calls=calls)


def _parsable(call: ToolCall) -> ToolCall:
    if k2.is_json_object(call.arguments):
        return call
    return replace(call, arguments=json.dumps(_mended(call.arguments)))


def _mended(arguments: str) -> dict[str, object]:
    """What broken arguments were meant to be, as the toolset reads them, too; else the text itself."""
    if len(arguments) <= _MENDED_CHARS_MAX:
        for parse in (partial(json.loads, strict=False), partial(json_repair.loads, strict=True)):
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(values := parse(arguments), dict):
                    return values
    return {"invalid_json": arguments[:_MENDED_CHARS_MAX]}
