import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from heavy.v1 import policy_pb2 as _policy_pb2
from heavy.v1 import run_pb2 as _run_pb2
from heavy.v1 import tool_pb2 as _tool_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_TOOL_CALLS: _ClassVar[FinishReason]
    FINISH_REASON_ABORT: _ClassVar[FinishReason]

class CacheState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_STATE_UNSPECIFIED: _ClassVar[CacheState]
    CACHE_STATE_HIT: _ClassVar[CacheState]
    CACHE_STATE_COALESCED: _ClassVar[CacheState]
    CACHE_STATE_MISS: _ClassVar[CacheState]
    CACHE_STATE_BYPASS: _ClassVar[CacheState]
    CACHE_STATE_STALE: _ClassVar[CacheState]

class Event(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_UNSPECIFIED: _ClassVar[Event]
    EVENT_RUN_STATE: _ClassVar[Event]
    EVENT_TRAJECTORY_STARTED: _ClassVar[Event]
    EVENT_TRAJECTORY_ENDED: _ClassVar[Event]
    EVENT_NOTE: _ClassVar[Event]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_TOOL_CALLS: FinishReason
FINISH_REASON_ABORT: FinishReason
CACHE_STATE_UNSPECIFIED: CacheState
CACHE_STATE_HIT: CacheState
CACHE_STATE_COALESCED: CacheState
CACHE_STATE_MISS: CacheState
CACHE_STATE_BYPASS: CacheState
CACHE_STATE_STALE: CacheState
EVENT_UNSPECIFIED: Event
EVENT_RUN_STATE: Event
EVENT_TRAJECTORY_STARTED: Event
EVENT_TRAJECTORY_ENDED: Event
EVENT_NOTE: Event

class Record(_message.Message):
    __slots__ = ("number", "trajectory_id", "step", "at", "generation", "partial_generation", "tool_intent", "tool_result", "lifecycle")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TOOL_INTENT_FIELD_NUMBER: _ClassVar[int]
    TOOL_RESULT_FIELD_NUMBER: _ClassVar[int]
    LIFECYCLE_FIELD_NUMBER: _ClassVar[int]
    number: int
    trajectory_id: str
    step: int
    at: _timestamp_pb2.Timestamp
    generation: Generation
    partial_generation: PartialGeneration
    tool_intent: ToolIntent
    tool_result: ToolResult
    lifecycle: Lifecycle
    def __init__(self, number: _Optional[int] = ..., trajectory_id: _Optional[str] = ..., step: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ..., partial_generation: _Optional[_Union[PartialGeneration, _Mapping]] = ..., tool_intent: _Optional[_Union[ToolIntent, _Mapping]] = ..., tool_result: _Optional[_Union[ToolResult, _Mapping]] = ..., lifecycle: _Optional[_Union[Lifecycle, _Mapping]] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("message", "finish_reason", "spend", "replica_id", "model", "engine_request_id", "queue_s", "first_token_s", "decode_s", "repairs", "placed")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    SPEND_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    REPAIRS_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    message: _policy_pb2.Message
    finish_reason: FinishReason
    spend: _run_pb2.Spend
    replica_id: str
    model: str
    engine_request_id: str
    queue_s: float
    first_token_s: float
    decode_s: float
    repairs: _containers.RepeatedScalarFieldContainer[str]
    placed: str
    def __init__(self, message: _Optional[_Union[_policy_pb2.Message, _Mapping]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., spend: _Optional[_Union[_run_pb2.Spend, _Mapping]] = ..., replica_id: _Optional[str] = ..., model: _Optional[str] = ..., engine_request_id: _Optional[str] = ..., queue_s: _Optional[float] = ..., first_token_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., repairs: _Optional[_Iterable[str]] = ..., placed: _Optional[str] = ...) -> None: ...

class PartialGeneration(_message.Message):
    __slots__ = ("message", "tokens_output", "reason", "spend")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPEND_FIELD_NUMBER: _ClassVar[int]
    message: _policy_pb2.Message
    tokens_output: int
    reason: str
    spend: _run_pb2.Spend
    def __init__(self, message: _Optional[_Union[_policy_pb2.Message, _Mapping]] = ..., tokens_output: _Optional[int] = ..., reason: _Optional[str] = ..., spend: _Optional[_Union[_run_pb2.Spend, _Mapping]] = ...) -> None: ...

class ToolIntent(_message.Message):
    __slots__ = ("call", "effects")
    CALL_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    call: _policy_pb2.ToolCall
    effects: _tool_pb2.Effects
    def __init__(self, call: _Optional[_Union[_policy_pb2.ToolCall, _Mapping]] = ..., effects: _Optional[_Union[_tool_pb2.Effects, str]] = ...) -> None: ...

class ToolResult(_message.Message):
    __slots__ = ("call_id", "name", "content", "is_error", "cache", "duration_s", "unknown", "files")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    IS_ERROR_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    name: str
    content: str
    is_error: bool
    cache: CacheState
    duration_s: float
    unknown: bool
    files: _containers.RepeatedCompositeFieldContainer[_run_pb2.FileRef]
    def __init__(self, call_id: _Optional[str] = ..., name: _Optional[str] = ..., content: _Optional[str] = ..., is_error: _Optional[bool] = ..., cache: _Optional[_Union[CacheState, str]] = ..., duration_s: _Optional[float] = ..., unknown: _Optional[bool] = ..., files: _Optional[_Iterable[_Union[_run_pb2.FileRef, _Mapping]]] = ...) -> None: ...

class Lifecycle(_message.Message):
    __slots__ = ("event", "detail", "state", "outcome", "result", "failure", "ledger", "profile")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    event: Event
    detail: str
    state: _run_pb2.RunState
    outcome: _run_pb2.Outcome
    result: _run_pb2.RunResult
    failure: _run_pb2.RunFailure
    ledger: _run_pb2.Ledger
    profile: str
    def __init__(self, event: _Optional[_Union[Event, str]] = ..., detail: _Optional[str] = ..., state: _Optional[_Union[_run_pb2.RunState, str]] = ..., outcome: _Optional[_Union[_run_pb2.Outcome, _Mapping]] = ..., result: _Optional[_Union[_run_pb2.RunResult, _Mapping]] = ..., failure: _Optional[_Union[_run_pb2.RunFailure, _Mapping]] = ..., ledger: _Optional[_Union[_run_pb2.Ledger, _Mapping]] = ..., profile: _Optional[str] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("trajectory_id", "step", "reasoning", "content")
    TRAJECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    trajectory_id: str
    step: int
    reasoning: str
    content: str
    def __init__(self, trajectory_id: _Optional[str] = ..., step: _Optional[int] = ..., reasoning: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class DeltaBatch(_message.Message):
    __slots__ = ("deltas",)
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    deltas: _containers.RepeatedCompositeFieldContainer[Delta]
    def __init__(self, deltas: _Optional[_Iterable[_Union[Delta, _Mapping]]] = ...) -> None: ...
