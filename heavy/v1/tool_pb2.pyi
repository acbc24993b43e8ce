import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Effects(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFECTS_UNSPECIFIED: _ClassVar[Effects]
    EFFECTS_PURE: _ClassVar[Effects]
    EFFECTS_READ: _ClassVar[Effects]
    EFFECTS_WRITE: _ClassVar[Effects]
EFFECTS_UNSPECIFIED: Effects
EFFECTS_PURE: Effects
EFFECTS_READ: Effects
EFFECTS_WRITE: Effects

class CallerTool(_message.Message):
    __slots__ = ("name", "description", "parameters", "effects", "timeout", "cacheable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CACHEABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters: str
    effects: Effects
    timeout: _duration_pb2.Duration
    cacheable: bool
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters: _Optional[str] = ..., effects: _Optional[_Union[Effects, str]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., cacheable: _Optional[bool] = ...) -> None: ...
