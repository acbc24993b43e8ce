"""Kimi K2's wire format, written out: what `chat_template.jinja` renders, for the trainer and for tests.

A conversation is a list of OpenAI-style messages. Thinking is written by the model itself (`<think>` is
not part of the generation prompt); thinking of assistant turns that called tools is sent back, that of
finished answers is not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

SPECIAL_TOKENS = (
    "[PAD]", "[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>",
    "<|im_middle|>",
)  # fmt: skip
MARKER_TOKENS = (
    "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>", "<|tool_call_end|>", "<think>", "</think>",
)  # fmt: skip
GENERATION_PROMPT = "<|im_assistant|>assistant<|im_middle|>"
END = "<|im_end|>"
PYTHON_TOOL = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs Python code and returns what it printed.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
        },
    },
}


def render(messages: Sequence[Message], tools: Sequence[Message] = (), *, prompt: bool = True) -> str:
    """The text of a conversation; with `prompt`, ending where the assistant is to go on."""
    parts: list[str] = []
    if tools:
        names = ",".join(tool["function"]["name"] for tool in tools)
        parts.append(f"<|im_system|>tool_declare<|im_middle|>{names}{END}")
    answered = max(
        (
            i
            for i, message in enumerate(messages)
            if message["role"] == "assistant" and not message.get("tool_calls")
        ),
        default=-1,
    )
    for index, message in enumerate(messages):
        parts.append(_message(message, past=index <= answered))
    if prompt:
        parts.append(GENERATION_PROMPT)
    return "".join(parts)


def completion(message: Message) -> str:
    """What the assistant writes for `message`, up to and with the end marker."""
    return _assistant(message, message.get("reasoning_content") or "") + END


def tool_call(index: int, code: str) -> Message:
    """The `index`-th tool call of a conversation (counted from 0): `python` with `code`."""
    return {
        "id": f"functions.python:{index}",
        "type": "function",
        "function": {"name": "python", "arguments": json.dumps({"code": code})},
    }


def _message(message: Message, *, past: bool) -> str:
    role = message["role"]
    if role == "user":
        return f"<|im_user|>user<|im_middle|>{_text(message)}{END}"
    if role == "assistant":
        thinking = "" if past else message.get("reasoning_content") or ""
        return GENERATION_PROMPT + _assistant(message, thinking) + END
    if role == "tool":
        returned = f"## Return of {message['tool_call_id']}\n{_text(message)}"
        return f"<|im_system|>tool<|im_middle|>{returned}{END}"
    return f"<|im_system|>system<|im_middle|>{_text(message)}{END}"


def _assistant(message: Message, thinking: str) -> str:
    text = f"<think>{thinking}</think>{_text(message)}"
    calls = message.get("tool_calls") or ()
    if not calls:
        return text
    written = "".join(
        f"<|tool_call_begin|>{call['id']}<|tool_call_argument_begin|>{_arguments(call)}<|tool_call_end|>"
        for call in calls
    )
    return f"{text}<|tool_calls_section_begin|>{written}<|tool_calls_section_end|>"


def _arguments(call: Message) -> str:
    arguments = call["function"]["arguments"]
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _text(message: Message) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type") == "text")
