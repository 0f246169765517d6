"""The order of rules under SPECIFICITY, computed from the project's hierarchy of features."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from rheostat.errors import InvalidConditionError
from rheostat.evaluation.comparison import kind
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
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
from rheostat.model.rule import Rule
from rheostat.model.value import Value, canonical_json

__all__ = ["Specificity", "condition_key", "order_by_specificity", "specificity_of"]


@dataclass(frozen=True, slots=True)
class Specificity:
    """A rule's condition, taken apart.

    Attributes:
        equalities: The literal that each feature must equal.
        further: The further condition, or None.
    """

    equalities: Mapping[str, Value]
    further: Condition | None = None


def order_by_specificity(rules: Iterable[Rule], features: tuple[str, ...]) -> tuple[Rule, ...]:
    """Return *rules* with the most specific first.

    Two rules are compared on the last feature first, then on the one before it, and so on: an exact condition
    beats an absent one; then a further condition beats none, then the lower number wins. The order is total
    for rules with different numbers, and does not depend on the order given.

    Args:
        rules: All rules of the setting, disabled ones included, with their numbers.
        features: The features that count, general to specific: those of the setting's, in the order of the
            project's hierarchy, or the whole hierarchy where the setting names none.

    Raises:
        InvalidConditionError: A rule is not of the form that `specificity_of` takes apart (NOT_SPECIFIC), or
            two rules have the same equalities and the same, or no, further condition (DUPLICATE_RULE).
    """
    keyed: list[tuple[tuple[object, ...], Rule]] = []
    seen: dict[Hashable, Rule] = {}
    for rule in rules:
        specificity = specificity_of(rule, features)
        identity = (
            frozenset((name, _scalar_key(value)) for name, value in specificity.equalities.items()),
            None if specificity.further is None else condition_key(specificity.further),
        )
        other = seen.setdefault(identity, rule)
        if other is not rule:
            raise InvalidConditionError(
                f"the rules {other.id!r} and {rule.id!r} have the same condition; an order by specificity "
                "cannot tell them apart",
                reason="DUPLICATE_RULE",
                metadata={"rule": rule.id, "other": other.id},
            )
        absences = tuple(feature not in specificity.equalities for feature in reversed(features))
        keyed.append(((*absences, specificity.further is None, rule.number, rule.id), rule))
    keyed.sort(key=lambda pair: pair[0])
    return tuple(rule for _, rule in keyed)


def specificity_of(rule: Rule, features: tuple[str, ...]) -> Specificity:
    """Take the condition of *rule* apart into equalities on *features* and a further condition.

    Raises:
        InvalidConditionError: It is no conjunction of at most one ``==`` on each feature, and-ed with at most
            one further condition.
    """
    match rule.condition:
        case None:
            parts: tuple[Condition, ...] = ()
        case AllOf(conditions):
            parts = conditions
        case condition:
            parts = (condition,)
    equalities: dict[str, Value] = {}
    further: list[Condition] = []
    for part in parts:
        match part:
            case Comparison(Attribute(path), Operator.EQUALS, Literal(value), None) if path in features:
                if path in equalities:
                    raise InvalidConditionError(
                        f"rule {rule.id!r} compares {path!r} twice; in an order by specificity a rule has at "
                        "most one == on each feature",
                        reason="NOT_SPECIFIC",
                    )
                equalities[path] = value
            case _:
                further.append(part)
    if len(further) > 1:
        raise InvalidConditionError(
            f"rule {rule.id!r} has {len(further)} conditions beside its == on the features "
            f"({', '.join(features) or 'none'}); an order by specificity allows one: put them in parentheses",
            reason="NOT_SPECIFIC",
        )
    return Specificity(equalities, further[0] if further else None)


def condition_key(condition: Condition) -> Hashable:
    """Return a key that two conditions share exactly when they are the same, part by part.

    Numbers count by value, as comparisons do, and scalars of different kinds differ: 1 and 1.0 are the same,
    1, true and "1" are not. (Comparing the conditions themselves would take true for 1.)
    """
    match condition:
        case AllOf(parts):
            return "all_of", tuple(map(condition_key, parts))
        case AnyOf(parts):
            return "any_of", tuple(map(condition_key, parts))
        case Not(part):
            return "not", condition_key(part)
        case Comparison(left, op, right, literals):
            return (
                "comparison",
                _operand_key(left),
                op,
                None if right is None else _operand_key(right),
                None if literals is None else tuple(map(_scalar_key, literals)),
            )
        case Percentage(attribute, salt, start, end, algorithm):
            return "percentage", attribute, salt, start, end, algorithm
        case SegmentReference(name):
            return "segment", name
        case Unrecognized(reason):
            return "unrecognized", reason


def _operand_key(operand: Operand) -> Hashable:
    match operand:
        case Attribute(path):
            return "attribute", path
        case SettingReference(name):
            return "setting", name
        case Literal(value):
            return "literal", _scalar_key(value)


def _scalar_key(value: Value) -> Hashable:
    if isinstance(value, (bool, int, float, str)):
        return kind(value), value
    return "other", canonical_json(value)
