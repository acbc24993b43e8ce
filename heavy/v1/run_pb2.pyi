import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from heavy.v1 import policy_pb2 as _policy_pb2
from heavy.v1 import tool_pb2 as _tool_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_ACCEPTED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_AGGREGATING: _ClassVar[RunState]
    RUN_STATE_COMPLETED: _ClassVar[RunState]
    RUN_STATE_FAILED: _ClassVar[RunState]
    RUN_STATE_CANCELLED: _ClassVar[RunState]

class OutcomeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_KIND_UNSPECIFIED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_COMPLETED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_CUT: _ClassVar[OutcomeKind]
    OUTCOME_KIND_FAILED: _ClassVar[OutcomeKind]

class AggregationMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_METHOD_UNSPECIFIED: _ClassVar[AggregationMethod]
    AGGREGATION_METHOD_VOTE: _ClassVar[AggregationMethod]
    AGGREGATION_METHOD_REFLECTIVE: _ClassVar[AggregationMethod]
    AGGREGATION_METHOD_SINGLE: _ClassVar[AggregationMethod]
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_ACCEPTED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_AGGREGATING: RunState
RUN_STATE_COMPLETED: RunState
RUN_STATE_FAILED: RunState
RUN_STATE_CANCELLED: RunState
OUTCOME_KIND_UNSPECIFIED: OutcomeKind
OUTCOME_KIND_COMPLETED: OutcomeKind
OUTCOME_KIND_CUT: OutcomeKind
OUTCOME_KIND_FAILED: OutcomeKind
AGGREGATION_METHOD_UNSPECIFIED: AggregationMethod
AGGREGATION_METHOD_VOTE: AggregationMethod
AGGREGATION_METHOD_REFLECTIVE: AggregationMethod
AGGREGATION_METHOD_SINGLE: AggregationMethod

class Spend(_message.Message):
    __slots__ = ("tokens_prompt", "tokens_cached", "tokens_reasoning", "tokens_output", "tool_calls", "gpu_seconds", "cost_usd", "wall_s")
    TOKENS_PROMPT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_CACHED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_REASONING_FIELD_NUMBER: _ClassVar[int]
    TOKENS_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    GPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    tokens_prompt: int
    tokens_cached: int
    tokens_reasoning: int
    tokens_output: int
    tool_calls: int
    gpu_seconds: float
    cost_usd: float
    wall_s: float
    def __init__(self, tokens_prompt: _Optional[int] = ..., tokens_cached: _Optional[int] = ..., tokens_reasoning: _Optional[int] = ..., tokens_output: _Optional[int] = ..., tool_calls: _Optional[int] = ..., gpu_seconds: _Optional[float] = ..., cost_usd: _Optional[float] = ..., wall_s: _Optional[float] = ...) -> None: ...

class Ledger(_message.Message):
    __slots__ = ("total", "trajectories")
    class TrajectoriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Spend
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Spend, _Mapping]] = ...) -> None: ...
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    total: Spend
    trajectories: _containers.MessageMap[str, Spend]
    def __init__(self, total: _Optional[_Union[Spend, _Mapping]] = ..., trajectories: _Optional[_Mapping[str, Spend]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("trajectory_id", "kind", "reason", "detail", "answer", "steps", "spend", "profile")
    TRAJECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SPEND_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    trajectory_id: str
    kind: OutcomeKind
    reason: str
    detail: str
    answer: str
    steps: int
    spend: Spend
    profile: str
    def __init__(self, trajectory_id: _Optional[str] = ..., kind: _Optional[_Union[OutcomeKind, str]] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., answer: _Optional[str] = ..., steps: _Optional[int] = ..., spend: _Optional[_Union[Spend, _Mapping]] = ..., profile: _Optional[str] = ...) -> None: ...

class AnswerGroup(_message.Message):
    __slots__ = ("answer", "trajectory_ids")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORY_IDS_FIELD_NUMBER: _ClassVar[int]
    answer: str
    trajectory_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, answer: _Optional[str] = ..., trajectory_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("groups", "share")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[AnswerGroup]
    share: float
    def __init__(self, groups: _Optional[_Iterable[_Union[AnswerGroup, _Mapping]]] = ..., share: _Optional[float] = ...) -> None: ...

class Citation(_message.Message):
    __slots__ = ("trajectory_id", "step", "note")
    TRAJECTORY_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    trajectory_id: str
    step: int
    note: str
    def __init__(self, trajectory_id: _Optional[str] = ..., step: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...

class RunResult(_message.Message):
    __slots__ = ("answer", "short_answer", "method", "agreement", "citations", "dissent", "abstained")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SHORT_ANSWER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    DISSENT_FIELD_NUMBER: _ClassVar[int]
    ABSTAINED_FIELD_NUMBER: _ClassVar[int]
    answer: str
    short_answer: str
    method: AggregationMethod
    agreement: Agreement
    citations: _containers.RepeatedCompositeFieldContainer[Citation]
    dissent: str
    abstained: bool
    def __init__(self, answer: _Optional[str] = ..., short_answer: _Optional[str] = ..., method: _Optional[_Union[AggregationMethod, str]] = ..., agreement: _Optional[_Union[Agreement, _Mapping]] = ..., citations: _Optional[_Iterable[_Union[Citation, _Mapping]]] = ..., dissent: _Optional[str] = ..., abstained: _Optional[bool] = ...) -> None: ...

class RunFailure(_message.Message):
    __slots__ = ("code", "message", "outcomes")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("name", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    content: bytes
    def __init__(self, name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class FileRef(_message.Message):
    __slots__ = ("name", "sha256", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run_id", "request_id", "state", "policy", "messages", "created_at", "ended_at", "deadline_at", "records", "result", "failure", "ledger", "traceparent", "simulated", "tenant", "attached", "cancel_reason", "caller_tools", "files")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_AT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REASON_FIELD_NUMBER: _ClassVar[int]
    CALLER_TOOLS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    request_id: str
    state: RunState
    policy: _policy_pb2.Policy
    messages: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Message]
    created_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    deadline_at: _timestamp_pb2.Timestamp
    records: int
    result: RunResult
    failure: RunFailure
    ledger: Ledger
    traceparent: str
    simulated: bool
    tenant: str
    attached: bool
    cancel_reason: str
    caller_tools: _containers.RepeatedCompositeFieldContainer[_tool_pb2.CallerTool]
    files: _containers.RepeatedCompositeFieldContainer[FileRef]
    def __init__(self, run_id: _Optional[str] = ..., request_id: _Optional[str] = ..., state: _Optional[_Union[RunState, str]] = ..., policy: _Optional[_Union[_policy_pb2.Policy, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[_policy_pb2.Message, _Mapping]]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., records: _Optional[int] = ..., result: _Optional[_Union[RunResult, _Mapping]] = ..., failure: _Optional[_Union[RunFailure, _Mapping]] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., traceparent: _Optional[str] = ..., simulated: _Optional[bool] = ..., tenant: _Optional[str] = ..., attached: _Optional[bool] = ..., cancel_reason: _Optional[str] = ..., caller_tools: _Optional[_Iterable[_Union[_tool_pb2.CallerTool, _Mapping]]] = ..., files: _Optional[_Iterable[_Union[FileRef, _Mapping]]] = ...) -> None: ...
