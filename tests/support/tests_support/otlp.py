"""A receiver of traces: a real OTLP/gRPC server on loopback that remembers every span it was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

STATUS_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it arrived; ids in hex. `error` has the status message of a span that failed."""

    name: str
    trace: str
    span: str
    parent: str
    service: str
    attributes: Mapping[str, Any]
    error: str
    start_ns: int
    end_ns: int
    arrived_ns: int
    text: str
    """Everything it says, for searching in."""


class TraceReceiver(pb_grpc.TraceServiceServicer):
    """Serves from `start` to `stop`. Safe to read while spans arrive.

    A server with threads: it serves module-scoped fixtures, which outlive any event loop.
    """

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(2))
        pb_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def endpoint(self) -> str:
        """What HEAVY_OTLP_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve."""
        self._server.start()

    def stop(self) -> None:
        """Stop serving, at once."""
        self._server.stop(None).wait()

    def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        """Remember."""
        received = [
            _received(span, _attributes(part.resource.attributes).get("service.name", ""))
            for part in request.resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += received
        return pb.ExportTraceServiceResponse()

    def spans(self, trace: str = "") -> list[ReceivedSpan]:
        """What has arrived so far, of one trace or of all."""
        with self._lock:
            return [span for span in self._spans if trace in ("", span.trace)]


def _received(span: Any, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        service=service,
        attributes=_attributes(span.attributes),
        error=span.status.message if span.status.code == STATUS_ERROR else "",
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        arrived_ns=time.time_ns(),
        text=str(span),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    return getattr(value, kind)
