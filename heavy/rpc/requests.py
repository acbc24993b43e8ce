"""Requests as they come in, read and checked: every invalid field of one is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from heavy.coordinator.api import CreateRequest
from heavy.coordinator.caller_tools import check_declarations
from heavy.coordinator.conversation import check_conversation, check_request_id
from heavy.coordinator.defaults import PolicyDefaults, fingerprint
from heavy.coordinator.files import check_files
from heavy.core.errors import FieldViolation, InvalidRequest
from heavy.core.files import is_digest
from heavy.core.ids import AGGREGATOR, ARMS_MAX, RunId, TrajectoryId, arm, is_run_id
from heavy.core.runs import RunState
from heavy.rpc.calls import Call
from heavy.v1 import heavy_pb2, tool_pb2
from heavy.wire import enums
from heavy.wire.convert_calling import caller_tools_from_proto
from heavy.wire.convert_files import files_from_proto
from heavy.wire.convert_policy import draft_from_proto, messages_from_proto

LIST_PAGE_SIZE: Final = 50
LIST_PAGE_SIZE_MAX: Final = 500
TRAJECTORY_PAGE_SIZE: Final = 200
TRAJECTORY_PAGE_SIZE_MAX: Final = 1_000
REASON_CHARS_MAX: Final = 500
PAGE_TOKEN_CHARS_MAX: Final = 512

ANSWER_MARGIN_SHARE: Final = 0.05
ANSWER_MARGIN_S_MAX: Final = 1.0
"""A run ends this much before its caller's deadline, so that the caller still reads how it ended."""

_TRAJECTORIES = frozenset({AGGREGATOR, *map(arm, range(ARMS_MAX))})

T = TypeVar("T")


def create_request(
    request: heavy_pb2.AskRequest | heavy_pb2.CreateRunRequest,
    call: Call,
    policies: PolicyDefaults,
    *,
    attached: bool,
    deadline_s: float | None = None,
    tools: Sequence[tool_pb2.CallerTool] = (),
) -> CreateRequest:
    """A run to create, its policy complete. `deadline_s` is what the call itself has left, `tools` those of
    the caller's own.

    Raises one `InvalidRequest` with every violation; `ConfigError` when the server's defaults cannot work.
    """
    violations: list[FieldViolation] = []
    messages = messages_from_proto(request.messages, violations)
    draft = draft_from_proto(request.policy, violations)
    violations += check_request_id(request.request_id)
    violations += check_conversation(messages)
    caller_tools = caller_tools_from_proto(tools, violations)
    violations += check_declarations(caller_tools, policies.tool_names)
    policy = _collect(violations, lambda: policies.resolve(draft))
    files = files_from_proto(request.files)
    violations += check_files(files, policy, policies)
    if policy is None or violations:
        raise InvalidRequest(tuple(violations))
    if deadline_s is not None:
        margin_s = min(ANSWER_MARGIN_S_MAX, deadline_s * ANSWER_MARGIN_SHARE)
        policy = replace(policy, deadline_s=min(policy.deadline_s, deadline_s - margin_s))
    return CreateRequest(
        tenant=call.tenant,
        request_id=request.request_id,
        messages=messages,
        policy=policy,
        attached=attached,
        traceparent=call.traceparent,
        fingerprint=fingerprint(messages, draft, caller_tools, files),
        caller_tools=caller_tools,
        files=files,
    )


def _collect(violations: list[FieldViolation], attempt: Callable[[], T]) -> T | None:
    try:
        return attempt()
    except InvalidRequest as error:
        violations += error.violations
        return None


def run_id(text: str) -> RunId:
    """A run id of the right shape; nothing else reaches a store key."""
    if not is_run_id(text):
        raise _invalid("run_id", f"{text!r:.80} is no run id; one looks like run- and 24 hex digits")
    return RunId(text)


def trajectory_id(text: str) -> TrajectoryId:
    """One of the trajectories a run can have."""
    if text not in _TRAJECTORIES:
        raise _invalid("trajectory_id", f"{text!r:.80} must be one of {', '.join(sorted(_TRAJECTORIES))}")
    return TrajectoryId(text)


def after_record(number: int) -> int:
    """The number of the last record a caller has."""
    if number < 0:
        raise _invalid(
            "after_record", f"is {number}; it must be 0, or the number of the last record you have"
        )
    return number


def file_digest(text: str) -> str:
    """The digest by which a file of a run is named."""
    if not is_digest(text):
        raise _invalid("sha256", f"{text!r:.80} is no SHA-256; it has 64 hex digits, as a FileRef says")
    return text


def list_page_size(size: int) -> int:
    """How many runs a page may have."""
    return _page_size(size, LIST_PAGE_SIZE, LIST_PAGE_SIZE_MAX)


def trajectory_page_size(size: int) -> int:
    """How many records a page may have."""
    return _page_size(size, TRAJECTORY_PAGE_SIZE, TRAJECTORY_PAGE_SIZE_MAX)


def page_token(token: str) -> str:
    """What an earlier page gave; only the store knows what it means."""
    if len(token) > PAGE_TOKEN_CHARS_MAX:
        raise _invalid(
            "page_token", "is longer than any token this server gives; leave it empty to start over"
        )
    return token


def reason(text: str) -> str:
    """Why a run is cancelled, for people."""
    if len(text) > REASON_CHARS_MAX:
        raise _invalid("reason", f"has {len(text)} characters; at most {REASON_CHARS_MAX} are kept")
    return text


def run_states(numbers: Sequence[int]) -> frozenset[RunState]:
    """The states to filter by."""
    states = {number: enums.RUN_STATE.find(number) for number in numbers}
    for position, number in enumerate(numbers):
        if states[number] is None:
            raise _invalid(
                f"states[{position}]", f"is {number}; it must be one of {enums.RUN_STATE.choices()}"
            )
    return frozenset(state for state in states.values() if state is not None)


def _page_size(size: int, default: int, most: int) -> int:
    if not 0 <= size <= most:
        raise _invalid("page_size", f"is {size}; it must be from 1 to {most}, or 0 for {default}")
    return size or default


def _invalid(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, problem),))
