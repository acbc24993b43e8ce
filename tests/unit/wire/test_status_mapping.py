"""The error tree and gRPC status: total, reversible, and never too large for trailers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st

from heavy.core import errors
from heavy.core.errors import FieldViolation, HeavyError, InvalidRequest, LimitExceeded
from heavy.wire import status as mapping


def tree(kind: type[HeavyError] = HeavyError) -> Iterator[type[HeavyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def example(kind: type[HeavyError]) -> HeavyError:
    if issubclass(kind, InvalidRequest):
        return kind((FieldViolation("policy.width", "is 9"), FieldViolation("messages", "is empty")))
    if issubclass(kind, errors.Overloaded):
        return kind("full", 2.5)
    if issubclass(kind, LimitExceeded):
        return kind("over", "tokens_max", 11.0, 10.0)
    if issubclass(kind, errors.EngineError):
        return kind("down", "tiny-0")
    return kind("it went wrong")


def call_error(status: Status) -> grpc.aio.AioRpcError:
    """What a client's call raises for a status."""
    sent: Any = rpc_status.to_status(status)  # type: ignore[no-untyped-call]
    trailers = grpc.aio.Metadata(*sent.trailing_metadata)
    return grpc.aio.AioRpcError(sent.code, grpc.aio.Metadata(), trailers, sent.details)


def details_of(error: HeavyError) -> dict[str, Any]:
    found = {}
    for packed in mapping.to_status(error).details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
        ):
            detail = kind()
            if packed.Unpack(detail):
                found[kind.DESCRIPTOR.name] = detail
    return found


def test_every_error_of_the_tree_has_a_code() -> None:
    defined = {kind for kind in tree() if kind.__module__ == errors.__name__}
    assert defined == set(mapping.CODES)
    assert len({kind.code for kind in defined}) == len(defined)


@pytest.mark.parametrize("kind", list(mapping.CODES), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_itself(kind: type[HeavyError]) -> None:
    sent = example(kind)
    back = mapping.from_rpc_error(call_error(mapping.to_status(sent)))
    assert type(back) is kind
    assert (back.message, back.details) == (sent.message, sent.details)


@pytest.mark.parametrize("kind", list(mapping.CODES), ids=lambda kind: kind.__name__)
def test_every_error_carries_the_details_it_should(kind: type[HeavyError]) -> None:
    details = details_of(example(kind))
    info = details["ErrorInfo"]
    assert (info.domain, info.reason) == ("heavy", kind.code.upper())
    assert ("BadRequest" in details) == (kind is InvalidRequest)
    assert ("QuotaFailure" in details) == issubclass(kind, LimitExceeded)
    passes = mapping.CODES[kind] is grpc.StatusCode.UNAVAILABLE or kind is errors.Overloaded
    assert ("RetryInfo" in details) == passes


def test_details_that_are_not_for_callers_stay_here() -> None:
    error = HeavyError("no", password="hunter2", replica="tiny-0")
    assert dict(details_of(error)["ErrorInfo"].metadata) == {"replica": "tiny-0"}


@given(
    st.text(max_size=3000),
    st.lists(st.builds(FieldViolation, st.text(max_size=400), st.text(max_size=400)), max_size=60),
)
@settings(deadline=None)
def test_no_error_outgrows_the_trailers(text: str, violations: list[FieldViolation]) -> None:
    for error in (errors.NotFound(text), InvalidRequest(tuple(violations))):
        sent = mapping.to_status(error)
        message = sent.message.encode()
        assert len(message) * 3 + sent.ByteSize() * 4 / 3 < 8192


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", errors.ServerUnavailable),
        (grpc.StatusCode.CANCELLED, "", errors.ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", LimitExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!", errors.Overloaded),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (9 vs. 8)",
            InvalidRequest,
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "CLIENT: Received message larger than max (9 vs. 8)",
            HeavyError,
        ),
        (grpc.StatusCode.UNAUTHENTICATED, "who?", errors.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, "no", errors.Forbidden),
        (grpc.StatusCode.NOT_FOUND, "", errors.NotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, "bad", InvalidRequest),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", HeavyError),
    ],
)
def test_what_others_say_without_details_is_translated_too(
    code: grpc.StatusCode, message: str, kind: type[HeavyError]
) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), message)
    translated = mapping.from_rpc_error(error, timeout_s=3)
    assert type(translated) is kind
    assert str(translated)


@pytest.mark.parametrize("trailer", [b"", b"\xff\xff\xff", b"not a status"])
def test_details_that_cannot_be_read_do_no_harm(trailer: bytes) -> None:
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", trailer))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailers, "gone")
    assert type(mapping.from_rpc_error(error)) is errors.NotFound


def test_another_domains_details_are_not_taken_for_ours() -> None:
    status = mapping.to_status(errors.LeaseLost("x"))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    info.domain = "elsewhere"
    status.details[0].Pack(info)
    assert type(mapping.from_rpc_error(call_error(status))) is HeavyError


def test_numbers_that_are_none_do_no_harm() -> None:
    status = mapping.to_status(LimitExceeded("over", "tokens_max", 1, 2))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    info.metadata["used"] = "many"
    status.details[0].Pack(info)
    back = mapping.from_rpc_error(call_error(status))
    assert back.details == {"limit": "tokens_max", "used": 0.0, "allowed": 2.0}
