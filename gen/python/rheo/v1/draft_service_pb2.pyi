import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import change_pb2 as _change_pb2
from rheo.v1 import draft_pb2 as _draft_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateDraftRequest(_message.Message):
    __slots__ = ("project", "environment", "mutations", "message", "author", "request_id", "base_revision", "force")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    mutations: _containers.RepeatedCompositeFieldContainer[_change_pb2.Mutation]
    message: str
    author: str
    request_id: str
    base_revision: int
    force: bool
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., mutations: _Optional[_Iterable[_Union[_change_pb2.Mutation, _Mapping]]] = ..., message: _Optional[str] = ..., author: _Optional[str] = ..., request_id: _Optional[str] = ..., base_revision: _Optional[int] = ..., force: bool = ...) -> None: ...

class CreateDraftResponse(_message.Message):
    __slots__ = ("draft", "changes", "warnings")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    draft: _draft_pb2.Draft
    changes: _containers.RepeatedCompositeFieldContainer[_change_pb2.Change]
    warnings: _containers.RepeatedCompositeFieldContainer[_change_pb2.Warning]
    def __init__(self, draft: _Optional[_Union[_draft_pb2.Draft, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[_change_pb2.Change, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_change_pb2.Warning, _Mapping]]] = ...) -> None: ...

class UpdateDraftRequest(_message.Message):
    __slots__ = ("project", "environment", "id", "version", "mutations", "message", "force")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MUTATIONS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    id: str
    version: int
    mutations: _containers.RepeatedCompositeFieldContainer[_change_pb2.Mutation]
    message: str
    force: bool
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[int] = ..., mutations: _Optional[_Iterable[_Union[_change_pb2.Mutation, _Mapping]]] = ..., message: _Optional[str] = ..., force: bool = ...) -> None: ...

class UpdateDraftResponse(_message.Message):
    __slots__ = ("draft", "changes", "warnings")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    draft: _draft_pb2.Draft
    changes: _containers.RepeatedCompositeFieldContainer[_change_pb2.Change]
    warnings: _containers.RepeatedCompositeFieldContainer[_change_pb2.Warning]
    def __init__(self, draft: _Optional[_Union[_draft_pb2.Draft, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[_change_pb2.Change, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_change_pb2.Warning, _Mapping]]] = ...) -> None: ...

class GetDraftRequest(_message.Message):
    __slots__ = ("project", "environment", "id")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    id: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class GetDraftResponse(_message.Message):
    __slots__ = ("draft", "changes", "warnings", "problem")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    draft: _draft_pb2.Draft
    changes: _containers.RepeatedCompositeFieldContainer[_change_pb2.Change]
    warnings: _containers.RepeatedCompositeFieldContainer[_change_pb2.Warning]
    problem: str
    def __init__(self, draft: _Optional[_Union[_draft_pb2.Draft, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[_change_pb2.Change, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_change_pb2.Warning, _Mapping]]] = ..., problem: _Optional[str] = ...) -> None: ...

class ListDraftsRequest(_message.Message):
    __slots__ = ("project", "environment", "states", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    states: _containers.RepeatedScalarFieldContainer[_draft_pb2.DraftState]
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., states: _Optional[_Iterable[_Union[_draft_pb2.DraftState, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDraftsResponse(_message.Message):
    __slots__ = ("drafts", "next_page_token")
    DRAFTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    drafts: _containers.RepeatedCompositeFieldContainer[_draft_pb2.Draft]
    next_page_token: str
    def __init__(self, drafts: _Optional[_Iterable[_Union[_draft_pb2.Draft, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ApproveDraftRequest(_message.Message):
    __slots__ = ("project", "environment", "id", "version", "author", "comment")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    id: str
    version: int
    author: str
    comment: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[int] = ..., author: _Optional[str] = ..., comment: _Optional[str] = ...) -> None: ...

class ApproveDraftResponse(_message.Message):
    __slots__ = ("draft",)
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    draft: _draft_pb2.Draft
    def __init__(self, draft: _Optional[_Union[_draft_pb2.Draft, _Mapping]] = ...) -> None: ...

class PublishDraftRequest(_message.Message):
    __slots__ = ("project", "environment", "id", "version", "at", "author")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    id: str
    version: int
    at: _timestamp_pb2.Timestamp
    author: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., author: _Optional[str] = ...) -> None: ...

class PublishDraftResponse(_message.Message):
    __slots__ = ("draft", "revision", "generation", "changes", "warnings")
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    draft: _draft_pb2.Draft
    revision: int
    generation: int
    changes: _containers.RepeatedCompositeFieldContainer[_change_pb2.Change]
    warnings: _containers.RepeatedCompositeFieldContainer[_change_pb2.Warning]
    def __init__(self, draft: _Optional[_Union[_draft_pb2.Draft, _Mapping]] = ..., revision: _Optional[int] = ..., generation: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[_change_pb2.Change, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[_change_pb2.Warning, _Mapping]]] = ...) -> None: ...

class CancelDraftRequest(_message.Message):
    __slots__ = ("project", "environment", "id", "version")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    id: str
    version: int
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class CancelDraftResponse(_message.Message):
    __slots__ = ("draft",)
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    draft: _draft_pb2.Draft
    def __init__(self, draft: _Optional[_Union[_draft_pb2.Draft, _Mapping]] = ...) -> None: ...
