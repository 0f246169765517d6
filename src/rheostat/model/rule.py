"""Rules: a condition and an outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rheostat.model.condition import BUCKETS, BucketAlgorithm, Condition
from rheostat.model.value import FrozenMapping, Value

__all__ = ["TOTAL_WEIGHT", "Distribution", "Outcome", "Rule", "ValueOutcome", "Variant", "outcome_values"]

TOTAL_WEIGHT: Final = BUCKETS
"""What the weights of a distribution's variants sum to: thousandths of a per cent."""


@dataclass(frozen=True, slots=True)
class ValueOutcome:
    """The rule's value, the same for everybody it matches."""

    value: Value


@dataclass(frozen=True, slots=True)
class Variant:
    """One share of a distribution.

    Attributes:
        name: Reported with the evaluation.
        weight: Thousandths of a per cent, 0 to `TOTAL_WEIGHT`.
        value: The value of this share.
    """

    name: str
    weight: int
    value: Value


@dataclass(frozen=True, slots=True)
class Distribution:
    """Shares assigned by the bucket of a unit; the order of the variants is part of the rule.

    Attributes:
        unit: The attribute path of the unit; a missing unit falls through to the next rule.
        salt: What separates this split from others; empty only before the server has written it out.
        variants: Their weights sum to `TOTAL_WEIGHT`.
        algorithm: How units are hashed.
    """

    unit: str
    salt: str
    variants: tuple[Variant, ...]
    algorithm: BucketAlgorithm = BucketAlgorithm.MURMUR3


Outcome: TypeAlias = ValueOutcome | Distribution


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition plus an outcome. The first enabled rule of a setting that matches decides.

    Attributes:
        id: ``[A-Za-z0-9_-]{1,64}``, unique in a setting and environment; empty before the server gave one.
        outcome: What the rule decides. None when a newer peer sent one that this version does not know; such
            a rule never matches.
        condition: None matches everything.
        number: Store-wide, given at creation, never reused; 0 before that.
        enabled: A disabled rule is skipped.
        description: For people.
        metadata: For tools.
    """

    id: str
    outcome: Outcome | None
    condition: Condition | None = None
    number: int = 0
    enabled: bool = True
    description: str = ""
    metadata: FrozenMapping = field(default_factory=FrozenMapping)


def outcome_values(outcome: Outcome | None) -> Iterator[Value]:
    """Yield every value that *outcome* can give."""
    match outcome:
        case ValueOutcome(value):
            yield value
        case Distribution(variants=variants):
            for variant in variants:
                yield variant.value
        case None:
            return
