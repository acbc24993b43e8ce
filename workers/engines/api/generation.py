"""The seam between the HTTP layer and an engine: what an engine is asked, and the events it answers with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from workers.engines.api.errors import ApiError
from workers.engines.api.request import ChatRequest, TokenizeRequest

FinishReason = Literal["stop", "length", "tool_calls", "abort"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Fresh text; either part may be empty."""

    content: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of call `index`. `id` and `name` come once, with its first part; `arguments` is appended."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one generation. `cached` is part of `prompt`, `reasoning` part of `completion`."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a generation that ended in order."""

    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a generation that the engine could not finish."""

    error: ApiError


@dataclass(frozen=True, slots=True)
class ConnectionLoss:
    """Send these bytes, then drop the connection. Only the simulated engine asks for it."""

    last_bytes: bytes = b""


Event = TextDelta | ToolCallDelta | Finished | Failed | ConnectionLoss
HEALTH_RID = "health-"
"""What ids of generations begin with that only probe the engine."""
TERMINAL = (Finished, Failed, ConnectionLoss)


class Generation(Protocol):
    """A generation that is queued or running."""

    @property
    def queued_s(self) -> float:
        """Seconds it waited for its turn in the engine; so far, while it waits."""

    async def events(self) -> Sequence[Event]:
        """Wait for news; return all of it, at least one event. After a terminal event there are no more."""

    def abort(self) -> None:
        """End it now: the next terminal event is `Finished("abort", ...)`. Idempotent, never blocks."""


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is busy with. `tokens` are KV tokens in use, `tokens_max` the KV capacity in tokens."""

    running: int = 0
    waiting: int = 0
    running_max: int = 0
    waiting_max: int = 0
    tokens: int = 0
    tokens_max: int = 0
    waiting_tokens: int = 0
    tokens_per_s: float = 0.0
    cache_hit_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served. `context_tokens` bounds prompt plus completion."""

    engine: str
    name: str
    path: str
    context_tokens: int
    details: dict[str, object] = field(default_factory=dict)


class Pulse:
    """Beats at every step of an engine, also of one that brings nobody anything, as part of a long prefill.

    Loop thread only.
    """

    def __init__(self) -> None:
        self._beat = asyncio.Event()

    def beat(self) -> None:
        """A step has been made."""
        self._beat.set()
        self._beat = asyncio.Event()

    async def next(self) -> None:
        """Wait for the next step."""
        await self._beat.wait()


class Engine(Protocol):
    """What stands behind the API. All methods run on the event loop and never block it."""

    pulse: Pulse

    @property
    def info(self) -> ModelInfo:
        """What is served; fixed once the engine has started."""

    async def start(self) -> None:
        """Load and warm up. Raises when the model cannot be served."""

    async def stop(self) -> None:
        """Abort what runs and release everything. Idempotent."""

    async def submit(self, request: ChatRequest) -> Generation:
        """Queue a generation. Raises BadRequest, ContextOverflow, QueueFull or EngineFailed."""

    async def tokenize(self, request: TokenizeRequest) -> list[int]:
        """The token ids that `submit` would prefill for the same input."""

    def load(self) -> Load:
        """The load at this moment."""

    def failure(self) -> str | None:
        """Why the engine cannot go on, or None while it is healthy."""


class Inbox:
    """Events on their way from an engine to one reader. Loop thread only; bounded by the tokens asked."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._news = asyncio.Event()
        self.closed = False

    def push(self, event: Event) -> None:
        """Add an event; whatever follows a terminal one is dropped."""
        if self.closed:
            return
        self.closed = isinstance(event, TERMINAL)
        self._events.append(event)
        self._news.set()

    async def take(self) -> list[Event]:
        """Wait until there is something, then take all of it."""
        await self._news.wait()
        self._news.clear()
        events, self._events = self._events, []
        return events
