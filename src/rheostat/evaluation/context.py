"""The context of an evaluation: layers of attributes, looked up and normalised, never merged."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Mapping
from typing import Final, TypeAlias

from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN, Absent

__all__ = ["Context", "ContextScalar", "ContextValue", "Located", "normalise"]

ContextScalar: TypeAlias = bool | int | float | str
ContextValue: TypeAlias = "ContextScalar | tuple[ContextScalar, ...] | Mapping[object, object]"
"""What an attribute is after normalisation. Floats may be NaN or infinite; ints fit 64 bits."""

Located: TypeAlias = tuple[int, object]
"""The index of the layer that has a path, and what it has there, not normalised."""

# Enough for an Enum whose value is another Enum; a bound, because `value` may be any property.
_ENUM_LEVELS: Final = 4


class Context:
    """The attributes that a value is evaluated for, in layers; the first layer that has a path wins.

    A layer has a path when it has the flat key, or when the walk along the dots reaches a value. A value of
    any kind counts: null, or a type that conditions do not know, hides the further layers and is missing.

    The layers are read at each lookup, not copied. Safe from any thread as long as nobody changes them.
    """

    __slots__ = ("layers",)

    def __init__(self, *layers: Mapping[str, object]) -> None:
        """Take *layers*, the strongest first."""
        self.layers = layers

    @classmethod
    def of(cls, attributes: Context | Mapping[str, object] | None) -> Context:
        """Return *attributes* as a context; None is the empty one.

        Raises:
            TypeError: It is neither a context nor a mapping.
        """
        if isinstance(attributes, Context):
            return attributes
        if attributes is None:
            return cls()
        if isinstance(attributes, Mapping):
            return cls(attributes)
        raise TypeError(f"a context is a mapping of attributes, not {type(attributes).__name__}")

    def locate(self, path: str) -> Located | None:
        """Return where *path* is found and what is there, or None when no layer has it.

        What cannot be read, because a mapping raises, is there and is missing: it locates None.
        """
        for index, layer in enumerate(self.layers):
            try:
                found = _in_layer(layer, path)
            except Exception:  # noqa: BLE001 - mappings are the caller's, and a read never raises
                found = None
            if found is not ABSENT:
                return index, found
        return None

    def lookup(self, path: str) -> ContextValue | Absent:
        """Return the normalised attribute, or ABSENT when it is missing. Never raises."""
        located = self.locate(path)
        return ABSENT if located is None else normalise(located[1])

    def __repr__(self) -> str:
        return f"Context({', '.join(map(repr, self.layers))})"


def _in_layer(layer: Mapping[str, object], path: str) -> object:
    if path in layer:
        return layer[path]
    at: object = layer
    for part in path.split("."):
        if not isinstance(at, Mapping) or part not in at:
            return ABSENT
        at = at[part]
    return at


def normalise(raw: object) -> ContextValue | Absent:
    """Return *raw* as conditions see it, or ABSENT when it counts as missing. Never raises.

    UUID becomes str, an Enum its value, Decimal an int when integral and else a float, dates and datetimes
    RFC 3339 strings (in UTC; a naive datetime is UTC), tuple, set and frozenset lists. A list keeps its
    scalars without its nulls. Missing are None, integers outside 64 bits, lists of anything but scalars, and
    all other types. Mappings are returned as they are.
    """
    try:
        return _normalise(raw)
    except Exception:  # noqa: BLE001 - a property or a subclass of the caller's may raise anything
        return ABSENT


def _normalise(raw: object) -> ContextValue | Absent:
    if raw is ABSENT:
        # An Enum too, whose value is not meant.
        return ABSENT
    for _ in range(_ENUM_LEVELS):
        if not isinstance(raw, enum.Enum):
            break
        raw = raw.value
    match raw:
        case bool():
            return raw
        # Exact copies, so that no operator of a subclass takes part in a comparison.
        case str():
            return str.__str__(raw)
        case int():
            return _fitting(int.__int__(raw))
        case float():
            return float.__float__(raw)
        case uuid.UUID():
            return str(raw)
        case decimal.Decimal():
            return _number(raw)
        case datetime.datetime():
            return _instant_text(raw)
        case datetime.date():
            return raw.isoformat()
        case list() | tuple() | set() | frozenset():
            return _list(raw)
        case Mapping():
            return raw
        case _:
            return ABSENT


def _fitting(number: int) -> int | Absent:
    return number if INT64_MIN <= number <= INT64_MAX else ABSENT


def _number(number: decimal.Decimal) -> ContextScalar | Absent:
    if number.is_nan():
        return math.nan
    if number.is_infinite():
        return float(number)
    if number != number.to_integral_value():
        return float(number)
    # Before int(), which would fill the memory for Decimal("1e999999").
    if not number:
        return 0
    return _fitting(int(number)) if number.adjusted() < len(str(INT64_MAX)) else ABSENT


def _instant_text(instant: datetime.datetime) -> str:
    if instant.utcoffset() is None:
        instant = instant.replace(tzinfo=datetime.UTC)
    return instant.astimezone(datetime.UTC).isoformat().removesuffix("+00:00") + "Z"


def _list(
    raw: list[object] | tuple[object, ...] | set[object] | frozenset[object],
) -> tuple[ContextScalar, ...] | Absent:
    elements: list[ContextScalar] = []
    for element in raw:
        if element is None:
            continue
        if isinstance(element, (list, tuple, set, frozenset, Mapping)):
            return ABSENT
        scalar = _normalise(element)
        if isinstance(scalar, (Absent, tuple, Mapping)):
            return ABSENT
        elements.append(scalar)
    return tuple(elements)
