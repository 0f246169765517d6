"""Values: the JSON-like data that settings hold, frozen.

A value is None, bool, int (within 64 bits, signed), float (finite), str, a tuple of values or a `FrozenMapping`
from str to values. `ABSENT` means "no value at all", which is never the same as None.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from rheostat.errors import TypeMismatchError

__all__ = [
    "ABSENT",
    "INT64_MAX",
    "INT64_MIN",
    "MAX_VALUE_DEPTH",
    "Absent",
    "FrozenMapping",
    "Value",
    "canonical_json",
    "canonical_text",
    "freeze",
    "parse_json",
    "same",
    "thaw",
]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

MAX_VALUE_DEPTH: Final = 30
"""The deepest nesting of lists and mappings in a value.

Parsers of protobuf stop at 100 nested messages. A mapping costs three (value, map, entry), and a variant's value
in the answer of GetRevision is the ninth: 9 + 3 * 30 = 99.
"""


class Absent(enum.Enum):
    """The type of `ABSENT`, an enum so that type checkers narrow on ``is ABSENT``."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        raise TypeError("ABSENT has no truth value; compare with 'is ABSENT'")


ABSENT: Final = Absent.ABSENT
"""No value at all, which is never the same as None; compare with ``is``, as it has no truth value."""


class FrozenMapping(Mapping[str, "Value"]):
    """An immutable, hashable mapping from str to values that keeps the order it was written in.

    Equality is that of values (`same`), so ``{"a": 1}`` and ``{"a": True}`` differ. Safe from any thread.
    """

    __slots__ = ("_hash", "_items")

    def __init__(self, items: Mapping[str, Value] | None = None) -> None:
        """Take over already frozen *items*; use `freeze` for anything else."""
        self._items: dict[str, Value] = dict(items or {})
        self._hash: int | None = None

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMapping):
            return same(self, other)
        if isinstance(other, Mapping):
            return dict(self._items) == dict(other)
        return NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(canonical_json(self))
        return self._hash

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, Value]]]:
        return FrozenMapping, (self._items,)


Scalar: TypeAlias = None | bool | int | float | str
Value: TypeAlias = "Scalar | tuple[Value, ...] | FrozenMapping"


def freeze(raw: object) -> Value:
    """Return *raw* as an immutable value.

    Lists and tuples become tuples, mappings with str keys become `FrozenMapping`.

    Raises:
        TypeMismatchError: NaN, an infinity, an integer outside 64 bits, a lone surrogate, a non-str key, nesting
            deeper than `MAX_VALUE_DEPTH`, or a type that JSON does not know.
    """
    return _freeze(raw, 0)


def _freeze(raw: object, level: int) -> Value:
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        try:
            raw.encode()
        except UnicodeEncodeError:
            raise TypeMismatchError("a string holds a lone surrogate, which UTF-8 cannot carry") from None
        return raw
    if isinstance(raw, int):
        if not INT64_MIN <= raw <= INT64_MAX:
            raise TypeMismatchError(f"the integer {_short(raw)} does not fit 64 bits")
        return int(raw)
    if isinstance(raw, float):
        if not math.isfinite(raw):
            raise TypeMismatchError(f"{raw} is not a finite number")
        return float(raw)
    if isinstance(raw, (list, tuple, Mapping)) and level >= MAX_VALUE_DEPTH:
        raise TypeMismatchError(f"a value nests more than {MAX_VALUE_DEPTH} levels")
    if isinstance(raw, (list, tuple)):
        return tuple(_freeze(element, level + 1) for element in raw)
    if isinstance(raw, Mapping):
        items: dict[str, Value] = {}
        for key, element in raw.items():
            if not isinstance(key, str):
                raise TypeMismatchError(f"the key {key!r} of a mapping is not a string")
            _freeze(key, level)
            items[key] = _freeze(element, level + 1)
        return FrozenMapping(items)
    raise TypeMismatchError(f"a value of type {type(raw).__name__} is not JSON")


def thaw(value: Value) -> Any:
    """Return *value* as fresh, mutable JSON data (lists and dicts), which the caller may change."""
    if isinstance(value, tuple):
        return [thaw(element) for element in value]
    if isinstance(value, FrozenMapping):
        return {key: thaw(element) for key, element in value.items()}
    return value


def same(left: Value, right: Value) -> bool:
    """Tell whether two values are equal as configuration: ``1``, ``1.0`` and ``True`` all differ.

    The order of a mapping's keys does not count.
    """
    if isinstance(left, tuple):
        return (
            isinstance(right, tuple)
            and len(left) == len(right)
            and all(same(a, b) for a, b in zip(left, right, strict=True))
        )
    if isinstance(left, FrozenMapping):
        return (
            isinstance(right, FrozenMapping)
            and left.keys() == right.keys()
            and all(same(element, right[key]) for key, element in left.items())
        )
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and left == 0:
        # -0.0 and 0.0 have different text forms.
        return str(left) == str(right)
    return left == right


def canonical_json(value: Value) -> str:
    """Return the canonical JSON text: keys sorted, no spaces, non-ASCII as it is.

    Equal values (`same`) have equal texts and others different ones.
    """
    return canonical_text(thaw(value))


def canonical_text(data: object) -> str:
    """Return the canonical JSON text of mutable JSON *data*, which may nest deeper than a value."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parse_json(text: str | bytes) -> Value:
    """Return the value that a JSON *text* holds.

    Raises:
        TypeMismatchError: The text is not JSON, repeats a key, or holds a number outside the range of values.
    """
    try:
        return freeze(json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as exc:
        raise TypeMismatchError(f"not JSON: {exc}") from None


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice")
            seen.add(key)
    return result


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not a finite number")


def _short(number: int) -> str:
    # str() of a huge integer is slow, and refused beyond 4300 digits.
    return str(number) if abs(number) < 10**30 else f"of {number.bit_length()} bits"
