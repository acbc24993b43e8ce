import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetCacheStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ToolCacheStats(_message.Message):
    __slots__ = ("tool", "hits", "coalesced", "misses", "bypassed", "stale", "refreshed", "saved_s", "entries", "bytes")
    TOOL_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    COALESCED_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    BYPASSED_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    REFRESHED_FIELD_NUMBER: _ClassVar[int]
    SAVED_S_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    tool: str
    hits: int
    coalesced: int
    misses: int
    bypassed: int
    stale: int
    refreshed: int
    saved_s: float
    entries: int
    bytes: int
    def __init__(self, tool: _Optional[str] = ..., hits: _Optional[int] = ..., coalesced: _Optional[int] = ..., misses: _Optional[int] = ..., bypassed: _Optional[int] = ..., stale: _Optional[int] = ..., refreshed: _Optional[int] = ..., saved_s: _Optional[float] = ..., entries: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class GetCacheStatsResponse(_message.Message):
    __slots__ = ("tools", "bodies", "body_bytes", "leases", "memory_bytes", "memory_bytes_max", "evicted", "complete")
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    BODIES_FIELD_NUMBER: _ClassVar[int]
    BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    tools: _containers.RepeatedCompositeFieldContainer[ToolCacheStats]
    bodies: int
    body_bytes: int
    leases: int
    memory_bytes: int
    memory_bytes_max: int
    evicted: int
    complete: bool
    def __init__(self, tools: _Optional[_Iterable[_Union[ToolCacheStats, _Mapping]]] = ..., bodies: _Optional[int] = ..., body_bytes: _Optional[int] = ..., leases: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_bytes_max: _Optional[int] = ..., evicted: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class GetCacheEntryRequest(_message.Message):
    __slots__ = ("key", "tool", "arguments", "tenant", "run_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    tool: str
    arguments: str
    tenant: str
    run_id: str
    def __init__(self, key: _Optional[str] = ..., tool: _Optional[str] = ..., arguments: _Optional[str] = ..., tenant: _Optional[str] = ..., run_id: _Optional[str] = ...) -> None: ...

class GetCacheEntryResponse(_message.Message):
    __slots__ = ("key", "tool", "content", "is_error", "stored_at", "fresh_until", "expires_at", "cost_s", "bytes")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    IS_ERROR_FIELD_NUMBER: _ClassVar[int]
    STORED_AT_FIELD_NUMBER: _ClassVar[int]
    FRESH_UNTIL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    COST_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    key: str
    tool: str
    content: str
    is_error: bool
    stored_at: _timestamp_pb2.Timestamp
    fresh_until: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    cost_s: float
    bytes: int
    def __init__(self, key: _Optional[str] = ..., tool: _Optional[str] = ..., content: _Optional[str] = ..., is_error: _Optional[bool] = ..., stored_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., fresh_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cost_s: _Optional[float] = ..., bytes: _Optional[int] = ...) -> None: ...

class PurgeCacheRequest(_message.Message):
    __slots__ = ("key", "tool", "tenant", "all")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    key: str
    tool: str
    tenant: str
    all: bool
    def __init__(self, key: _Optional[str] = ..., tool: _Optional[str] = ..., tenant: _Optional[str] = ..., all: _Optional[bool] = ...) -> None: ...

class PurgeCacheResponse(_message.Message):
    __slots__ = ("entries", "leases")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    entries: int
    leases: int
    def __init__(self, entries: _Optional[int] = ..., leases: _Optional[int] = ...) -> None: ...
