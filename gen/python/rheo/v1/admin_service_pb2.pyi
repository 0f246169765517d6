import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import change_pb2 as _change_pb2
from rheo.v1 import client_pb2 as _client_pb2
from rheo.v1 import key_pb2 as _key_pb2
from rheo.v1 import project_pb2 as _project_pb2
from rheo.v1 import segment_pb2 as _segment_pb2
from rheo.v1 import setting_pb2 as _setting_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StaleReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STALE_REASON_UNSPECIFIED: _ClassVar[StaleReason]
    STALE_REASON_UNREAD: _ClassVar[StaleReason]
    STALE_REASON_ONE_VALUE: _ClassVar[StaleReason]
    STALE_REASON_LIFECYCLE: _ClassVar[StaleReason]
STALE_REASON_UNSPECIFIED: StaleReason
STALE_REASON_UNREAD: StaleReason
STALE_REASON_ONE_VALUE: StaleReason
STALE_REASON_LIFECYCLE: StaleReason

class CommitRequest(_message.Message):
    __slots__ = ("project", "environment", "mutations", "message", "author", "request_id", "expected_revision", "dry_run", "force")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    mutations: _containers.RepeatedCompositeFieldContainer[_change_pb2.Mutation]
    message: str
    author: str
    request_id: str
    expected_revision: int
    dry_run: bool
    force: bool
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., mutations: _Optional[_Iterable[_Union[_change_pb2.Mutation, _Mapping]]] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_revision: _Optional[int] = ..., dry_run: bool = ..., force: bool = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("revision", "generation", "changes", "warnings", "replayed")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    generation: int
    changes: _containers.RepeatedCompositeFieldContainer[_change_pb2.Change]
    warnings: _containers.RepeatedCompositeFieldContainer[_change_pb2.Warning]
    replayed: bool
    def __init__(self, revision: _Optional[int] = ..., generation: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[_change_pb2.Change, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_change_pb2.Warning, _Mapping]]] = ..., replayed: bool = ...) -> None: ...

class RevertRequest(_message.Message):
    __slots__ = ("project", "environment", "revision", "to_revision", "message", "author", "request_id", "expected_revision", "dry_run", "force")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    revision: int
    to_revision: int
    message: str
    author: str
    request_id: str
    expected_revision: int
    dry_run: bool
    force: bool
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., revision: _Optional[int] = ..., to_revision: _Optional[int] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., request_id: _Optional[str] = ..., expected_revision: _Optional[int] = ..., dry_run: bool = ..., force: bool = ...) -> None: ...

class RevertResponse(_message.Message):
    __slots__ = ("revision", "generation", "changes", "warnings", "replayed")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    generation: int
    changes: _containers.RepeatedCompositeFieldContainer[_change_pb2.Change]
    warnings: _containers.RepeatedCompositeFieldContainer[_change_pb2.Warning]
    replayed: bool
    def __init__(self, revision: _Optional[int] = ..., generation: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[_change_pb2.Change, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_change_pb2.Warning, _Mapping]]] = ..., replayed: bool = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("project", "environment", "environments", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., min_revision: _Optional[int] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("project", "environments", "segments", "features", "revision", "generation")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    project: _project_pb2.Project
    environments: _containers.RepeatedCompositeFieldContainer[EnvironmentState]
    segments: _containers.RepeatedCompositeFieldContainer[_segment_pb2.Segment]
    features: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    generation: int
    def __init__(self, project: _Optional[_Union[_project_pb2.Project, _Mapping]] = ..., environments: _Optional[_Iterable[_Union[EnvironmentState, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[_segment_pb2.Segment, _Mapping]]] = ..., features: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class EnvironmentState(_message.Message):
    __slots__ = ("environment", "settings")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    environment: _project_pb2.Environment
    settings: _containers.RepeatedCompositeFieldContainer[_setting_pb2.Setting]
    def __init__(self, environment: _Optional[_Union[_project_pb2.Environment, _Mapping]] = ..., settings: _Optional[_Iterable[_Union[_setting_pb2.Setting, _Mapping]]] = ...) -> None: ...

class CreateKeyRequest(_message.Message):
    __slots__ = ("project", "environment", "environments", "kind", "role", "store_wide", "declare", "subjects", "description", "expires_at", "message", "author", "request_id")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STORE_WIDE_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    kind: _key_pb2.KeyKind
    role: _key_pb2.Role
    store_wide: bool
    declare: bool
    subjects: bool
    description: str
    expires_at: _timestamp_pb2.Timestamp
    message: str
    author: str
    request_id: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., kind: _Optional[_Union[_key_pb2.KeyKind, str]] = ..., role: _Optional[_Union[_key_pb2.Role, str]] = ..., store_wide: bool = ..., declare: bool = ..., subjects: bool = ..., description: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateKeyResponse(_message.Message):
    __slots__ = ("key", "secret", "revision", "generation", "replayed")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    key: _key_pb2.Key
    secret: str
    revision: int
    generation: int
    replayed: bool
    def __init__(self, key: _Optional[_Union[_key_pb2.Key, _Mapping]] = ..., secret: _Optional[str] = ..., revision: _Optional[int] = ..., generation: _Optional[int] = ..., replayed: bool = ...) -> None: ...

class RotateKeyRequest(_message.Message):
    __slots__ = ("project", "environment", "selector", "overlap", "expires_at", "message", "author", "request_id")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    selector: str
    overlap: _duration_pb2.Duration
    expires_at: _timestamp_pb2.Timestamp
    message: str
    author: str
    request_id: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., selector: _Optional[str] = ..., overlap: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RotateKeyResponse(_message.Message):
    __slots__ = ("key", "secret", "old_key", "revision", "generation", "replayed")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    OLD_KEY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    key: _key_pb2.Key
    secret: str
    old_key: _key_pb2.Key
    revision: int
    generation: int
    replayed: bool
    def __init__(self, key: _Optional[_Union[_key_pb2.Key, _Mapping]] = ..., secret: _Optional[str] = ..., old_key: _Optional[_Union[_key_pb2.Key, _Mapping]] = ..., revision: _Optional[int] = ..., generation: _Optional[int] = ..., replayed: bool = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("project", "environment", "selector", "message", "author", "request_id")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    selector: str
    message: str
    author: str
    request_id: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., selector: _Optional[str] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ("key", "revision", "generation", "replayed")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    key: _key_pb2.Key
    revision: int
    generation: int
    replayed: bool
    def __init__(self, key: _Optional[_Union[_key_pb2.Key, _Mapping]] = ..., revision: _Optional[int] = ..., generation: _Optional[int] = ..., replayed: bool = ...) -> None: ...

class GetProjectRequest(_message.Message):
    __slots__ = ("project", "environment", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class GetProjectResponse(_message.Message):
    __slots__ = ("project", "revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    project: _project_pb2.Project
    revision: int
    def __init__(self, project: _Optional[_Union[_project_pb2.Project, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListProjectsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "min_revision")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    min_revision: int
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class ListProjectsResponse(_message.Message):
    __slots__ = ("projects", "next_page_token")
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    projects: _containers.RepeatedCompositeFieldContainer[_project_pb2.Project]
    next_page_token: str
    def __init__(self, projects: _Optional[_Iterable[_Union[_project_pb2.Project, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetEnvironmentRequest(_message.Message):
    __slots__ = ("project", "environment", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class GetEnvironmentResponse(_message.Message):
    __slots__ = ("environment", "revision")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    environment: _project_pb2.Environment
    revision: int
    def __init__(self, environment: _Optional[_Union[_project_pb2.Environment, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListEnvironmentsRequest(_message.Message):
    __slots__ = ("project", "environment", "page_size", "page_token", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    page_size: int
    page_token: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class ListEnvironmentsResponse(_message.Message):
    __slots__ = ("environments", "next_page_token")
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    environments: _containers.RepeatedCompositeFieldContainer[_project_pb2.Environment]
    next_page_token: str
    def __init__(self, environments: _Optional[_Iterable[_Union[_project_pb2.Environment, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetSettingRequest(_message.Message):
    __slots__ = ("project", "environment", "name", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    name: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., name: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class GetSettingResponse(_message.Message):
    __slots__ = ("setting", "revision")
    SETTING_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    setting: _setting_pb2.Setting
    revision: int
    def __init__(self, setting: _Optional[_Union[_setting_pb2.Setting, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListSettingsRequest(_message.Message):
    __slots__ = ("project", "environment", "prefix", "page_size", "page_token", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    prefix: str
    page_size: int
    page_token: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., prefix: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class ListSettingsResponse(_message.Message):
    __slots__ = ("settings", "next_page_token", "revision")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.RepeatedCompositeFieldContainer[_setting_pb2.Setting]
    next_page_token: str
    revision: int
    def __init__(self, settings: _Optional[_Iterable[_Union[_setting_pb2.Setting, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetSegmentRequest(_message.Message):
    __slots__ = ("project", "environment", "name", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    name: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., name: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class GetSegmentResponse(_message.Message):
    __slots__ = ("segment", "revision")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    segment: _segment_pb2.Segment
    revision: int
    def __init__(self, segment: _Optional[_Union[_segment_pb2.Segment, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListSegmentsRequest(_message.Message):
    __slots__ = ("project", "environment", "page_size", "page_token", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    page_size: int
    page_token: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class ListSegmentsResponse(_message.Message):
    __slots__ = ("segments", "next_page_token", "revision")
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[_segment_pb2.Segment]
    next_page_token: str
    revision: int
    def __init__(self, segments: _Optional[_Iterable[_Union[_segment_pb2.Segment, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetFeaturesRequest(_message.Message):
    __slots__ = ("project", "environment", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class GetFeaturesResponse(_message.Message):
    __slots__ = ("features", "revision")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    def __init__(self, features: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetRevisionRequest(_message.Message):
    __slots__ = ("project", "environment", "revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetRevisionResponse(_message.Message):
    __slots__ = ("change_set",)
    CHANGE_SET_FIELD_NUMBER: _ClassVar[int]
    change_set: _change_pb2.ChangeSet
    def __init__(self, change_set: _Optional[_Union[_change_pb2.ChangeSet, _Mapping]] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ("project", "environment", "setting", "page_size", "page_token", "min_revision", "actor", "author", "since", "until", "kind")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    setting: str
    page_size: int
    page_token: str
    min_revision: int
    actor: str
    author: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    kind: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., setting: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., min_revision: _Optional[int] = ..., actor: _Optional[str] = ..., author: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[str] = ...) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("change_sets", "next_page_token")
    CHANGE_SETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    change_sets: _containers.RepeatedCompositeFieldContainer[_change_pb2.ChangeSet]
    next_page_token: str
    def __init__(self, change_sets: _Optional[_Iterable[_Union[_change_pb2.ChangeSet, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetKeyRequest(_message.Message):
    __slots__ = ("project", "environment", "selector", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    selector: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., selector: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class GetKeyResponse(_message.Message):
    __slots__ = ("key", "revision")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    key: _key_pb2.Key
    revision: int
    def __init__(self, key: _Optional[_Union[_key_pb2.Key, _Mapping]] = ..., revision: _Optional[int] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("project", "environment", "page_size", "page_token", "min_revision")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    page_size: int
    page_token: str
    min_revision: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., min_revision: _Optional[int] = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys", "next_page_token")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[_key_pb2.Key]
    next_page_token: str
    def __init__(self, keys: _Optional[_Iterable[_Union[_key_pb2.Key, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListClientsRequest(_message.Message):
    __slots__ = ("project", "environment", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ("clients", "next_page_token")
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[_client_pb2.ClientReport]
    next_page_token: str
    def __init__(self, clients: _Optional[_Iterable[_Union[_client_pb2.ClientReport, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetRolloutRequest(_message.Message):
    __slots__ = ("project", "environment", "revision", "ask", "max_laggards")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    MAX_LAGGARDS_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    revision: int
    ask: bool
    max_laggards: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., revision: _Optional[int] = ..., ask: bool = ..., max_laggards: _Optional[int] = ...) -> None: ...

class GetRolloutResponse(_message.Message):
    __slots__ = ("revision", "generation", "committed_at", "reporting", "reached", "diverged", "silent", "lag_p50", "lag_p99", "lag_max", "laggards")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    REPORTING_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    LAG_P50_FIELD_NUMBER: _ClassVar[int]
    LAG_P99_FIELD_NUMBER: _ClassVar[int]
    LAG_MAX_FIELD_NUMBER: _ClassVar[int]
    LAGGARDS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    generation: int
    committed_at: _timestamp_pb2.Timestamp
    reporting: int
    reached: int
    diverged: int
    silent: int
    lag_p50: _duration_pb2.Duration
    lag_p99: _duration_pb2.Duration
    lag_max: _duration_pb2.Duration
    laggards: _containers.RepeatedCompositeFieldContainer[_client_pb2.ClientReport]
    def __init__(self, revision: _Optional[int] = ..., generation: _Optional[int] = ..., committed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reporting: _Optional[int] = ..., reached: _Optional[int] = ..., diverged: _Optional[int] = ..., silent: _Optional[int] = ..., lag_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lag_p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lag_max: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., laggards: _Optional[_Iterable[_Union[_client_pb2.ClientReport, _Mapping]]] = ...) -> None: ...

class ListStaleSettingsRequest(_message.Message):
    __slots__ = ("project", "environment", "unread_for", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    UNREAD_FOR_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    unread_for: _duration_pb2.Duration
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., unread_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListStaleSettingsResponse(_message.Message):
    __slots__ = ("settings", "next_page_token", "noted_since")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NOTED_SINCE_FIELD_NUMBER: _ClassVar[int]
    settings: _containers.RepeatedCompositeFieldContainer[StaleSetting]
    next_page_token: str
    noted_since: _timestamp_pb2.Timestamp
    def __init__(self, settings: _Optional[_Iterable[_Union[StaleSetting, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., noted_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StaleSetting(_message.Message):
    __slots__ = ("name", "owner", "tags", "lifecycle", "reasons", "last_read_at", "last_changed_at", "declared_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    LIFECYCLE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    LAST_READ_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    DECLARED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    owner: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    lifecycle: _setting_pb2.Lifecycle
    reasons: _containers.RepeatedScalarFieldContainer[StaleReason]
    last_read_at: _timestamp_pb2.Timestamp
    last_changed_at: _timestamp_pb2.Timestamp
    declared_by: int
    def __init__(self, name: _Optional[str] = ..., owner: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., lifecycle: _Optional[_Union[_setting_pb2.Lifecycle, str]] = ..., reasons: _Optional[_Iterable[_Union[StaleReason, str]]] = ..., last_read_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., declared_by: _Optional[int] = ...) -> None: ...
