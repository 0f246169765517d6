"""Whether what a rule matches is covered by the rules before it: a search for a place that none of them covers."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Sequence
from typing import Final, TypeAlias

from rheostat.evaluation.finding.box import Box, Link, Space
from rheostat.evaluation.finding.deadline import Deadline, ExhaustedError
from rheostat.evaluation.finding.domain import bits

__all__ = ["Cover", "Place"]

Place: TypeAlias = dict[int, int]
"""Classes of cells for some operands: any context in them is such a place. Those left out are free."""

MAX_STEPS: Final = 4000
"""Choices that one search may make, so that the same rules get the same answer on any machine."""

_SMALL: Final = 4
"""The most classes of an operand for which it is worth looking for one that settles it."""

_Option: TypeAlias = tuple[int, int, tuple[int, ...]]
"""A class of an operand: which boxes it stays out of, its bit, and what it leaves of each of its buckets."""


class Cover:
    """Boxes, numbered as they are added, and the search for what is outside of them. For one thread."""

    def __init__(self, space: Space, deadline: Deadline) -> None:
        """Search in *space* until *deadline*."""
        self._space = space
        self._deadline = deadline
        self._boxes: list[Box] = []
        # The boxes by the operands that they limit, both as bits.
        self._limiting: dict[int, int] = {}
        # By operand: the boxes that limit it, and for each class those of them that hold the class.
        self._limits: dict[int, int] = {}
        self._holds: dict[int, list[int]] = {}
        self._attribute_of = {
            link.buckets: attribute for attribute, links in space.links.items() for link in links
        }
        # Those of them with few classes, that no unit and no bucket depends on.
        self._small: list[int] = []
        # The same few masks are walked over and over.
        self._decoded: dict[int, tuple[int, ...]] = {}
        self._steps = 0
        self._failed: set[tuple[object, ...]] = set()

    def add(self, box: Box) -> int:
        """Add *box* and return its number."""
        number = len(self._boxes)
        self._boxes.append(box)
        operands = sum(1 << at for at in box)
        self._limiting[operands] = self._limiting.get(operands, 0) | 1 << number
        for at, mask in box.items():
            holds = self._holds.get(at)
            if holds is None:
                holds = self._holds[at] = [0] * len(self._space.classes[at])
                if len(holds) <= _SMALL and at not in self._attribute_of and at not in self._space.links:
                    self._small.append(at)
            self._limits[at] = self._limits.get(at, 0) | 1 << number
            for one in bits(mask):
                holds[one] |= 1 << number
        return number

    def feasible(self, box: Box) -> Box | None:
        """Return what of *box* there can be: buckets only of units, and of units with these buckets; or None."""
        domains = dict(box)
        for at in box:
            attribute = self._attribute_of.get(at)
            if attribute is not None and attribute not in domains:
                domains[attribute] = self._space.full[attribute]
        for attribute, links in self._space.links.items():
            if attribute not in domains:
                continue
            limited = [link for link in links if link.buckets in box]
            if not limited:
                continue
            domains[attribute] = sum(
                1 << one
                for one in bits(domains[attribute])
                if all(link.allowed[one] & box[link.buckets] for link in limited)
            )
            for link in limited:
                reachable = functools.reduce(
                    operator.or_, (link.allowed[one] for one in bits(domains[attribute])), 0
                )
                domains[link.buckets] &= reachable
        return domains if all(domains.values()) else None

    def outside(self, box: Box, numbers: int) -> Place | None:
        """Return a place in *box* that is in none of the boxes whose bits *numbers* has; None when there is none.

        Raises:
            ExhaustedError: The search took too many steps, or too long.
        """
        domains = self.feasible(box)
        if domains is None:
            return None
        numbers = self.meeting(domains, numbers)
        if self.containing(domains, numbers):
            # The commonest by far: one of them is enough.
            return None
        self._steps = 0
        self._failed.clear()
        return self._search(domains, numbers, frozenset())

    def meeting(self, box: Box, numbers: int) -> int:
        """Return those of *numbers*, as bits, whose boxes have something in common with *box*."""
        for at, mask in box.items():
            if at in self._limits:
                numbers &= ~(self._limits[at] & ~self._held(at, mask))
        return numbers

    def containing(self, box: Box, numbers: int) -> int:
        """Return those of *numbers*, as bits, whose boxes have all of *box*, operand by operand."""
        # Those that limit nothing else come first: they are few.
        numbers &= self._limited_by(box)
        for at, mask in box.items():
            outside = self._limits.get(at, 0) & numbers
            for one in self._ones(mask):
                if not outside:
                    break
                numbers &= ~(outside & ~self._holds[at][one])
                outside &= numbers
        return numbers

    def _limited_by(self, box: Box) -> int:
        """The boxes that limit no operand that *box* does not."""
        found = 0
        operands = sum(1 << at for at in box)
        if 1 << len(box) > len(self._limiting):
            for limited, numbers in self._limiting.items():
                if not limited & ~operands:
                    found |= numbers
            return found
        some = operands
        while some:
            found |= self._limiting.get(some, 0)
            some = some - 1 & operands
        return found | self._limiting.get(0, 0)

    def _ones(self, mask: int) -> tuple[int, ...]:
        found = self._decoded.get(mask)
        if found is None:
            found = self._decoded[mask] = tuple(bits(mask))
        return found

    def _held(self, at: int, mask: int) -> int:
        """The boxes that hold some class of *mask*."""
        return functools.reduce(operator.or_, (self._holds[at][one] for one in self._ones(mask)), 0)

    def _search(self, domains: Place, needed: int, chosen: frozenset[int]) -> Place | None:
        self._steps += 1
        if self._steps > MAX_STEPS or (self._steps % 64 == 0 and self._deadline.passed):
            raise ExhaustedError
        domains, needed, chosen = self._settled(domains, needed, chosen)
        if not needed:
            return domains
        key = needed, chosen, self._narrowed(domains, needed, chosen)
        if key in self._failed:
            return None
        at, options = self._choice(domains, needed, chosen)
        for avoided, bit, left in options:
            narrowed = {**domains, at: bit}
            for link, mask in zip(self._relevant(at, domains, needed), left, strict=True):
                narrowed[link.buckets] = mask
            found = self._search(narrowed, needed & ~avoided, chosen | {at})
            if found is not None:
                return found
        self._failed.add(key)
        return None

    def _settled(
        self, domains: Place, needed: int, chosen: frozenset[int]
    ) -> tuple[Place, int, frozenset[int]]:
        """Choose at once what costs nothing: for a small operand a class that stays out of all boxes that limit it."""
        settled: dict[int, int] = {}
        for at in self._small:
            limits = self._limits[at] & needed
            if limits and at not in chosen:
                holds = self._holds[at]
                for one in self._ones(domains.get(at, self._space.full[at])):
                    if not limits & holds[one]:
                        settled[at] = 1 << one
                        needed &= ~limits
                        break
        if not settled:
            return domains, needed, chosen
        return {**domains, **settled}, needed, chosen.union(settled)

    def _relevant(self, at: int, domains: Place, needed: int) -> list[Link]:
        """The links of an attribute to buckets that matter."""
        if at not in self._space.links:
            return []
        return [
            link
            for link in self._space.links[at]
            if link.buckets in domains or self._limits.get(link.buckets, 0) & needed
        ]

    def _narrowed(self, domains: Place, needed: int, chosen: frozenset[int]) -> tuple[int, ...]:
        """What the chosen attributes have left of the buckets that are still to be chosen."""
        if not self._space.links:
            return ()
        return tuple(
            domains.get(link.buckets, -1)
            for attribute, links in self._space.links.items()
            if attribute in chosen
            for link in links
            if link.buckets not in chosen and self._limits.get(link.buckets, 0) & needed
        )

    def _choice(self, domains: Place, needed: int, chosen: frozenset[int]) -> tuple[int, Sequence[_Option]]:
        """Return the operand to choose next, with its options; no options when some box cannot be avoided."""
        open_ = [at for at, limits in self._limits.items() if limits & needed and at not in chosen]
        once = several = 0
        for at in open_:
            several |= once & self._limits[at]
            once |= self._limits[at]
        if needed & ~once:
            return -1, ()
        best: tuple[int, Sequence[_Option]] | None = None
        for at in open_:
            attribute = self._attribute_of.get(at)
            if attribute is not None and attribute not in chosen:
                # Whether there is a unit comes first.
                at = attribute
            # Boxes that nothing else can avoid.
            alone = needed & self._limits.get(at, 0) & ~several
            options = self._options(at, domains, needed, alone, sys.maxsize if best is None else len(best[1]))
            if len(options) <= 1:
                return at, options
            if best is None or len(options) < len(best[1]):
                best = at, options
        assert best is not None
        return best

    def _options(self, at: int, domains: Place, needed: int, alone: int, enough: int) -> Sequence[_Option]:
        """Return the classes of an operand that avoid all of *alone*, without those that others are as good as.

        With *enough* of them it is not chosen anyway, so that the others need not be found.
        """
        links = self._relevant(at, domains, needed)
        limits = self._limits.get(at, 0) & needed
        holds = self._holds.get(at)
        allowed = domains.get(at, self._space.full[at])
        for number in bits(alone):
            allowed &= ~self._boxes[number][at]
            if not allowed:
                return ()
        ones = self._ones(allowed)
        if holds is not None and not links:
            return _unlinked_options(limits, holds, ones, enough)
        found: dict[tuple[int, tuple[int, ...]], int] = {}
        for one in ones:
            avoided = limits if holds is None else limits & ~holds[one]
            left = tuple(
                domains.get(link.buckets, self._space.full[link.buckets]) & link.allowed[one]
                for link in links
            )
            if not all(left):
                continue
            if avoided == limits and not links:
                return [(avoided, 1 << one, ())]
            found.setdefault((avoided, left), 1 << one)
        return _best(found, enough)


def _unlinked_options(limits: int, holds: list[int], ones: Sequence[int], enough: int) -> Sequence[_Option]:
    # The first class of each kind, at the speed of C: there may be hundreds.
    backwards = ones[::-1]
    found = dict(zip(map(limits.__and__, map(holds.__getitem__, backwards)), backwards, strict=True))
    if 0 in found:
        return [(limits, 1 << found[0], ())]
    kept: list[int] = []
    for held in sorted(found, key=int.bit_count):
        for other in kept:
            if not other & ~held:
                break
        else:
            kept.append(held)
            if len(kept) >= enough:
                break
    return [(limits & ~held, 1 << found[held], ()) for held in kept]


def _best(found: dict[tuple[int, tuple[int, ...]], int], enough: int) -> Sequence[_Option]:
    kept: list[_Option] = []
    ordered = sorted(
        found.items(),
        key=lambda item: (item[0][0].bit_count(), sum(mask.bit_count() for mask in item[0][1])),
        reverse=True,
    )
    for (avoided, left), bit in ordered:
        if not any(
            not avoided & ~other
            and all(not mask & ~wider for mask, wider in zip(left, kept_left, strict=True))
            for other, _, kept_left in kept
        ):
            kept.append((avoided, bit, left))
            if len(kept) >= enough:
                break
    return kept
