import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsagePeriod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_PERIOD_UNSPECIFIED: _ClassVar[UsagePeriod]
    USAGE_PERIOD_DAY: _ClassVar[UsagePeriod]
    USAGE_PERIOD_WEEK: _ClassVar[UsagePeriod]
    USAGE_PERIOD_MONTH: _ClassVar[UsagePeriod]
    USAGE_PERIOD_ALL: _ClassVar[UsagePeriod]
USAGE_PERIOD_UNSPECIFIED: UsagePeriod
USAGE_PERIOD_DAY: UsagePeriod
USAGE_PERIOD_WEEK: UsagePeriod
USAGE_PERIOD_MONTH: UsagePeriod
USAGE_PERIOD_ALL: UsagePeriod

class Subject(_message.Message):
    __slots__ = ("id", "kind", "keys", "traits", "overrides", "counters", "version", "created_at", "updated_at", "member_of", "month_day")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class TraitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    TRAITS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    MEMBER_OF_FIELD_NUMBER: _ClassVar[int]
    MONTH_DAY_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    kind: str
    keys: _containers.ScalarMap[str, str]
    traits: _containers.MessageMap[str, _value_pb2.Value]
    overrides: _containers.RepeatedCompositeFieldContainer[SubjectOverride]
    counters: _containers.RepeatedCompositeFieldContainer[UsageCounter]
    version: int
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    member_of: _containers.RepeatedCompositeFieldContainer[SubjectMembership]
    month_day: int
    def __init__(self, id: _Optional[bytes] = ..., kind: _Optional[str] = ..., keys: _Optional[_Mapping[str, str]] = ..., traits: _Optional[_Mapping[str, _value_pb2.Value]] = ..., overrides: _Optional[_Iterable[_Union[SubjectOverride, _Mapping]]] = ..., counters: _Optional[_Iterable[_Union[UsageCounter, _Mapping]]] = ..., version: _Optional[int] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., member_of: _Optional[_Iterable[_Union[SubjectMembership, _Mapping]]] = ..., month_day: _Optional[int] = ...) -> None: ...

class SubjectMembership(_message.Message):
    __slots__ = ("id", "kind", "keys")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    kind: str
    keys: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[bytes] = ..., kind: _Optional[str] = ..., keys: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SubjectOverride(_message.Message):
    __slots__ = ("setting", "value", "expires_at")
    SETTING_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    setting: str
    value: _value_pb2.Value
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, setting: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class UsageCounter(_message.Message):
    __slots__ = ("event", "period", "count", "period_end")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PERIOD_END_FIELD_NUMBER: _ClassVar[int]
    event: str
    period: UsagePeriod
    count: int
    period_end: _timestamp_pb2.Timestamp
    def __init__(self, event: _Optional[str] = ..., period: _Optional[_Union[UsagePeriod, str]] = ..., count: _Optional[int] = ..., period_end: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SubjectReference(_message.Message):
    __slots__ = ("kind", "keys")
    class KeysEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    keys: _containers.ScalarMap[str, str]
    def __init__(self, kind: _Optional[str] = ..., keys: _Optional[_Mapping[str, str]] = ...) -> None: ...
