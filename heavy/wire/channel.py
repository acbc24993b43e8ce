"""What both ends of a connection must agree on: sizes, pings, how fast a lost connection is tried again.

A server answers pings that come faster than it allows with GOAWAY, so both sides are set here together.
"""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_MAX: Final = 16 << 20
"""A conversation may have 4 MiB and files 8; the rest is room for the policy and for overhead."""
RESPONSE_BYTES_MAX: Final = 64 << 20
"""What the client accepts. One record is far smaller; only a whole run record can be large."""
PAGE_BYTES_MAX: Final = 2 << 20
"""Where a page ends early, so that clients with gRPC's default limit of 4 MiB can read it."""

_PING_EVERY_MS = 30_000
_PING_TIMEOUT_MS = 10_000
_PING_FLOOR_MS = 10_000

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
    ("grpc.keepalive_time_ms", _PING_EVERY_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_FLOOR_MS),
    # Two servers on one port would share its connections silently; a taken port must be an error.
    ("grpc.so_reuseport", 0),
)

CLIENT_OPTIONS: Final = (
    ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
    ("grpc.max_send_message_length", REQUEST_BYTES_MAX),
    ("grpc.keepalive_time_ms", _PING_EVERY_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # The client resumes streams itself; a second, hidden retry would only multiply the attempts.
    ("grpc.enable_retries", 0),
)
