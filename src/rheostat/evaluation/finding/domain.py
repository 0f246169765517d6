"""The values of one operand, cut into cells on which every comparison that is asked about is constant.

A cell is a set of values. The cells cover everything that a context may hold, so that what holds for no cell
holds for no context; some may be empty, where nobody could tell cheaply, which makes the analysis miss findings
and never makes it wrong. Sets of cells are the bits of an int.
"""

from __future__ import annotations

import bisect
import datetime
import enum
import functools
import ipaddress
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol, TypeAlias

from rheostat.evaluation import pattern
from rheostat.evaluation.bucket import bucket, unit_text
from rheostat.evaluation.comparison import ORDER_OPERATORS, SEMVER_OPERATORS, TEXT_OPERATORS
from rheostat.evaluation.context import ContextScalar, ContextValue
from rheostat.evaluation.instant import NANOSECONDS, instant
from rheostat.evaluation.network import Network, address, network
from rheostat.evaluation.semver import Precedence, precedence
from rheostat.model.condition import BUCKETS, BucketAlgorithm, Operator
from rheostat.model.value import INT64_MAX, INT64_MIN, Absent

__all__ = ["LISTS", "MISSING", "Buckets", "Cell", "Domain", "Kind", "Split", "bits"]

Split: TypeAlias = tuple[int, int]
"""The cells for which a comparison is TRUE, and those for which it is FALSE; for the rest it is UNKNOWN."""

_Number: TypeAlias = int | float | Fraction

MISSING: Final = 1 << 0
"""The cell of every domain that is no value at all."""

LISTS: Final = 1 << 4
"""The cell of every domain that is the lists without a NaN."""

MAX_GAPS: Final = 4096
"""The most cells of one attribute for the texts that no rule names; beyond it some operators are not told apart."""

_CANDIDATES: Final = 2000
"""How many texts are tried to find one of a cell."""


class Kind(enum.Enum):
    """What the values of a cell are to the operators."""

    MISSING = "missing"
    BOOL = "bool"
    NAN = "nan"
    NUMBER = "number"
    TEXT = "string"
    LIST = "list"
    ODD_LIST = "list with a NaN"
    MAPPING = "mapping"


_PLAIN: Final = {
    Kind.TEXT: 0,
    Kind.NUMBER: 1,
    Kind.BOOL: 2,
    Kind.LIST: 3,
    Kind.MAPPING: 4,
    Kind.MISSING: 5,
}
"""What is easiest to read first. A NaN has no JSON, so that no example holds one."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A set of values.

    Attributes:
        kind: Of all its values.
        value: Its only value, or one of several; None where there is no single one to show.
        point: It has one value only, as comparisons see it.
        unit: All its values are units of buckets; otherwise none is. Told only where units are asked about.
        gap: The facets of a text that no comparison names.
    """

    kind: Kind
    value: ContextValue | None = None
    point: bool = False
    unit: bool = False
    gap: tuple[int, ...] | None = None


def bits(mask: int) -> Iterator[int]:
    """Yield the places of the bits of *mask*, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _range(start: int, end: int) -> int:
    return (1 << end) - (1 << start) if end > start else 0


class _Facet(Protocol):
    """One thing about texts: each text has one of `size` values of it."""

    size: int

    def of(self, text: str) -> int: ...


class _OrderFacet:
    """Between which of the *cuts* a text stands; no cut is asked about, as it has a cell of its own."""

    def __init__(self, cuts: Sequence[str]) -> None:
        self.cuts = cuts
        self.size = len(cuts) + 1

    def of(self, text: str) -> int:
        return bisect.bisect_left(self.cuts, text)

    def bounds(self, gap: int) -> tuple[str | None, str | None]:
        low = self.cuts[gap - 1] if gap else None
        return low, self.cuts[gap] if gap < len(self.cuts) else None

    def empty(self, gap: int) -> bool:
        low, high = self.bounds(gap)
        # Nothing stands between a text and the same with the lowest code point behind it.
        return high is not None and high == ("" if low is None else low + "\x00")


class _SuffixFacet:
    """The longest of the *suffixes* that a text ends with: 0 for none, else its place plus one."""

    def __init__(self, suffixes: Iterable[str]) -> None:
        self.suffixes = sorted(suffixes)
        self.size = len(self.suffixes) + 1
        self._places = {suffix: place for place, suffix in enumerate(self.suffixes, 1)}
        self._lengths = sorted({len(suffix) for suffix in self.suffixes}, reverse=True)

    def of(self, text: str) -> int:
        for length in self._lengths:
            place = self._places.get(text[-length:]) if length <= len(text) else None
            if place is not None:
                return place
        return 0


class _ContainsFacet:
    size = 2

    def __init__(self, part: str) -> None:
        self.part = part

    def of(self, text: str) -> int:
        return int(self.part in text)


class _PatternFacet:
    """Whether a pattern is found: 2 where that is UNKNOWN, in texts that UTF-8 cannot carry."""

    size = 3

    def __init__(self, text: str) -> None:
        self.text = text

    def of(self, text: str) -> int:
        found = pattern.search(self.text, text)
        return 2 if found is None else int(found)


class _EncodableFacet:
    """Whether UTF-8 can carry a text."""

    size = 2

    def of(self, text: str) -> int:
        try:
            text.encode()
        except UnicodeEncodeError:
            return 0
        return 1


class _VersionFacet:
    """Where a version stands among those asked about: 0 for no version, else its position plus one."""

    def __init__(self, versions: dict[Precedence, str]) -> None:
        self.versions = sorted(versions)
        self.texts = [versions[version] for version in self.versions]
        self.size = 2 * len(self.versions) + 2

    def position(self, version: Precedence) -> int:
        at = bisect.bisect_left(self.versions, version)
        return 2 * at + (at < len(self.versions) and self.versions[at] == version)

    def of(self, text: str) -> int:
        version = precedence(text)
        return 0 if version is None else 1 + self.position(version)


class _LineFacet:
    """Where a whole number that a text stands for is among *starts*: 0 for none, else its stretch plus one."""

    def __init__(self, starts: Iterable[int]) -> None:
        self.starts = sorted(set(starts))
        self.size = len(self.starts) + 1

    def place(self, number: int) -> int:
        return bisect.bisect_right(self.starts, number)

    def number(self, text: str) -> int | None:
        raise NotImplementedError

    def of(self, text: str) -> int:
        number = self.number(text)
        return 0 if number is None else self.place(number)


# The instants that there are: the years 0001 to 9999.
_FIRST_INSTANT: Final = instant("0001-01-01") or 0
_PAST_INSTANTS: Final = (instant("9999-12-31") or 0) + 86_400 * NANOSECONDS


class _InstantFacet(_LineFacet):
    def __init__(self, instants: Iterable[int]) -> None:
        cuts = itertools.chain.from_iterable((at, at + 1) for at in instants)
        super().__init__([_FIRST_INSTANT, *(cut for cut in cuts if cut < _PAST_INSTANTS)])

    def number(self, text: str) -> int | None:
        return instant(text)


# IPv4 and IPv6 addresses on one line of numbers.
_V6: Final = 1 << 40
_MAPPED: Final = _V6 + (0xFFFF << 32)


class _NetworkFacet(_LineFacet):
    def __init__(self, networks: Iterable[Network]) -> None:
        starts = [0, _V6]
        for known in networks:
            for low, high in self.stretches(known):
                starts += (low, high)
        super().__init__(start for start in starts if start != 1 << 32 and start != _V6 + (1 << 128))

    @staticmethod
    def stretches(known: Network) -> Iterator[tuple[int, int]]:
        """Yield the stretches of the line that are inside, as start and end."""
        low, high = int(known.network_address), int(known.broadcast_address) + 1
        if isinstance(known, ipaddress.IPv6Network):
            yield _V6 + low, _V6 + high
        else:
            yield low, high
            # An IPv4-mapped IPv6 address is inside the IPv4 networks too.
            yield _MAPPED + low, _MAPPED + high

    def number(self, text: str) -> int | None:
        found = address(text)
        if found is None:
            return None
        return int(found) + (_V6 if isinstance(found, ipaddress.IPv6Address) else 0)

    def first(self, place: int) -> str:
        start = self.starts[place - 1]
        if start >= _V6:
            return str(ipaddress.IPv6Address(start - _V6))
        return str(ipaddress.IPv4Address(start))

    def only(self, place: int) -> str | None:
        """Return the one text of an IPv4 stretch of a single address."""
        start = self.starts[place - 1]
        end = self.starts[place] if place < len(self.starts) else None
        if start < 1 << 32 and (end == start + 1 or start + 1 == 1 << 32):
            return self.first(place)
        return None


def _after_prefix(prefix: str) -> str | None:
    """Return the first text, by code points, behind all that start with *prefix*; None when there is none."""
    stripped = prefix.rstrip(chr(0x10FFFF))
    return stripped[:-1] + chr(ord(stripped[-1]) + 1) if stripped else None


class Domain:
    """What an attribute, or the value of another setting, may be.

    First `ask` for all comparisons and `ask_unit`, then `build`; then `split` answers. For one thread.
    """

    def __init__(self) -> None:
        """Begin with nothing asked."""
        self.cells: list[Cell] = []
        self.full = 0
        self.units = 0
        self._numbers: set[_Number] = set()
        self._texts: set[str] = {""}
        self._cuts: set[str] = set()
        self._prefixes: set[str] = set()
        self._suffixes: set[str] = set()
        self._parts: set[str] = set()
        self._patterns: set[str] = set()
        self._versions: dict[Precedence, str] = {}
        self._instants: set[int] = set()
        self._networks: set[Network] = set()
        self._has_units = False
        self._facets: dict[tuple[str, ...], _Facet] = {}
        self._plain_cells: list[int] | None = None

    # Asking.

    def ask(self, op: Operator, literals: tuple[ContextScalar, ...]) -> None:
        """Prepare for a comparison with *literals* that the operator takes."""
        for literal in literals:
            if isinstance(literal, str):
                self._texts.add(literal)
            elif not isinstance(literal, bool):
                self._numbers.add(literal)
            if op in (Operator.BEFORE, Operator.AFTER):
                at = instant(literal)
                assert at is not None
                self._instants.add(at)
            elif isinstance(literal, str):
                self._ask_text(op, literal)

    def _ask_text(self, op: Operator, literal: str) -> None:
        if op in ORDER_OPERATORS:
            self._cuts.add(literal)
        elif op is Operator.STARTS_WITH:
            self._prefixes.add(literal)
        elif op is Operator.ENDS_WITH:
            self._suffixes.add(literal)
        elif op is Operator.CONTAINS:
            self._parts.add(literal)
        elif op is Operator.MATCHES:
            self._patterns.add(literal)
        elif op in SEMVER_OPERATORS:
            version = precedence(literal)
            assert version is not None
            self._versions.setdefault(version, literal)
        elif op is Operator.IP_IN:
            known = network(literal)
            assert known is not None
            self._networks.add(known)

    def ask_unit(self) -> None:
        """Prepare to tell units of buckets from other values."""
        self._has_units = True

    # Building.

    def build(self) -> None:
        """Make the cells."""
        self._add(Cell(Kind.MISSING))
        self._add(Cell(Kind.BOOL, False, point=True))
        self._add(Cell(Kind.BOOL, True, point=True))
        self._add(Cell(Kind.NAN, math.nan))
        self._add(Cell(Kind.LIST))
        self._add(Cell(Kind.ODD_LIST))
        self._add(Cell(Kind.MAPPING))
        self._build_numbers()
        self._build_texts()
        self.full = (1 << len(self.cells)) - 1
        self.units = sum(1 << i for i, cell in enumerate(self.cells) if cell.unit)

    def _add(self, cell: Cell) -> None:
        self.cells.append(cell)

    def _build_numbers(self) -> None:
        if self._instants:
            for at in self._instants:
                self._numbers |= {Fraction(at, NANOSECONDS), Fraction(at + 1, NANOSECONDS)}
            self._numbers |= {_FIRST_INSTANT // NANOSECONDS, _PAST_INSTANTS // NANOSECONDS}
        self._points: list[_Number] = sorted(self._numbers)
        self._number_starts: list[int] = []
        bounds: list[_Number | None] = [None, *self._points, None]
        for low, high in itertools.pairwise(bounds):
            self._number_starts.append(len(self.cells))
            self._add_numbers(_integers(low, high), _odd_number(low, high), point=False)
            if high is not None:
                self._number_starts.append(len(self.cells))
                self._add_numbers(*_spellings(high), point=True)
        self._number_starts.append(len(self.cells))

    def _add_numbers(self, integer: int | None, odd: float | None, *, point: bool) -> None:
        """Add the cell of a number, or where units are asked about those of units and of other numbers."""
        if not self._has_units:
            if odd is not None or integer is not None:
                self._add(Cell(Kind.NUMBER, odd if integer is None else integer, point=point))
            return
        if integer is not None:
            self._add(Cell(Kind.NUMBER, integer, point=point, unit=True))
        if odd is not None:
            self._add(Cell(Kind.NUMBER, odd, point=point))

    def _build_texts(self) -> None:
        for prefix in self._prefixes:
            after = _after_prefix(prefix)
            self._cuts |= {prefix} if after is None else {prefix, after}
        self._texts |= self._cuts
        self._text_points = sorted(self._texts)
        self._choose_facets()
        self._text_start = len(self.cells)
        for text in self._text_points:
            self._add(Cell(Kind.TEXT, text, point=True, unit=self._has_units and unit_text(text) is not None))
        self._gap_start = len(self.cells)
        self._facet_masks: dict[tuple[str, ...], list[int]] = {
            key: [0] * facet.size for key, facet in self._facets.items()
        }
        for at, text in enumerate(self._text_points, self._text_start):
            for key, facet in self._facets.items():
                # A named text has its own place in the order.
                if key != ("order",):
                    self._facet_masks[key][facet.of(text)] |= 1 << at
        self._gaps: dict[tuple[int, ...], int] = {}
        for gap in self._possible_gaps():
            at = len(self.cells)
            self._gaps[gap] = at
            self._add(Cell(Kind.TEXT, gap=gap, unit=self._has_units and self._value("encodable", gap) == 1))
            for value, masks in zip(gap, self._facet_masks.values(), strict=True):
                masks[value] |= 1 << at

    def _choose_facets(self) -> None:
        facets: dict[tuple[str, ...], _Facet] = {}
        if self._has_units or self._patterns:
            # First, so that there is always room for it: without it units could not be told.
            facets["encodable",] = _EncodableFacet()
        facets["order",] = _OrderFacet(sorted(self._cuts))
        if self._versions:
            facets["version",] = _VersionFacet(self._versions)
        if self._networks:
            facets["network",] = _NetworkFacet(self._networks)
        if self._instants:
            facets["instant",] = _InstantFacet(self._instants)
        if self._suffixes - {""}:
            facets["suffix",] = _SuffixFacet(self._suffixes - {""})
        for part in sorted(self._parts - {""}):
            facets["contains", part] = _ContainsFacet(part)
        for text in sorted(self._patterns):
            facets["pattern", text] = _PatternFacet(text)
        size = 1
        for key, facet in facets.items():
            # A pattern multiplies the cells by two: it is unknown in none but those that no text can carry.
            grown = size * min(facet.size, 2 if key[0] == "pattern" else facet.size)
            if grown <= MAX_GAPS:
                size = grown
                self._facets[key] = facet

    def _value(self, word: str, gap: tuple[int, ...]) -> int | None:
        key = (word,)
        return gap[list(self._facets).index(key)] if key in self._facets else None

    def _possible_gaps(self) -> Iterator[tuple[int, ...]]:
        """Yield the combinations of facets that a text may have; those that are clearly none are left out."""
        keys = list(self._facets)
        patterns = [i for i, key in enumerate(keys) if key[0] == "pattern"]
        parsed = [i for i, key in enumerate(keys) if key[0] in ("version", "network", "instant")]
        parts = {i: key[1] for i, key in enumerate(keys) if key[0] == "contains"}
        encodable = keys.index(("encodable",)) if ("encodable",) in self._facets else None
        suffix = keys.index(("suffix",)) if ("suffix",) in self._facets else None
        order = self._facets.get(("order",))
        heads = self._heads(order) if isinstance(order, _OrderFacet) else [""]
        choices: list[Iterable[int]] = []
        for key, facet in self._facets.items():
            values: Iterable[int] = range(facet.size)
            if isinstance(facet, _OrderFacet):
                values = [gap for gap in values if not facet.empty(gap)]
            elif isinstance(facet, _NetworkFacet):
                values = [place for place in values if not place or facet.only(place) not in self._texts]
            elif key[0] == "pattern":
                values = range(2)
            choices.append(values)
        for gap in itertools.product(*choices):
            if encodable is not None and gap[encodable] == 0:
                if any(gap[i] for i in parsed) or any(gap[i] for i in patterns):
                    continue
                gap = tuple(2 if i in patterns else value for i, value in enumerate(gap))
            if parts:
                known = [heads[gap[keys.index(("order",))]] if order is not None else ""]
                if suffix is not None and gap[suffix]:
                    facet = self._facets["suffix",]
                    assert isinstance(facet, _SuffixFacet)
                    known.append(facet.suffixes[gap[suffix] - 1])
                known += [part for i, part in parts.items() if gap[i]]
                if any(not gap[i] and any(part in text for text in known) for i, part in parts.items()):
                    continue
            yield gap

    def _heads(self, order: _OrderFacet) -> list[str]:
        """Return for each gap what all its texts start with."""
        heads = []
        for gap in range(order.size):
            low, high = order.bounds(gap)
            head = ""
            if low is not None:
                for prefix in self._prefixes:
                    after = _after_prefix(prefix)
                    if low >= prefix and (after is None or (high is not None and high <= after)):
                        head = max(head, prefix, key=len)
            heads.append(head)
        return heads

    # Answering.

    @functools.cached_property
    def _all_numbers(self) -> int:
        return _range(self._number_starts[0], self._number_starts[-1])

    @functools.cached_property
    def _all_texts(self) -> int:
        return _range(self._text_start, len(self.cells))

    @functools.cached_property
    def _scalars(self) -> int:
        return 0b110 | self._all_numbers | self._all_texts

    def of_kinds(self, kinds: Iterable[Kind]) -> int:
        """Return the cells of some kinds."""
        chosen = set(kinds)
        return sum(1 << i for i, cell in enumerate(self.cells) if cell.kind in chosen)

    def split(self, op: Operator, literals: tuple[ContextScalar, ...]) -> Split | None:
        """Return where a comparison that was asked about is TRUE and FALSE; None when that is not told apart."""
        match op:
            case Operator.EXISTS:
                return self.full ^ MISSING, MISSING
            case Operator.EQUALS | Operator.IN:
                equal = self._equal(literals)
                return equal, self._scalars ^ equal
            case Operator.NOT_EQUALS | Operator.NOT_IN:
                equal = self._equal(literals)
                return self._scalars ^ equal, equal
            case Operator.BEFORE | Operator.AFTER:
                return self._split_instants(op, literals[0])
            case Operator.MATCHES:
                masks = self._facet_masks.get(("pattern", str(literals[0])))
                return None if masks is None else (masks[1], masks[0])
            case Operator.IP_IN:
                return self._split_networks(literals)
            case _:
                pass
        if op in ORDER_OPERATORS:
            return self._split_order(op, literals[0])
        if op in SEMVER_OPERATORS:
            return self._split_versions(op, str(literals[0]))
        assert op in TEXT_OPERATORS
        texts = [str(literal) for literal in literals]
        true = 0
        for text in texts:
            found = self._texts_with(op, text)
            if found is None:
                return None
            true |= found
        return true, self._all_texts ^ true

    def _equal(self, literals: tuple[ContextScalar, ...]) -> int:
        equal = 0
        for literal in literals:
            if isinstance(literal, bool):
                equal |= 0b100 if literal else 0b010
            elif isinstance(literal, str):
                equal |= 1 << self._text_start + bisect.bisect_left(self._text_points, literal)
            else:
                at = 2 * bisect.bisect_left(self._points, literal) + 1
                equal |= _range(self._number_starts[at], self._number_starts[at + 1])
        return equal

    def _number_start(self, number: _Number) -> int:
        """Return the first cell that is not below *number*, a point."""
        return self._number_starts[2 * bisect.bisect_left(self._points, number) + 1]

    def _split_order(self, op: Operator, literal: ContextScalar) -> Split | None:
        below_or_equal = op in (Operator.LESS_THAN_OR_EQUAL, Operator.GREATER_THAN)
        below = op in (Operator.LESS_THAN, Operator.LESS_THAN_OR_EQUAL)
        if isinstance(literal, str):
            everything = self._all_texts
            if ("order",) not in self._facets:
                return None
            points = (bisect.bisect_right if below_or_equal else bisect.bisect_left)(
                self._text_points, literal
            )
            first = _range(self._text_start, self._text_start + points) | self._gaps_below(literal)
        else:
            everything = self._all_numbers
            at = 2 * bisect.bisect_left(self._points, literal) + (2 if below_or_equal else 1)
            first = _range(self._number_starts[0], self._number_starts[at])
        return (first, everything ^ first) if below else (everything ^ first, first)

    def _gaps_below(self, cut: str) -> int:
        order = self._facets["order",]
        assert isinstance(order, _OrderFacet)
        masks = self._facet_masks["order",]
        return functools.reduce(operator.or_, masks[: bisect.bisect_left(order.cuts, cut) + 1], 0)

    def _texts_with(self, op: Operator, text: str) -> int | None:
        if not text:
            return self._all_texts
        if op is Operator.CONTAINS:
            masks = self._facet_masks.get(("contains", text))
            return None if masks is None else masks[1]
        if op is Operator.ENDS_WITH:
            facet = self._facets.get(("suffix",))
            if not isinstance(facet, _SuffixFacet):
                return None
            masks = self._facet_masks["suffix",]
            true = 0
            for place, suffix in enumerate(facet.suffixes, 1):
                if suffix.endswith(text):
                    true |= masks[place]
            return true
        if ("order",) not in self._facets:
            return None
        after = _after_prefix(text)
        start = bisect.bisect_left(self._text_points, text)
        end = len(self._text_points) if after is None else bisect.bisect_left(self._text_points, after)
        gaps = _range(self._gap_start, len(self.cells)) if after is None else self._gaps_below(after)
        return _range(self._text_start + start, self._text_start + end) | (gaps & ~self._gaps_below(text))

    def _split_versions(self, op: Operator, literal: str) -> Split | None:
        facet = self._facets.get(("version",))
        version = precedence(literal)
        if not isinstance(facet, _VersionFacet) or version is None:
            return None
        order, here = SEMVER_OPERATORS[op], facet.position(version)
        true = false = 0
        for position, mask in enumerate(self._facet_masks["version",][1:]):
            if order(position, here):
                true |= mask
            else:
                false |= mask
        return true, false

    def _split_instants(self, op: Operator, literal: ContextScalar) -> Split | None:
        facet = self._facets.get(("instant",))
        at = instant(literal)
        if not isinstance(facet, _InstantFacet) or at is None:
            return None
        # after an instant: from the next nanosecond on.
        cut = at if op is Operator.BEFORE else at + 1
        masks = self._facet_masks["instant",]
        places = facet.place(cut - 1) if cut > _FIRST_INSTANT else 0
        first = functools.reduce(operator.or_, masks[1 : places + 1], 0)
        rest = functools.reduce(operator.or_, masks[places + 1 :], 0)
        start = self._number_start(_FIRST_INSTANT // NANOSECONDS)
        middle = self._number_start(Fraction(cut, NANOSECONDS))
        end = self._number_start(_PAST_INSTANTS // NANOSECONDS)
        first |= _range(start, middle)
        rest |= _range(middle, end)
        return (first, rest) if op is Operator.BEFORE else (rest, first)

    def _split_networks(self, literals: tuple[ContextScalar, ...]) -> Split | None:
        facet = self._facets.get(("network",))
        if not literals:
            # No network was asked about, perhaps; addresses are told apart only where one was.
            return None
        if not isinstance(facet, _NetworkFacet):
            return None
        masks = self._facet_masks["network",]
        true = 0
        for literal in literals:
            known = network(str(literal))
            assert known is not None
            for low, high in facet.stretches(known):
                for place in range(facet.place(low), facet.place(high - 1) + 1):
                    true |= masks[place]
        return true, functools.reduce(operator.or_, masks[1:], 0) & ~true

    def lines(self) -> Iterator[list[int]]:
        """Yield what has an order (numbers, versions, instants) as cells from the lowest to the highest."""
        yield [1 << cell for cell in bits(self._all_numbers)]
        for word in ("version", "instant"):
            yield [mask for mask in self._facet_masks.get((word,), [0])[1:] if mask]

    # Values.

    def plain_cells(self) -> list[int]:
        """Return the cells whose values can be shown as JSON, those that are easiest to read first."""
        if self._plain_cells is None:
            cells = [number for number, cell in enumerate(self.cells) if cell.kind in _PLAIN]
            cells.sort(key=lambda number: (_PLAIN[self.cells[number].kind], not self.cells[number].point))
            self._plain_cells = cells
        return self._plain_cells

    def cell_of(self, value: ContextValue | Absent) -> int:
        """Return the cell that a normalised *value* is in."""
        match value:
            case Absent():
                return 0
            case bool():
                return 2 if value else 1
            case str():
                return self._text_cell(value)
            case int() | float():
                return 3 if math.isnan(value) else self._number_cell(value)
            case tuple():
                odd = any(isinstance(element, float) and math.isnan(element) for element in value)
                return 5 if odd else 4
            case _:
                return 6

    def _number_cell(self, number: float) -> int:
        at = bisect.bisect_left(self._points, number)
        position = 2 * at + (at < len(self._points) and self._points[at] == number)
        start, end = self._number_starts[position], self._number_starts[position + 1]
        if not self._has_units:
            assert start < end
            return start
        wanted = unit_text(number) is not None
        return next(i for i in range(start, end) if self.cells[i].unit == wanted)

    def _text_cell(self, text: str) -> int:
        at = bisect.bisect_left(self._text_points, text)
        if at < len(self._text_points) and self._text_points[at] == text:
            return self._text_start + at
        return self._gaps[tuple(facet.of(text) for facet in self._facets.values())]

    def values(self, index: int) -> Iterator[ContextScalar]:
        """Yield some scalars of a cell, plain ones first; none of cells of other kinds."""
        cell = self.cells[index]
        if cell.kind is Kind.TEXT and cell.gap is not None:
            yield from (text for text in self._texts_like(cell.gap) if self._is_in(text, index))
        elif isinstance(cell.value, (bool, int, float, str)):
            yield cell.value
            if cell.kind is Kind.NUMBER and cell.unit and not cell.point:
                integer = int(cell.value)
                for step in range(1, _CANDIDATES):
                    for near in (integer + step, integer - step):
                        if INT64_MIN <= near <= INT64_MAX and self._number_cell(near) == index:
                            yield near

    def _is_in(self, text: str, index: int) -> bool:
        try:
            return self._text_cell(text) == index
        except KeyError:
            # A combination of facets that was taken for impossible would be a defect; it is no example.
            return False

    def _texts_like(self, gap: tuple[int, ...]) -> Iterator[str]:
        facets = dict(zip(self._facets, gap, strict=True))
        for word, place in facets.items():
            if not place:
                continue
            facet = self._facets[word]
            if isinstance(facet, _NetworkFacet):
                yield facet.first(place)
            elif isinstance(facet, _VersionFacet):
                yield from _versions_at(facet, place - 1)
            elif isinstance(facet, _InstantFacet):
                yield _instant_text(facet.starts[place - 1])
        middle = "".join(key[1] for key, value in facets.items() if key[0] == "contains" and value)
        end = ""
        suffix = self._facets.get(("suffix",))
        if isinstance(suffix, _SuffixFacet) and facets["suffix",]:
            end = suffix.suffixes[facets["suffix",] - 1]
        if facets.get(("encodable",)) == 0:
            middle += "\ud800"
        order = self._facets.get(("order",))
        low, high = order.bounds(facets["order",]) if isinstance(order, _OrderFacet) else (None, None)
        starts = [] if low is None else [low, f"{low}-", f"{low}a"]
        starts += ["user-", "other", "", "~"]
        if high:
            starts.append(high[:-1] + chr(max(ord(high[-1]) - 1, 0)))
        for start in starts:
            yield start + middle + end
        for number in range(1, _CANDIDATES):
            for start in starts:
                yield f"{start}{middle}{number}{end}"


def _integers(low: _Number | None, high: _Number | None) -> int | None:
    """Return an integer of 64 bits strictly between, near zero where possible, or None."""
    if low == math.inf or high == -math.inf:
        return None
    first = INT64_MIN if low is None or low == -math.inf else max(math.floor(low) + 1, INT64_MIN)
    last = INT64_MAX if high is None or high == math.inf else min(math.ceil(high) - 1, INT64_MAX)
    return min(max(first, 1), last) if first <= last else None


def _odd_number(low: _Number | None, high: _Number | None) -> float | None:
    """Return a float strictly between that is no unit, or None when there is none."""
    candidates = [0.5, -math.inf, math.inf, 2.0**53, math.nextafter(-(2.0**52), math.inf)]
    if low is not None:
        # The next float, and the one behind it: of two neighbours below 2^52 one is no whole number.
        above = float(low)
        if above <= low:
            above = math.nextafter(above, math.inf)
        candidates = [float(low) + 0.5, *candidates, above, math.nextafter(above, math.inf)]
    if high is not None:
        candidates.insert(0, float(high) - 0.5)
    for candidate in candidates:
        is_inside = (low is None or candidate > low) and (high is None or candidate < high)
        if is_inside and unit_text(candidate) is None:
            return candidate
    return None


def _spellings(number: _Number) -> tuple[int | None, float | None]:
    """Return *number* as a unit and as a number that is none, each None where it cannot be that."""
    integer = None
    if not (isinstance(number, float) and math.isinf(number)) and number == int(number):
        integer = int(number)
    unit = integer if integer is not None and INT64_MIN <= integer <= INT64_MAX else None
    odd = float(number)
    return unit, odd if odd == number and unit_text(odd) is None else None


def _versions_at(facet: _VersionFacet, position: int) -> Iterator[str]:
    at, exact = divmod(position, 2)
    if exact:
        yield from (f"v{facet.texts[at]}", f"{facet.texts[at]}+1")
        return
    near = [facet.versions[i] for i in (at - 1, at) if 0 <= i < len(facet.versions)]
    for numbers, _, _ in near:
        if any(length > 18 for length, _ in numbers):
            continue
        a, b, c = (int(digits) for _, digits in numbers)
        yield from (f"{a}.{b}.{c + 1}", f"{a}.{b + 1}.0", f"{a + 1}.0.0", f"{a}.{b}.{c}")
        if c:
            yield f"{a}.{b}.{c - 1}"
        if b:
            yield f"{a}.{b - 1}.0"
        if a:
            yield f"{a - 1}.0.0"
        yield from (f"{a}.{b}.{c}-0", f"{a}.{b}.{c}-zz")
    yield from (f"{text}.0" for text in facet.texts if "-" in text)


def _instant_text(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, NANOSECONDS)
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)  # noqa: DTZ001 - UTC, and year 1 is in range
    return at.isoformat() + (f".{fraction:09}" if fraction else "") + "Z"


class Buckets:
    """The buckets of one unit, salt and algorithm, cut where percentages and distributions do.

    Cell 0 is that there is no unit. First `ask`, then `build`; then `split` answers. For one thread.
    """

    def __init__(self, attribute: str, salt: str, algorithm: BucketAlgorithm) -> None:
        """Begin with nothing asked."""
        self.attribute = attribute
        self.salt = salt
        self.algorithm = algorithm
        self.stretches: list[tuple[int, int]] = []
        self.full = 1
        self._cuts = {0, BUCKETS}

    def ask(self, *cuts: int) -> None:
        """Prepare for stretches that begin or end at *cuts*."""
        self._cuts.update(min(max(cut, 0), BUCKETS) for cut in cuts)

    def build(self) -> None:
        """Make the cells."""
        step = 10 if self.algorithm is BucketAlgorithm.REPLANE_PYTHON else 1
        self.stretches = [
            (start, end)
            for start, end in itertools.pairwise(sorted(self._cuts))
            # This algorithm gives tens alone.
            if -(-start // step) * step < end
        ]
        self.full = (1 << len(self.stretches) + 1) - 1

    def split(self, start: int, end: int) -> Split:
        """Return where the bucket is in ``[start, end)``, and where it is not."""
        true = 0
        for at, (low, high) in enumerate(self.stretches, 1):
            if start <= low and high <= end:
                true |= 1 << at
        return true, self.full & ~true & ~1

    def cell_of(self, value: ContextValue | Absent) -> int:
        """Return the cell for the normalised value of the attribute."""
        unit = None if isinstance(value, Absent) else unit_text(value)
        if unit is None:
            return 0
        try:
            place = bucket(self.algorithm, self.salt, unit)
        except UnicodeEncodeError:
            return 0
        return bisect.bisect_right(self.stretches, place, key=operator.itemgetter(0))
