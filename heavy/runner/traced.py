"""Spans around what a trajectory does: wrappers with the protocols of what they wrap."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from opentelemetry.trace import Span, SpanKind

from heavy.core.ids import run_of
from heavy.core.messages import Message
from heavy.core.tools import ToolContext, ToolOutput, ToolSpec
from heavy.profiles.schema import Profile
from heavy.replicas.api import Finished, GenerationEvent, GenerationRequest, Replica
from heavy.telemetry import names
from heavy.telemetry.tracing import Attributes, Tracing, traceparent_of
from heavy.tools.api import Tool


class TracedReplica:
    """A span per generation, named by the model that its profile asks; the engine gets it as its parent."""

    def __init__(self, inner: Replica, tracing: Tracing, profiles: Mapping[str, Profile]) -> None:
        self._inner = inner
        self._tracing = tracing
        self._profiles = profiles

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """Stream one generation inside its span."""
        profile = self._profiles[request.profile]
        name, attributes = f"{names.CHAT} {profile.model}", _asked(request, profile)
        finished: Finished | None = None
        with self._tracing.span(name, request.traceparent, attributes, SpanKind.CLIENT) as span:
            inner = replace(request, traceparent=traceparent_of(span) or request.traceparent)
            async with aclosing(self._inner.generate(inner)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        finished = event
                        break
                    yield event
            if finished is not None:
                _finished(span, finished)
        # Outside the span: readers leave at the last event, which is no early end.
        if finished is not None:
            yield finished

    @property
    def continues(self) -> bool:
        """As the replica within."""
        return self._inner.continues

    async def count_tokens(
        self, profile: str, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]
    ) -> int:
        """Prompt tokens, untraced."""
        return await self._inner.count_tokens(profile, messages, tools)


class TracedTool:
    """A span per tool call, below the trajectory's."""

    def __init__(self, inner: Tool, tracing: Tracing, traceparent: str) -> None:
        self._inner = inner
        self._tracing = tracing
        self._traceparent = traceparent

    @property
    def spec(self) -> ToolSpec:
        """What the tool declares."""
        return self._inner.spec

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutput:
        """Call inside a span. Arguments and results stay out of it: they may hold secrets."""
        attributes: Attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.CONVERSATION_ID: context.run,
            names.AGENT_NAME: context.trajectory,
            names.TOOL_NAME: self.spec.name,
            names.TOOL_CALL_ID: context.call_id,
            names.TRAJECTORY: context.trajectory,
            names.STEP: context.step,
        }
        name = f"{names.EXECUTE_TOOL} {self.spec.name}"
        with self._tracing.span(name, self._traceparent, attributes) as span:
            output = await self._inner.call(arguments, context)
            span.set_attribute(names.CACHE_STATE, output.cache.value)
            if output.is_error:
                span.set_attribute(names.ERROR_TYPE, "tool_error")
            return output


def _asked(request: GenerationRequest, profile: Profile) -> Attributes:
    sampling = request.sampling
    attributes: dict[str, str | int | float | bool] = {
        names.OPERATION: names.CHAT,
        names.PROVIDER: profile.provider,
        names.CONVERSATION_ID: run_of(request.request_id),
        names.REQUEST_MODEL: profile.model,
        names.REQUEST_STREAM: True,
        names.REQUEST_TOKENS_MAX: request.tokens_max,
        names.REQUEST_TEMPERATURE: sampling.temperature,
        names.REQUEST_TOP_P: sampling.top_p,
        names.PROFILE: request.profile,
        names.ENGINE_REQUEST_ID: request.request_id,
    }
    if sampling.seed is not None:
        attributes[names.REQUEST_SEED] = sampling.seed
    return attributes


def _finished(span: Span, event: Finished) -> None:
    span.set_attributes(
        {
            names.RESPONSE_MODEL: event.model,
            names.REPLICA: event.replica,
            names.PLACED: event.placed,
            names.FINISH_REASONS: (event.finish_reason.value,),
            names.INPUT_TOKENS: event.usage.prompt,
            names.CACHED_TOKENS: event.usage.cached,
            names.OUTPUT_TOKENS: event.usage.output,
            names.REASONING_TOKENS: event.usage.reasoning,
            names.QUEUE_S: event.timing.queue_s,
            names.FIRST_CHUNK_S: event.timing.queue_s + event.timing.first_token_s,
        }
    )
