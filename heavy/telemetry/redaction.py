"""Secrets kept out of logs and spans: both pass here on their way out of the process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

Redact = Callable[[str], str]

_FORMATTER: Final = logging.Formatter()
_PLAIN: Final = logging.getLogRecordFactory()


def redact_logs(redact: Redact) -> None:
    """From now on every log record of this process is redacted as it is made, tracebacks included.

    Whatever handler writes it, and wherever: it never sees the secret. Calling it again replaces `redact`.
    """

    def made(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = _PLAIN(*arguments, **more)
        try:
            record.msg, record.args = redact(record.getMessage()), ()
        except (TypeError, ValueError):
            record.msg, record.args = redact(f"{record.msg} (its arguments do not fit: {record.args!r})"), ()
        if record.exc_info:
            record.exc_text = redact(_FORMATTER.formatException(record.exc_info))
        return record

    logging.setLogRecordFactory(made)


class RedactingExporter(SpanExporter):
    """Passes spans on with names, attributes and status texts redacted; ours have no events."""

    def __init__(self, inner: SpanExporter, redact: Redact) -> None:
        self._inner = inner
        self._redact = redact

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export redacted copies."""
        return self._inner.export([self._copy(span) for span in spans])

    def shutdown(self) -> None:
        """Shut down what it passes on to."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush what it passes on to."""
        return self._inner.force_flush(timeout_millis)

    def _copy(self, span: ReadableSpan) -> ReadableSpan:
        status = span.status
        return ReadableSpan(
            name=self._redact(span.name),
            context=span.get_span_context(),
            parent=span.parent,
            resource=span.resource,
            attributes=self._attributes(span.attributes),
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=Status(status.status_code, self._redact(status.description))
            if status.description
            else status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        return {name: self._value(value) for name, value in (attributes or {}).items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value)
        return tuple(map(self._value, value)) if isinstance(value, tuple) else value
