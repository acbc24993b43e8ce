"""The seam to a model server. Mechanism only: one generation, streamed; no retries, no history editing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from heavy.core.messages import FinishReason, Message, ToolCall
from heavy.core.policy import Sampling
from heavy.core.records import GenerationTiming
from heavy.core.tools import ToolSpec


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation. `messages` go out as they are: the agent has applied the model's rules to them.

    `request_id` is the engine-side id (see `heavy.core.ids.request_id`); `tokens_max` the completion cap;
    `tool_choice` "auto", "none" or "required" (a call, under a grammar where the server has one);
    `strict_calls` asks for a grammar that holds the arguments of every call to their schema, where the server
    knows of one; `prefer_replica` where it had better go, if it makes no difference to the router.
    """

    request_id: str
    profile: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    sampling: Sampling
    tokens_max: int
    deadline_ms: int
    tool_choice: str = "auto"
    strict_calls: bool = False
    stop: tuple[str, ...] = ()
    said_reasoning: str = ""
    said_content: str = ""
    """What a lost replica had said already: the generation goes on from there. See `Replica.continues`."""
    prefer_replica: str = ""
    prompt_tokens: int = 0
    """How long the prompt is, as far as its sender knows; 0: it does not."""
    group: str = ""
    opening_tokens: int = 0
    """Every generation of the group begins with the same so many tokens."""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Fresh text. Either may be empty. The first one says how long a replica was waited for."""

    reasoning: str = ""
    content: str = ""
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the engine counted them."""

    prompt: int = 0
    cached: int = 0
    reasoning: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a generation, always the last event. `content` and `reasoning` are the whole text."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: TokenUsage
    replica: str
    model: str
    timing: GenerationTiming
    request_id: str = ""
    """The engine-side id it was generated under: another attempt's than asked for after a failover."""
    placed: str = ""
    """Why it was generated there: a `heavy.replicas.cost.Reason`; empty where there was no choice to make."""


GenerationEvent = TextDelta | Finished


class Replica(Protocol):
    """Something that generates: one server, or a router over many."""

    @property
    def continues(self) -> bool:
        """Whether it can go on from a text that was begun elsewhere (`said_reasoning`, `said_content`)."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Stream one generation; ends with exactly one `Finished`.

        Closing the generator or cancelling the task aborts the generation in the engine, explicitly.
        Raises `EngineRefused`, `EngineUnavailable`, `EngineTimeout`, `MalformedStream`, `ContextOverflow`.
        """
        ...

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """Prompt tokens by the server's own tokenizer and template; an estimate where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """The engine's own load report."""

    running: int
    waiting: int
    kv_tokens_used: int
    kv_tokens_max: int
    raw: Mapping[str, Any]
