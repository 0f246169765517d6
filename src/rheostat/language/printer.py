"""From conditions to their canonical text."""

from __future__ import annotations

from typing import Final

from rheostat.errors import InvalidConditionError
from rheostat.language.instant import is_instant
from rheostat.language.quoting import json_text
from rheostat.language.word import KEYWORDS, MAX_NESTING, PLAIN_PATH
from rheostat.model.condition import (
    BUCKETS,
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
    depth,
)

__all__ = ["format_condition", "format_percent"]

# How tight a text binds; one that binds looser than its place asks for goes into parentheses.
_OR, _AND, _NOT = 1, 2, 3

_SEMVER: Final = {
    Operator.SEMVER_EQUALS: "==",
    Operator.SEMVER_LESS_THAN: "<",
    Operator.SEMVER_LESS_THAN_OR_EQUAL: "<=",
    Operator.SEMVER_GREATER_THAN: ">",
    Operator.SEMVER_GREATER_THAN_OR_EQUAL: ">=",
}
_WITH_LIST_ALONE: Final = frozenset(
    {Operator.IN, Operator.NOT_IN, Operator.HAS_ANY, Operator.HAS_ALL, Operator.HAS_NONE}
)
_WITH_EITHER: Final = frozenset({Operator.STARTS_WITH, Operator.ENDS_WITH, Operator.CONTAINS, Operator.IP_IN})
_INSTANT_OPERATORS: Final = frozenset({Operator.BEFORE, Operator.AFTER})


def format_condition(condition: Condition) -> str:
    """Return the canonical text of *condition*, on one line; `parse_condition` makes the same of it.

    Equal conditions have equal texts, and different ones different texts.

    Raises:
        InvalidConditionError: The condition has no text form: it is `Unrecognized`, nests too deep, or holds
            what the wire cannot carry either.
    """
    if depth(condition) > MAX_NESTING:
        raise InvalidConditionError(f"the condition nests more than {MAX_NESTING} levels deep")
    return _text(condition, _OR)


def format_percent(thousandths: int) -> str:
    """Return thousandths of a per cent as per cent: 12500 is ``12.5``."""
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{rest:03d}".rstrip("0") if rest else str(whole)


def _text(condition: Condition, binding: int) -> str:
    match condition:
        case AllOf(conditions):
            return _joined("and", "all_of", conditions, _AND, binding)
        case AnyOf(conditions):
            return _joined("or", "any_of", conditions, _OR, binding)
        case Not(Comparison(left, Operator.EXISTS, None, None)):
            return f"missing({_left(left)})"
        case Not(inner):
            return f"not {_text(inner, _NOT)}"
        case Percentage():
            return _percentage(condition)
        case SegmentReference(name):
            return f"segment({json_text(name)})"
        case Comparison():
            return _comparison(condition)
        case Unrecognized(reason):
            raise InvalidConditionError(f"a condition from a newer version has no text form: {reason}")


def _joined(word: str, function: str, conditions: tuple[Condition, ...], own: int, binding: int) -> str:
    if len(conditions) < 2:
        return f"{function}({', '.join(_text(inner, _OR) for inner in conditions)})"
    # A part that is itself joined by the same word is in parentheses, which keep it apart.
    text = f" {word} ".join(_text(inner, own + 1) for inner in conditions)
    return f"({text})" if own < binding else text


def _percentage(condition: Percentage) -> str:
    start, end = condition.start, condition.end
    if not 0 <= start <= end <= BUCKETS:
        raise InvalidConditionError(f"a percentage from {start} to {end} thousandths has no text form")
    arguments = [_path(condition.attribute)]
    if condition.salt:
        arguments.append(f"salt={json_text(condition.salt)}")
    if condition.algorithm is not BucketAlgorithm.MURMUR3:
        arguments.append(f"algorithm={condition.algorithm.name}")
    unit = f"percent({', '.join(arguments)})"
    if start == 0:
        return f"{unit} < {format_percent(end)}"
    if end == BUCKETS:
        return f"{unit} >= {format_percent(start)}"
    return f"{format_percent(start)} <= {unit} < {format_percent(end)}"


def _comparison(condition: Comparison) -> str:
    left, operator, right, literals = condition.left, condition.operator, condition.right, condition.literals
    if right is not None and literals is not None:
        raise InvalidConditionError("a comparison with both an operand and a list has no text form")
    if operator is Operator.EXISTS and right is None and literals is None:
        return f"exists({_left(left)})"
    if literals is not None and operator in _WITH_LIST_ALONE | _WITH_EITHER:
        return f"{_left(left)} {operator.value} {json_text(literals)}"
    if right is not None and operator is not Operator.EXISTS and operator not in _WITH_LIST_ALONE:
        if operator in _SEMVER:
            return f"semver({_left(left)}) {_SEMVER[operator]} {_right(right)}"
        if operator in _INSTANT_OPERATORS and _is_timestamp(right):
            return f"{_left(left)} {operator.value} timestamp({_right(right)})"
        return f"{_left(left)} {operator.value} {_right(right)}"
    arguments = [_left(left), operator.name]
    if right is not None:
        arguments.append(_right(right))
    if literals is not None:
        arguments.append(json_text(literals))
    return f"compare({', '.join(arguments)})"


def _is_timestamp(operand: Operand) -> bool:
    return isinstance(operand, Literal) and isinstance(operand.value, str) and is_instant(operand.value)


def _left(operand: Operand) -> str:
    match operand:
        case Attribute(path):
            return _path(path)
        case SettingReference(name):
            return f"setting({json_text(name)})"
        case Literal(value):
            return f"literal({json_text(value)})"


def _right(operand: Operand) -> str:
    match operand:
        case Attribute(path):
            return f"attr({_path(path)})"
        case Literal(value) if not isinstance(value, tuple):
            return json_text(value)
        case _:
            return _left(operand)


def _path(path: str) -> str:
    if PLAIN_PATH.fullmatch(path) and path not in KEYWORDS:
        return path
    quoted = json_text(path)[1:-1].replace("`", "\\`").replace('\\"', '"')
    return f"`{quoted}`"
