"""The engine's part of a trace: one span a generation, below whoever asked, and its stages below that."""

from __future__ import annotations

import time

from opentelemetry.trace import SpanKind, Status, StatusCode

from heavy.telemetry import names
from heavy.telemetry.tracing import CANCELLED, Tracing, traceparent_of
from workers.engines.api.generation import ConnectionLoss, Failed, Finished, ModelInfo

NS = 1_000_000_000


class GenerationSpan:
    """From a generation's acceptance to its last event. Counts, codes and ids; no texts."""

    def __init__(self, tracing: Tracing, traceparent: str, rid: str, served: ModelInfo) -> None:
        attributes = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: served.engine,
            names.REQUEST_MODEL: served.name,
            names.RESPONSE_MODEL: served.name,
            names.ENGINE_REQUEST_ID: rid,
        }
        self._tracing = tracing
        self._began_ns = time.time_ns()
        self._first_ns = 0
        self._span = tracing.start(
            f"{names.CHAT} {served.name}", traceparent, attributes, SpanKind.SERVER, at_ns=self._began_ns
        )

    def first(self) -> None:
        """The first event is there."""
        self._first_ns = time.time_ns()

    def end(self, last: Finished | Failed | ConnectionLoss, queued_s: float) -> None:
        """The last event is there; it waited `queued_s` for its turn in the engine."""
        ended_ns = time.time_ns()
        first_ns = self._first_ns or ended_ns
        turn_ns = min(self._began_ns + round(queued_s * NS), first_ns)
        self._stage(names.STAGE_QUEUE, self._began_ns, turn_ns)
        self._stage(names.STAGE_PREFILL, turn_ns, first_ns)
        self._stage(names.STAGE_DECODE, first_ns, ended_ns)
        if isinstance(last, Finished):
            self._finished(last)
        else:
            code = last.error.code if isinstance(last, Failed) else "connection_loss"
            self._failed(code)
        self._span.end(ended_ns)

    def _finished(self, last: Finished) -> None:
        self._span.set_attributes(
            {
                names.FINISH_REASONS: (last.reason,),
                names.INPUT_TOKENS: last.usage.prompt,
                names.CACHED_TOKENS: last.usage.cached,
                names.OUTPUT_TOKENS: last.usage.completion,
                names.REASONING_TOKENS: last.usage.reasoning,
            }
        )
        if last.reason == "abort":
            self._failed(CANCELLED)

    def _failed(self, code: str) -> None:
        self._span.set_attribute(names.ERROR_TYPE, code)
        self._span.set_status(Status(StatusCode.ERROR, code))

    def _stage(self, name: str, from_ns: int, to_ns: int) -> None:
        """A span of what is over; none for what never was."""
        if to_ns > from_ns:
            parent = traceparent_of(self._span)
            self._tracing.start(name, parent, {}, at_ns=from_ns).end(to_ns)
