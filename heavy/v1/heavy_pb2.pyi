import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from heavy.v1 import policy_pb2 as _policy_pb2
from heavy.v1 import record_pb2 as _record_pb2
from heavy.v1 import run_pb2 as _run_pb2
from heavy.v1 import tool_pb2 as _tool_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReceiptKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECEIPT_KIND_UNSPECIFIED: _ClassVar[ReceiptKind]
    RECEIPT_KIND_TAKEN: _ClassVar[ReceiptKind]
    RECEIPT_KIND_DUPLICATE: _ClassVar[ReceiptKind]
    RECEIPT_KIND_OVER: _ClassVar[ReceiptKind]
    RECEIPT_KIND_NO_SUCH_CALL: _ClassVar[ReceiptKind]
    RECEIPT_KIND_TOO_LARGE: _ClassVar[ReceiptKind]
    RECEIPT_KIND_WITHDRAWN: _ClassVar[ReceiptKind]
RECEIPT_KIND_UNSPECIFIED: ReceiptKind
RECEIPT_KIND_TAKEN: ReceiptKind
RECEIPT_KIND_DUPLICATE: ReceiptKind
RECEIPT_KIND_OVER: ReceiptKind
RECEIPT_KIND_NO_SUCH_CALL: ReceiptKind
RECEIPT_KIND_TOO_LARGE: ReceiptKind
RECEIPT_KIND_WITHDRAWN: ReceiptKind

class AskRequest(_message.Message):
    __slots__ = ("messages", "policy", "request_id", "deltas", "after_record", "files")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    AFTER_RECORD_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Message]
    policy: _policy_pb2.Policy
    request_id: str
    deltas: bool
    after_record: int
    files: _containers.RepeatedCompositeFieldContainer[_run_pb2.File]
    def __init__(self, messages: _Optional[_Iterable[_Union[_policy_pb2.Message, _Mapping]]] = ..., policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., request_id: _Optional[str] = ..., deltas: _Optional[bool] = ..., after_record: _Optional[int] = ..., files: _Optional[_Iterable[_Union[_run_pb2.File, _Mapping]]] = ...) -> None: ...

class AskResponse(_message.Message):
    __slots__ = ("run_id", "record", "deltas")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    record: _record_pb2.Record
    deltas: _record_pb2.DeltaBatch
    def __init__(self, run_id: _Optional[str] = ..., record: _Optional[_Union[_record_pb2.Record, _Mapping]] = ..., deltas: _Optional[_Union[_record_pb2.DeltaBatch, _Mapping]] = ...) -> None: ...

class ConverseStart(_message.Message):
    __slots__ = ("ask", "tools", "calls_held")
    ASK_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    CALLS_HELD_FIELD_NUMBER: _ClassVar[int]
    ask: AskRequest
    tools: _containers.RepeatedCompositeFieldContainer[_tool_pb2.CallerTool]
    calls_held: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ask: _Optional[_Union[AskRequest, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[_tool_pb2.CallerTool, _Mapping]]] = ..., calls_held: _Optional[_Iterable[str]] = ...) -> None: ...

class CallerToolResult(_message.Message):
    __slots__ = ("call_id", "content", "is_error", "unknown")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    IS_ERROR_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    content: str
    is_error: bool
    unknown: bool
    def __init__(self, call_id: _Optional[str] = ..., content: _Optional[str] = ..., is_error: _Optional[bool] = ..., unknown: _Optional[bool] = ...) -> None: ...

class ConverseRequest(_message.Message):
    __slots__ = ("start", "result")
    START_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    start: ConverseStart
    result: CallerToolResult
    def __init__(self, start: _Optional[_Union[ConverseStart, _Mapping]] = ..., result: _Optional[_Union[CallerToolResult, _Mapping]] = ...) -> None: ...

class CallerToolCall(_message.Message):
    __slots__ = ("call_id", "trajectory_id", "step", "name", "arguments", "deadline_at")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_AT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    trajectory_id: str
    step: int
    name: str
    arguments: str
    deadline_at: _timestamp_pb2.Timestamp
    def __init__(self, call_id: _Optional[str] = ..., trajectory_id: _Optional[str] = ..., step: _Optional[int] = ..., name: _Optional[str] = ..., arguments: _Optional[str] = ..., deadline_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CallerToolReceipt(_message.Message):
    __slots__ = ("call_id", "kind", "detail")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    kind: ReceiptKind
    detail: str
    def __init__(self, call_id: _Optional[str] = ..., kind: _Optional[_Union[ReceiptKind, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class ConverseResponse(_message.Message):
    __slots__ = ("run_id", "record", "deltas", "call", "receipt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    record: _record_pb2.Record
    deltas: _record_pb2.DeltaBatch
    call: CallerToolCall
    receipt: CallerToolReceipt
    def __init__(self, run_id: _Optional[str] = ..., record: _Optional[_Union[_record_pb2.Record, _Mapping]] = ..., deltas: _Optional[_Union[_record_pb2.DeltaBatch, _Mapping]] = ..., call: _Optional[_Union[CallerToolCall, _Mapping]] = ..., receipt: _Optional[_Union[CallerToolReceipt, _Mapping]] = ...) -> None: ...

class CreateRunRequest(_message.Message):
    __slots__ = ("messages", "policy", "request_id", "files")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Message]
    policy: _policy_pb2.Policy
    request_id: str
    files: _containers.RepeatedCompositeFieldContainer[_run_pb2.File]
    def __init__(self, messages: _Optional[_Iterable[_Union[_policy_pb2.Message, _Mapping]]] = ..., policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., request_id: _Optional[str] = ..., files: _Optional[_Iterable[_Union[_run_pb2.File, _Mapping]]] = ...) -> None: ...

class CreateRunResponse(_message.Message):
    __slots__ = ("run", "created")
    RUN_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    created: bool
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ..., created: _Optional[bool] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run_id", "after_record", "deltas")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_RECORD_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    after_record: int
    deltas: bool
    def __init__(self, run_id: _Optional[str] = ..., after_record: _Optional[int] = ..., deltas: _Optional[bool] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("run_id", "record", "deltas")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    record: _record_pb2.Record
    deltas: _record_pb2.DeltaBatch
    def __init__(self, run_id: _Optional[str] = ..., record: _Optional[_Union[_record_pb2.Record, _Mapping]] = ..., deltas: _Optional[_Union[_record_pb2.DeltaBatch, _Mapping]] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "states")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    states: _containers.RepeatedScalarFieldContainer[_run_pb2.RunState]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., states: _Optional[_Iterable[_Union[_run_pb2.RunState, str]]] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CancelRunRequest(_message.Message):
    __slots__ = ("run_id", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ...) -> None: ...

class GetTrajectoryRequest(_message.Message):
    __slots__ = ("run_id", "trajectory_id", "after_record", "page_size")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_RECORD_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    trajectory_id: str
    after_record: int
    page_size: int
    def __init__(self, run_id: _Optional[str] = ..., trajectory_id: _Optional[str] = ..., after_record: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class GetTrajectoryResponse(_message.Message):
    __slots__ = ("records", "outcome", "more")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_record_pb2.Record]
    outcome: _run_pb2.Outcome
    more: bool
    def __init__(self, records: _Optional[_Iterable[_Union[_record_pb2.Record, _Mapping]]] = ..., outcome: _Optional[_Union[_run_pb2.Outcome, _Mapping]] = ..., more: _Optional[bool] = ...) -> None: ...

class GetFileRequest(_message.Message):
    __slots__ = ("run_id", "sha256")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    sha256: str
    def __init__(self, run_id: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class GetFileResponse(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...
