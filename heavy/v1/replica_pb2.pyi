import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListReplicasRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Replica(_message.Message):
    __slots__ = ("replica_id", "profile", "engine", "model", "state", "detail", "base_url", "running", "waiting", "in_flight_max", "kv_tokens_used", "kv_tokens_max", "pid", "nodes", "revision", "since", "kv_tokens_reserved")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    BASE_URL_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_MAX_FIELD_NUMBER: _ClassVar[int]
    KV_TOKENS_USED_FIELD_NUMBER: _ClassVar[int]
    KV_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    KV_TOKENS_RESERVED_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    profile: str
    engine: str
    model: str
    state: str
    detail: str
    base_url: str
    running: int
    waiting: int
    in_flight_max: int
    kv_tokens_used: int
    kv_tokens_max: int
    pid: int
    nodes: _containers.RepeatedScalarFieldContainer[str]
    revision: str
    since: _timestamp_pb2.Timestamp
    kv_tokens_reserved: int
    def __init__(self, replica_id: _Optional[str] = ..., profile: _Optional[str] = ..., engine: _Optional[str] = ..., model: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ..., base_url: _Optional[str] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ..., in_flight_max: _Optional[int] = ..., kv_tokens_used: _Optional[int] = ..., kv_tokens_max: _Optional[int] = ..., pid: _Optional[int] = ..., nodes: _Optional[_Iterable[str]] = ..., revision: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kv_tokens_reserved: _Optional[int] = ...) -> None: ...

class Runner(_message.Message):
    __slots__ = ("runner_id", "in_flight", "in_flight_max", "pid", "sandbox")
    RUNNER_ID_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_MAX_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    SANDBOX_FIELD_NUMBER: _ClassVar[int]
    runner_id: str
    in_flight: int
    in_flight_max: int
    pid: int
    sandbox: str
    def __init__(self, runner_id: _Optional[str] = ..., in_flight: _Optional[int] = ..., in_flight_max: _Optional[int] = ..., pid: _Optional[int] = ..., sandbox: _Optional[str] = ...) -> None: ...

class ServedProfile(_message.Message):
    __slots__ = ("profile", "replicas", "replicas_min", "replicas_max", "revision", "failures", "reason", "quarantined")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_MIN_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_MAX_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    profile: str
    replicas: int
    replicas_min: int
    replicas_max: int
    revision: str
    failures: int
    reason: str
    quarantined: bool
    def __init__(self, profile: _Optional[str] = ..., replicas: _Optional[int] = ..., replicas_min: _Optional[int] = ..., replicas_max: _Optional[int] = ..., revision: _Optional[str] = ..., failures: _Optional[int] = ..., reason: _Optional[str] = ..., quarantined: _Optional[bool] = ...) -> None: ...

class ListReplicasResponse(_message.Message):
    __slots__ = ("replicas", "runners", "profiles")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RUNNERS_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    runners: _containers.RepeatedCompositeFieldContainer[Runner]
    profiles: _containers.RepeatedCompositeFieldContainer[ServedProfile]
    def __init__(self, replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ..., runners: _Optional[_Iterable[_Union[Runner, _Mapping]]] = ..., profiles: _Optional[_Iterable[_Union[ServedProfile, _Mapping]]] = ...) -> None: ...

class GetReplicaLogRequest(_message.Message):
    __slots__ = ("replica_id",)
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    def __init__(self, replica_id: _Optional[str] = ...) -> None: ...

class GetReplicaLogResponse(_message.Message):
    __slots__ = ("lines",)
    LINES_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lines: _Optional[_Iterable[str]] = ...) -> None: ...

class DrainReplicaRequest(_message.Message):
    __slots__ = ("replica_id",)
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    def __init__(self, replica_id: _Optional[str] = ...) -> None: ...

class DrainReplicaResponse(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: ServedProfile
    def __init__(self, profile: _Optional[_Union[ServedProfile, _Mapping]] = ...) -> None: ...

class UpdateProfileRequest(_message.Message):
    __slots__ = ("profile", "definition", "replicas", "replicas_max", "restart")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_MAX_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    profile: str
    definition: str
    replicas: int
    replicas_max: int
    restart: bool
    def __init__(self, profile: _Optional[str] = ..., definition: _Optional[str] = ..., replicas: _Optional[int] = ..., replicas_max: _Optional[int] = ..., restart: _Optional[bool] = ...) -> None: ...

class UpdateProfileResponse(_message.Message):
    __slots__ = ("profile",)
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    profile: ServedProfile
    def __init__(self, profile: _Optional[_Union[ServedProfile, _Mapping]] = ...) -> None: ...
