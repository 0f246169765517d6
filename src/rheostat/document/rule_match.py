"""Which rule of a document is which stored rule, and how to put rules into another order."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rheostat.document.document import RuleEntry, WrittenDistribution
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    BucketAlgorithm,
    Comparison,
    Condition,
    Not,
    Operand,
    Percentage,
    SettingReference,
    settings_of,
)
from rheostat.model.encoding import condition_key, outcome_key
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome
from rheostat.model.type import SettingType, normalise
from rheostat.model.value import FrozenMapping

__all__ = ["Move", "completed_rule", "in_order", "match_rules", "normalised_outcome", "renamed_rule"]


def match_rules(entries: Sequence[RuleEntry], stored: Sequence[Rule]) -> list[Rule | None]:
    """Return for each rule of a document the stored rule that it is, or None for a new one.

    Rules with an id claim theirs first. The others are matched by equal condition and outcome, then by equal
    condition, then by equal outcome at the same place; duplicates in order. What a rule leaves open equals
    anything, so rules that leave nothing open choose before the others.

    Where the document, rule by rule, equals what is stored, that is the answer: a document that was applied
    matches itself.
    """
    if len(entries) == len(stored) and all(
        _claims(entry, rule) if entry.id else _equals(entry, rule)
        for entry, rule in zip(entries, stored, strict=True)
    ):
        return list(stored)
    matching = _Matching(entries, stored)
    matching.claim_ids()
    by_both = _index(stored, lambda rule: (_open_condition(rule.condition), _open_outcome(rule.outcome)))
    for only_complete in (True, False):
        matching.claim(
            by_both,
            _both_keys,
            lambda entry, rule, only=only_complete: (  # type: ignore[misc]  # bound in the loop
                (not only or _is_complete(entry))
                and _equals(entry, rule)
                and entry.enabled in (None, rule.enabled)
            ),
        )
    matching.claim(by_both, _both_keys, _equals)
    by_condition = _index(stored, lambda rule: _open_condition(rule.condition))
    matching.claim(by_condition, _condition_key, _conditions_equal)
    matching.claim_same_places()
    return matching.found


class _Matching:
    def __init__(self, entries: Sequence[RuleEntry], stored: Sequence[Rule]) -> None:
        self._entries = entries
        self._stored = stored
        self._free = [True] * len(stored)
        self.found: list[Rule | None] = [None] * len(entries)

    def _take(self, at: int, place: int) -> None:
        self.found[at] = self._stored[place]
        self._free[place] = False

    def claim_ids(self) -> None:
        places = {rule.id: place for place, rule in enumerate(self._stored)}
        for at, entry in enumerate(self._entries):
            if entry.id and entry.id in places:
                self._take(at, places[entry.id])

    def claim(
        self,
        index: dict[object, list[int]],
        key: Callable[[RuleEntry], object],
        fits: Callable[[RuleEntry, Rule], bool],
    ) -> None:
        for at, entry in enumerate(self._entries):
            if self.found[at] is not None or entry.id:
                continue
            for place in index.get(key(entry), ()):
                if self._free[place] and fits(entry, self._stored[place]):
                    self._take(at, place)
                    break

    def claim_same_places(self) -> None:
        for at, entry in enumerate(self._entries[: len(self._stored)]):
            is_open = self.found[at] is None and not entry.id and self._free[at]
            if is_open and _outcomes_equal(entry, self._stored[at]):
                self._take(at, at)


def _index(stored: Sequence[Rule], key: Callable[[Rule], object]) -> dict[object, list[int]]:
    index: dict[object, list[int]] = {}
    for place, rule in enumerate(stored):
        index.setdefault(key(rule), []).append(place)
    return index


def _both_keys(entry: RuleEntry) -> object:
    return (_condition_key(entry), _open_outcome(_plain_outcome(entry)))


def _condition_key(entry: RuleEntry) -> str:
    return _open_condition(None if entry.where is None else entry.where.condition)


def _plain_outcome(entry: RuleEntry) -> Outcome | None:
    return entry.outcome.distribution if isinstance(entry.outcome, WrittenDistribution) else entry.outcome


def _open_condition(condition: Condition | None) -> str:
    """Return a text that is equal for conditions that differ in salts and algorithms alone."""

    def opened(part: Condition) -> Condition:
        match part:
            case Percentage():
                return replace(part, salt="", algorithm=BucketAlgorithm.MURMUR3)
            case AllOf(conditions):
                return AllOf(tuple(map(opened, conditions)))
            case AnyOf(conditions):
                return AnyOf(tuple(map(opened, conditions)))
            case Not(inner):
                return Not(opened(inner))
            case _:
                return part

    return condition_key(None if condition is None else opened(condition))


def _open_outcome(outcome: Outcome | None) -> str:
    if isinstance(outcome, Distribution):
        outcome = replace(outcome, salt="", algorithm=BucketAlgorithm.MURMUR3)
    return outcome_key(outcome)


def _is_complete(entry: RuleEntry) -> bool:
    if entry.where is not None and not entry.where.is_complete:
        return False
    if isinstance(entry.outcome, WrittenDistribution):
        return bool(entry.outcome.distribution.salt) and entry.outcome.has_algorithm
    return True


def _claims(entry: RuleEntry, rule: Rule) -> bool:
    """Tell whether a rule with an id claims *rule*, whatever else is in it."""
    return entry.id == rule.id


def _equals(entry: RuleEntry, rule: Rule) -> bool:
    return _conditions_equal(entry, rule) and _outcomes_equal(entry, rule)


def _conditions_equal(entry: RuleEntry, rule: Rule) -> bool:
    if entry.where is None:
        return rule.condition is None
    return entry.where.equals(rule.condition)


def _outcomes_equal(entry: RuleEntry, rule: Rule) -> bool:
    return outcome_key(_completed_outcome(entry, rule)) == outcome_key(rule.outcome)


def _completed_outcome(entry: RuleEntry, rule: Rule | None) -> Outcome | None:
    stored = None if rule is None else rule.outcome
    match entry.outcome:
        case None:
            return stored
        case ValueOutcome():
            return entry.outcome
        case WrittenDistribution(distribution, has_algorithm):
            if not isinstance(stored, Distribution):
                return distribution
            return replace(
                distribution,
                salt=distribution.salt or stored.salt,
                algorithm=distribution.algorithm if has_algorithm else stored.algorithm,
            )


def completed_rule(entry: RuleEntry, stored: Rule | None) -> Rule:
    """Return the rule that *entry* asks for, with what it leaves alone as in *stored*.

    Its outcome is None when neither says one; its id is empty when neither has one.
    """
    blank = Rule("", None)
    old = stored or blank
    if entry.where is not None:
        condition: Condition | None = entry.where.completed(old.condition)
    elif "where" in entry.unset or not entry.id:
        condition = None
    else:
        condition = old.condition
    description = "" if "description" in entry.unset else old.description
    metadata = FrozenMapping() if "metadata" in entry.unset else old.metadata
    return Rule(
        id=old.id or entry.id,
        outcome=_completed_outcome(entry, stored),
        condition=condition,
        number=old.number,
        enabled=old.enabled if entry.enabled is None else entry.enabled,
        description=description if entry.description is None else entry.description,
        metadata=metadata if entry.metadata is None else entry.metadata,
    )


def normalised_outcome(outcome: Outcome, type_: SettingType) -> Outcome:
    """Return *outcome* with its values in the form of *type_*.

    Raises:
        TypeMismatchError: A value does not fit.
    """
    match outcome:
        case ValueOutcome(value):
            return ValueOutcome(normalise(type_, value))
        case Distribution(variants=variants):
            return replace(
                outcome, variants=tuple(replace(v, value=normalise(type_, v.value)) for v in variants)
            )


def renamed_rule(rule: Rule, renames: Mapping[str, str]) -> Rule:
    """Return *rule* with its references to settings under their new names."""

    def operand(part: Operand) -> Operand:
        if isinstance(part, SettingReference):
            return SettingReference(renames.get(part.name, part.name))
        return part

    def renamed(part: Condition) -> Condition:
        match part:
            case Comparison(left, _, right):
                return replace(part, left=operand(left), right=None if right is None else operand(right))
            case AllOf(conditions):
                return AllOf(tuple(map(renamed, conditions)))
            case AnyOf(conditions):
                return AnyOf(tuple(map(renamed, conditions)))
            case Not(inner):
                return Not(renamed(inner))
            case _:
                return part

    if rule.condition is None or not settings_of(rule.condition) & renames.keys():
        return rule
    return replace(rule, condition=renamed(rule.condition))


@dataclass(frozen=True, slots=True)
class Move:
    """Put the rule *id* before or after another one."""

    id: str
    before: str = ""
    after: str = ""


def in_order(current: Sequence[str], wanted: Sequence[str]) -> list[Move]:
    """Return the fewest moves from the order *current* to the order *wanted* of the same ids."""
    place = {rule_id: at for at, rule_id in enumerate(current)}
    staying = _longest_rising([place[rule_id] for rule_id in wanted])
    moves: list[Move] = []
    for at, rule_id in enumerate(wanted):
        if at in staying:
            continue
        if at > 0:
            moves.append(Move(rule_id, after=wanted[at - 1]))
        else:
            # Nothing was moved yet, so the head is still the one of the current order.
            moves.append(Move(rule_id, before=current[0]))
    return moves


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """Return the places of a longest rising subsequence, by patience sorting."""
    tails: list[int] = []
    tail_places: list[int] = []
    previous: list[int] = []
    for at, number in enumerate(numbers):
        pile = bisect.bisect_left(tails, number)
        previous.append(tail_places[pile - 1] if pile else -1)
        if pile == len(tails):
            tails.append(number)
            tail_places.append(at)
        else:
            tails[pile] = number
            tail_places[pile] = at
    places: set[int] = set()
    at = tail_places[-1] if tail_places else -1
    while at >= 0:
        places.add(at)
        at = previous[at]
    return places
