"""Contexts that show a finding: concrete ones for a place that the search found, tried on the reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from rheostat.errors import TypeMismatchError
from rheostat.evaluation.context import Context
from rheostat.evaluation.finding.box import Element, Space
from rheostat.evaluation.finding.cover import Place
from rheostat.evaluation.finding.domain import Buckets, Domain, Kind
from rheostat.evaluation.reference import Evaluator, Run
from rheostat.model.condition import Attribute
from rheostat.model.rule import Rule
from rheostat.model.setting import Setting
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value, freeze

__all__ = ["Tried", "contexts"]

ATTEMPTS: Final = 3
"""Contexts tried for one place."""

_VALUES: Final = 1500
"""Values tried for one attribute, so that one with the right buckets may be among them."""


def contexts(space: Space, place: Place) -> Iterator[FrozenMapping]:
    """Yield at most `ATTEMPTS` contexts in *place*, as far as cells tell."""
    choices: dict[str, list[Value | Absent]] = {}
    for at, operand in enumerate(space.operands):
        name = space.names.get(at)
        if not isinstance(operand, Domain) or not isinstance(name, Attribute):
            continue
        links = [link for link in space.links.get(at, ()) if link.buckets in place]
        if at not in place and not links:
            continue
        found = list(itertools.islice(_values(space, at, place), ATTEMPTS))
        if not found:
            return
        choices[name.path] = found
    for attempt in range(ATTEMPTS):
        made: dict[str, Value] = {}
        for path, found in choices.items():
            value = found[attempt % len(found)]
            if not isinstance(value, Absent):
                made[path] = value
        yield FrozenMapping(made)


def _values(space: Space, at: int, place: Place) -> Iterator[Value | Absent]:
    domain = space.operands[at]
    assert isinstance(domain, Domain)
    classes, allowed = space.class_of(at), place.get(at, space.full[at])
    wanted = [(link, place[link.buckets]) for link in space.links.get(at, ()) if link.buckets in place]
    tried = 0
    for cell in domain.plain_cells():
        one = classes[cell]
        if not allowed >> one & 1 or not all(link.allowed[one] & mask for link, mask in wanted):
            continue
        for value in _values_in(space, at, place, cell):
            tried += 1
            if tried > _VALUES:
                return
            if not _is_json(value):
                continue
            if all(
                mask >> _buckets(space, link.buckets).cell_of(_normal(value)) & 1 for link, mask in wanted
            ):
                yield value
                break


def _buckets(space: Space, at: int) -> Buckets:
    buckets = space.operands[at]
    assert isinstance(buckets, Buckets)
    return buckets


def _normal(value: Value | Absent) -> bool | int | float | str | Absent:
    return value if isinstance(value, (bool, int, float, str)) else ABSENT


def _values_in(space: Space, at: int, place: Place, cell: int) -> Iterator[Value | Absent]:
    domain = space.operands[at]
    assert isinstance(domain, Domain)
    match domain.cells[cell].kind:
        case Kind.MISSING:
            yield ABSENT
        case Kind.MAPPING:
            yield FrozenMapping()
        case Kind.LIST:
            yield tuple(
                operand.value
                for other, operand in enumerate(space.operands)
                if isinstance(operand, Element) and operand.operand == at and place.get(other) == 0b10
            )
        case _:
            yield from domain.values(cell)


def _is_json(value: Value | Absent) -> bool:
    if isinstance(value, Absent):
        return True
    try:
        freeze(value)
    except TypeMismatchError:
        return False
    return True


class Tried:
    """What the rules of a setting do for one context, as the reference evaluator says."""

    def __init__(self, evaluator: Evaluator, setting: Setting, context: FrozenMapping) -> None:
        """Try *setting*, as if it were enabled, for *context*."""
        self._setting = setting
        self._run = Run(evaluator, Context.of(context))

    def decides(self, rule: Rule) -> bool:
        """Tell whether *rule* would decide if it came first."""
        return self._run.decide(self._setting, rule) is not None

    def deciding_rule(self) -> Rule | None:
        """Return the first rule that decides, or None."""
        return next((rule for rule in self._setting.rules if self.decides(rule)), None)
