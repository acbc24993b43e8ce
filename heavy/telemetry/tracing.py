"""OpenTelemetry: off without an endpoint; one trace a run, its id made when the run is accepted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from heavy.core.errors import HeavyError
from heavy.telemetry import names
from heavy.telemetry.redaction import Redact, RedactingExporter

Attributes = Mapping[str, str | int | float | bool]

CANCELLED = "cancelled"
"""The error type of a span that was left early, not because anything failed."""

_PROPAGATOR = TraceContextTextMapPropagator()
_EXPORT_TIMEOUT_S = 5
_EXPORT_EVERY_MS = 500
_SHUTDOWN_S = 3.0
"""How long spans that are left may take to be sent; a receiver that is down must not hold up the end."""
_ATTRIBUTE_CHARS_MAX = 256
"""Some attributes are words of an engine, such as its model's name."""


class Tracing:
    """The tracer of one process. Build it once in the composition root, shut it down last."""

    def __init__(self, endpoint: str, service: str, redact: Redact = str) -> None:
        self._provider: TracerProvider | None = None
        if endpoint:
            self._provider = TracerProvider(
                resource=Resource.create({SERVICE_NAME: service}),
                span_limits=SpanLimits(max_attribute_length=_ATTRIBUTE_CHARS_MAX),
            )
            self._exporter = OTLPSpanExporter(
                endpoint=endpoint, insecure=not endpoint.startswith("https"), timeout=_EXPORT_TIMEOUT_S
            )
            self._provider.add_span_processor(
                BatchSpanProcessor(
                    RedactingExporter(self._exporter, redact), schedule_delay_millis=_EXPORT_EVERY_MS
                )
            )
        provider = self._provider or trace.NoOpTracerProvider()
        self._tracer = provider.get_tracer("heavy")

    def start(
        self,
        name: str,
        traceparent: str,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        at_ns: int | None = None,
    ) -> Span:
        """Start a span below `traceparent` (empty: a new trace), now or earlier. The caller ends it."""
        return self._tracer.start_span(name, _context(traceparent), kind, attributes, start_time=at_ns)

    @contextmanager
    def span(
        self, name: str, traceparent: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL
    ) -> Iterator[Span]:
        """A span around a block. An exception marks it as failed with its stable code, never its text.

        Leaving by a cancel, or by closing the generator the block is in, is marked as `cancelled`.
        """
        span = self.start(name, traceparent, attributes, kind)
        try:
            yield span
        except BaseException as error:
            code = _code_of(error)
            span.set_attribute(names.ERROR_TYPE, code)
            span.set_status(Status(StatusCode.ERROR, code))
            raise
        finally:
            span.end()

    def shutdown(self) -> None:
        """Send what is left, within a few seconds; blocks. Safe to call twice."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        # The provider has no bound of its own that is short enough, and its exporter retries.
        sending = threading.Thread(target=provider.shutdown, name="tracing-shutdown", daemon=True)
        sending.start()
        sending.join(_SHUTDOWN_S)
        if sending.is_alive():
            self._exporter.shutdown()


def traceparent_of(span: Span) -> str:
    """The W3C traceparent of a span; empty when tracing is off."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


def trace_id_of(traceparent: str) -> str:
    """The 32 hex digits of the trace; empty for an empty or broken traceparent."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""


def _context(traceparent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {}, Context())


def _code_of(error: BaseException) -> str:
    if isinstance(error, HeavyError):
        return error.code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    return type(error).__name__
