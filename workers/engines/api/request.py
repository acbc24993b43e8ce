"""What arrives over HTTP: validated once, here, and frozen. Every error names the field it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from workers.engines.api.errors import BadRequest

STOPS_MAX = 16
TOOLS_MAX = 512
MESSAGES_MAX = 20_000
ERRORS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are drawn; None leaves it to the model's own default. Temperature 0 means greedy."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One generation, as asked for. `messages` and `tools` are in OpenAI's form, content flattened to text.

    `tool_choice` is "auto", "none", "required" or a function's name prefixed with "=" ("=python").
    `strict_calls`: a declared function said `strict`, so every call is held to its schema.
    `tokens_max` None means: up to the end of the context. `ignore_eos` is for measuring.
    """

    rid: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]
    tool_choice: str
    sampling: SamplingParams
    tokens_max: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    json_schema: str | None
    continue_final: bool
    add_generation_prompt: bool
    template_kwargs: Mapping[str, Any]
    model: str
    ignore_eos: bool = False
    strict_calls: bool = False

    @property
    def forced_tool(self) -> str | None:
        """The function that must be called, if one is named."""
        return self.tool_choice[1:] if self.tool_choice.startswith("=") else None

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a tool call."""
        return self.tool_choice == "required" or self.forced_tool is not None


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Text or a conversation to count. Exactly one of `prompt` and `chat` is set."""

    prompt: str | None
    add_special_tokens: bool
    chat: ChatRequest | None


def _text(value: object) -> str:
    """Content as one string: None is empty, text parts are joined, other parts are refused."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(part) for part in value)
    raise ValueError("must be a string or a list of text parts")


def _part(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ValueError('holds a part that is not {"type": "text", "text": ...}; this engine reads text only')


def _stops(value: object) -> list[str]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ValueError("must be a non-empty string or a list of them")
    if len(stops) > STOPS_MAX:
        raise ValueError(f"holds {len(stops)} strings; at most {STOPS_MAX} are allowed")
    return stops


def _choice(value: object) -> str:
    if value is None:
        return "auto"
    if value in ("auto", "none", "required"):
        return str(value)
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        name = value["function"].get("name")
        if isinstance(name, str) and name:
            return "=" + name
    raise ValueError('must be "auto", "none", "required" or {"type": "function", "function": {"name": ...}}')


def _arguments(value: object) -> str:
    """Arguments of a call in the history: kept as the text the model wrote."""
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    if isinstance(value, str):
        return value
    raise ValueError("must be JSON text")


class _Open(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Function(_Open):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Annotated[str, BeforeValidator(_arguments)] = "{}"


class _Call(_Open):
    id: str = ""
    type: Literal["function"] = "function"
    function: _Function


class _Message(_Open):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: Annotated[str, BeforeValidator(_text)] = ""
    reasoning_content: Annotated[str, BeforeValidator(_text)] = ""
    tool_calls: Annotated[list[_Call], BeforeValidator(lambda v: v or [])] = Field(default_factory=list)
    tool_call_id: str | None = None
    name: str | None = None


class _ToolFunction(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    strict: Annotated[bool, BeforeValidator(bool), Field(exclude=True)] = False
    """Left out of what templates see: a prompt must not change with the grammar."""
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    type: Literal["function"] = "function"
    function: _ToolFunction


class _JsonSchema(_Open):
    name: str = ""
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class _ResponseFormat(_Open):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class _StreamOptions(_Open):
    include_usage: bool = False


class _Chat(_Open):
    messages: Annotated[list[_Message], Field(min_length=1, max_length=MESSAGES_MAX)]
    model: str = ""
    tools: Annotated[list[_Tool], BeforeValidator(lambda v: v or []), Field(max_length=TOOLS_MAX)] = []
    tool_choice: Annotated[str, BeforeValidator(_choice)] = "auto"
    ignore_eos: bool = False
    temperature: Annotated[float | None, Field(ge=0, le=10)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=-1)] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**64)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=2)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    stop: Annotated[list[str], BeforeValidator(_stops)] = []
    n: Annotated[int | None, Field(ge=1, le=1)] = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    response_format: _ResponseFormat | None = None
    rid: Annotated[str | None, Field(max_length=256)] = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None


class _Tokenize(_Open):
    prompt: str | None = None
    add_special_tokens: bool = True


def parse_json(raw: bytes) -> dict[str, Any]:
    """The body as an object. Raises BadRequest."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}. Send a JSON object.", param="body") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", param="body")
    return body


def parse_chat(body: Mapping[str, Any], rid: str) -> ChatRequest:
    """Validate a chat completion. `rid` is used where the body brings none. Raises BadRequest."""
    try:
        chat = _Chat.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from error
    tools = tuple(tool.model_dump(exclude_none=True) for tool in chat.tools)
    _check_choice(chat, tools)
    messages = tuple(_plain(message) for message in chat.messages)
    if chat.continue_final_message and messages[-1]["role"] != "assistant":
        raise BadRequest(
            "continue_final_message needs a last message with the role assistant.",
            param="continue_final_message",
        )
    return ChatRequest(
        rid=chat.rid or rid,
        messages=messages,
        tools=tools if chat.tool_choice != "none" else (),
        tool_choice=chat.tool_choice if tools else "none",
        sampling=_sampling(chat),
        tokens_max=chat.max_completion_tokens or chat.max_tokens,
        stop=tuple(chat.stop),
        stream=chat.stream,
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        json_schema=_schema(chat.response_format),
        continue_final=chat.continue_final_message,
        add_generation_prompt=chat.add_generation_prompt and not chat.continue_final_message,
        template_kwargs=chat.chat_template_kwargs or {},
        model=chat.model,
        ignore_eos=chat.ignore_eos,
        strict_calls=any(tool.function.strict for tool in chat.tools),
    )


def parse_tokenize(body: Mapping[str, Any]) -> TokenizeRequest:
    """Validate a tokenize request: `prompt`, or what a chat completion takes. Raises BadRequest."""
    if "messages" in body:
        return TokenizeRequest(prompt=None, add_special_tokens=False, chat=parse_chat(body, rid="tokenize"))
    try:
        plain = _Tokenize.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from error
    if plain.prompt is None:
        raise BadRequest("Send either prompt (a string) or messages (a list).", param="prompt")
    return TokenizeRequest(prompt=plain.prompt, add_special_tokens=plain.add_special_tokens, chat=None)


def _check_choice(chat: _Chat, tools: tuple[Mapping[str, Any], ...]) -> None:
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) != len(names):
        raise BadRequest("Two tools share a name; give each its own.", param="tools")
    if chat.tool_choice not in ("auto", "none") and not tools:
        raise BadRequest(
            "tool_choice asks for a call, but tools is empty. Declare a tool.", param="tool_choice"
        )
    if chat.tool_choice.startswith("=") and chat.tool_choice[1:] not in names:
        raise BadRequest(
            f"tool_choice names {chat.tool_choice[1:]!r}, which is not among tools: {', '.join(names)}.",
            param="tool_choice",
        )


def _plain(message: _Message) -> dict[str, Any]:
    return message.model_dump(exclude_defaults=True) | {"role": message.role, "content": message.content}


def _sampling(chat: _Chat) -> SamplingParams:
    given = {
        name: value
        for name in SamplingParams.__dataclass_fields__
        if (value := getattr(chat, name)) is not None and not (name == "top_k" and value < 1)
    }
    return SamplingParams(**given)


def _schema(response_format: _ResponseFormat | None) -> str | None:
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return '{"type":"object"}'
    if response_format.json_schema is None:
        raise BadRequest("response_format json_schema lacks json_schema.schema.", param="response_format")
    return orjson.dumps(response_format.json_schema.schema_).decode()


def _refusal(error: ValidationError) -> BadRequest:
    """Pydantic's findings as one sentence per field, at most ERRORS_SHOWN of them."""
    found = [
        (".".join(str(part) for part in item["loc"]), item["msg"].removeprefix("Value error, "))
        for item in error.errors()
    ]
    text = "; ".join(f"{field or 'body'}: {message}" for field, message in found[:ERRORS_SHOWN])
    more = f" (and {len(found) - ERRORS_SHOWN} more)" if len(found) > ERRORS_SHOWN else ""
    return BadRequest(f"Invalid request: {text}{more}. Correct these fields.", param=found[0][0] or "body")
