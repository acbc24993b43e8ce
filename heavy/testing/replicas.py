"""Replicas that need no server: one that plays a script, one that breaks another at chosen places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from heavy.core.errors import HeavyError
from heavy.core.messages import FinishReason, Message, ToolCall
from heavy.core.records import GenerationTiming
from heavy.core.tools import ToolSpec
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, Replica, TextDelta, TokenUsage
from heavy.replicas.openai_json import estimated_prompt_tokens, estimated_tokens


@dataclass(frozen=True, slots=True)
class Scripted:
    """One generation of a script.

    Reasoning and content are streamed in `pieces` deltas each; `hold`, where given, is waited for after
    them; then `error` is raised, or `Finished` comes. The finish reason and the usage follow from the rest
    unless they are given.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: TokenUsage | None = None
    pieces: int = 2
    hold: asyncio.Event | None = None
    error: HeavyError | None = None
    request_id: str = ""
    """The id it ended under, where that is another attempt's than was asked for."""


Script = Iterable[Scripted] | Callable[[GenerationRequest], Scripted]


class ScriptedReplica:
    """Implements `heavy.replicas.api.Replica` from a script: generations in order, or chosen per request.

    `requests` are those it was asked, in order; `aborted` the ids of those that were left early;
    `in_flight` and `in_flight_peak` count generations under way. Asked for more than the script has, it
    raises AssertionError.
    """

    def __init__(self, script: Script, *, replica: str = "scripted", model: str = "scripted") -> None:
        self._choose = script if callable(script) else _in_order(script)
        self._replica = replica
        self._model = model
        self.requests: list[GenerationRequest] = []
        self.aborted: list[str] = []
        self.in_flight = 0
        self.in_flight_peak = 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Play the next generation."""
        self.requests.append(request)
        scripted = self._choose(request)
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)
        ended = False
        try:
            for piece in _cut(scripted.reasoning, scripted.pieces):
                yield TextDelta(reasoning=piece)
            for piece in _cut(scripted.content, scripted.pieces):
                yield TextDelta(content=piece)
            if scripted.hold is not None:
                await scripted.hold.wait()
            ended = True
            if scripted.error is not None:
                raise scripted.error
            yield self._finished(scripted, request)
        finally:
            self.in_flight -= 1
            if not ended:
                self.aborted.append(request.request_id)

    continues = False

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """The documented estimate."""
        return estimated_prompt_tokens(messages, tools)

    def _finished(self, scripted: Scripted, request: GenerationRequest) -> Finished:
        reason = FinishReason.TOOL_CALLS if scripted.tool_calls else FinishReason.STOP
        reasoning = estimated_tokens(scripted.reasoning)
        usage = TokenUsage(
            prompt=estimated_prompt_tokens(request.messages, request.tools),
            reasoning=reasoning,
            output=reasoning + estimated_tokens(scripted.content),
        )
        return Finished(
            content=scripted.content,
            reasoning=scripted.reasoning,
            tool_calls=scripted.tool_calls,
            finish_reason=scripted.finish_reason or reason,
            usage=scripted.usage or usage,
            replica=self._replica,
            model=self._model,
            timing=GenerationTiming(queue_s=0.0, first_token_s=0.0, decode_s=0.0),
            request_id=scripted.request_id or request.request_id,
        )


def _in_order(script: Iterable[Scripted]) -> Callable[[GenerationRequest], Scripted]:
    left = iter(tuple(script))

    def choose(request: GenerationRequest) -> Scripted:
        scripted = next(left, None)
        assert scripted is not None, f"the script has no generation for {request.request_id}"
        return scripted

    return choose


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // max(pieces, 1)))
    return [text[at : at + size] for at in range(0, len(text), size)]


@dataclass(frozen=True, slots=True)
class Chaos:
    """A failure of one generation: `error` after so many deltas, or, without one, silence until cancelled."""

    error: HeavyError | None
    after_deltas: int = 0


@dataclass(slots=True)
class ChaosReplica:
    """Wraps a replica and breaks generations: `plan` says how, by the number of the call, counted from 0.

    Calls that the plan does not name pass through. `struck` lists the ids of those that were broken.
    """

    inner: Replica
    plan: dict[int, Chaos]
    calls: int = 0
    struck: list[str] = field(default_factory=list)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Stream the inner generation until its failure is due."""
        chaos = self.plan.get(self.calls)
        self.calls += 1
        deltas = 0
        async with aclosing(self.inner.generate(request)) as events:
            async for event in events:
                if chaos is not None and (isinstance(event, Finished) or deltas >= chaos.after_deltas):
                    self.struck.append(request.request_id)
                    if chaos.error is not None:
                        raise chaos.error
                    await asyncio.Event().wait()
                deltas += isinstance(event, TextDelta)
                yield event

    continues = False

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """The inner replica's count."""
        return await self.inner.count_tokens(profile, messages, tools)
