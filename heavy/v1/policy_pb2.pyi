import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]
    ROLE_TOOL: _ClassVar[Role]

class AggregationMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_MODE_UNSPECIFIED: _ClassVar[AggregationMode]
    AGGREGATION_MODE_AUTO: _ClassVar[AggregationMode]
    AGGREGATION_MODE_VOTE: _ClassVar[AggregationMode]
    AGGREGATION_MODE_REFLECTIVE: _ClassVar[AggregationMode]

class ContextPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTEXT_POLICY_UNSPECIFIED: _ClassVar[ContextPolicy]
    CONTEXT_POLICY_HIDE_TOOL_OUTPUTS: _ClassVar[ContextPolicy]
    CONTEXT_POLICY_FAIL: _ClassVar[ContextPolicy]
    CONTEXT_POLICY_KEEP_LAST: _ClassVar[ContextPolicy]
    CONTEXT_POLICY_DISCARD_ALL: _ClassVar[ContextPolicy]
    CONTEXT_POLICY_SUMMARISE: _ClassVar[ContextPolicy]
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
ROLE_TOOL: Role
AGGREGATION_MODE_UNSPECIFIED: AggregationMode
AGGREGATION_MODE_AUTO: AggregationMode
AGGREGATION_MODE_VOTE: AggregationMode
AGGREGATION_MODE_REFLECTIVE: AggregationMode
CONTEXT_POLICY_UNSPECIFIED: ContextPolicy
CONTEXT_POLICY_HIDE_TOOL_OUTPUTS: ContextPolicy
CONTEXT_POLICY_FAIL: ContextPolicy
CONTEXT_POLICY_KEEP_LAST: ContextPolicy
CONTEXT_POLICY_DISCARD_ALL: ContextPolicy
CONTEXT_POLICY_SUMMARISE: ContextPolicy

class ToolCall(_message.Message):
    __slots__ = ("id", "name", "arguments")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    arguments: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    role: Role
    content: str
    reasoning: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    tool_call_id: str
    name: str
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., content: _Optional[str] = ..., reasoning: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., tool_call_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("tokens_max", "cost_usd_max", "tool_calls_max", "steps_per_trajectory_max", "reasoning_tokens_per_step_max", "aggregation_share")
    TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    COST_USD_MAX_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_MAX_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_TRAJECTORY_MAX_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_PER_STEP_MAX_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_SHARE_FIELD_NUMBER: _ClassVar[int]
    tokens_max: int
    cost_usd_max: float
    tool_calls_max: int
    steps_per_trajectory_max: int
    reasoning_tokens_per_step_max: int
    aggregation_share: float
    def __init__(self, tokens_max: _Optional[int] = ..., cost_usd_max: _Optional[float] = ..., tool_calls_max: _Optional[int] = ..., steps_per_trajectory_max: _Optional[int] = ..., reasoning_tokens_per_step_max: _Optional[int] = ..., aggregation_share: _Optional[float] = ...) -> None: ...

class Members(_message.Message):
    __slots__ = ("arms", "aggregator")
    ARMS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATOR_FIELD_NUMBER: _ClassVar[int]
    arms: _containers.RepeatedScalarFieldContainer[str]
    aggregator: str
    def __init__(self, arms: _Optional[_Iterable[str]] = ..., aggregator: _Optional[str] = ...) -> None: ...

class ArmsFrom(_message.Message):
    __slots__ = ("run_id", "arms")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    arms: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, run_id: _Optional[str] = ..., arms: _Optional[_Iterable[int]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("width", "members", "quorum", "straggler_grace", "deadline", "budget", "aggregation", "vote_threshold", "early_stop", "tools", "no_tools", "context_policy", "sampling", "context_keep_last", "arms_from", "preset")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    STRAGGLER_GRACE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    VOTE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOP_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    NO_TOOLS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_POLICY_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_KEEP_LAST_FIELD_NUMBER: _ClassVar[int]
    ARMS_FROM_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    width: int
    members: Members
    quorum: int
    straggler_grace: _duration_pb2.Duration
    deadline: _duration_pb2.Duration
    budget: Budget
    aggregation: AggregationMode
    vote_threshold: float
    early_stop: bool
    tools: _containers.RepeatedScalarFieldContainer[str]
    no_tools: bool
    context_policy: ContextPolicy
    sampling: Sampling
    context_keep_last: int
    arms_from: ArmsFrom
    preset: str
    def __init__(self, width: _Optional[int] = ..., members: _Optional[_Union[Members, _Mapping]] = ..., quorum: _Optional[int] = ..., straggler_grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., aggregation: _Optional[_Union[AggregationMode, str]] = ..., vote_threshold: _Optional[float] = ..., early_stop: _Optional[bool] = ..., tools: _Optional[_Iterable[str]] = ..., no_tools: _Optional[bool] = ..., context_policy: _Optional[_Union[ContextPolicy, str]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., context_keep_last: _Optional[int] = ..., arms_from: _Optional[_Union[ArmsFrom, _Mapping]] = ..., preset: _Optional[str] = ...) -> None: ...
