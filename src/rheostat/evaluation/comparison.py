"""The operators of comparisons, on operands that are already looked up and normalised."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from rheostat.evaluation import pattern
from rheostat.evaluation.context import ContextScalar, ContextValue
from rheostat.evaluation.instant import instant
from rheostat.evaluation.network import Network, address, is_inside, network
from rheostat.evaluation.semver import precedence
from rheostat.evaluation.truth import Truth, negate
from rheostat.model.condition import Operator
from rheostat.model.value import Absent

__all__ = [
    "INSTANT_OPERATORS",
    "LIST_OPERATORS",
    "ORDER_OPERATORS",
    "RELATION_OPERATORS",
    "SEMVER_OPERATORS",
    "TEXT_OPERATORS",
    "Literals",
    "compare",
    "equal",
    "is_number",
    "is_scalar",
    "kind",
]

Literals: TypeAlias = tuple["ContextValue | Absent", ...]

_Order: TypeAlias = Callable[[Any, Any], bool]

ORDER_OPERATORS: Final[Mapping[Operator, _Order]] = {
    Operator.LESS_THAN: operator.lt,
    Operator.LESS_THAN_OR_EQUAL: operator.le,
    Operator.GREATER_THAN: operator.gt,
    Operator.GREATER_THAN_OR_EQUAL: operator.ge,
}
SEMVER_OPERATORS: Final[Mapping[Operator, _Order]] = {
    Operator.SEMVER_EQUALS: operator.eq,
    Operator.SEMVER_LESS_THAN: operator.lt,
    Operator.SEMVER_LESS_THAN_OR_EQUAL: operator.le,
    Operator.SEMVER_GREATER_THAN: operator.gt,
    Operator.SEMVER_GREATER_THAN_OR_EQUAL: operator.ge,
}
INSTANT_OPERATORS: Final[Mapping[Operator, _Order]] = {
    Operator.BEFORE: operator.lt,
    Operator.AFTER: operator.gt,
}
TEXT_OPERATORS: Final[Mapping[Operator, Callable[[str, str], bool]]] = {
    Operator.STARTS_WITH: str.startswith,
    Operator.ENDS_WITH: str.endswith,
    Operator.CONTAINS: operator.contains,
}
RELATION_OPERATORS: Final = frozenset({Operator.HAS_ANY, Operator.HAS_ALL, Operator.HAS_NONE})
LIST_OPERATORS: Final = RELATION_OPERATORS | {Operator.IN, Operator.NOT_IN}
"""The operators that take a literal list and nothing else on the right."""


def kind(value: object) -> str:
    """Return what *value* is to the operators: bool, number, string, list, mapping or missing."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case tuple():
            return "list"
        case Mapping():
            return "mapping"
        case _:
            return "missing"


def is_number(value: object) -> bool:
    """Tell whether *value* is a number; a bool never is."""
    return kind(value) == "number"


def is_scalar(value: object) -> bool:
    """Tell whether *value* is a bool, a number or a string."""
    return kind(value) in ("bool", "number", "string")


def equal(left: ContextScalar, right: ContextScalar) -> bool:
    """Tell whether two scalars are equal: numbers by value, those of different kinds never."""
    return kind(left) == kind(right) and left == right


def compare(
    op: Operator, left: ContextValue | Absent, right: ContextValue | Absent, literals: Literals | None
) -> Truth:
    """Return what ``left op right``, or ``left op literals``, is.

    Args:
        op: The operator.
        left: The left operand; ABSENT when it is missing.
        right: The right operand; ABSENT when it is missing or there is none.
        literals: The literal list, or None where the comparison has a single right operand.
    """
    if op is Operator.EXISTS:
        return Truth.of(not isinstance(left, Absent))
    if isinstance(left, Absent) or any(map(_has_nan, (left, right, literals))):
        return Truth.UNKNOWN
    if op in LIST_OPERATORS:
        return Truth.UNKNOWN if literals is None else _against_list(op, left, literals)
    if op in TEXT_OPERATORS:
        return _text(TEXT_OPERATORS[op], left, (right,) if literals is None else literals)
    if op is Operator.IP_IN:
        return _ip_in(left, (right,) if literals is None else literals)
    if literals is not None or isinstance(right, Absent):
        return Truth.UNKNOWN
    return _against_one(op, left, right)


def _has_nan(value: object) -> bool:
    if isinstance(value, tuple):
        return any(map(_has_nan, value))
    return isinstance(value, float) and math.isnan(value)


def _against_one(op: Operator, left: ContextValue, right: ContextValue) -> Truth:
    match op:
        case Operator.EQUALS:
            return _equals(left, right)
        case Operator.NOT_EQUALS:
            return negate(_equals(left, right))
        case Operator.MATCHES:
            if isinstance(left, str) and isinstance(right, str):
                found = pattern.search(right, left)
                return Truth.UNKNOWN if found is None else Truth.of(found)
            return Truth.UNKNOWN
        case _:
            pass
    if op in ORDER_OPERATORS:
        if kind(left) == kind(right) and kind(left) in ("number", "string"):
            return Truth.of(ORDER_OPERATORS[op](left, right))
        return Truth.UNKNOWN
    if op in INSTANT_OPERATORS:
        return _ordered(INSTANT_OPERATORS[op], instant(left), instant(right))
    if op in SEMVER_OPERATORS and isinstance(left, str) and isinstance(right, str):
        return _ordered(SEMVER_OPERATORS[op], precedence(left), precedence(right))
    return Truth.UNKNOWN


def _ordered(order: _Order, left: object | None, right: object | None) -> Truth:
    if left is None or right is None:
        return Truth.UNKNOWN
    return Truth.of(order(left, right))


def _equals(left: ContextValue, right: ContextValue) -> Truth:
    if _scalars((left, right)) is None:
        return Truth.UNKNOWN
    return Truth.of(kind(left) == kind(right) and left == right)


def _scalars(values: Literals) -> tuple[ContextScalar, ...] | None:
    scalars = tuple(value for value in values if isinstance(value, (bool, int, float, str)))
    return scalars if len(scalars) == len(values) else None


def _against_list(op: Operator, left: ContextValue, literals: Literals) -> Truth:
    known = _scalars(literals)
    if known is None:
        return Truth.UNKNOWN
    if op in RELATION_OPERATORS:
        return _related(op, left, known) if isinstance(left, tuple) else Truth.UNKNOWN
    if not isinstance(left, (bool, int, float, str)):
        return Truth.UNKNOWN
    is_in = any(equal(left, literal) for literal in known)
    return Truth.of(is_in if op is Operator.IN else not is_in)


def _related(op: Operator, elements: tuple[ContextScalar, ...], literals: tuple[ContextScalar, ...]) -> Truth:
    found = [any(equal(element, literal) for element in elements) for literal in literals]
    match op:
        case Operator.HAS_ANY:
            return Truth.of(any(found))
        case Operator.HAS_ALL:
            return Truth.of(all(found))
        case _:
            return Truth.of(not any(found))


def _text(relation: Callable[[str, str], bool], left: ContextValue, literals: Literals) -> Truth:
    texts = tuple(literal for literal in literals if isinstance(literal, str))
    if not isinstance(left, str) or len(texts) != len(literals):
        return Truth.UNKNOWN
    return Truth.of(any(relation(left, text) for text in texts))


def _ip_in(left: ContextValue, literals: Literals) -> Truth:
    where = address(left) if isinstance(left, str) else None
    networks = tuple(_network(literal) for literal in literals)
    known = tuple(inside for inside in networks if inside is not None)
    if where is None or len(known) != len(networks):
        return Truth.UNKNOWN
    return Truth.of(is_inside(where, known))


def _network(literal: ContextValue | Absent) -> Network | None:
    return network(literal) if isinstance(literal, str) else None
