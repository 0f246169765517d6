import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import client_pb2 as _client_pb2
from rheo.v1 import key_pb2 as _key_pb2
from rheo.v1 import segment_pb2 as _segment_pb2
from rheo.v1 import setting_pb2 as _setting_pb2
from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WATCH_MODE_UNSPECIFIED: _ClassVar[WatchMode]
    WATCH_MODE_SNAPSHOT: _ClassVar[WatchMode]
    WATCH_MODE_DELTA: _ClassVar[WatchMode]
    WATCH_MODE_UP_TO_DATE: _ClassVar[WatchMode]

class SnapshotReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SNAPSHOT_REASON_UNSPECIFIED: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_NEW: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_INVALID: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_STORE: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_GENERATION: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_REQUESTED: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_SCOPE: _ClassVar[SnapshotReason]
    SNAPSHOT_REASON_COMPACTED: _ClassVar[SnapshotReason]

class ResetReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESET_REASON_UNSPECIFIED: _ClassVar[ResetReason]
    RESET_REASON_GENERATION: _ClassVar[ResetReason]
    RESET_REASON_LARGE: _ClassVar[ResetReason]
    RESET_REASON_CLOSURE: _ClassVar[ResetReason]
    RESET_REASON_COMPACTED: _ClassVar[ResetReason]

class GoAwayReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GO_AWAY_REASON_UNSPECIFIED: _ClassVar[GoAwayReason]
    GO_AWAY_REASON_DRAIN: _ClassVar[GoAwayReason]
    GO_AWAY_REASON_MAX_AGE: _ClassVar[GoAwayReason]
    GO_AWAY_REASON_SLOW: _ClassVar[GoAwayReason]
    GO_AWAY_REASON_KEY_REVOKED: _ClassVar[GoAwayReason]
    GO_AWAY_REASON_BEHIND: _ClassVar[GoAwayReason]
WATCH_MODE_UNSPECIFIED: WatchMode
WATCH_MODE_SNAPSHOT: WatchMode
WATCH_MODE_DELTA: WatchMode
WATCH_MODE_UP_TO_DATE: WatchMode
SNAPSHOT_REASON_UNSPECIFIED: SnapshotReason
SNAPSHOT_REASON_NEW: SnapshotReason
SNAPSHOT_REASON_INVALID: SnapshotReason
SNAPSHOT_REASON_STORE: SnapshotReason
SNAPSHOT_REASON_GENERATION: SnapshotReason
SNAPSHOT_REASON_REQUESTED: SnapshotReason
SNAPSHOT_REASON_SCOPE: SnapshotReason
SNAPSHOT_REASON_COMPACTED: SnapshotReason
RESET_REASON_UNSPECIFIED: ResetReason
RESET_REASON_GENERATION: ResetReason
RESET_REASON_LARGE: ResetReason
RESET_REASON_CLOSURE: ResetReason
RESET_REASON_COMPACTED: ResetReason
GO_AWAY_REASON_UNSPECIFIED: GoAwayReason
GO_AWAY_REASON_DRAIN: GoAwayReason
GO_AWAY_REASON_MAX_AGE: GoAwayReason
GO_AWAY_REASON_SLOW: GoAwayReason
GO_AWAY_REASON_KEY_REVOKED: GoAwayReason
GO_AWAY_REASON_BEHIND: GoAwayReason

class Position(_message.Message):
    __slots__ = ("store_id", "generation", "nonce", "revision", "scope", "token")
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    store_id: bytes
    generation: int
    nonce: bytes
    revision: int
    scope: bytes
    token: bytes
    def __init__(self, store_id: _Optional[bytes] = ..., generation: _Optional[int] = ..., nonce: _Optional[bytes] = ..., revision: _Optional[int] = ..., scope: _Optional[bytes] = ..., token: _Optional[bytes] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("kind", "key", "revision", "deleted", "setting", "segment", "relay_key")
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    RELAY_KEY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    key: str
    revision: int
    deleted: bool
    setting: _setting_pb2.Setting
    segment: _segment_pb2.Segment
    relay_key: _key_pb2.RelayKey
    def __init__(self, kind: _Optional[str] = ..., key: _Optional[str] = ..., revision: _Optional[int] = ..., deleted: bool = ..., setting: _Optional[_Union[_setting_pb2.Setting, _Mapping]] = ..., segment: _Optional[_Union[_segment_pb2.Segment, _Mapping]] = ..., relay_key: _Optional[_Union[_key_pb2.RelayKey, _Mapping]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("names", "prefixes", "tracked")
    class TrackedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.StringList
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.StringList, _Mapping]] = ...) -> None: ...
    NAMES_FIELD_NUMBER: _ClassVar[int]
    PREFIXES_FIELD_NUMBER: _ClassVar[int]
    TRACKED_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    prefixes: _containers.RepeatedScalarFieldContainer[str]
    tracked: _containers.MessageMap[str, _value_pb2.StringList]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., prefixes: _Optional[_Iterable[str]] = ..., tracked: _Optional[_Mapping[str, _value_pb2.StringList]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("project", "environment", "resume", "resnapshot", "min_revision", "filter", "subjects", "client", "via")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RESNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    MIN_REVISION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    resume: bytes
    resnapshot: bool
    min_revision: int
    filter: Filter
    subjects: bool
    client: _client_pb2.ClientIdentity
    via: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., resume: _Optional[bytes] = ..., resnapshot: bool = ..., min_revision: _Optional[int] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., subjects: bool = ..., client: _Optional[_Union[_client_pb2.ClientIdentity, _Mapping]] = ..., via: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("hello", "snapshot_begin", "snapshot_chunk", "snapshot_end", "delta", "bookmark", "reset", "go_away", "subjects_changed")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BEGIN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_CHUNK_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    snapshot_begin: SnapshotBegin
    snapshot_chunk: SnapshotChunk
    snapshot_end: SnapshotEnd
    delta: Delta
    bookmark: Bookmark
    reset: Reset
    go_away: GoAway
    subjects_changed: SubjectsChanged
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., snapshot_begin: _Optional[_Union[SnapshotBegin, _Mapping]] = ..., snapshot_chunk: _Optional[_Union[SnapshotChunk, _Mapping]] = ..., snapshot_end: _Optional[_Union[SnapshotEnd, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., bookmark: _Optional[_Union[Bookmark, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., go_away: _Optional[_Union[GoAway, _Mapping]] = ..., subjects_changed: _Optional[_Union[SubjectsChanged, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("mode", "reason", "heartbeat", "node", "hops", "filter", "filter_ignored", "project", "environment", "reconnect_spread")
    MODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FILTER_IGNORED_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_SPREAD_FIELD_NUMBER: _ClassVar[int]
    mode: WatchMode
    reason: SnapshotReason
    heartbeat: _duration_pb2.Duration
    node: str
    hops: int
    filter: Filter
    filter_ignored: bool
    project: str
    environment: str
    reconnect_spread: _duration_pb2.Duration
    def __init__(self, mode: _Optional[_Union[WatchMode, str]] = ..., reason: _Optional[_Union[SnapshotReason, str]] = ..., heartbeat: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., node: _Optional[str] = ..., hops: _Optional[int] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., filter_ignored: bool = ..., project: _Optional[str] = ..., environment: _Optional[str] = ..., reconnect_spread: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SnapshotBegin(_message.Message):
    __slots__ = ("position", "item_count", "floor", "token_key")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_KEY_FIELD_NUMBER: _ClassVar[int]
    position: Position
    item_count: int
    floor: int
    token_key: bytes
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., item_count: _Optional[int] = ..., floor: _Optional[int] = ..., token_key: _Optional[bytes] = ...) -> None: ...

class SnapshotChunk(_message.Message):
    __slots__ = ("index", "items")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    index: int
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, index: _Optional[int] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class SnapshotEnd(_message.Message):
    __slots__ = ("position", "item_count", "digest")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    position: Position
    item_count: int
    digest: int
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., item_count: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("from_revision", "position", "items", "coalesced", "digest", "report_within")
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    COALESCED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPORT_WITHIN_FIELD_NUMBER: _ClassVar[int]
    from_revision: int
    position: Position
    items: _containers.RepeatedCompositeFieldContainer[Item]
    coalesced: bool
    digest: int
    report_within: _duration_pb2.Duration
    def __init__(self, from_revision: _Optional[int] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., coalesced: bool = ..., digest: _Optional[int] = ..., report_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Bookmark(_message.Message):
    __slots__ = ("position", "origin_time", "digest", "report_within", "reconnect_spread")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_TIME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPORT_WITHIN_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_SPREAD_FIELD_NUMBER: _ClassVar[int]
    position: Position
    origin_time: _timestamp_pb2.Timestamp
    digest: int
    report_within: _duration_pb2.Duration
    reconnect_spread: _duration_pb2.Duration
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., origin_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., digest: _Optional[int] = ..., report_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reconnect_spread: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Reset(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: ResetReason
    def __init__(self, reason: _Optional[_Union[ResetReason, str]] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("reason", "spread", "grace")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    reason: GoAwayReason
    spread: _duration_pb2.Duration
    grace: _duration_pb2.Duration
    def __init__(self, reason: _Optional[_Union[GoAwayReason, str]] = ..., spread: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SubjectsChanged(_message.Message):
    __slots__ = ("ids", "all")
    IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[bytes]
    all: bool
    def __init__(self, ids: _Optional[_Iterable[bytes]] = ..., all: bool = ...) -> None: ...
