import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import client_pb2 as _client_pb2
from rheo.v1 import declaration_pb2 as _declaration_pb2
from rheo.v1 import evaluation_pb2 as _evaluation_pb2
from rheo.v1 import subject_pb2 as _subject_pb2
from rheo.v1 import value_pb2 as _value_pb2
from rheo.v1 import watch_pb2 as _watch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetSnapshotRequest(_message.Message):
    __slots__ = ("project", "environment", "resume", "min_revision", "filter", "client", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    resume: bytes
    min_revision: int
    filter: _watch_pb2.Filter
    client: _client_pb2.ClientIdentity
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., resume: _Optional[bytes] = ..., min_revision: _Optional[int] = ..., filter: _Optional[_Union[_watch_pb2.Filter, _Mapping]] = ..., client: _Optional[_Union[_client_pb2.ClientIdentity, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetSnapshotResponse(_message.Message):
    __slots__ = ("position", "items", "item_count", "digest", "up_to_date", "next_page_token")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    UP_TO_DATE_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    position: _watch_pb2.Position
    items: _containers.RepeatedCompositeFieldContainer[_watch_pb2.Item]
    item_count: int
    digest: int
    up_to_date: bool
    next_page_token: str
    def __init__(self, position: _Optional[_Union[_watch_pb2.Position, _Mapping]] = ..., items: _Optional[_Iterable[_Union[_watch_pb2.Item, _Mapping]]] = ..., item_count: _Optional[int] = ..., digest: _Optional[int] = ..., up_to_date: bool = ..., next_page_token: _Optional[str] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("project", "environment", "name", "context", "attributes", "subjects", "min_revision", "explain")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    name: str
    context: _containers.MessageMap[str, _value_pb2.Value]
    attributes: _struct_pb2.Struct
    subjects: _containers.RepeatedCompositeFieldContainer[_subject_pb2.SubjectReference]
    min_revision: int
    explain: bool
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., name: _Optional[str] = ..., context: _Optional[_Mapping[str, _value_pb2.Value]] = ..., attributes: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., subjects: _Optional[_Iterable[_Union[_subject_pb2.SubjectReference, _Mapping]]] = ..., min_revision: _Optional[int] = ..., explain: bool = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("evaluation",)
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluation_pb2.Evaluation
    def __init__(self, evaluation: _Optional[_Union[_evaluation_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class EvaluateAllRequest(_message.Message):
    __slots__ = ("project", "environment", "names", "context", "attributes", "subjects", "min_revision", "explain")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    names: _containers.RepeatedScalarFieldContainer[str]
    context: _containers.MessageMap[str, _value_pb2.Value]
    attributes: _struct_pb2.Struct
    subjects: _containers.RepeatedCompositeFieldContainer[_subject_pb2.SubjectReference]
    min_revision: int
    explain: bool
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., context: _Optional[_Mapping[str, _value_pb2.Value]] = ..., attributes: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., subjects: _Optional[_Iterable[_Union[_subject_pb2.SubjectReference, _Mapping]]] = ..., min_revision: _Optional[int] = ..., explain: bool = ...) -> None: ...

class EvaluateAllResponse(_message.Message):
    __slots__ = ("evaluations", "revision")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[_evaluation_pb2.Evaluation]
    revision: int
    def __init__(self, evaluations: _Optional[_Iterable[_Union[_evaluation_pb2.Evaluation, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class DeclareSettingsRequest(_message.Message):
    __slots__ = ("project", "environment", "declarations", "client", "request_id", "declared_types_hash")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    DECLARATIONS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DECLARED_TYPES_HASH_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    declarations: _containers.RepeatedCompositeFieldContainer[_declaration_pb2.Declaration]
    client: _client_pb2.ClientIdentity
    request_id: str
    declared_types_hash: bytes
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., declarations: _Optional[_Iterable[_Union[_declaration_pb2.Declaration, _Mapping]]] = ..., client: _Optional[_Union[_client_pb2.ClientIdentity, _Mapping]] = ..., request_id: _Optional[str] = ..., declared_types_hash: _Optional[bytes] = ...) -> None: ...

class DeclareSettingsResponse(_message.Message):
    __slots__ = ("results", "revision", "generation", "features", "declared_types_hash")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DECLARED_TYPES_HASH_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_declaration_pb2.DeclarationResult]
    revision: int
    generation: int
    features: _containers.RepeatedScalarFieldContainer[str]
    declared_types_hash: bytes
    def __init__(self, results: _Optional[_Iterable[_Union[_declaration_pb2.DeclarationResult, _Mapping]]] = ..., revision: _Optional[int] = ..., generation: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., declared_types_hash: _Optional[bytes] = ...) -> None: ...

class ReportStatusRequest(_message.Message):
    __slots__ = ("project", "environment", "reports")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    reports: _containers.RepeatedCompositeFieldContainer[_client_pb2.ClientReport]
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., reports: _Optional[_Iterable[_Union[_client_pb2.ClientReport, _Mapping]]] = ...) -> None: ...

class ReportStatusResponse(_message.Message):
    __slots__ = ("declare_again",)
    DECLARE_AGAIN_FIELD_NUMBER: _ClassVar[int]
    declare_again: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, declare_again: _Optional[_Iterable[str]] = ...) -> None: ...

class PingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PingResponse(_message.Message):
    __slots__ = ("node", "version", "time", "generation", "revision")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    node: str
    version: str
    time: _timestamp_pb2.Timestamp
    generation: int
    revision: int
    def __init__(self, node: _Optional[str] = ..., version: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., generation: _Optional[int] = ..., revision: _Optional[int] = ...) -> None: ...
