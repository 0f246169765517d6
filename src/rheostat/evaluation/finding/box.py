"""Conditions as boxes: alternatives, each of which limits every operand to some of its cells.

A condition is TRUE in all of its boxes and nowhere else, as far as cells tell. What cells do not tell (two
attributes compared with each other, say) is an operand of its own that may be anything, so that boxes never hold
too little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from rheostat.evaluation import pattern
from rheostat.evaluation.bucket import unit_text
from rheostat.evaluation.comparison import (
    INSTANT_OPERATORS,
    LIST_OPERATORS,
    ORDER_OPERATORS,
    RELATION_OPERATORS,
    SEMVER_OPERATORS,
    TEXT_OPERATORS,
    compare,
    kind,
)
from rheostat.evaluation.context import ContextScalar, normalise
from rheostat.evaluation.dependency import MAX_NESTING
from rheostat.evaluation.finding.deadline import Deadline
from rheostat.evaluation.finding.domain import LISTS, Buckets, Domain, Kind, Split, bits
from rheostat.evaluation.instant import instant
from rheostat.evaluation.network import network
from rheostat.evaluation.reference import Evaluator
from rheostat.evaluation.semver import precedence
from rheostat.evaluation.specificity import condition_key
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
)
from rheostat.model.rule import Distribution, Rule
from rheostat.model.type import BOOL, FLOAT, INT, STR, EnumType, FlagsType, MappingType, SequenceType
from rheostat.model.value import ABSENT

__all__ = ["Box", "Element", "Link", "Opaque", "Operand", "Space", "TooComplexError"]

Box: TypeAlias = dict[int, int]
"""The classes of cells that each limited operand may be in, by its place in `Space.operands`."""

MAX_BOXES: Final = 512
"""The most alternatives of one condition."""

MAX_HASHES: Final = 20_000
"""The most buckets computed for one attribute; beyond it a named unit may be in any bucket."""

_ANY_OF: Final = LIST_OPERATORS | TEXT_OPERATORS.keys() | {Operator.IP_IN}


class TooComplexError(Exception):
    """A condition has more alternatives than are looked at."""


@dataclass(frozen=True, slots=True)
class Element:
    """Whether the list at an operand holds a scalar: cell 0 that it does not, cell 1 that it does."""

    operand: int
    value: ContextScalar
    full: int = 0b11


@dataclass(frozen=True, slots=True)
class Opaque:
    """What a comparison is that cells do not tell: TRUE, FALSE or UNKNOWN."""

    comparison: Comparison
    full: int = 0b111


Operand: TypeAlias = Domain | Buckets | Element | Opaque


@dataclass(frozen=True, slots=True)
class Link:
    """How an attribute limits the buckets of its units.

    Attributes:
        attribute: The operand that is the attribute.
        buckets: The operand that is its buckets.
        allowed: For each class of the attribute the classes of buckets that go with it.
    """

    attribute: int
    buckets: int
    allowed: tuple[int, ...]


_Leaf: TypeAlias = tuple[list[Box], list[Box]]
"""The boxes in which a comparison or percentage is TRUE, and FALSE."""


class Space:
    """The operands of some conditions, and the conditions as boxes.

    First `read` all rules and conditions, then `close`; then `boxes` and `rule_boxes` answer. The first three
    raise ExhaustedError after the deadline. For one thread.
    """

    def __init__(self, evaluator: Evaluator, deadline: Deadline) -> None:
        """Look references up in the snapshot of *evaluator*, until *deadline*."""
        self._evaluator = evaluator
        self._deadline = deadline
        self.operands: list[Operand] = []
        self.names: dict[int, Attribute | SettingReference] = {}
        self.classes: list[list[int]] = []
        self.full: list[int] = []
        self.units: dict[int, int] = {}
        self.links: dict[int, list[Link]] = {}
        self._places: dict[Hashable, int] = {}
        # By identity: equality takes true for 1, and the conditions outlive the space's use.
        self._conditions: dict[int, Condition] = {}
        self._leaves: dict[int, _Leaf] = {}
        self._segments: set[str] = set()
        self._segment_boxes: dict[tuple[str, bool], list[Box]] = {}
        self._has_units: set[int] = set()
        self._class_of: dict[int, list[int]] = {}

    # Reading.

    def read_rule(self, rule: Rule) -> None:
        """Prepare for *rule*."""
        self._deadline.check()
        if isinstance(rule.outcome, Distribution):
            split = rule.outcome
            self._attribute(split.unit, has_units=True)
            buckets = self._buckets(split.unit, split.salt, split)
            buckets.ask(_covered(split))
        if rule.condition is not None:
            self.read(rule.condition)

    def read(self, condition: Condition) -> None:
        """Prepare for *condition*."""
        stack = [condition]
        while stack:
            part = stack.pop()
            match part:
                case AllOf(parts) | AnyOf(parts):
                    stack.extend(parts)
                case Not(inner):
                    stack.append(inner)
                case Percentage(attribute, salt, start, end):
                    self._attribute(attribute, has_units=True)
                    self._buckets(attribute, salt, part).ask(start, end)
                    self._conditions[id(part)] = part
                case Comparison():
                    self._conditions[id(part)] = part
                    self._read_comparison(part)
                case SegmentReference(name) if name not in self._segments:
                    self._segments.add(name)
                    segment = self._evaluator.snapshot.segments.get(name)
                    if segment is not None and not self._evaluator.dependencies.cycle(("segment", name)):
                        stack.append(segment.condition)
                case _:
                    pass

    def _read_comparison(self, comparison: Comparison) -> None:
        literals = _literals(comparison)
        left = comparison.left
        if literals is None or isinstance(left, Literal):
            return
        at = self._operand(left)
        domain = self.operands[at]
        assert isinstance(domain, Domain)
        if comparison.operator in RELATION_OPERATORS:
            for literal in literals:
                self._element(at, literal)
        else:
            domain.ask(comparison.operator, literals)

    def _place(self, key: Hashable, make: Callable[[], Operand]) -> int:
        at = self._places.get(key)
        if at is None:
            at = self._places[key] = len(self.operands)
            self.operands.append(make())
        return at

    def _operand(self, operand: Attribute | SettingReference) -> int:
        if isinstance(operand, Attribute):
            return self._attribute(operand.path)
        setting = self._evaluator.snapshot.setting(operand.name)
        at = self._place(("setting", operand.name if setting is None else setting.name), Domain)
        if at not in self.names:
            self.names[at] = operand
            domain = self.operands[at]
            assert isinstance(domain, Domain)
            if setting is not None and isinstance(setting.type, EnumType):
                domain.ask(Operator.EQUALS, _scalars(setting.type.options))
        return at

    def _attribute(self, path: str, *, has_units: bool = False) -> int:
        at = self._place(("attribute", path), Domain)
        self.names.setdefault(at, Attribute(path))
        if has_units and at not in self._has_units:
            self._has_units.add(at)
            domain = self.operands[at]
            assert isinstance(domain, Domain)
            domain.ask_unit()
        return at

    def _buckets(self, path: str, salt: str, hashed: Percentage | Distribution) -> Buckets:
        at = self._place(
            ("buckets", path, salt, hashed.algorithm), lambda: Buckets(path, salt, hashed.algorithm)
        )
        buckets = self.operands[at]
        assert isinstance(buckets, Buckets)
        return buckets

    def _buckets_place(self, path: str, hashed: Percentage | Distribution) -> int:
        return self._places["buckets", path, hashed.salt, hashed.algorithm]

    def _element(self, at: int, literal: ContextScalar) -> int:
        return self._place(("element", at, kind(literal), literal), lambda: Element(at, literal))

    # Closing.

    def close(self) -> None:
        """Make the cells, and the classes of those that no condition tells apart."""
        for operand in self.operands:
            if isinstance(operand, (Domain, Buckets)):
                operand.build()
        for number, (key, condition) in enumerate(self._conditions.items()):
            if number % 32 == 0:
                self._deadline.check()
            match condition:
                case Percentage():
                    self._leaves[key] = self._percentage(condition)
                case Comparison():
                    self._leaves[key] = self._comparison(condition)
                case _:
                    pass
        self._classify()
        self._link()

    def _percentage(self, percentage: Percentage) -> _Leaf:
        if not _is_encodable(percentage.salt):
            return [], []
        at = self._buckets_place(percentage.attribute, percentage)
        buckets = self.operands[at]
        assert isinstance(buckets, Buckets)
        return _leaf(at, buckets.split(percentage.start, percentage.end))

    def _comparison(self, comparison: Comparison) -> _Leaf:
        literals = _literals(comparison)
        left, op = comparison.left, comparison.operator
        if literals is None:
            if _is_constant(comparison):
                return [], []
            return self._opaque(comparison)
        if isinstance(left, Literal):
            own = None if comparison.literals is None else tuple(map(normalise, comparison.literals))
            right = normalise(comparison.right.value) if isinstance(comparison.right, Literal) else ABSENT
            truth = compare(op, normalise(left.value), right, own)
            return ([{}] if truth is Truth.TRUE else []), ([{}] if truth is Truth.FALSE else [])
        at = self._operand(left)
        domain = self.operands[at]
        assert isinstance(domain, Domain)
        if op in RELATION_OPERATORS:
            return self._relation(op, at, literals)
        split = domain.split(op, literals)
        return self._opaque(comparison) if split is None else _leaf(at, split)

    def _relation(self, op: Operator, at: int, literals: tuple[ContextScalar, ...]) -> _Leaf:
        elements = list(dict.fromkeys(self._element(at, literal) for literal in literals))
        each_in: list[Box] = [{at: LISTS, element: 0b10} for element in elements]
        each_out: list[Box] = [{at: LISTS, element: 0b01} for element in elements]
        all_in: Box = {at: LISTS, **dict.fromkeys(elements, 0b10)}
        all_out: Box = {at: LISTS, **dict.fromkeys(elements, 0b01)}
        match op:
            case Operator.HAS_ANY:
                return each_in, [all_out]
            case Operator.HAS_ALL:
                return [all_in], each_out
            case _:
                return [all_out], each_in

    def _opaque(self, comparison: Comparison) -> _Leaf:
        try:
            key: Hashable = condition_key(comparison)
        except ValueError:
            # A literal that has no JSON: no server accepts it, and it need not be shared.
            key = id(comparison)
        at = self._place(("opaque", key), lambda: Opaque(comparison))
        return [{at: 0b001}], [{at: 0b010}]

    def _classify(self) -> None:
        """Put cells that all boxes treat alike into one class, and rewrite the boxes in classes."""
        masks: list[dict[int, int]] = [{} for _ in self.operands]
        for leaf in self._leaves.values():
            for box in itertools.chain(*leaf):
                for at, mask in box.items():
                    masks[at].setdefault(mask, len(masks[at]))
        for key, at in self._places.items():
            operand = self.operands[at]
            if isinstance(operand, Domain):
                for mask in (operand.units, *self._allowed(key, operand)):
                    masks[at].setdefault(mask, len(masks[at]))
        rewritten: list[dict[int, int]] = []
        for operand, its_masks in zip(self.operands, masks, strict=True):
            if isinstance(operand, Buckets):
                # Distributions and links name single cells.
                cells = list(bits(operand.full))
                self.classes.append([1 << cell for cell in cells])
                rewritten.append({mask: mask for mask in its_masks})
            else:
                classes, renamed = _refined(operand.full, its_masks, self._deadline)
                self.classes.append(classes)
                rewritten.append(renamed)
            self.full.append((1 << len(self.classes[-1])) - 1)
        for leaf in self._leaves.values():
            for box in itertools.chain(*leaf):
                for at, mask in box.items():
                    box[at] = rewritten[at][mask]
        for key, at in self._places.items():
            operand = self.operands[at]
            if isinstance(operand, Domain):
                self.units[at] = rewritten[at][operand.units]
                for mask in self._allowed(key, operand):
                    self.full[at] &= rewritten[at][mask]
        for leaf in self._leaves.values():
            for box in itertools.chain(*leaf):
                for at in box:
                    box[at] &= self.full[at]

    def _allowed(self, key: Hashable, domain: Domain) -> Iterator[int]:
        """Yield the cells that the values of a setting are in, after its type."""
        if not isinstance(key, tuple) or key[0] != "setting":
            return
        setting = self._evaluator.snapshot.settings.get(key[1])
        if setting is None or self._evaluator.dependencies.cycle(("setting", setting.name)):
            return
        type_ = setting.type
        if isinstance(type_, EnumType):
            split = domain.split(Operator.EQUALS, _scalars(type_.options))
            assert split is not None
            yield split[0]
        elif type_ in _KINDS:
            yield domain.of_kinds(_KINDS[type_])
        elif isinstance(type_, MappingType):
            yield domain.of_kinds((Kind.MAPPING,))
        elif isinstance(type_, (FlagsType, SequenceType)):
            # A list of lists is missing, as far as conditions see it.
            yield domain.of_kinds((Kind.LIST, Kind.MISSING))

    def _link(self) -> None:
        for key, at in self._places.items():
            buckets = self.operands[at]
            if not isinstance(buckets, Buckets):
                continue
            assert isinstance(key, tuple)
            attribute = self._places["attribute", buckets.attribute]
            domain = self.operands[attribute]
            assert isinstance(domain, Domain)
            encodable = _is_encodable(buckets.salt)
            anything = buckets.full & ~1 if encodable else 1
            hashed = domain.units.bit_count() <= MAX_HASHES
            allowed = []
            self._deadline.check()
            for members in self.classes[attribute]:
                mask = 0
                if not members & domain.units:
                    mask = 1
                elif not hashed or not encodable:
                    mask = anything
                else:
                    for cell in bits(members):
                        found = domain.cells[cell]
                        if not found.point:
                            mask = anything
                            break
                        assert isinstance(found.value, (str, int, float))
                        mask |= 1 << buckets.cell_of(found.value)
                allowed.append(mask)
            self.links.setdefault(attribute, []).append(Link(attribute, at, tuple(allowed)))

    # Answering.

    def class_of(self, at: int) -> list[int]:
        """Return the class of each cell of the operand at *at*."""
        found = self._class_of.get(at)
        if found is None:
            found = self._class_of[at] = [0] * sum(members.bit_count() for members in self.classes[at])
            for one, members in enumerate(self.classes[at]):
                for cell in bits(members):
                    found[cell] = one
        return found

    def boxes(self, condition: Condition | None, *, wanted: bool = True) -> list[Box]:
        """Return the boxes in which *condition* is TRUE, or without *wanted* those in which it is FALSE.

        Raises:
            TooComplexError: There are too many.
        """
        match condition:
            case None:
                return [{}] if wanted else []
            case AllOf(parts) | AnyOf(parts):
                found = [self.boxes(part, wanted=wanted) for part in parts]
                if isinstance(condition, AllOf) is wanted:
                    return self.all_of(found)
                return self._any(found)
            case Not(inner):
                return self.boxes(inner, wanted=not wanted)
            case Comparison() | Percentage():
                true, false = self._leaves[id(condition)]
                return [box for box in (true if wanted else false) if all(box.values())]
            case SegmentReference(name):
                return self._segment(name, wanted)
            case _:
                return []

    def _segment(self, name: str, wanted: bool) -> list[Box]:
        key = name, wanted
        if key not in self._segment_boxes:
            segment = self._evaluator.snapshot.segments.get(name)
            if segment is None or self._evaluator.dependencies.cycle(("segment", name)):
                self._segment_boxes[key] = []
            else:
                self._segment_boxes[key] = self.boxes(segment.condition, wanted=wanted)
        return self._segment_boxes[key]

    def rule_boxes(self, rule: Rule) -> list[Box]:
        """Return the boxes in which *rule* decides when it is asked.

        Raises:
            TooComplexError: There are too many, or the condition nests too deep to be evaluated.
        """
        if rule.outcome is None:
            return []
        if rule.condition is not None and self._evaluator.dependencies.nesting(rule.condition) > MAX_NESTING:
            raise TooComplexError
        boxes = self.boxes(rule.condition)
        if isinstance(rule.outcome, Distribution):
            boxes = self.all_of([boxes, self._assigned(rule.outcome)])
        return boxes

    def _assigned(self, split: Distribution) -> list[Box]:
        """Return the boxes in which *split* gives a variant."""
        covered = _covered(split)
        if not _is_encodable(split.salt) or covered <= 0:
            return []
        attribute = self._places["attribute", split.unit]
        units: list[Box] = [{attribute: self.units[attribute]}]
        at = self._buckets_place(split.unit, split)
        buckets = self.operands[at]
        assert isinstance(buckets, Buckets)
        true, false = buckets.split(0, covered)
        if not false:
            return units
        return self.all_of([units, [{at: true}]])

    def all_of(self, parts: Sequence[list[Box]]) -> list[Box]:
        """Return the boxes of what is in a box of each of *parts*.

        Raises:
            TooComplexError: There are too many.
        """
        product: list[Box] = [{}]
        for boxes in sorted(parts, key=len):
            made = []
            for left, right in itertools.product(product, boxes):
                both = self.intersection(left, right)
                if both is not None:
                    made.append(both)
            if len(made) > MAX_BOXES:
                made = self._any([made])
            product = made
        return product if len(product) <= 1 else self._any([product])

    def intersection(self, left: Box, right: Box) -> Box | None:
        """Return what is in both boxes, or None when nothing is."""
        both = dict(left)
        for at, mask in right.items():
            mask &= both.get(at, self.full[at])
            if not mask:
                return None
            both[at] = mask
        return both

    def _any(self, parts: Sequence[list[Box]]) -> list[Box]:
        """Return the boxes of all *parts*, joined where that is easy."""
        boxes = [box for part in parts for box in part]
        if len(boxes) > 1:
            for at in sorted({at for box in boxes for at in box}):
                joined: dict[frozenset[tuple[int, int]], int] = {}
                for box in boxes:
                    rest = frozenset(item for item in box.items() if item[0] != at)
                    joined[rest] = joined.get(rest, 0) | box.get(at, self.full[at])
                boxes = [
                    dict(rest) if mask == self.full[at] else {**dict(rest), at: mask}
                    for rest, mask in joined.items()
                ]
        if len(boxes) > MAX_BOXES:
            raise TooComplexError
        return boxes


_KINDS: Final = {
    BOOL: (Kind.BOOL,),
    INT: (Kind.NUMBER,),
    FLOAT: (Kind.NUMBER,),
    STR: (Kind.TEXT,),
}


def _covered(split: Distribution) -> int:
    """Return how many buckets, from the first on, get a variant."""
    return max(itertools.accumulate(variant.weight for variant in split.variants), default=0)


def _leaf(at: int, split: Split) -> _Leaf:
    true, false = split
    return ([{at: true}] if true else []), ([{at: false}] if false else [])


def _is_encodable(salt: str) -> bool:
    return not salt or unit_text(salt) is not None


def _scalars(values: Iterable[object]) -> tuple[ContextScalar, ...]:
    return tuple(value for value in values if isinstance(value, (bool, int, float, str)))


def _is_constant(comparison: Comparison) -> bool:
    """Tell whether a comparison without usable literals is UNKNOWN whatever its operands are."""
    return not (comparison.right is not None and comparison.literals is not None) and (
        comparison.right is None or isinstance(comparison.right, Literal)
    )


def _literals(comparison: Comparison) -> tuple[ContextScalar, ...] | None:
    """Return the literals on the right where there are nothing but literals, and the operator takes them."""
    op, right = comparison.operator, comparison.right
    if op is Operator.EXISTS:
        return ()
    if right is not None and comparison.literals is not None:
        return None
    if right is None and comparison.literals is None:
        return None
    if isinstance(right, Literal):
        raw: tuple[object, ...] = (right.value,)
    elif right is not None:
        return None
    else:
        raw = comparison.literals or ()
    single = comparison.literals is None
    if (single and op in LIST_OPERATORS) or (not single and op not in _ANY_OF):
        return None
    normal = tuple(map(normalise, raw))
    literals = _scalars(normal)
    if len(literals) != len(normal) or any(isinstance(one, float) and math.isnan(one) for one in literals):
        return None
    return literals if all(_takes(op, literal) for literal in literals) else None


def _takes(op: Operator, literal: ContextScalar) -> bool:
    if op in INSTANT_OPERATORS:
        return instant(literal) is not None
    if op in ORDER_OPERATORS:
        return not isinstance(literal, bool)
    if op in TEXT_OPERATORS:
        return isinstance(literal, str)
    if op in SEMVER_OPERATORS:
        return isinstance(literal, str) and precedence(literal) is not None
    if op is Operator.IP_IN:
        return isinstance(literal, str) and network(literal) is not None
    if op is Operator.MATCHES:
        return isinstance(literal, str) and pattern.pattern_error(literal) is None
    return True


def _refined(full: int, masks: Iterable[int], deadline: Deadline) -> tuple[list[int], dict[int, int]]:
    """Return the classes of cells that are in the same *masks*, and each mask in classes."""
    size = full.bit_length()
    signatures = [0] * size
    masks = list(masks)
    for k, mask in enumerate(masks):
        if k % 64 == 0:
            deadline.check()
        # The smaller side of a mask tells as much; which side it is does not matter for the classes.
        side = mask if 2 * mask.bit_count() <= size else full & ~mask
        for cell in bits(side):
            signatures[cell] |= 1 << k
    places: dict[int, int] = {}
    classes: list[int] = []
    members: list[list[int]] = []
    for cell, signature in enumerate(signatures):
        at = places.setdefault(signature, len(members))
        if at == len(members):
            members.append([])
        members[at].append(cell)
    classes = [sum(1 << cell for cell in cells) for cells in members]
    everything = (1 << len(classes)) - 1
    sides = [0] * len(masks)
    for signature, at in places.items():
        if at % 64 == 0:
            deadline.check()
        for k in bits(signature):
            sides[k] |= 1 << at
    renamed = {
        mask: sides[k] if 2 * mask.bit_count() <= size else everything & ~sides[k]
        for k, mask in enumerate(masks)
    }
    return classes, renamed
