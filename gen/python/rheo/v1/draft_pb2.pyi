import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import change_pb2 as _change_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DraftState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DRAFT_STATE_UNSPECIFIED: _ClassVar[DraftState]
    DRAFT_STATE_OPEN: _ClassVar[DraftState]
    DRAFT_STATE_SCHEDULED: _ClassVar[DraftState]
    DRAFT_STATE_COMMITTED: _ClassVar[DraftState]
    DRAFT_STATE_CANCELLED: _ClassVar[DraftState]
    DRAFT_STATE_FAILED: _ClassVar[DraftState]
DRAFT_STATE_UNSPECIFIED: DraftState
DRAFT_STATE_OPEN: DraftState
DRAFT_STATE_SCHEDULED: DraftState
DRAFT_STATE_COMMITTED: DraftState
DRAFT_STATE_CANCELLED: DraftState
DRAFT_STATE_FAILED: DraftState

class Draft(_message.Message):
    __slots__ = ("id", "project", "environment", "version", "state", "mutations", "message", "author", "actor", "created_at", "updated_at", "base_revision", "environments", "approvals", "missing_approvals", "scheduled_at", "revision", "failure", "force")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_FIELD_NUMBER: _ClassVar[int]
    MISSING_APPROVALS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_AT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    project: str
    environment: str
    version: int
    state: DraftState
    mutations: _containers.RepeatedCompositeFieldContainer[_change_pb2.Mutation]
    message: str
    author: str
    actor: str
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    base_revision: int
    environments: _containers.RepeatedScalarFieldContainer[str]
    approvals: _containers.RepeatedCompositeFieldContainer[Approval]
    missing_approvals: _containers.RepeatedCompositeFieldContainer[MissingApproval]
    scheduled_at: _timestamp_pb2.Timestamp
    revision: int
    failure: str
    force: bool
    def __init__(self, id: _Optional[str] = ..., project: _Optional[str] = ..., environment: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[DraftState, str]] = ..., mutations: _Optional[_Iterable[_Union[_change_pb2.Mutation, _Mapping]]] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., actor: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., base_revision: _Optional[int] = ..., environments: _Optional[_Iterable[str]] = ..., approvals: _Optional[_Iterable[_Union[Approval, _Mapping]]] = ..., missing_approvals: _Optional[_Iterable[_Union[MissingApproval, _Mapping]]] = ..., scheduled_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., failure: _Optional[str] = ..., force: bool = ...) -> None: ...

class Approval(_message.Message):
    __slots__ = ("environments", "author", "actor", "approved_at", "comment")
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    APPROVED_AT_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    environments: _containers.RepeatedScalarFieldContainer[str]
    author: str
    actor: str
    approved_at: _timestamp_pb2.Timestamp
    comment: str
    def __init__(self, environments: _Optional[_Iterable[str]] = ..., author: _Optional[str] = ..., actor: _Optional[str] = ..., approved_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., comment: _Optional[str] = ...) -> None: ...

class MissingApproval(_message.Message):
    __slots__ = ("environment", "required", "given", "self_approval")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    SELF_APPROVAL_FIELD_NUMBER: _ClassVar[int]
    environment: str
    required: int
    given: int
    self_approval: bool
    def __init__(self, environment: _Optional[str] = ..., required: _Optional[int] = ..., given: _Optional[int] = ..., self_approval: bool = ...) -> None: ...
