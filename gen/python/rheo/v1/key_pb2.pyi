import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_KIND_UNSPECIFIED: _ClassVar[KeyKind]
    KEY_KIND_PUBLIC: _ClassVar[KeyKind]
    KEY_KIND_SERVER: _ClassVar[KeyKind]
    KEY_KIND_RELAY: _ClassVar[KeyKind]
    KEY_KIND_USER: _ClassVar[KeyKind]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_VIEWER: _ClassVar[Role]
    ROLE_EDITOR: _ClassVar[Role]
    ROLE_APPROVER: _ClassVar[Role]
    ROLE_ADMIN: _ClassVar[Role]
KEY_KIND_UNSPECIFIED: KeyKind
KEY_KIND_PUBLIC: KeyKind
KEY_KIND_SERVER: KeyKind
KEY_KIND_RELAY: KeyKind
KEY_KIND_USER: KeyKind
ROLE_UNSPECIFIED: Role
ROLE_VIEWER: Role
ROLE_EDITOR: Role
ROLE_APPROVER: Role
ROLE_ADMIN: Role

class KeyAccess(_message.Message):
    __slots__ = ("kind", "role", "project", "environments", "declare", "subjects")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    kind: KeyKind
    role: Role
    project: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    declare: bool
    subjects: bool
    def __init__(self, kind: _Optional[_Union[KeyKind, str]] = ..., role: _Optional[_Union[Role, str]] = ..., project: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., declare: bool = ..., subjects: bool = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("selector", "access", "description", "created_at", "expires_at", "last_used_at", "revoked_at", "revision")
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_AT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    selector: str
    access: KeyAccess
    description: str
    created_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    last_used_at: _timestamp_pb2.Timestamp
    revoked_at: _timestamp_pb2.Timestamp
    revision: int
    def __init__(self, selector: _Optional[str] = ..., access: _Optional[_Union[KeyAccess, _Mapping]] = ..., description: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_used_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class RelayKey(_message.Message):
    __slots__ = ("selector", "verifier", "access", "expires_at")
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    selector: str
    verifier: bytes
    access: KeyAccess
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, selector: _Optional[str] = ..., verifier: _Optional[bytes] = ..., access: _Optional[_Union[KeyAccess, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
