"""OpenAI-compatible JSON to domain types and back. The only module that knows its field names.

Sources: OpenAI's chat-completions reference; SGLang's additions (`rid`, `reasoning_content`,
`separate_reasoning`, `matched_stop`, top-level `reasoning_tokens`); vLLM's and OpenRouter's `reasoning`;
Moonshot's top-level `cached_tokens` and usage inside the choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from heavy.core.messages import FinishReason, Message, Role, ToolCall
from heavy.core.tools import ToolSpec
from heavy.profiles.schema import RequestSection
from heavy.replicas.api import GenerationRequest, ReplicaLoad

Dialect = Literal["openai", "sglang"]

DONE: Final = b"[DONE]"
BYTES_PER_TOKEN: Final = 3
MESSAGE_OVERHEAD_TOKENS: Final = 8

_FINISH: Final = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "abort": FinishReason.ABORT,
}


# -- out


def request_body(
    request: GenerationRequest, model: str, dialect: Dialect, shape: RequestSection | None = None
) -> bytes:
    """The body of a streamed chat completion, as its server wants it."""
    shape = shape or RequestSection()
    body: dict[str, Any] = {
        "model": model,
        "messages": messages_json(request.messages, shape.reasoning_field),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        shape.tokens_field: request.tokens_max,
    }
    if request.sampling.seed is not None:
        body["seed"] = request.sampling.seed
    if request.tools:
        # OpenAI's own servers refuse `strict` beside schemas that leave anything open: only SGLang is asked.
        body["tools"] = tools_json(request.tools, strict=request.strict_calls and dialect == "sglang")
        body["tool_choice"] = request.tool_choice
    if request.stop:
        body["stop"] = list(request.stop)
    if dialect == "sglang":
        body["rid"] = request.request_id
        body["separate_reasoning"] = True
        body["stream_reasoning"] = True
    if request.said_reasoning or request.said_content:
        body["messages"].append({"role": "assistant", "content": _as_written(request, shape)})
        body["continue_final_message"] = True
    return encoded({k: v for k, v in body.items() if k not in shape.omit} | _new(shape.extra, body))


def _as_written(request: GenerationRequest, shape: RequestSection) -> str:
    """Half an answer as the model had written it, so that it goes on where it was."""
    begin, end = shape.thinking_markers
    if not request.said_reasoning:
        return request.said_content
    closed = end if request.said_content else ""
    return f"{begin}{request.said_reasoning}{closed}{request.said_content}"


def _new(extra: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile adds; what is ours to say stays ours."""
    return {name: value for name, value in extra.items() if name not in body}


def tokenize_body(messages: Sequence[Message], tools: Sequence[ToolSpec], model: str) -> bytes:
    """The body of SGLang's `/v1/tokenize` for a conversation."""
    body: dict[str, Any] = {"model": model, "messages": messages_json(messages)}
    if tools:
        body["tools"] = tools_json(tools)
    return encoded(body)


def messages_json(
    messages: Sequence[Message], reasoning_field: str = "reasoning_content"
) -> list[dict[str, Any]]:
    """Messages in OpenAI's form, reasoning in the field that the server reads it from."""
    return [_message(message, reasoning_field) for message in messages]


def _message(message: Message, reasoning_field: str) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.role is Role.TOOL:
        body["tool_call_id"] = message.tool_call_id
    if message.name:
        body["name"] = message.name
    if message.reasoning:
        body[reasoning_field] = message.reasoning
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [_call(call) for call in message.tool_calls]
    return body


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def tools_json(tools: Sequence[ToolSpec], *, strict: bool = False) -> list[dict[str, Any]]:
    """Tool declarations in OpenAI's form; `strict` holds the arguments of calls to their schema."""
    return [{"type": "function", "function": _function(tool, strict)} for tool in tools]


def _function(tool: ToolSpec, strict: bool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return function | {"strict": True} if strict else function


def encoded(body: Mapping[str, Any]) -> bytes:
    """JSON. Half surrogate pairs, which tool output may hold and UTF-8 cannot, become U+FFFD."""
    try:
        return orjson.dumps(body, default=dict)
    except orjson.JSONEncodeError:  # also integers beyond 64 bits, which the slower encoder takes
        return json.dumps(_repaired(body), ensure_ascii=False).encode()


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, Mapping):
        return {well_formed(str(key)): _repaired(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_repaired(item) for item in value]
    return value


def well_formed(text: str) -> str:
    """`text` with halves of surrogate pairs joined where both are there, else replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def estimated_tokens(text: str) -> int:
    """Tokens of a text where nobody counted them: one per three bytes of UTF-8, rounded up.

    Between code and dense mathematics (about 3 bytes a token) and English prose (above 4), so prose is
    overestimated: a context that is thought too full costs less than one that overflows.
    """
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def estimated_prompt_tokens(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> int:
    """Prompt tokens where the server has no tokenizer to ask: texts, calls, tools and template overhead."""
    total = sum(MESSAGE_OVERHEAD_TOKENS + estimated_tokens(_texts(message)) for message in messages)
    return total + (estimated_tokens(encoded({"tools": tools_json(tools)}).decode()) if tools else 0)


def _texts(message: Message) -> str:
    calls = "".join(call.id + call.name + call.arguments for call in message.tool_calls)
    return message.content + message.reasoning + calls


# -- in


@dataclass(frozen=True, slots=True)
class CallPart:
    """A piece of a tool call. `index` is None where the server leaves it out."""

    index: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class WireUsage:
    """A usage object. `reasoning` is None where the server does not count it."""

    prompt: int
    output: int
    cached: int
    reasoning: int | None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of a streamed completion. `filtered`: the provider has withheld the rest."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = ()
    finish: FinishReason | None = None
    filtered: bool = False
    usage: WireUsage | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class WireError:
    """An error object, from a response body or the middle of a stream. `status` 0 when it has none."""

    message: str
    code: str = ""
    status: int = 0


def read_chunk(data: bytes) -> Chunk | WireError:
    """One event's data. Raises ValueError when it is neither a chunk nor an error object."""
    body = _decoded(data)
    if not isinstance(body, dict):
        raise ValueError("is not a JSON object")
    if (error := read_error(body)) is not None:
        return error
    choices = body.get("choices")
    if choices is None:
        choices = []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("has choices that are not a list of objects")
    if not choices:
        if "usage" not in body and "choices" not in body:
            raise ValueError("is not a chat completion chunk")
        return Chunk(usage=_usage(body.get("usage")), model=_text(body.get("model")))
    choice = choices[0]
    delta = choice.get("delta")
    if delta is not None and not isinstance(delta, dict):
        raise ValueError("has a delta that is not an object")
    return _chunk(body, choice, delta or {})


def _chunk(body: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> Chunk:
    finish = choice.get("finish_reason")
    return Chunk(
        content=_text(delta.get("content")),
        reasoning=_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")),
        calls=_calls(delta.get("tool_calls")),
        finish=_finish(finish),
        filtered=finish == "content_filter",
        usage=_usage(body.get("usage")) or _usage(choice.get("usage")),
        model=_text(body.get("model")),
    )


def _decoded(data: bytes) -> Any:
    """JSON, by the quick parser; the other one takes the half surrogate pairs that some proxies send."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if b"\\u" not in data:
            raise ValueError("is not JSON") from error
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error


def read_error(body: object) -> WireError | None:
    """The error in a JSON body, if it is one.

    Forms: OpenAI's `{"error": {...}}`, SGLang's flat `{"object": "error", ...}`, FastAPI's `{"detail": ...}`.
    """
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str) and error:
        return WireError(error)
    if not isinstance(error, dict):
        if body.get("object") == "error":
            error = body
        elif isinstance(body.get("detail"), str):
            return WireError(body["detail"])
        else:
            return None
    code, kind = error.get("code"), _text(error.get("type"))
    status = code if isinstance(code, int) and not isinstance(code, bool) else 0
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        status = int(code)
    name = code if isinstance(code, str) and not code.isdecimal() else kind
    return WireError(_text(error.get("message")) or kind or "no message", name, status)


def _text(value: object) -> str:
    """Text; a list of text parts joined; anything else is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return ""


def _calls(value: object) -> tuple[CallPart, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError("has tool_calls that are not a list")
    return tuple(_call_part(part) for part in value)


def _call_part(part: object) -> CallPart:
    if not isinstance(part, dict):
        raise ValueError("has a tool call that is not an object")
    function = part.get("function")
    function = function if isinstance(function, dict) else {}
    index = part.get("index")
    arguments = function.get("arguments")
    return CallPart(
        index=index if isinstance(index, int) else None,
        id=_text(part.get("id")),
        name=_text(function.get("name")),
        arguments=encoded(arguments).decode() if isinstance(arguments, dict) else _text(arguments),
    )


def _finish(value: object) -> FinishReason | None:
    """The finish reason; one that is not known ends a generation as `stop` does."""
    if isinstance(value, dict):  # SGLang's native form
        value = value.get("type")
    if not isinstance(value, str) or not value:
        return None
    return _FINISH.get(value, FinishReason.STOP)


def _usage(value: object) -> WireUsage | None:
    if not isinstance(value, dict):
        return None
    prompt_details, output_details = (
        value.get("prompt_tokens_details"),
        value.get("completion_tokens_details"),
    )
    cached = _count(_get(prompt_details, "cached_tokens"))
    reasoning = _count(value.get("reasoning_tokens"))
    if reasoning is None:
        reasoning = _count(_get(output_details, "reasoning_tokens"))
    return WireUsage(
        prompt=_count(value.get("prompt_tokens")) or 0,
        output=_count(value.get("completion_tokens")) or 0,
        cached=(_count(value.get("cached_tokens")) if cached is None else cached) or 0,
        reasoning=reasoning,
    )


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_token_count(data: bytes) -> int:
    """The answer of `/v1/tokenize`. Raises ValueError when it holds no count."""
    body = _decoded(data)
    count = _count(_get(body, "count"))
    if count is None:
        tokens = _get(body, "tokens")
        if not isinstance(tokens, list):
            raise ValueError("holds no token count")
        count = len(tokens)
    return count


def read_load(data: bytes) -> ReplicaLoad:
    """SGLang's `/v1/loads`, summed over its data-parallel ranks. Raises ValueError for anything else."""
    body = _decoded(data)
    ranks = _get(body, "loads")
    if not isinstance(body, dict) or not isinstance(ranks, list):
        raise ValueError("is not a load report")

    def total(key: str) -> int:
        return sum(_count(_get(rank, key)) or 0 for rank in ranks)

    return ReplicaLoad(
        running=total("num_running_reqs"),
        waiting=total("num_waiting_reqs"),
        kv_tokens_used=total("num_used_tokens"),
        kv_tokens_max=total("max_total_num_tokens"),
        raw=body,
    )
