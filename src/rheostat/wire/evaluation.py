"""Evaluations and their explanations as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rheo.v1 import evaluation_pb2, value_pb2
from rheostat.errors import InvalidConditionError, TypeMismatchError
from rheostat.evaluation.explain import ConditionExplanation, Explanation, RuleExplanation
from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
from rheostat.evaluation.truth import Truth
from rheostat.language import format_condition, parse_condition
from rheostat.model.condition import Condition, Unrecognized
from rheostat.model.value import ABSENT, Absent, Value, canonical_json
from rheostat.wire.value import value_from_proto, value_to_proto

__all__ = [
    "evaluation_from_proto",
    "evaluation_to_proto",
    "explanation_from_proto",
    "explanation_to_proto",
]

_MAX_TEXT: Final = 4_096
"""Characters of a condition's text in an explanation. A list in it may have thousands of literals, and each level
of nesting repeats those below it."""

_REASONS: Final[Mapping[int, Reason]] = {
    number: Reason[name.removeprefix("EVALUATION_REASON_")]
    for name, number in evaluation_pb2.EvaluationReason.items()
    if number
}
_REASON_NUMBERS: Final = {reason: number for number, reason in _REASONS.items()}
_ERROR_CODES: Final[Mapping[int, ErrorCode]] = {
    number: ErrorCode[name.removeprefix("EVALUATION_ERROR_CODE_")]
    for name, number in evaluation_pb2.EvaluationErrorCode.items()
    if number
}
_ERROR_CODE_NUMBERS: Final = {code: number for number, code in _ERROR_CODES.items()}
_TRUTHS: Final[Mapping[int, Truth]] = {
    number: Truth[name.removeprefix("TRUTH_")] for name, number in evaluation_pb2.Truth.items() if number
}
_TRUTH_NUMBERS: Final = {truth: number for number, truth in _TRUTHS.items()}


def evaluation_to_proto(
    name: str, evaluation: Evaluation, explanation: Explanation | None = None
) -> evaluation_pb2.Evaluation:
    """Return *evaluation* as a message.

    Args:
        name: The setting's name, as it was asked for.
        evaluation: The value, and how it came about.
        explanation: Present when the caller asked for it.

    Raises:
        TypeMismatchError: The value cannot be carried; see `value_to_proto`.
    """
    message = evaluation_pb2.Evaluation(
        name=name,
        reason=_REASON_NUMBERS[evaluation.reason],  # type: ignore[arg-type]  # enum numbers are plain ints
        rule_id=evaluation.rule_id or "",
        variant=evaluation.variant or "",
        revision=evaluation.revision,
        setting_revision=evaluation.setting_revision,
        error_message=evaluation.error_message,
        note=evaluation.note,
    )
    if evaluation.value is not ABSENT:
        message.value.CopyFrom(value_to_proto(evaluation.value))
        message.value_json = canonical_json(evaluation.value)
    if evaluation.error_code is not None:
        message.error_code = _ERROR_CODE_NUMBERS[evaluation.error_code]  # type: ignore[assignment]  # as above
    if explanation is not None:
        message.explanation.CopyFrom(explanation_to_proto(explanation))
    return message


def evaluation_from_proto(message: evaluation_pb2.Evaluation) -> Evaluation:
    """Return the evaluation of a peer's answer.

    A reason that this version does not know is DEFAULT, or ERROR where there is no value; an unknown error code
    is GENERAL.

    Raises:
        TypeMismatchError: The value is of a kind that this version does not know.
    """
    value = value_from_proto(message.value) if message.HasField("value") else ABSENT
    reason = _REASONS.get(message.reason, Reason.ERROR if value is ABSENT else Reason.DEFAULT)
    return Evaluation(
        value=value,
        reason=reason,
        rule_id=message.rule_id or None,
        variant=message.variant or None,
        revision=message.revision,
        setting_revision=message.setting_revision,
        error_code=(
            _ERROR_CODES.get(message.error_code, ErrorCode.GENERAL) if reason is Reason.ERROR else None
        ),
        error_message=message.error_message,
        note=message.note,
    )


def explanation_to_proto(explanation: Explanation) -> evaluation_pb2.Explanation:
    """Return *explanation*, without the evaluation that it is of, as a message."""
    return evaluation_pb2.Explanation(
        rules=[_rule_to_proto(rule) for rule in explanation.rules], detail=explanation.detail
    )


def explanation_from_proto(message: evaluation_pb2.Evaluation) -> Explanation:
    """Return the explanation of a peer's answer, empty when it has none.

    A condition is parsed from its text; one whose text was cut, or is newer than this version, is
    `Unrecognized` with that text as its reason.

    Raises:
        TypeMismatchError: As `evaluation_from_proto`.
    """
    return Explanation(
        evaluation_from_proto(message),
        tuple(_rule_from_proto(rule) for rule in message.explanation.rules),
        message.explanation.detail,
    )


def _rule_to_proto(rule: RuleExplanation) -> evaluation_pb2.RuleExplanation:
    message = evaluation_pb2.RuleExplanation(
        rule_id=rule.rule_id,
        number=rule.number,
        matched=rule.matched,
        variant=rule.variant or "",
        detail=rule.detail,
    )
    if rule.truth is not None:
        message.truth = _TRUTH_NUMBERS[rule.truth]  # type: ignore[assignment]  # as above
    if rule.condition is not None:
        _fill_condition(message.condition, rule.condition)
    if rule.bucket is not None:
        message.bucket = rule.bucket
    return message


def _rule_from_proto(message: evaluation_pb2.RuleExplanation) -> RuleExplanation:
    return RuleExplanation(
        rule_id=message.rule_id,
        number=message.number,
        truth=_TRUTHS.get(message.truth),
        matched=message.matched,
        detail=message.detail,
        condition=_condition_from_proto(message.condition) if message.HasField("condition") else None,
        variant=message.variant or None,
        bucket=message.bucket if message.HasField("bucket") else None,
    )


def _fill_condition(message: evaluation_pb2.ConditionExplanation, explained: ConditionExplanation) -> None:
    message.text = _text(explained.condition)
    message.truth = _TRUTH_NUMBERS[explained.truth]  # type: ignore[assignment]  # as above
    message.detail = explained.detail
    for part in explained.parts:
        _fill_condition(message.parts.add(), part)
    for operand, field in ((explained.left, message.left), (explained.right, message.right)):
        _fill_shown(field, operand)
    if explained.bucket is not None:
        message.bucket = explained.bucket


def _fill_shown(message: value_pb2.Value, value: Value | Absent) -> None:
    """Write a value of the context; one that the contract cannot carry stays out of an explanation."""
    if value is ABSENT:
        return
    try:
        message.CopyFrom(value_to_proto(value))
    except TypeMismatchError:
        return


def _condition_from_proto(message: evaluation_pb2.ConditionExplanation) -> ConditionExplanation:
    return ConditionExplanation(
        condition=_parsed(message.text),
        truth=_TRUTHS.get(message.truth, Truth.UNKNOWN),
        detail=message.detail,
        parts=tuple(_condition_from_proto(part) for part in message.parts),
        left=_shown(message, "left"),
        right=_shown(message, "right"),
        bucket=message.bucket if message.HasField("bucket") else None,
    )


def _shown(message: evaluation_pb2.ConditionExplanation, name: str) -> Value | Absent:
    try:
        return value_from_proto(getattr(message, name))
    except TypeMismatchError:
        return ABSENT


def _text(condition: Condition) -> str:
    if isinstance(condition, Unrecognized):
        return condition.reason
    try:
        text = format_condition(condition)
    except InvalidConditionError as exc:
        text = exc.message
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _parsed(text: str) -> Condition:
    try:
        return parse_condition(text)
    except InvalidConditionError:
        return Unrecognized(text)
