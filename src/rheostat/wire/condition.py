"""Conditions as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rheo.v1 import condition_pb2
from rheostat.errors import FieldViolation, InvalidConditionError, TypeMismatchError
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    Unrecognized,
)
from rheostat.model.value import ABSENT, Value
from rheostat.wire.value import fill_value, value_from_proto, value_from_request

__all__ = [
    "MAX_WIRE_CONDITION_DEPTH",
    "algorithm_from_request",
    "algorithm_to_proto",
    "condition_from_proto",
    "condition_from_request",
    "condition_to_proto",
    "fill_condition",
    "known_algorithm",
]

MAX_WIRE_CONDITION_DEPTH: Final = 64
"""The deepest nesting that is translated, so that none exhausts the stack.

Parsers of protobuf, which stop at 100 nested messages, never let as much through: a level costs two. What a node
accepts is its limit ``max_condition_depth``.
"""

_OPERATORS: Final[Mapping[int, Operator]] = {
    number: Operator[name.removeprefix("OPERATOR_")]
    for name, number in condition_pb2.Operator.items()
    if number
}
_OPERATOR_NUMBERS: Final = {operator: number for number, operator in _OPERATORS.items()}
_ALGORITHMS: Final[Mapping[int, BucketAlgorithm]] = {
    number: BucketAlgorithm[name.removeprefix("BUCKET_ALGORITHM_")]
    for name, number in condition_pb2.BucketAlgorithm.items()
    if number
}
_ALGORITHM_NUMBERS: Final = {algorithm: number for number, algorithm in _ALGORITHMS.items()}


def condition_to_proto(condition: Condition) -> condition_pb2.Condition:
    """Return *condition* as a message; an `Unrecognized` one has no kind, which is UNKNOWN to every reader.

    Raises:
        InvalidConditionError: It nests more than `MAX_WIRE_CONDITION_DEPTH` levels.
        TypeMismatchError: A literal in it is not a value.
    """
    message = condition_pb2.Condition()
    fill_condition(message, condition)
    return message


def fill_condition(message: condition_pb2.Condition, condition: Condition) -> None:
    """Write *condition* into *message*, an empty part of another one.

    Raises:
        InvalidConditionError: As `condition_to_proto`.
        TypeMismatchError: As `condition_to_proto`.
    """
    message.SetInParent()
    _fill(message, condition, 1)


def condition_from_proto(message: condition_pb2.Condition) -> Condition:
    """Return the condition of a peer's answer. Parts that this version does not know are `Unrecognized`."""
    try:
        return _read(message, None, 1)
    except _TooDeepError as exc:
        return Unrecognized(str(exc))


def condition_from_request(message: condition_pb2.Condition, field: str) -> Condition:
    """Return the condition of a request.

    Raises:
        InvalidConditionError: A part has no kind or operator that is known here, or it nests too deeply; the
            violation names the part by its path from *field*.
        TypeMismatchError: A literal in it is not a value; likewise.
    """
    try:
        return _read(message, field, 1)
    except _TooDeepError as exc:
        raise _invalid(field, str(exc)) from None


def algorithm_to_proto(algorithm: BucketAlgorithm) -> condition_pb2.BucketAlgorithm:
    """Return the number of *algorithm*."""
    return _ALGORITHM_NUMBERS[algorithm]  # type: ignore[return-value]  # enum numbers are plain ints at run time


def known_algorithm(number: int) -> BucketAlgorithm | None:
    """Return the algorithm of a peer's answer, or None when it is not known here or not said."""
    return _ALGORITHMS.get(number)


def algorithm_from_request(number: int, field: str) -> BucketAlgorithm:
    """Return the algorithm of a request, where unspecified means MURMUR3.

    Raises:
        InvalidConditionError: It is not known here; the violation names *field*.
    """
    if number == condition_pb2.BUCKET_ALGORITHM_UNSPECIFIED:
        return BucketAlgorithm.MURMUR3
    algorithm = _ALGORITHMS.get(number)
    if algorithm is None:
        raise _invalid(field, f"the bucket algorithm {number} is unknown")
    return algorithm


class _TooDeepError(Exception):
    """Ends the reading at a depth where a path would tell nobody anything."""

    def __str__(self) -> str:
        return f"a condition nests more than {MAX_WIRE_CONDITION_DEPTH} levels"


def _invalid(field: str, description: str) -> InvalidConditionError:
    return InvalidConditionError(f"{field}: {description}", violations=[FieldViolation(field, description)])


def _fill(message: condition_pb2.Condition, condition: Condition, level: int) -> None:
    if level > MAX_WIRE_CONDITION_DEPTH:
        raise InvalidConditionError(str(_TooDeepError()))
    match condition:
        case Comparison(left, operator, right, literals):
            comparison = message.comparison
            _fill_operand(comparison.left, left)
            comparison.op = _OPERATOR_NUMBERS[operator]  # type: ignore[assignment]  # as above
            if right is not None:
                _fill_operand(comparison.right, right)
            if literals is not None:
                comparison.list.SetInParent()
                elements = comparison.list.values
                for literal in literals:
                    fill_value(elements.add(), literal)
        case AllOf(conditions):
            message.all_of.SetInParent()
            for inner in conditions:
                _fill(message.all_of.conditions.add(), inner, level + 1)
        case AnyOf(conditions):
            message.any_of.SetInParent()
            for inner in conditions:
                _fill(message.any_of.conditions.add(), inner, level + 1)
        case Not(inner):
            message.negation.condition.SetInParent()
            _fill(message.negation.condition, inner, level + 1)
        case Percentage(attribute, salt, start, end, algorithm):
            message.percentage.attribute = attribute
            message.percentage.salt = salt
            message.percentage.algorithm = algorithm_to_proto(algorithm)
            message.percentage.from_bucket = start
            message.percentage.to_bucket = end
        case SegmentReference(name):
            message.segment.name = name
        case Unrecognized():
            pass


def _fill_operand(message: condition_pb2.Operand, operand: Operand) -> None:
    match operand:
        case Attribute(path):
            message.attribute = path
        case Literal(value):
            fill_value(message.literal, value)
        case SettingReference(name):
            message.setting = name


def _read(message: condition_pb2.Condition, field: str | None, level: int) -> Condition:
    """Read a condition: of a request when its *field* is given, of a peer's answer when it is None."""
    if level > MAX_WIRE_CONDITION_DEPTH:
        raise _TooDeepError
    match message.WhichOneof("kind"):
        case "comparison":
            return _read_comparison(message.comparison, _inside(field, "comparison"))
        case "all_of":
            return AllOf(
                tuple(
                    _read(inner, _inside(field, f"all_of.conditions[{i}]"), level + 1)
                    for i, inner in enumerate(message.all_of.conditions)
                )
            )
        case "any_of":
            return AnyOf(
                tuple(
                    _read(inner, _inside(field, f"any_of.conditions[{i}]"), level + 1)
                    for i, inner in enumerate(message.any_of.conditions)
                )
            )
        case "negation":
            return Not(_read(message.negation.condition, _inside(field, "negation.condition"), level + 1))
        case "percentage":
            return _read_percentage(message.percentage, _inside(field, "percentage"))
        case "segment":
            return SegmentReference(message.segment.name)
        case _:
            return _unknown(field, "", "a condition has no kind that is known here")


def _read_comparison(message: condition_pb2.Comparison, field: str | None) -> Condition:
    operator = _OPERATORS.get(message.op)
    if operator is None:
        return _unknown(field, "op", f"the operator {message.op} is unknown")
    left = _read_operand(message.left, _inside(field, "left"))
    if isinstance(left, Unrecognized):
        return left
    match message.WhichOneof("operand"):
        case "right":
            right = _read_operand(message.right, _inside(field, "right"))
            return right if isinstance(right, Unrecognized) else Comparison(left, operator, right)
        case "list":
            literals = _read_literals(message.list, _inside(field, "list"))
            if isinstance(literals, Unrecognized):
                return literals
            return Comparison(left, operator, literals=literals)
        case _:
            # EXISTS has no right side; any other operator is UNKNOWN without one, as it shall be for a right
            # side of a kind that this version does not know.
            return Comparison(left, operator)


def _read_operand(message: condition_pb2.Operand, field: str | None) -> Operand | Unrecognized:
    match message.WhichOneof("kind"):
        case "attribute":
            return Attribute(message.attribute)
        case "setting":
            return SettingReference(message.setting)
        case "literal" if field is not None:
            return Literal(value_from_request(message.literal, f"{field}.literal"))
        case "literal":
            try:
                value = value_from_proto(message.literal)
            except TypeMismatchError as exc:
                return Unrecognized(exc.message)
            return (
                Unrecognized("a literal has no kind that is known here")
                if value is ABSENT
                else Literal(value)
            )
        case _:
            return _unknown(field, "", "an operand has no kind that is known here")


def _read_literals(message: condition_pb2.ValueList, field: str | None) -> tuple[Value, ...] | Unrecognized:
    if field is not None:
        return tuple(
            value_from_request(value, f"{field}.values[{i}]") for i, value in enumerate(message.values)
        )
    literals: list[Value] = []
    for value in message.values:
        try:
            literal = value_from_proto(value)
        except TypeMismatchError as exc:
            return Unrecognized(exc.message)
        if literal is ABSENT:
            return Unrecognized("a literal has no kind that is known here")
        literals.append(literal)
    return tuple(literals)


def _read_percentage(message: condition_pb2.Percentage, field: str | None) -> Condition:
    if field is None:
        algorithm = known_algorithm(message.algorithm)
        if algorithm is None:
            return Unrecognized(f"the bucket algorithm {message.algorithm} is unknown")
    else:
        algorithm = algorithm_from_request(message.algorithm, f"{field}.algorithm")
    return Percentage(message.attribute, message.salt, message.from_bucket, message.to_bucket, algorithm)


def _inside(field: str | None, name: str) -> str | None:
    return None if field is None else f"{field}.{name}"


def _unknown(field: str | None, name: str, description: str) -> Unrecognized:
    if field is None:
        return Unrecognized(description)
    raise _invalid(f"{field}.{name}" if name else field, description)
