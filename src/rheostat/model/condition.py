"""Conditions: expressions over a context, as immutable data.

What they mean is in docs/reference/evaluation.md; `rheostat.evaluation` computes it, `rheostat.language` gives
them a text form.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from rheostat.model.value import Value

__all__ = [
    "BUCKETS",
    "MAX_CONDITION_DEPTH",
    "AllOf",
    "AnyOf",
    "Attribute",
    "BucketAlgorithm",
    "Comparison",
    "Condition",
    "Literal",
    "Not",
    "Operand",
    "Operator",
    "Percentage",
    "SegmentReference",
    "SettingReference",
    "Unrecognized",
    "attributes_of",
    "depth",
    "segments_of",
    "settings_of",
    "walk",
]

BUCKETS: Final = 100_000
"""Buckets of a percentage: thousandths of a per cent."""

MAX_CONDITION_DEPTH: Final = 32
"""The deepest nesting of a condition that a server accepts by default."""


class Operator(enum.Enum):
    """How a comparison relates its operands; the value is the keyword in the condition language."""

    EQUALS = "=="
    NOT_EQUALS = "!="
    IN = "in"
    NOT_IN = "not in"
    LESS_THAN = "<"
    LESS_THAN_OR_EQUAL = "<="
    GREATER_THAN = ">"
    GREATER_THAN_OR_EQUAL = ">="
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    CONTAINS = "contains"
    MATCHES = "matches"
    HAS_ANY = "has_any"
    HAS_ALL = "has_all"
    HAS_NONE = "has_none"
    BEFORE = "before"
    AFTER = "after"
    SEMVER_EQUALS = "semver =="
    SEMVER_LESS_THAN = "semver <"
    SEMVER_LESS_THAN_OR_EQUAL = "semver <="
    SEMVER_GREATER_THAN = "semver >"
    SEMVER_GREATER_THAN_OR_EQUAL = "semver >="
    IP_IN = "ip_in"
    EXISTS = "exists"


class BucketAlgorithm(enum.Enum):
    """How a unit is put into one of `BUCKETS` buckets; stored with each rule, never changed by an upgrade."""

    MURMUR3 = "MURMUR3"
    REPLANE = "REPLANE"
    REPLANE_PYTHON = "REPLANE_PYTHON"


@dataclass(frozen=True, slots=True)
class Attribute:
    """An operand read from the context by its dotted *path*."""

    path: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant operand."""

    value: Value


@dataclass(frozen=True, slots=True)
class SettingReference:
    """The value of another setting of the same environment, evaluated for the same context."""

    name: str


Operand: TypeAlias = Attribute | Literal | SettingReference


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two operands and an operator.

    Attributes:
        left: What is compared.
        operator: How.
        right: A single operand, or None when `literals` is used or the operator is EXISTS.
        literals: A literal list, or None when `right` is used.
    """

    left: Operand
    operator: Operator
    right: Operand | None = None
    literals: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """TRUE when all conditions are; empty is TRUE."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """TRUE when one condition is; empty is FALSE."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; UNKNOWN stays UNKNOWN."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Percentage:
    """TRUE when the bucket of a unit is in ``[start, end)``, in thousandths of a per cent.

    Attributes:
        attribute: The path of the unit in the context.
        salt: What separates this rollout from others; empty only before the server has written it out.
        start: First bucket, 0 to 100 000.
        end: One past the last bucket, `start` to 100 000.
        algorithm: How units are hashed.
    """

    attribute: str
    salt: str
    start: int
    end: int
    algorithm: BucketAlgorithm = BucketAlgorithm.MURMUR3


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """The condition of a segment of the project."""

    name: str


@dataclass(frozen=True, slots=True)
class Unrecognized:
    """A condition that came from a newer peer; always UNKNOWN, never written by this version.

    Attributes:
        reason: What was not recognised, for explanations.
    """

    reason: str


Condition: TypeAlias = "Comparison | AllOf | AnyOf | Not | Percentage | SegmentReference | Unrecognized"


def walk(condition: Condition) -> Iterator[Condition]:
    """Yield *condition* and all conditions inside it, outer first; segments are not followed."""
    stack: list[Condition] = [condition]
    while stack:
        current = stack.pop()
        yield current
        match current:
            case AllOf(conditions) | AnyOf(conditions):
                stack.extend(reversed(conditions))
            case Not(inner):
                stack.append(inner)
            case _:
                pass


def depth(condition: Condition) -> int:
    """Return the nesting depth: 1 for a leaf. Never recurses, so that hostile depth is harmless."""
    deepest = 0
    stack: list[tuple[Condition, int]] = [(condition, 1)]
    while stack:
        current, level = stack.pop()
        deepest = max(deepest, level)
        match current:
            case AllOf(conditions) | AnyOf(conditions):
                stack.extend((inner, level + 1) for inner in conditions)
            case Not(inner):
                stack.append((inner, level + 1))
            case _:
                pass
    return deepest


def attributes_of(condition: Condition) -> set[str]:
    """Return the attribute paths that *condition* itself reads; segments and settings are not followed."""
    paths: set[str] = set()
    for part in walk(condition):
        match part:
            case Comparison(left, _, right):
                paths.update(operand.path for operand in (left, right) if isinstance(operand, Attribute))
            case Percentage(attribute):
                paths.add(attribute)
            case _:
                pass
    return paths


def segments_of(condition: Condition) -> set[str]:
    """Return the names of the segments that *condition* refers to directly."""
    return {part.name for part in walk(condition) if isinstance(part, SegmentReference)}


def settings_of(condition: Condition) -> set[str]:
    """Return the names of the settings that *condition* refers to directly."""
    names: set[str] = set()
    for part in walk(condition):
        if isinstance(part, Comparison):
            names.update(
                operand.name for operand in (part.left, part.right) if isinstance(operand, SettingReference)
            )
    return names
