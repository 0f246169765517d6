import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientIdentity(_message.Message):
    __slots__ = ("id", "sdk", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    sdk: str
    name: str
    def __init__(self, id: _Optional[str] = ..., sdk: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class ClientReport(_message.Message):
    __slots__ = ("client", "generation", "revision", "node", "declared_types_hash", "diverged", "reported_at", "age", "lag", "error", "settings_read")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DECLARED_TYPES_HASH_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_FIELD_NUMBER: _ClassVar[int]
    REPORTED_AT_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_READ_FIELD_NUMBER: _ClassVar[int]
    client: ClientIdentity
    generation: int
    revision: int
    node: str
    declared_types_hash: bytes
    diverged: bool
    reported_at: _timestamp_pb2.Timestamp
    age: _duration_pb2.Duration
    lag: _duration_pb2.Duration
    error: str
    settings_read: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client: _Optional[_Union[ClientIdentity, _Mapping]] = ..., generation: _Optional[int] = ..., revision: _Optional[int] = ..., node: _Optional[str] = ..., declared_types_hash: _Optional[bytes] = ..., diverged: bool = ..., reported_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., error: _Optional[str] = ..., settings_read: _Optional[_Iterable[str]] = ...) -> None: ...
