import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import client_pb2 as _client_pb2
from rheo.v1 import subject_pb2 as _subject_pb2
from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubjectOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBJECT_OUTCOME_UNSPECIFIED: _ClassVar[SubjectOutcome]
    SUBJECT_OUTCOME_FOUND: _ClassVar[SubjectOutcome]
    SUBJECT_OUTCOME_UNCHANGED: _ClassVar[SubjectOutcome]
    SUBJECT_OUTCOME_MISSING: _ClassVar[SubjectOutcome]
    SUBJECT_OUTCOME_CONFLICT: _ClassVar[SubjectOutcome]
SUBJECT_OUTCOME_UNSPECIFIED: SubjectOutcome
SUBJECT_OUTCOME_FOUND: SubjectOutcome
SUBJECT_OUTCOME_UNCHANGED: SubjectOutcome
SUBJECT_OUTCOME_MISSING: SubjectOutcome
SUBJECT_OUTCOME_CONFLICT: SubjectOutcome

class RecordEventsRequest(_message.Message):
    __slots__ = ("project", "environment", "events", "client")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    events: _containers.RepeatedCompositeFieldContainer[Event]
    client: _client_pb2.ClientIdentity
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., client: _Optional[_Union[_client_pb2.ClientIdentity, _Mapping]] = ...) -> None: ...

class RecordEventsResponse(_message.Message):
    __slots__ = ("accepted", "rejected")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedEntry]
    def __init__(self, accepted: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[RejectedEntry, _Mapping]]] = ...) -> None: ...

class RejectedEntry(_message.Message):
    __slots__ = ("index", "reason", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    message: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("idempotency_key", "time", "subjects", "track", "exposure")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    TRACK_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    time: _timestamp_pb2.Timestamp
    subjects: _containers.RepeatedCompositeFieldContainer[_subject_pb2.SubjectReference]
    track: Track
    exposure: Exposure
    def __init__(self, idempotency_key: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., subjects: _Optional[_Iterable[_Union[_subject_pb2.SubjectReference, _Mapping]]] = ..., track: _Optional[_Union[Track, _Mapping]] = ..., exposure: _Optional[_Union[Exposure, _Mapping]] = ...) -> None: ...

class Track(_message.Message):
    __slots__ = ("name", "quantity", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    quantity: int
    attributes: _containers.MessageMap[str, _value_pb2.Value]
    def __init__(self, name: _Optional[str] = ..., quantity: _Optional[int] = ..., attributes: _Optional[_Mapping[str, _value_pb2.Value]] = ...) -> None: ...

class Exposure(_message.Message):
    __slots__ = ("setting", "rule_id", "variant", "value", "revision", "count")
    SETTING_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    setting: str
    rule_id: str
    variant: str
    value: _value_pb2.Value
    revision: int
    count: int
    def __init__(self, setting: _Optional[str] = ..., rule_id: _Optional[str] = ..., variant: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., revision: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class UpsertSubjectsRequest(_message.Message):
    __slots__ = ("project", "environment", "subjects")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    subjects: _containers.RepeatedCompositeFieldContainer[SubjectUpsert]
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., subjects: _Optional[_Iterable[_Union[SubjectUpsert, _Mapping]]] = ...) -> None: ...

class SubjectUpsert(_message.Message):
    __slots__ = ("reference", "traits", "remove_traits", "overrides", "remove_overrides", "member_of", "remove_member_of", "month_day")
    class TraitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    TRAITS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TRAITS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    REMOVE_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    MEMBER_OF_FIELD_NUMBER: _ClassVar[int]
    REMOVE_MEMBER_OF_FIELD_NUMBER: _ClassVar[int]
    MONTH_DAY_FIELD_NUMBER: _ClassVar[int]
    reference: _subject_pb2.SubjectReference
    traits: _containers.MessageMap[str, _value_pb2.Value]
    remove_traits: _containers.RepeatedScalarFieldContainer[str]
    overrides: _containers.RepeatedCompositeFieldContainer[_subject_pb2.SubjectOverride]
    remove_overrides: _containers.RepeatedScalarFieldContainer[str]
    member_of: _containers.RepeatedCompositeFieldContainer[_subject_pb2.SubjectReference]
    remove_member_of: _containers.RepeatedCompositeFieldContainer[_subject_pb2.SubjectReference]
    month_day: int
    def __init__(self, reference: _Optional[_Union[_subject_pb2.SubjectReference, _Mapping]] = ..., traits: _Optional[_Mapping[str, _value_pb2.Value]] = ..., remove_traits: _Optional[_Iterable[str]] = ..., overrides: _Optional[_Iterable[_Union[_subject_pb2.SubjectOverride, _Mapping]]] = ..., remove_overrides: _Optional[_Iterable[str]] = ..., member_of: _Optional[_Iterable[_Union[_subject_pb2.SubjectReference, _Mapping]]] = ..., remove_member_of: _Optional[_Iterable[_Union[_subject_pb2.SubjectReference, _Mapping]]] = ..., month_day: _Optional[int] = ...) -> None: ...

class UpsertSubjectsResponse(_message.Message):
    __slots__ = ("subjects", "rejected")
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    subjects: _containers.RepeatedCompositeFieldContainer[_subject_pb2.Subject]
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedEntry]
    def __init__(self, subjects: _Optional[_Iterable[_Union[_subject_pb2.Subject, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[RejectedEntry, _Mapping]]] = ...) -> None: ...

class GetSubjectsRequest(_message.Message):
    __slots__ = ("project", "environment", "lookups")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LOOKUPS_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    lookups: _containers.RepeatedCompositeFieldContainer[SubjectLookup]
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., lookups: _Optional[_Iterable[_Union[SubjectLookup, _Mapping]]] = ...) -> None: ...

class SubjectLookup(_message.Message):
    __slots__ = ("id", "reference", "if_version")
    ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    reference: _subject_pb2.SubjectReference
    if_version: int
    def __init__(self, id: _Optional[bytes] = ..., reference: _Optional[_Union[_subject_pb2.SubjectReference, _Mapping]] = ..., if_version: _Optional[int] = ...) -> None: ...

class GetSubjectsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubjectResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SubjectResult, _Mapping]]] = ...) -> None: ...

class SubjectResult(_message.Message):
    __slots__ = ("outcome", "subject")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    outcome: SubjectOutcome
    subject: _subject_pb2.Subject
    def __init__(self, outcome: _Optional[_Union[SubjectOutcome, str]] = ..., subject: _Optional[_Union[_subject_pb2.Subject, _Mapping]] = ...) -> None: ...

class DeleteSubjectsRequest(_message.Message):
    __slots__ = ("project", "environment", "lookups")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    LOOKUPS_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    lookups: _containers.RepeatedCompositeFieldContainer[SubjectLookup]
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., lookups: _Optional[_Iterable[_Union[SubjectLookup, _Mapping]]] = ...) -> None: ...

class DeleteSubjectsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubjectResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SubjectResult, _Mapping]]] = ...) -> None: ...

class ListSubjectsRequest(_message.Message):
    __slots__ = ("project", "environment", "kind", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    kind: str
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., kind: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSubjectsResponse(_message.Message):
    __slots__ = ("subjects", "next_page_token")
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    subjects: _containers.RepeatedCompositeFieldContainer[_subject_pb2.Subject]
    next_page_token: str
    def __init__(self, subjects: _Optional[_Iterable[_Union[_subject_pb2.Subject, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListSubjectChangesRequest(_message.Message):
    __slots__ = ("project", "environment", "id", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    id: bytes
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., id: _Optional[bytes] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSubjectChangesResponse(_message.Message):
    __slots__ = ("changes", "next_page_token")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[SubjectChange]
    next_page_token: str
    def __init__(self, changes: _Optional[_Iterable[_Union[SubjectChange, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SubjectChange(_message.Message):
    __slots__ = ("id", "kind", "version", "time", "actor", "fields")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    kind: str
    version: int
    time: _timestamp_pb2.Timestamp
    actor: str
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[bytes] = ..., kind: _Optional[str] = ..., version: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class ListExposuresRequest(_message.Message):
    __slots__ = ("project", "environment", "setting", "since", "until", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    setting: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., setting: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListExposuresResponse(_message.Message):
    __slots__ = ("exposures", "next_page_token")
    EXPOSURES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    exposures: _containers.RepeatedCompositeFieldContainer[ExposureCount]
    next_page_token: str
    def __init__(self, exposures: _Optional[_Iterable[_Union[ExposureCount, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExposureCount(_message.Message):
    __slots__ = ("setting", "rule_id", "variant", "revision", "value_json", "count", "first_at", "last_at")
    SETTING_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    setting: str
    rule_id: str
    variant: str
    revision: int
    value_json: str
    count: int
    first_at: _timestamp_pb2.Timestamp
    last_at: _timestamp_pb2.Timestamp
    def __init__(self, setting: _Optional[str] = ..., rule_id: _Optional[str] = ..., variant: _Optional[str] = ..., revision: _Optional[int] = ..., value_json: _Optional[str] = ..., count: _Optional[int] = ..., first_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListEventCountsRequest(_message.Message):
    __slots__ = ("project", "environment", "since", "until", "page_size", "page_token")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEventCountsResponse(_message.Message):
    __slots__ = ("events", "next_page_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[EventCount]
    next_page_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[EventCount, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class EventCount(_message.Message):
    __slots__ = ("event", "events", "quantity", "last_at")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    LAST_AT_FIELD_NUMBER: _ClassVar[int]
    event: str
    events: int
    quantity: int
    last_at: _timestamp_pb2.Timestamp
    def __init__(self, event: _Optional[str] = ..., events: _Optional[int] = ..., quantity: _Optional[int] = ..., last_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
