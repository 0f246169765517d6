from rheo.v1 import value_pb2 as _value_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluationReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATION_REASON_UNSPECIFIED: _ClassVar[EvaluationReason]
    EVALUATION_REASON_STATIC: _ClassVar[EvaluationReason]
    EVALUATION_REASON_DEFAULT: _ClassVar[EvaluationReason]
    EVALUATION_REASON_TARGETING_MATCH: _ClassVar[EvaluationReason]
    EVALUATION_REASON_SPLIT: _ClassVar[EvaluationReason]
    EVALUATION_REASON_DISABLED: _ClassVar[EvaluationReason]
    EVALUATION_REASON_ERROR: _ClassVar[EvaluationReason]

class EvaluationErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATION_ERROR_CODE_UNSPECIFIED: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_FLAG_NOT_FOUND: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_TYPE_MISMATCH: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_PARSE_ERROR: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_TARGETING_KEY_MISSING: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_INVALID_CONTEXT: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_PROVIDER_NOT_READY: _ClassVar[EvaluationErrorCode]
    EVALUATION_ERROR_CODE_GENERAL: _ClassVar[EvaluationErrorCode]

class Truth(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUTH_UNSPECIFIED: _ClassVar[Truth]
    TRUTH_TRUE: _ClassVar[Truth]
    TRUTH_FALSE: _ClassVar[Truth]
    TRUTH_UNKNOWN: _ClassVar[Truth]
EVALUATION_REASON_UNSPECIFIED: EvaluationReason
EVALUATION_REASON_STATIC: EvaluationReason
EVALUATION_REASON_DEFAULT: EvaluationReason
EVALUATION_REASON_TARGETING_MATCH: EvaluationReason
EVALUATION_REASON_SPLIT: EvaluationReason
EVALUATION_REASON_DISABLED: EvaluationReason
EVALUATION_REASON_ERROR: EvaluationReason
EVALUATION_ERROR_CODE_UNSPECIFIED: EvaluationErrorCode
EVALUATION_ERROR_CODE_FLAG_NOT_FOUND: EvaluationErrorCode
EVALUATION_ERROR_CODE_TYPE_MISMATCH: EvaluationErrorCode
EVALUATION_ERROR_CODE_PARSE_ERROR: EvaluationErrorCode
EVALUATION_ERROR_CODE_TARGETING_KEY_MISSING: EvaluationErrorCode
EVALUATION_ERROR_CODE_INVALID_CONTEXT: EvaluationErrorCode
EVALUATION_ERROR_CODE_PROVIDER_NOT_READY: EvaluationErrorCode
EVALUATION_ERROR_CODE_GENERAL: EvaluationErrorCode
TRUTH_UNSPECIFIED: Truth
TRUTH_TRUE: Truth
TRUTH_FALSE: Truth
TRUTH_UNKNOWN: Truth

class Evaluation(_message.Message):
    __slots__ = ("name", "value", "value_json", "reason", "rule_id", "variant", "revision", "setting_revision", "error_code", "error_message", "explanation", "note")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SETTING_REVISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: _value_pb2.Value
    value_json: str
    reason: EvaluationReason
    rule_id: str
    variant: str
    revision: int
    setting_revision: int
    error_code: EvaluationErrorCode
    error_message: str
    explanation: Explanation
    note: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., value_json: _Optional[str] = ..., reason: _Optional[_Union[EvaluationReason, str]] = ..., rule_id: _Optional[str] = ..., variant: _Optional[str] = ..., revision: _Optional[int] = ..., setting_revision: _Optional[int] = ..., error_code: _Optional[_Union[EvaluationErrorCode, str]] = ..., error_message: _Optional[str] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("rules", "detail")
    RULES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[RuleExplanation]
    detail: str
    def __init__(self, rules: _Optional[_Iterable[_Union[RuleExplanation, _Mapping]]] = ..., detail: _Optional[str] = ...) -> None: ...

class RuleExplanation(_message.Message):
    __slots__ = ("rule_id", "number", "truth", "matched", "condition", "variant", "bucket", "detail")
    RULE_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    rule_id: str
    number: int
    truth: Truth
    matched: bool
    condition: ConditionExplanation
    variant: str
    bucket: int
    detail: str
    def __init__(self, rule_id: _Optional[str] = ..., number: _Optional[int] = ..., truth: _Optional[_Union[Truth, str]] = ..., matched: bool = ..., condition: _Optional[_Union[ConditionExplanation, _Mapping]] = ..., variant: _Optional[str] = ..., bucket: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ConditionExplanation(_message.Message):
    __slots__ = ("text", "truth", "detail", "parts", "left", "right", "bucket")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    text: str
    truth: Truth
    detail: str
    parts: _containers.RepeatedCompositeFieldContainer[ConditionExplanation]
    left: _value_pb2.Value
    right: _value_pb2.Value
    bucket: int
    def __init__(self, text: _Optional[str] = ..., truth: _Optional[_Union[Truth, str]] = ..., detail: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[ConditionExplanation, _Mapping]]] = ..., left: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., right: _Optional[_Union[_value_pb2.Value, _Mapping]] = ..., bucket: _Optional[int] = ...) -> None: ...
