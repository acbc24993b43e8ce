"""Seconds and milliseconds to protobuf's Duration and Timestamp, and back without loss."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 10**9


def duration_to_proto(seconds: float) -> Duration:
    """To the nanosecond. Raises ValueError when `seconds` is not finite or too long for a Duration."""
    if not abs(seconds) < 1 << 36:
        raise ValueError(f"{seconds} s is no duration")
    whole, nanos = divmod(abs(round(seconds * _NANOS)), _NANOS)
    sign = -1 if seconds < 0 else 1
    return Duration(seconds=sign * whole, nanos=sign * nanos)


def duration_from_proto(duration: Duration) -> float:
    """Seconds."""
    return (duration.seconds * _NANOS + duration.nanos) / _NANOS


def timestamp_to_proto(ms: int) -> Timestamp:
    """From milliseconds since the epoch."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def timestamp_from_proto(timestamp: Timestamp) -> int:
    """Milliseconds since the epoch."""
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000
