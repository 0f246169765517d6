from rheo.v1 import condition_pb2 as _condition_pb2
from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RuleOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RULE_ORDER_UNSPECIFIED: _ClassVar[RuleOrder]
    RULE_ORDER_STORED: _ClassVar[RuleOrder]
    RULE_ORDER_SPECIFICITY: _ClassVar[RuleOrder]

class Lifecycle(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIFECYCLE_UNSPECIFIED: _ClassVar[Lifecycle]
    LIFECYCLE_ACTIVE: _ClassVar[Lifecycle]
    LIFECYCLE_DEPRECATED: _ClassVar[Lifecycle]
    LIFECYCLE_ARCHIVED: _ClassVar[Lifecycle]
RULE_ORDER_UNSPECIFIED: RuleOrder
RULE_ORDER_STORED: RuleOrder
RULE_ORDER_SPECIFICITY: RuleOrder
LIFECYCLE_UNSPECIFIED: Lifecycle
LIFECYCLE_ACTIVE: Lifecycle
LIFECYCLE_DEPRECATED: Lifecycle
LIFECYCLE_ARCHIVED: Lifecycle

class Setting(_message.Message):
    __slots__ = ("id", "name", "aliases", "type", "default", "description", "version", "features", "metadata", "owner", "tags", "order", "enabled", "value", "off", "rules", "lifecycle", "declared", "revision")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    LIFECYCLE_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    type: str
    default: _value_pb2.Value
    description: str
    version: str
    features: _value_pb2.StringList
    metadata: _containers.MessageMap[str, _value_pb2.Value]
    owner: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    order: RuleOrder
    enabled: bool
    value: _value_pb2.Value
    off: _value_pb2.Value
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    lifecycle: Lifecycle
    declared: bool
    revision: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., type: _Optional[str] = ..., default: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., description: _Optional[str] = ..., version: _Optional[str] = ..., features: _Optional[_Union[_value_pb2.StringList, _Mapping]] = ..., metadata: _Optional[_Mapping[str, _value_pb2.Value]] = ..., owner: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., order: _Optional[_Union[RuleOrder, str]] = ..., enabled: bool = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., off: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., lifecycle: _Optional[_Union[Lifecycle, str]] = ..., declared: bool = ..., revision: _Optional[int] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("id", "number", "condition", "value", "distribution", "enabled", "description", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    number: int
    condition: _condition_pb2.Condition
    value: _value_pb2.Value
    distribution: Distribution
    enabled: bool
    description: str
    metadata: _containers.MessageMap[str, _value_pb2.Value]
    def __init__(self, id: _Optional[str] = ..., number: _Optional[int] = ..., condition: _Optional[_Union[_condition_pb2.Condition, _Mapping]] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., distribution: _Optional[_Union[Distribution, _Mapping]] = ..., enabled: bool = ..., description: _Optional[str] = ..., metadata: _Optional[_Mapping[str, _value_pb2.Value]] = ...) -> None: ...

class Distribution(_message.Message):
    __slots__ = ("algorithm", "salt", "unit", "variants")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    algorithm: _condition_pb2.BucketAlgorithm
    salt: str
    unit: str
    variants: _containers.RepeatedCompositeFieldContainer[Variant]
    def __init__(self, algorithm: _Optional[_Union[_condition_pb2.BucketAlgorithm, str]] = ..., salt: _Optional[str] = ..., unit: _Optional[str] = ..., variants: _Optional[_Iterable[_Union[Variant, _Mapping]]] = ...) -> None: ...

class Variant(_message.Message):
    __slots__ = ("name", "weight", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight: int
    value: _value_pb2.Value
    def __init__(self, name: _Optional[str] = ..., weight: _Optional[int] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
