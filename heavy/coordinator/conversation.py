"""Whether a conversation can be accepted: its shape, its size, and which turn answers which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from heavy.core.errors import FieldViolation
from heavy.core.messages import Message, Role

MESSAGES_MAX: Final = 2_000
MESSAGE_BYTES_MAX: Final = 1 << 20
CONVERSATION_BYTES_MAX: Final = 4 << 20
REQUEST_ID_CHARS_MAX: Final = 128


def check_conversation(messages: Sequence[Message]) -> tuple[FieldViolation, ...]:
    """Every reason why `messages` cannot be a run's input; none when they can."""
    if not messages:
        return (FieldViolation("messages", "is empty; send at least one message, the last from the user"),)
    if len(messages) > MESSAGES_MAX:
        problem = f"has {len(messages)} messages; at most {MESSAGES_MAX} are accepted"
        return (FieldViolation("messages", problem),)
    return (*_sizes(messages), *_fields_by_role(messages), *_tool_answers(messages), *_last(messages))


def check_request_id(request_id: str) -> tuple[FieldViolation, ...]:
    """Why a caller's request id cannot be accepted; nothing when it can, or is empty."""
    if len(request_id) > REQUEST_ID_CHARS_MAX:
        problem = f"has {len(request_id)} characters; at most {REQUEST_ID_CHARS_MAX} are accepted"
        return (FieldViolation("request_id", problem),)
    if not request_id.isprintable():
        return (FieldViolation("request_id", "contains characters that cannot be printed"),)
    return ()


def _sizes(messages: Sequence[Message]) -> Iterator[FieldViolation]:
    total = 0
    for index, message in enumerate(messages):
        size = _bytes(message)
        total += size
        if size > MESSAGE_BYTES_MAX:
            problem = f"has {size} bytes; a message may have {MESSAGE_BYTES_MAX}"
            yield FieldViolation(f"messages[{index}]", problem)
    if total > CONVERSATION_BYTES_MAX:
        problem = f"have {total} bytes together; a conversation may have {CONVERSATION_BYTES_MAX}"
        yield FieldViolation("messages", problem)


def _bytes(message: Message) -> int:
    texts = [message.content, message.reasoning, message.tool_call_id, message.name]
    for call in message.tool_calls:
        texts += [call.id, call.name, call.arguments]
    return sum(len(text.encode()) for text in texts)


def _fields_by_role(messages: Sequence[Message]) -> Iterator[FieldViolation]:
    for index, message in enumerate(messages):
        path, role = f"messages[{index}]", message.role
        if role is not Role.ASSISTANT:
            for name in ("reasoning", "tool_calls"):
                if getattr(message, name):
                    yield FieldViolation(
                        f"{path}.{name}", f"belongs to assistant turns; this one's role is {role}"
                    )
        if role is not Role.TOOL and message.tool_call_id:
            yield FieldViolation(f"{path}.tool_call_id", f"belongs to tool turns; this one's role is {role}")
        for position, call in enumerate(message.tool_calls):
            for name in ("id", "name"):
                if not getattr(call, name):
                    yield FieldViolation(f"{path}.tool_calls[{position}].{name}", "is empty")


def _tool_answers(messages: Sequence[Message]) -> Iterator[FieldViolation]:
    unanswered: set[str] = set()
    for index, message in enumerate(messages):
        if message.role is Role.ASSISTANT:
            unanswered.update(call.id for call in message.tool_calls)
        elif message.role is Role.TOOL:
            if message.tool_call_id not in unanswered:
                yield FieldViolation(
                    f"messages[{index}].tool_call_id",
                    f"{message.tool_call_id!r:.80} is no unanswered call of an earlier assistant turn",
                )
            unanswered.discard(message.tool_call_id)


def _last(messages: Sequence[Message]) -> Iterator[FieldViolation]:
    last, path = messages[-1], f"messages[{len(messages) - 1}]"
    if last.role is not Role.USER:
        yield FieldViolation(f"{path}.role", f"is {last.role}; the last message must be the user's")
    elif not last.content.strip():
        yield FieldViolation(f"{path}.content", "is empty; say what is asked")
