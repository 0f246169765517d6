from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeclarationOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECLARATION_OUTCOME_UNSPECIFIED: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_CREATED: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_UP_TO_DATE: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_MISMATCH: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_OUTDATED: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_UPGRADED: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_REJECTED: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_DENIED: _ClassVar[DeclarationOutcome]
    DECLARATION_OUTCOME_INVALID: _ClassVar[DeclarationOutcome]

class DifferenceLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIFFERENCE_LEVEL_UNSPECIFIED: _ClassVar[DifferenceLevel]
    DIFFERENCE_LEVEL_MINOR: _ClassVar[DifferenceLevel]
    DIFFERENCE_LEVEL_MAJOR: _ClassVar[DifferenceLevel]
    DIFFERENCE_LEVEL_MISMATCH: _ClassVar[DifferenceLevel]
DECLARATION_OUTCOME_UNSPECIFIED: DeclarationOutcome
DECLARATION_OUTCOME_CREATED: DeclarationOutcome
DECLARATION_OUTCOME_UP_TO_DATE: DeclarationOutcome
DECLARATION_OUTCOME_MISMATCH: DeclarationOutcome
DECLARATION_OUTCOME_OUTDATED: DeclarationOutcome
DECLARATION_OUTCOME_UPGRADED: DeclarationOutcome
DECLARATION_OUTCOME_REJECTED: DeclarationOutcome
DECLARATION_OUTCOME_DENIED: DeclarationOutcome
DECLARATION_OUTCOME_INVALID: DeclarationOutcome
DIFFERENCE_LEVEL_UNSPECIFIED: DifferenceLevel
DIFFERENCE_LEVEL_MINOR: DifferenceLevel
DIFFERENCE_LEVEL_MAJOR: DifferenceLevel
DIFFERENCE_LEVEL_MISMATCH: DifferenceLevel

class Declaration(_message.Message):
    __slots__ = ("name", "type", "default", "version", "aliases", "features", "metadata", "description", "owner", "tags")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _value_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    default: _value_pb2.Value
    version: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    features: _value_pb2.StringList
    metadata: _containers.MessageMap[str, _value_pb2.Value]
    description: str
    owner: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., default: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., version: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., features: _Optional[_Union[_value_pb2.StringList, _Mapping]] = ..., metadata: _Optional[_Mapping[str, _value_pb2.Value]] = ..., description: _Optional[str] = ..., owner: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class DeclarationResult(_message.Message):
    __slots__ = ("name", "outcome", "stored_version", "differences", "message", "blocking_clients")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STORED_VERSION_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BLOCKING_CLIENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    outcome: DeclarationOutcome
    stored_version: str
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    message: str
    blocking_clients: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., outcome: _Optional[_Union[DeclarationOutcome, str]] = ..., stored_version: _Optional[str] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ..., message: _Optional[str] = ..., blocking_clients: _Optional[_Iterable[str]] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("level", "attribute", "declared", "stored", "message")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    level: DifferenceLevel
    attribute: str
    declared: _value_pb2.Value
    stored: _value_pb2.Value
    message: str
    def __init__(self, level: _Optional[_Union[DifferenceLevel, str]] = ..., attribute: _Optional[str] = ..., declared: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., stored: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...
