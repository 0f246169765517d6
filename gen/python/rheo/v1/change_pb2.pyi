import datetime

from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from rheo.v1 import key_pb2 as _key_pb2
from rheo.v1 import project_pb2 as _project_pb2
from rheo.v1 import segment_pb2 as _segment_pb2
from rheo.v1 import setting_pb2 as _setting_pb2
from rheo.v1 import value_pb2 as _value_pb2
from rheo.v1 import webhook_pb2 as _webhook_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChangeSet(_message.Message):
    __slots__ = ("revision", "generation", "project", "environments", "author", "actor", "message", "request_id", "committed_at", "changes", "reverts", "draft", "approved_by", "forced_clients")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REVERTS_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    FORCED_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    generation: int
    project: str
    environments: _containers.RepeatedScalarFieldContainer[str]
    author: str
    actor: str
    message: str
    request_id: str
    committed_at: _timestamp_pb2.Timestamp
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    reverts: int
    draft: str
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    forced_clients: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, revision: _Optional[int] = ..., generation: _Optional[int] = ..., project: _Optional[str] = ..., environments: _Optional[_Iterable[str]] = ..., author: _Optional[str] = ..., actor: _Optional[str] = ..., message: _Optional[str] = ..., request_id: _Optional[str] = ..., committed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., reverts: _Optional[int] = ..., draft: _Optional[str] = ..., approved_by: _Optional[_Iterable[str]] = ..., forced_clients: _Optional[_Iterable[str]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("project", "environment", "kind", "key", "before", "after")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    project: str
    environment: str
    kind: str
    key: str
    before: ChangeBody
    after: ChangeBody
    def __init__(self, project: _Optional[str] = ..., environment: _Optional[str] = ..., kind: _Optional[str] = ..., key: _Optional[str] = ..., before: _Optional[_Union[ChangeBody, _Mapping]] = ..., after: _Optional[_Union[ChangeBody, _Mapping]] = ...) -> None: ...

class ChangeBody(_message.Message):
    __slots__ = ("setting", "segment", "project", "environment", "key", "webhook")
    SETTING_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    setting: _setting_pb2.Setting
    segment: _segment_pb2.Segment
    project: _project_pb2.Project
    environment: _project_pb2.Environment
    key: _key_pb2.Key
    webhook: _webhook_pb2.Webhook
    def __init__(self, setting: _Optional[_Union[_setting_pb2.Setting, _Mapping]] = ..., segment: _Optional[_Union[_segment_pb2.Segment, _Mapping]] = ..., project: _Optional[_Union[_project_pb2.Project, _Mapping]] = ..., environment: _Optional[_Union[_project_pb2.Environment, _Mapping]] = ..., key: _Optional[_Union[_key_pb2.Key, _Mapping]] = ..., webhook: _Optional[_Union[_webhook_pb2.Webhook, _Mapping]] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("code", "mutation_index", "message", "example")
    class ExampleEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MUTATION_INDEX_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    mutation_index: int
    message: str
    example: _containers.MessageMap[str, _value_pb2.Value]
    def __init__(self, code: _Optional[str] = ..., mutation_index: _Optional[int] = ..., message: _Optional[str] = ..., example: _Optional[_Mapping[str, _value_pb2.Value]] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("put_project", "put_environment", "put_setting", "rename_setting", "delete_setting", "set_value", "unset_value", "put_rule", "move_rule", "delete_rule", "put_segment", "delete_segment", "set_features")
    PUT_PROJECT_FIELD_NUMBER: _ClassVar[int]
    PUT_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PUT_SETTING_FIELD_NUMBER: _ClassVar[int]
    RENAME_SETTING_FIELD_NUMBER: _ClassVar[int]
    DELETE_SETTING_FIELD_NUMBER: _ClassVar[int]
    SET_VALUE_FIELD_NUMBER: _ClassVar[int]
    UNSET_VALUE_FIELD_NUMBER: _ClassVar[int]
    PUT_RULE_FIELD_NUMBER: _ClassVar[int]
    MOVE_RULE_FIELD_NUMBER: _ClassVar[int]
    DELETE_RULE_FIELD_NUMBER: _ClassVar[int]
    PUT_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    DELETE_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SET_FEATURES_FIELD_NUMBER: _ClassVar[int]
    put_project: PutProject
    put_environment: PutEnvironment
    put_setting: PutSetting
    rename_setting: RenameSetting
    delete_setting: DeleteSetting
    set_value: SetValue
    unset_value: UnsetValue
    put_rule: PutRule
    move_rule: MoveRule
    delete_rule: DeleteRule
    put_segment: PutSegment
    delete_segment: DeleteSegment
    set_features: SetFeatures
    def __init__(self, put_project: _Optional[_Union[PutProject, _Mapping]] = ..., put_environment: _Optional[_Union[PutEnvironment, _Mapping]] = ..., put_setting: _Optional[_Union[PutSetting, _Mapping]] = ..., rename_setting: _Optional[_Union[RenameSetting, _Mapping]] = ..., delete_setting: _Optional[_Union[DeleteSetting, _Mapping]] = ..., set_value: _Optional[_Union[SetValue, _Mapping]] = ..., unset_value: _Optional[_Union[UnsetValue, _Mapping]] = ..., put_rule: _Optional[_Union[PutRule, _Mapping]] = ..., move_rule: _Optional[_Union[MoveRule, _Mapping]] = ..., delete_rule: _Optional[_Union[DeleteRule, _Mapping]] = ..., put_segment: _Optional[_Union[PutSegment, _Mapping]] = ..., delete_segment: _Optional[_Union[DeleteSegment, _Mapping]] = ..., set_features: _Optional[_Union[SetFeatures, _Mapping]] = ...) -> None: ...

class PutProject(_message.Message):
    __slots__ = ("project", "update_mask")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    project: _project_pb2.Project
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, project: _Optional[_Union[_project_pb2.Project, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class PutEnvironment(_message.Message):
    __slots__ = ("environment", "update_mask")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    environment: _project_pb2.Environment
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, environment: _Optional[_Union[_project_pb2.Environment, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class PutSetting(_message.Message):
    __slots__ = ("environment", "setting", "update_mask")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    environment: str
    setting: _setting_pb2.Setting
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, environment: _Optional[str] = ..., setting: _Optional[_Union[_setting_pb2.Setting, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class RenameSetting(_message.Message):
    __slots__ = ("environment", "name", "new_name")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    environment: str
    name: str
    new_name: str
    def __init__(self, environment: _Optional[str] = ..., name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class DeleteSetting(_message.Message):
    __slots__ = ("environment", "name")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    environment: str
    name: str
    def __init__(self, environment: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class SetValue(_message.Message):
    __slots__ = ("environment", "name", "value")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    environment: str
    name: str
    value: _value_pb2.Value
    def __init__(self, environment: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...

class UnsetValue(_message.Message):
    __slots__ = ("environment", "name")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    environment: str
    name: str
    def __init__(self, environment: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class PutRule(_message.Message):
    __slots__ = ("environment", "setting", "rule", "before_id", "after_id")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    environment: str
    setting: str
    rule: _setting_pb2.Rule
    before_id: str
    after_id: str
    def __init__(self, environment: _Optional[str] = ..., setting: _Optional[str] = ..., rule: _Optional[_Union[_setting_pb2.Rule, _Mapping]] = ..., before_id: _Optional[str] = ..., after_id: _Optional[str] = ...) -> None: ...

class MoveRule(_message.Message):
    __slots__ = ("environment", "setting", "rule_id", "before_id", "after_id")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    environment: str
    setting: str
    rule_id: str
    before_id: str
    after_id: str
    def __init__(self, environment: _Optional[str] = ..., setting: _Optional[str] = ..., rule_id: _Optional[str] = ..., before_id: _Optional[str] = ..., after_id: _Optional[str] = ...) -> None: ...

class DeleteRule(_message.Message):
    __slots__ = ("environment", "setting", "rule_id")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    environment: str
    setting: str
    rule_id: str
    def __init__(self, environment: _Optional[str] = ..., setting: _Optional[str] = ..., rule_id: _Optional[str] = ...) -> None: ...

class PutSegment(_message.Message):
    __slots__ = ("segment", "update_mask")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    segment: _segment_pb2.Segment
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, segment: _Optional[_Union[_segment_pb2.Segment, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class DeleteSegment(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SetFeatures(_message.Message):
    __slots__ = ("features",)
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, features: _Optional[_Iterable[str]] = ...) -> None: ...

class RevisionConflict(_message.Message):
    __slots__ = ("expected_revision", "items")
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    expected_revision: int
    items: _containers.RepeatedCompositeFieldContainer[ConflictingItem]
    def __init__(self, expected_revision: _Optional[int] = ..., items: _Optional[_Iterable[_Union[ConflictingItem, _Mapping]]] = ...) -> None: ...

class ConflictingItem(_message.Message):
    __slots__ = ("environment", "kind", "key", "revision")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    environment: str
    kind: str
    key: str
    revision: int
    def __init__(self, environment: _Optional[str] = ..., kind: _Optional[str] = ..., key: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...
