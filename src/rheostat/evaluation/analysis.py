"""Static checks of conditions and of what they refer to, made when they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rheostat.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidConditionError,
    TypeMismatchError,
)
from rheostat.evaluation import pattern
from rheostat.evaluation.comparison import (
    INSTANT_OPERATORS,
    LIST_OPERATORS,
    ORDER_OPERATORS,
    SEMVER_OPERATORS,
    TEXT_OPERATORS,
    kind,
)
from rheostat.evaluation.dependency import MAX_NESTING, Dependencies, Node
from rheostat.evaluation.instant import instant
from rheostat.evaluation.network import network
from rheostat.evaluation.semver import precedence
from rheostat.model.condition import (
    BUCKETS,
    MAX_CONDITION_DEPTH,
    AllOf,
    AnyOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Condition,
    Literal,
    Not,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    Unrecognized,
    attributes_of,
    depth,
)
from rheostat.model.rule import Distribution, Rule
from rheostat.model.setting import SEGMENT_NAME, SETTING_NAME
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import Value, canonical_json, freeze

__all__ = [
    "attributes_read",
    "check_condition",
    "check_features",
    "check_nesting",
    "check_references",
    "find_cycle",
    "find_segment_cycle",
    "unknown_references",
    "users_of",
]

_SHOWN: Final = 80


def check_condition(condition: Condition, *, max_depth: int = MAX_CONDITION_DEPTH) -> None:
    """Refuse a *condition* that could never be right, whatever the context and the other settings are.

    Raises:
        InvalidConditionError: It nests too deep, or a part of it is malformed. The violations name all such
            parts by their field in the contract, such as ``all_of.conditions[1].comparison.right``; the field
            of the condition itself is empty.
    """
    levels = depth(condition)
    if levels > max_depth:
        raise InvalidConditionError(
            f"the condition nests {levels} levels deep; at most {max_depth} are allowed"
        )
    violations = list(_violations(condition))
    if violations:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        raise InvalidConditionError(violations[0].description + more, violations=violations)


def _violations(condition: Condition) -> Iterator[FieldViolation]:
    stack: list[tuple[str, Condition]] = [("", condition)]
    while stack:
        place, current = stack.pop()
        match current:
            case AllOf(parts) | AnyOf(parts):
                word = "all_of" if isinstance(current, AllOf) else "any_of"
                stack.extend(
                    (_within(place, f"{word}.conditions[{i}]"), part)
                    for i, part in reversed(list(enumerate(parts)))
                )
            case Not(part):
                stack.append((_within(place, "negation.condition"), part))
            case Comparison():
                for field, description in _comparison(current):
                    yield FieldViolation(_within(place, f"comparison.{field}"), description)
            case Percentage():
                for field, description in _percentage(current):
                    yield FieldViolation(_within(place, f"percentage.{field}"), description)
            case SegmentReference(name):
                if not SEGMENT_NAME.fullmatch(name):
                    yield FieldViolation(
                        _within(place, "segment.name"), f"{_short(name)} is no name of a segment"
                    )
            case Unrecognized(reason):
                yield FieldViolation(place, f"the condition is unknown to this version: {reason}")


def _within(place: str, field: str) -> str:
    return f"{place}.{field}" if place else field


def _percentage(percentage: Percentage) -> Iterator[tuple[str, str]]:
    yield from (("attribute", why) for why in _path(percentage.attribute))
    if not isinstance(percentage.algorithm, BucketAlgorithm):
        yield "algorithm", f"{percentage.algorithm!r} is no bucket algorithm"
    if not _is_text(percentage.salt):
        yield "salt", "the salt holds a lone surrogate"
    start, end = percentage.start, percentage.end
    if not 0 <= start <= BUCKETS:
        yield (
            "from_bucket",
            f"the lower bound {start} is not between 0 and {BUCKETS} thousandths of a per cent",
        )
    if not 0 <= end <= BUCKETS:
        yield "to_bucket", f"the upper bound {end} is not between 0 and {BUCKETS} thousandths of a per cent"
    elif end < start:
        yield "to_bucket", f"the upper bound {end} is below the lower bound {start}"


def _path(path: str) -> Iterator[str]:
    if not path:
        yield "an attribute needs a path"
    elif not _is_text(path):
        yield "the path of an attribute holds a lone surrogate"


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _comparison(comparison: Comparison) -> Iterator[tuple[str, str]]:
    op, right, literals = comparison.operator, comparison.right, comparison.literals
    if isinstance(comparison.left, Literal):
        yield "left", "a literal cannot stand on the left; write the attribute or the setting there"
    else:
        yield from (("left", why) for why in _named(comparison.left))
    if op is Operator.EXISTS:
        if right is not None or literals is not None:
            yield "right", "exists has no right side"
        return
    if right is not None and literals is not None:
        yield "right", f"{op.value} has either a right operand or a list, not both"
    elif op in LIST_OPERATORS and literals is None:
        yield "list", f"{op.value} needs a list of literals"
    elif op not in _ANY_OF_OPERATORS and right is None:
        yield "right", f"{op.value} needs a right operand" + ("" if literals is None else ", not a list")
    elif right is None and literals is None:
        yield "right", f"{op.value} needs a literal, or a list of them"
    elif isinstance(right, Literal):
        yield from (("right", why) for why in _literal(op, right.value))
    elif right is not None:
        yield from (("right", why) for why in _named(right))
    for i, literal in enumerate(literals or ()):
        yield from ((f"list.values[{i}]", why) for why in _literal(op, literal))


_ANY_OF_OPERATORS: Final = LIST_OPERATORS | TEXT_OPERATORS.keys() | {Operator.IP_IN}
"""The operators that take a list of literals on the right."""


def _named(operand: Attribute | SettingReference) -> Iterator[str]:
    match operand:
        case Attribute(path):
            yield from _path(path)
        case SettingReference(name):
            if not SETTING_NAME.fullmatch(name):
                yield f"{_short(name)} is no name of a setting"


def _literal(op: Operator, value: Value) -> Iterator[str]:
    """Yield why *value* cannot stand on the right of *op*."""
    try:
        freeze(value)
    except TypeMismatchError as exc:
        yield f"{op.value}: {exc}"
        return
    found = kind(value)
    if found == "missing":
        yield f"{op.value} null is never true; ask whether the attribute is missing"
    elif found in ("list", "mapping"):
        yield f"{op.value} takes no {found} as a literal"
    elif op in ORDER_OPERATORS:
        if found == "bool":
            yield f"{op.value} takes a number or a string, not {_short(value)}"
    elif op in INSTANT_OPERATORS:
        if instant(value) is None:
            yield (
                f"{op.value} takes an instant (RFC 3339 with an offset, a date, or epoch seconds), "
                f"not {_short(value)}"
            )
    elif op in _STRING_OPERATORS:
        if not isinstance(value, str):
            yield f"{op.value} takes a string, not {_short(value)}"
        elif op is Operator.MATCHES:
            reason = pattern.pattern_error(value)
            if reason is not None:
                yield f"the regular expression {_short(value)} does not compile: {reason}"
        elif op is Operator.IP_IN:
            if network(value) is None:
                yield f"{_short(value)} is no IP address or network such as 10.0.0.0/8"
        elif op in SEMVER_OPERATORS and precedence(value) is None:
            yield f"{_short(value)} is no semantic version such as 2.1.0"


_STRING_OPERATORS: Final = (
    TEXT_OPERATORS.keys() | SEMVER_OPERATORS.keys() | {Operator.MATCHES, Operator.IP_IN}
)


def _short(value: Value) -> str:
    text = canonical_json(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def attributes_read(snapshot: Snapshot | Dependencies, reader: Rule | Condition) -> set[str]:
    """Return the paths that *reader* may read, through segments, units and references to settings too.

    Args:
        snapshot: Where the references lead; dependencies serve many calls on one snapshot.
        reader: A rule with the unit of its distribution, or a condition.
    """
    dependencies = _dependencies(snapshot)
    condition = reader.condition if isinstance(reader, Rule) else reader
    paths = set(_units((reader,))) if isinstance(reader, Rule) else set()
    if condition is None:
        return paths
    paths |= attributes_of(condition)
    for node in dependencies.reachable(dependencies.of_conditions((condition,))):
        for inner in dependencies.conditions(node):
            paths |= attributes_of(inner)
        paths.update(_units(dependencies.rules(node)))
    return paths


def _dependencies(snapshot: Snapshot | Dependencies) -> Dependencies:
    return snapshot if isinstance(snapshot, Dependencies) else Dependencies(snapshot)


def _units(rules: tuple[Rule, ...]) -> Iterator[str]:
    return (rule.outcome.unit for rule in rules if isinstance(rule.outcome, Distribution))


def check_features(
    snapshot: Snapshot | Dependencies, reader: Rule | Condition, features: tuple[str, ...] | None
) -> None:
    """Refuse a *reader* that reads an attribute which is not among *features*; None allows any.

    Raises:
        InvalidConditionError: It does; reason UNDECLARED_FEATURE, and the first such attribute in metadata.
    """
    if features is None:
        return
    foreign = sorted(attributes_read(snapshot, reader) - set(features))
    if foreign:
        raise InvalidConditionError(
            f"the attribute {foreign[0]!r} is not among the setting's features "
            f"({', '.join(features) or 'none'})",
            reason="UNDECLARED_FEATURE",
            metadata={"attribute": foreign[0]},
        )


def find_cycle(snapshot: Snapshot | Dependencies, name: str) -> tuple[str, ...] | None:
    """Return a cycle that the rules of the setting *name* lead to, or None.

    The first and the last name are the same. Settings stand by their current names, segments as
    ``segment("name")``.
    """
    return _find_cycle(_dependencies(snapshot), ("setting", name))


def find_segment_cycle(snapshot: Snapshot | Dependencies, name: str) -> tuple[str, ...] | None:
    """Return a cycle that the segment *name* leads to, or None; see `find_cycle`."""
    return _find_cycle(_dependencies(snapshot), ("segment", name))


def _find_cycle(dependencies: Dependencies, start: Node) -> tuple[str, ...] | None:
    # The own cycle first: its message names what was asked about.
    cycle = dependencies.cycle(start) or dependencies.leads_to_cycle(start)
    return None if cycle is None else tuple(map(_text, cycle))


def _text(node: Node) -> str:
    return node[1] if node[0] == "setting" else f'segment("{node[1]}")'


def unknown_references(snapshot: Snapshot | Dependencies, condition: Condition) -> tuple[Node, ...]:
    """Return the segments and settings that *condition* refers to and that do not exist, sorted.

    References through other segments and settings count.
    """
    dependencies = _dependencies(snapshot)
    reachable = dependencies.reachable(dependencies.of_conditions((condition,)))
    return tuple(sorted(node for node in reachable if not dependencies.exists(node)))


def check_references(snapshot: Snapshot | Dependencies, condition: Condition) -> None:
    """Refuse a *condition* that refers to a missing segment or setting, or to a cycle.

    Raises:
        InvalidConditionError: Something does not exist; reason UNKNOWN_SEGMENT or UNKNOWN_SETTING.
        FailedPreconditionError: It leads to a cycle; reason CYCLE.
    """
    dependencies = _dependencies(snapshot)
    for node in unknown_references(dependencies, condition):
        raise InvalidConditionError(
            f"the {node[0]} {node[1]!r} does not exist",
            reason=f"UNKNOWN_{node[0].upper()}",
            metadata={node[0]: node[1]},
        )
    for node in dependencies.of_conditions((condition,)):
        cycle = _find_cycle(dependencies, node)
        if cycle is not None:
            raise FailedPreconditionError(f"the references form a cycle: {' → '.join(cycle)}", reason="CYCLE")


def check_nesting(snapshot: Snapshot | Dependencies, condition: Condition) -> None:
    """Refuse a *condition* that would be UNKNOWN for nesting too deep through its references.

    Raises:
        InvalidConditionError: It does, by more than `MAX_NESTING` levels.
    """
    levels = _dependencies(snapshot).nesting(condition)
    if levels > MAX_NESTING:
        raise InvalidConditionError(
            f"the condition nests {levels} levels deep through the segments and settings it refers to; "
            f"at most {MAX_NESTING} are evaluated"
        )


def users_of(snapshot: Snapshot, node: Node) -> tuple[Node, ...]:
    """Return the settings and segments that refer to *node* directly, sorted."""
    dependencies = Dependencies(snapshot)
    everything: list[Node] = [("setting", name) for name in snapshot.settings]
    everything += [("segment", name) for name in snapshot.segments]
    return tuple(sorted(user for user in everything if node in dependencies.direct(user)))
