"""The error tree as gRPC status and back: the one mapping, used by the server and by the client.

Details follow google.rpc: ErrorInfo on everything (domain "heavy", the error's code as its reason),
BadRequest for fields, RetryInfo where another attempt makes sense, QuotaFailure for limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from heavy.core import errors
from heavy.core.errors import FieldViolation, HeavyError
from heavy.wire.times import duration_from_proto, duration_to_proto

DOMAIN: Final = "heavy"
RETRY_AFTER_S: Final = 1.0
"""When to try again after something that passes by itself but does not say when."""

CODES: Final[dict[type[HeavyError], grpc.StatusCode]] = {
    HeavyError: grpc.StatusCode.INTERNAL,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.RequestConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.InvalidDataset: grpc.StatusCode.INVALID_ARGUMENT,
    errors.JudgeFailed: grpc.StatusCode.UNAVAILABLE,
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CannotWrite: grpc.StatusCode.INTERNAL,
    errors.LimitExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.BudgetExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ContextOverflow: grpc.StatusCode.INVALID_ARGUMENT,
    errors.LeaseLost: grpc.StatusCode.ABORTED,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.ServerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.RunnerLost: grpc.StatusCode.UNAVAILABLE,
    errors.EngineError: grpc.StatusCode.INTERNAL,
    errors.EngineRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EngineUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.EngineTimeout: grpc.StatusCode.UNAVAILABLE,
    errors.MalformedStream: grpc.StatusCode.INTERNAL,
}

_KINDS: Final = {kind.code.upper(): kind for kind in CODES}
_NUMBERS: Final[dict[grpc.StatusCode, int]] = {code: code.value[0] for code in grpc.StatusCode}

# Trailers hold 8 KiB in all, and some of them travel twice: as text and inside the details.
_MESSAGE_BYTES_MAX = 1_000
_FIELD_BYTES_MAX = 300
_FIELDS_BYTES_MAX = 3_000


def to_status(error: HeavyError) -> Status:
    """The google.rpc.Status of an error, small enough for any client's trailers."""
    status = Status(code=_NUMBERS[CODES[type(error)]], message=_clip(error.message, _MESSAGE_BYTES_MAX))
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def passing(error: HeavyError) -> bool:
    """Whether the same call may well succeed a little later."""
    return CODES[type(error)] is grpc.StatusCode.UNAVAILABLE


def _details(error: HeavyError) -> Iterator[Message]:
    metadata = {key: str(value) for key, value in error.details.items() if key in _METADATA}
    yield error_details_pb2.ErrorInfo(reason=error.code.upper(), domain=DOMAIN, metadata=metadata)
    if isinstance(error, errors.InvalidRequest):
        yield _bad_request(error)
    if isinstance(error, errors.LimitExceeded):
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=error.limit, description=_clip(error.message, _FIELD_BYTES_MAX)
        )
        yield error_details_pb2.QuotaFailure(violations=[violation])
    if isinstance(error, errors.Overloaded):
        yield _retry_info(error.retry_after_s)
    elif passing(error):
        yield _retry_info(RETRY_AFTER_S)


_METADATA: Final = frozenset({"limit", "used", "allowed", "replica"})
"""The error details that callers see; whatever else an error carries is for the server's own log."""


def _retry_info(delay_s: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=duration_to_proto(delay_s))


def _bad_request(error: errors.InvalidRequest) -> error_details_pb2.BadRequest:
    """As many violations as trailers hold; the last one says how many more there are."""
    detail, room = error_details_pb2.BadRequest(), _FIELDS_BYTES_MAX
    for position, violation in enumerate(error.violations):
        item = error_details_pb2.BadRequest.FieldViolation(
            field=_clip(violation.field, _FIELD_BYTES_MAX),
            description=_clip(violation.problem, _FIELD_BYTES_MAX),
        )
        room -= item.ByteSize()
        if room < 0:
            rest = f"and {len(error.violations) - position} more"
            detail.field_violations.add(field="", description=rest)
            break
        detail.field_violations.append(item)
    return detail


def _clip(text: str, bytes_max: int) -> str:
    """At most `bytes_max` bytes as they travel: what is not ASCII is percent-encoded, three for one."""
    if len(text.encode()) * 3 <= bytes_max:
        return text
    size = 0
    kept: list[str] = []
    for character in text:
        encoded = character.encode(errors="replace")
        size += len(encoded) if encoded.isalnum() or encoded == b" " else 3 * len(encoded)
        if size > bytes_max - 9:
            return "".join(kept) + "…"
        kept.append(character)
    return text


def from_rpc_error(error: grpc.RpcError, timeout_s: float | None = None) -> HeavyError:
    """The error that a call's status stands for; `timeout_s` is the deadline the call was given."""
    call: Any = error
    code: grpc.StatusCode = call.code()
    message: str = call.details() or code.name
    status = _status_of(call)
    if status is not None:
        known = _from_details(status)
        if known is not None:
            return known
    return _from_code(code, message, timeout_s)


def _status_of(call: Any) -> Status | None:
    """The details in a call's trailers; None when there are none, or none that can be read."""
    try:
        found: Status | None = rpc_status.from_call(call)  # type: ignore[no-untyped-call]
    except (ValueError, DecodeError):
        return None
    return found


def _from_details(status: Status) -> HeavyError | None:
    """The error that the details name, or None when they are not ours."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1))
    for detail in status.details:
        for part in (info, bad, retry):
            detail.Unpack(part)  # does nothing when it is of another type
    kind = _KINDS.get(info.reason) if info.domain == DOMAIN else None
    if kind is None:
        return None
    return _rebuild(kind, status.message, dict(info.metadata), bad, duration_from_proto(retry.retry_delay))


def _rebuild(
    kind: type[HeavyError],
    message: str,
    metadata: dict[str, str],
    bad: error_details_pb2.BadRequest,
    retry_after_s: float,
) -> HeavyError:
    if kind is errors.InvalidRequest:
        return errors.InvalidRequest(
            tuple(FieldViolation(item.field, item.description) for item in bad.field_violations)
        )
    if kind is errors.Overloaded:
        return errors.Overloaded(message, retry_after_s)
    if issubclass(kind, errors.LimitExceeded):
        return kind(
            message, metadata.get("limit", ""), _number(metadata, "used"), _number(metadata, "allowed")
        )
    if issubclass(kind, errors.EngineError):
        return kind(message, metadata.get("replica", ""))
    return kind(message)


def _number(metadata: dict[str, str], key: str) -> float:
    try:
        return float(metadata.get(key, "0"))
    except ValueError:
        return 0.0


def _from_code(code: grpc.StatusCode, message: str, timeout_s: float | None) -> HeavyError:
    """For what was said by gRPC itself, a proxy, or another kind of server: no details of ours."""
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return errors.ServerUnavailable(f"The server cannot be reached: {message}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            limit_s = timeout_s or 0.0
            return errors.LimitExceeded(f"No answer within {limit_s:g} s", "deadline_s", limit_s, limit_s)
        case grpc.StatusCode.UNAUTHENTICATED:
            return errors.Unauthenticated(message)
        case grpc.StatusCode.PERMISSION_DENIED:
            return errors.Forbidden(message)
        case grpc.StatusCode.NOT_FOUND:
            return errors.NotFound(message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in message:
            return _too_large(message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return errors.Overloaded(f"The server takes no more calls now: {message}", RETRY_AFTER_S)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.InvalidRequest((FieldViolation("", message),))
    return HeavyError(f"{code.name}: {message}")


def _too_large(message: str) -> HeavyError:
    """gRPC refuses a message by its size before anybody has read it."""
    if "CLIENT: Received" in message:
        return HeavyError(f"The server's answer is larger than this client accepts ({message}): ask for less")
    problem = f"the request is larger than the server accepts ({message}): send shorter or fewer messages"
    return errors.InvalidRequest((FieldViolation("messages", problem),))
