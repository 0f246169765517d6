"""Which rules of a setting can still match when some attributes only ever have certain values.

A rule is left out when its condition is TRUE for no combination of those values, whatever all else is. That is
found by computing, over the same tables as an evaluation, the set of truths that each part of a condition can
have. The sets of the parts are put together as if the parts were independent of each other, so that a set may be
too large and never too small: a rule too many may stay, none too few.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from rheostat.evaluation.context import Context
from rheostat.evaluation.dependency import MAX_NESTING, Dependencies
from rheostat.evaluation.reference import Evaluator, Run
from rheostat.evaluation.truth import Truth
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Attribute,
    Comparison,
    Condition,
    Literal,
    Not,
    Operator,
    Percentage,
    SegmentReference,
    SettingReference,
    walk,
)
from rheostat.model.rule import Rule
from rheostat.model.setting import Setting
from rheostat.model.snapshot import Snapshot

__all__ = ["Narrower", "narrow"]

Truths: TypeAlias = int
"""A set of truths, as bits."""

_TRUE: Final = 1
_FALSE: Final = 2
_UNKNOWN: Final = 4
_ANY: Final = _TRUE | _FALSE | _UNKNOWN

_BIT: Final = {Truth.TRUE: _TRUE, Truth.FALSE: _FALSE, Truth.UNKNOWN: _UNKNOWN}
_NEGATED: Final = tuple(
    (truths & _UNKNOWN) | (truths & _TRUE) << 1 | (truths & _FALSE) >> 1 for truths in range(_ANY + 1)
)

_NO_SETTINGS: Final = Evaluator(Snapshot())
"""Decides comparisons without references, which look nothing up in a snapshot."""

_MOST_CASES_OF_A_COMPARISON: Final = 100
"""A comparison that would have to be made more often than this counts as one that can be anything.

Equality with texts, which nearly all rules ask for, is decided without making comparisons one by one.
"""

_MOST_CASES_TOGETHER: Final = 64
"""Attributes that a condition reads in several places are given their values one by one up to so many cases."""


def narrow(snapshot: Snapshot, tracked: Mapping[str, Sequence[str]]) -> Snapshot:
    """Return *snapshot* without the rules that can match for none of the *tracked* values; see `Narrower`."""
    narrower = Narrower(snapshot, tracked)
    settings = {name: narrower.narrow(setting) for name, setting in snapshot.settings.items()}
    return Snapshot(snapshot.revision, settings, snapshot.segments, snapshot.features)


class Narrower:
    """Leaves out rules that can never match. Safe from any thread.

    For every context in which each tracked attribute is one of its values, and all others are anything or missing,
    a setting evaluates after narrowing as it does before: to the same value, by the same rule and variant, for the
    same reason. That holds when any of the settings of the snapshot are narrowed, those that rules refer to
    included.

    What is left of a setting depends on it and on the segments that it refers to, directly or through segments,
    as long as references close no cycle and conditions nest at most `MAX_NESTING` levels deep; a server accepts
    no others.
    """

    def __init__(self, snapshot: Snapshot, tracked: Mapping[str, Sequence[str]]) -> None:
        """Narrow settings of *snapshot*.

        Args:
            snapshot: Where segments and settings are.
            tracked: By attribute path, the texts that the attribute is one of. Attributes without any count as
                not tracked.
        """
        self._snapshot = snapshot
        self._dependencies = Dependencies(snapshot)
        self._values = {path: tuple(dict.fromkeys(values)) for path, values in tracked.items() if values}
        self._cases = _Cases(snapshot, self._dependencies, self._values)

    def narrow(self, setting: Setting) -> Setting:
        """Return *setting*, which is one of the snapshot's, without rules that can never match.

        The others keep their order and are not changed. When none is left, the first one's outcome stays, as a
        disabled rule without a condition, so that the reason is DEFAULT as before: STATIC means that a setting
        has no rules. On a cycle all rules stay, since the cycle makes references UNKNOWN.
        """
        if self._dependencies.cycle(("setting", setting.name)):
            return setting
        kept = tuple(rule for rule in setting.rules if self._may_match(rule))
        if len(kept) == len(setting.rules):
            return setting
        if not kept:
            first = setting.rules[0]
            kept = (Rule(first.id, first.outcome, number=first.number, enabled=False),)
        return replace(setting, rules=kept)

    def _may_match(self, rule: Rule) -> bool:
        if not rule.enabled:
            return False
        condition = rule.condition
        if condition is None:
            return True
        if self._dependencies.nesting(condition) > MAX_NESTING:
            # UNKNOWN, and it may not come to life when what it refers to is narrowed.
            return False
        if not self._cases.truths(condition) & _TRUE:
            return False
        together = self._read_again(condition)
        if not together:
            return True
        return any(
            _Cases(self._snapshot, self._dependencies, {**self._values, **case}).truths(condition) & _TRUE
            for case in _combinations(together, self._values)
        )

    def _read_again(self, condition: Condition) -> Sequence[str]:
        """The tracked attributes that *condition* reads in several places, as many as few cases allow."""
        reads = Counter(
            path
            for part in self._leaves(condition)
            for path in _paths(part)
            if len(self._values.get(path, ())) > 1
        )
        together: list[str] = []
        cases = 1
        for path in sorted(path for path, count in reads.items() if count > 1):
            if cases * len(self._values[path]) <= _MOST_CASES_TOGETHER:
                cases *= len(self._values[path])
                together.append(path)
        return together

    def _leaves(self, condition: Condition) -> Iterator[Comparison | Percentage]:
        """The comparisons and percentages in *condition* and, once, in the segments that it refers to."""
        seen: set[str] = set()
        waiting = [condition]
        while waiting:
            for part in walk(waiting.pop()):
                if isinstance(part, Comparison | Percentage):
                    yield part
                elif isinstance(part, SegmentReference) and part.name not in seen:
                    seen.add(part.name)
                    segment = self._snapshot.segments.get(part.name)
                    if segment is not None:
                        waiting.append(segment.condition)


class _Cases:
    """What conditions can be when each of some attributes is one of its values."""

    def __init__(
        self, snapshot: Snapshot, dependencies: Dependencies, values: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._snapshot = snapshot
        self._dependencies = dependencies
        self._values = values
        self._segments: dict[str, Truths] = {}

    def truths(self, condition: Condition) -> Truths:
        """Return all truths that *condition* can have, and perhaps more. It nests `MAX_NESTING` deep at most."""
        match condition:
            case AllOf(parts):
                return _all_of(map(self.truths, parts))
            case AnyOf(parts):
                return _NEGATED[_all_of(_NEGATED[self.truths(part)] for part in parts)]
            case Not(part):
                return _NEGATED[self.truths(part)]
            case Comparison() | Percentage():
                return self._of_leaf(condition)
            case SegmentReference(name):
                return self._of_segment(name)
            case _:
                # A newer watcher may know what this is.
                return _ANY

    def _of_segment(self, name: str) -> Truths:
        segment = self._snapshot.segments.get(name)
        if segment is None or self._dependencies.cycle(("segment", name)):
            return _UNKNOWN
        if name not in self._segments:
            self._segments[name] = self.truths(segment.condition)
        return self._segments[name]

    def _of_leaf(self, leaf: Comparison | Percentage) -> Truths:
        if isinstance(leaf, Comparison):
            if isinstance(leaf.left, SettingReference) or isinstance(leaf.right, SettingReference):
                return _ANY
            literals = _equalities(leaf)
            if literals is not None and isinstance(leaf.left, Attribute) and leaf.left.path in self._values:
                return self._equal_to(self._values[leaf.left.path], literals, leaf.operator)
        paths = _paths(leaf)
        if not all(path in self._values for path in paths):
            return _ANY
        if math.prod(len(self._values[path]) for path in paths) > _MOST_CASES_OF_A_COMPARISON:
            return _ANY
        truths = 0
        for case in _combinations(paths, self._values):
            context = Context({path: value for path, (value,) in case.items()})
            truths |= _BIT[Run(_NO_SETTINGS, context).truth(leaf)]
        return truths

    @staticmethod
    def _equal_to(values: tuple[str, ...], literals: frozenset[str], operator: Operator) -> Truths:
        equal = sum(value in literals for value in values)
        truths = (_TRUE if equal else 0) | (_FALSE if equal < len(values) else 0)
        return truths if operator in (Operator.EQUALS, Operator.IN) else _NEGATED[truths]


def _all_of(parts: Iterable[Truths]) -> Truths:
    """FALSE beats UNKNOWN beats TRUE."""
    found = _TRUE
    for part in parts:
        truths = (found | part) & _FALSE
        if (found & _UNKNOWN and part & ~_FALSE) or (part & _UNKNOWN and found & ~_FALSE):
            truths |= _UNKNOWN
        found = truths | (found & part & _TRUE)
    return found


def _equalities(comparison: Comparison) -> frozenset[str] | None:
    """The texts that a comparison asks for equality with; None when it asks for something else."""
    match comparison:
        case Comparison(_, Operator.EQUALS | Operator.NOT_EQUALS, Literal(str() as text), None):
            return frozenset((text,))
        case Comparison(_, Operator.IN | Operator.NOT_IN, None, tuple() as literals):
            texts = frozenset(literal for literal in literals if isinstance(literal, str))
            return texts if all(isinstance(literal, str) for literal in literals) else None
        case _:
            return None


def _paths(leaf: Comparison | Percentage) -> Sequence[str]:
    """The attributes that *leaf* reads, each once."""
    if isinstance(leaf, Percentage):
        return (leaf.attribute,)
    return tuple(dict.fromkeys(side.path for side in (leaf.left, leaf.right) if isinstance(side, Attribute)))


def _combinations(
    paths: Sequence[str], values: Mapping[str, tuple[str, ...]]
) -> Iterator[dict[str, tuple[str]]]:
    """All ways to give each of *paths* one of its values."""
    for chosen in itertools.product(*(values[path] for path in paths)):
        yield {path: (value,) for path, value in zip(paths, chosen, strict=True)}
