from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Operator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATOR_UNSPECIFIED: _ClassVar[Operator]
    OPERATOR_EQUALS: _ClassVar[Operator]
    OPERATOR_NOT_EQUALS: _ClassVar[Operator]
    OPERATOR_IN: _ClassVar[Operator]
    OPERATOR_NOT_IN: _ClassVar[Operator]
    OPERATOR_LESS_THAN: _ClassVar[Operator]
    OPERATOR_LESS_THAN_OR_EQUAL: _ClassVar[Operator]
    OPERATOR_GREATER_THAN: _ClassVar[Operator]
    OPERATOR_GREATER_THAN_OR_EQUAL: _ClassVar[Operator]
    OPERATOR_STARTS_WITH: _ClassVar[Operator]
    OPERATOR_ENDS_WITH: _ClassVar[Operator]
    OPERATOR_CONTAINS: _ClassVar[Operator]
    OPERATOR_MATCHES: _ClassVar[Operator]
    OPERATOR_HAS_ANY: _ClassVar[Operator]
    OPERATOR_HAS_ALL: _ClassVar[Operator]
    OPERATOR_HAS_NONE: _ClassVar[Operator]
    OPERATOR_BEFORE: _ClassVar[Operator]
    OPERATOR_AFTER: _ClassVar[Operator]
    OPERATOR_SEMVER_EQUALS: _ClassVar[Operator]
    OPERATOR_SEMVER_LESS_THAN: _ClassVar[Operator]
    OPERATOR_SEMVER_LESS_THAN_OR_EQUAL: _ClassVar[Operator]
    OPERATOR_SEMVER_GREATER_THAN: _ClassVar[Operator]
    OPERATOR_SEMVER_GREATER_THAN_OR_EQUAL: _ClassVar[Operator]
    OPERATOR_IP_IN: _ClassVar[Operator]
    OPERATOR_EXISTS: _ClassVar[Operator]

class BucketAlgorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUCKET_ALGORITHM_UNSPECIFIED: _ClassVar[BucketAlgorithm]
    BUCKET_ALGORITHM_MURMUR3: _ClassVar[BucketAlgorithm]
    BUCKET_ALGORITHM_REPLANE: _ClassVar[BucketAlgorithm]
    BUCKET_ALGORITHM_REPLANE_PYTHON: _ClassVar[BucketAlgorithm]
OPERATOR_UNSPECIFIED: Operator
OPERATOR_EQUALS: Operator
OPERATOR_NOT_EQUALS: Operator
OPERATOR_IN: Operator
OPERATOR_NOT_IN: Operator
OPERATOR_LESS_THAN: Operator
OPERATOR_LESS_THAN_OR_EQUAL: Operator
OPERATOR_GREATER_THAN: Operator
OPERATOR_GREATER_THAN_OR_EQUAL: Operator
OPERATOR_STARTS_WITH: Operator
OPERATOR_ENDS_WITH: Operator
OPERATOR_CONTAINS: Operator
OPERATOR_MATCHES: Operator
OPERATOR_HAS_ANY: Operator
OPERATOR_HAS_ALL: Operator
OPERATOR_HAS_NONE: Operator
OPERATOR_BEFORE: Operator
OPERATOR_AFTER: Operator
OPERATOR_SEMVER_EQUALS: Operator
OPERATOR_SEMVER_LESS_THAN: Operator
OPERATOR_SEMVER_LESS_THAN_OR_EQUAL: Operator
OPERATOR_SEMVER_GREATER_THAN: Operator
OPERATOR_SEMVER_GREATER_THAN_OR_EQUAL: Operator
OPERATOR_IP_IN: Operator
OPERATOR_EXISTS: Operator
BUCKET_ALGORITHM_UNSPECIFIED: BucketAlgorithm
BUCKET_ALGORITHM_MURMUR3: BucketAlgorithm
BUCKET_ALGORITHM_REPLANE: BucketAlgorithm
BUCKET_ALGORITHM_REPLANE_PYTHON: BucketAlgorithm

class Condition(_message.Message):
    __slots__ = ("comparison", "all_of", "any_of", "negation", "percentage", "segment")
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NEGATION_FIELD_NUMBER: _ClassVar[int]
    PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    comparison: Comparison
    all_of: AllOf
    any_of: AnyOf
    negation: Negation
    percentage: Percentage
    segment: SegmentReference
    def __init__(self, comparison: _Optional[_Union[Comparison, _Mapping]] = ..., all_of: _Optional[_Union[AllOf, _Mapping]] = ..., any_of: _Optional[_Union[AnyOf, _Mapping]] = ..., negation: _Optional[_Union[Negation, _Mapping]] = ..., percentage: _Optional[_Union[Percentage, _Mapping]] = ..., segment: _Optional[_Union[SegmentReference, _Mapping]] = ...) -> None: ...

class AllOf(_message.Message):
    __slots__ = ("conditions",)
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class AnyOf(_message.Message):
    __slots__ = ("conditions",)
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Negation(_message.Message):
    __slots__ = ("condition",)
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    condition: Condition
    def __init__(self, condition: _Optional[_Union[Condition, _Mapping]] = ...) -> None: ...

class SegmentReference(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("left", "op", "right", "list")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    left: Operand
    op: Operator
    right: Operand
    list: ValueList
    def __init__(self, left: _Optional[_Union[Operand, _Mapping]] = ..., op: _Optional[_Union[Operator, str]] = ..., right: _Optional[_Union[Operand, _Mapping]] = ..., list: _Optional[_Union[ValueList, _Mapping]] = ...) -> None: ...

class ValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[_value_pb2.Value]
    def __init__(self, values: _Optional[_Iterable[_Union[_value_pb2.Value, _Mapping]]] = ...) -> None: ...

class Operand(_message.Message):
    __slots__ = ("attribute", "literal", "setting")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    SETTING_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    literal: _value_pb2.Value
    setting: str
    def __init__(self, attribute: _Optional[str] = ..., literal: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., setting: _Optional[str] = ...) -> None: ...

class Percentage(_message.Message):
    __slots__ = ("attribute", "salt", "algorithm", "from_bucket", "to_bucket")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    FROM_BUCKET_FIELD_NUMBER: _ClassVar[int]
    TO_BUCKET_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    salt: str
    algorithm: BucketAlgorithm
    from_bucket: int
    to_bucket: int
    def __init__(self, attribute: _Optional[str] = ..., salt: _Optional[str] = ..., algorithm: _Optional[_Union[BucketAlgorithm, str]] = ..., from_bucket: _Optional[int] = ..., to_bucket: _Optional[int] = ...) -> None: ...
