"""The types of settings: what values are legal, how they are normalised, which type is narrower.

The canonical text form has options sorted by their JSON text and no spaces: ``bool``, ``int``, ``float``,
``str``, ``Enum["a","b"]``, ``Flags["a","b"]``, ``Sequence<int>``, ``Mapping<float>``, ``Json`` and
``Json[{"type":"object"}]``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from rheostat.errors import InvalidTypeError, TypeMismatchError
from rheostat.model.value import (
    ABSENT,
    INT64_MAX,
    INT64_MIN,
    FrozenMapping,
    Value,
    canonical_json,
    freeze,
    parse_json,
)

__all__ = [
    "BOOL",
    "FLOAT",
    "INT",
    "JSON",
    "STR",
    "EnumType",
    "FlagsType",
    "JsonType",
    "MappingType",
    "PrimitiveType",
    "SequenceType",
    "SettingType",
    "is_subtype",
    "normalise",
    "parse_type",
]

MAX_TYPE_DEPTH: Final = 16
"""The deepest nesting of Sequence and Mapping."""


@dataclass(frozen=True, slots=True)
class PrimitiveType:
    """``bool``, ``int``, ``float`` or ``str``."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class EnumType:
    """One of the options, which are JSON primitives other than null.

    Attributes:
        options: Without repeats, sorted by their canonical JSON text.
        by_key: The options by what makes them equal, as there may be very many.
    """

    options: tuple[Value, ...]
    by_key: Mapping[Hashable, Value] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_key", _by_key(self.options))

    def __str__(self) -> str:
        return f"Enum[{','.join(canonical_json(option) for option in self.options)}]"


@dataclass(frozen=True, slots=True)
class FlagsType:
    """A list of options without repeats.

    Attributes:
        options: Without repeats, sorted by their canonical JSON text.
        by_key: As in `EnumType`.
    """

    options: tuple[Value, ...]
    by_key: Mapping[Hashable, Value] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_key", _by_key(self.options))

    def __str__(self) -> str:
        return f"Flags[{','.join(canonical_json(option) for option in self.options)}]"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list whose elements are all of one type."""

    element: SettingType

    def __str__(self) -> str:
        return f"Sequence<{self.element}>"


@dataclass(frozen=True, slots=True)
class MappingType:
    """A mapping from str whose values are all of one type."""

    element: SettingType

    def __str__(self) -> str:
        return f"Mapping<{self.element}>"


@dataclass(frozen=True, slots=True)
class JsonType:
    """Any JSON, null included, optionally under a JSON Schema (2020-12 unless it says otherwise).

    Attributes:
        schema: The schema's canonical JSON text, or None.
    """

    schema: str | None = None

    def __str__(self) -> str:
        return "Json" if self.schema is None else f"Json[{self.schema}]"


SettingType: TypeAlias = "PrimitiveType | EnumType | FlagsType | SequenceType | MappingType | JsonType"

BOOL: Final = PrimitiveType("bool")
INT: Final = PrimitiveType("int")
FLOAT: Final = PrimitiveType("float")
STR: Final = PrimitiveType("str")
JSON: Final = JsonType()

_PRIMITIVES: Final = {"bool": BOOL, "int": INT, "float": FLOAT, "str": STR}


def parse_type(text: str) -> SettingType:
    """Return the type that *text* names; spaces between its parts are allowed.

    Raises:
        InvalidTypeError: The text is no type; the message says at which character and why.
    """
    parsed, end = _parse_at(text, 0, 0)
    end = _skip_space(text, end)
    if end != len(text):
        raise InvalidTypeError(f"the type {_quoted(text)} goes on after its end, at character {end + 1}")
    return parsed


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _parse_at(text: str, at: int, level: int) -> tuple[SettingType, int]:
    if level > MAX_TYPE_DEPTH:
        raise InvalidTypeError(f"a type nests more than {MAX_TYPE_DEPTH} levels")
    start = at = _skip_space(text, at)
    while at < len(text) and text[at].isalpha():
        at += 1
    word = text[start:at]
    at = _skip_space(text, at)
    if word in _PRIMITIVES:
        return _PRIMITIVES[word], at
    if word in ("Enum", "Flags"):
        options, at = _parse_bracketed_json(text, at, word)
        return (EnumType if word == "Enum" else FlagsType)(_options(options, word)), at
    if word in ("Sequence", "Mapping"):
        if text[at : at + 1] != "<":
            raise InvalidTypeError(f"expected '<' after {word} at character {at + 1} of {_quoted(text)}")
        element, at = _parse_at(text, at + 1, level + 1)
        at = _skip_space(text, at)
        if text[at : at + 1] != ">":
            raise InvalidTypeError(f"expected '>' at character {at + 1} of {_quoted(text)}")
        return (SequenceType if word == "Sequence" else MappingType)(element), at + 1
    if word == "Json":
        if text[at : at + 1] != "[":
            return JSON, at
        schema, at = _parse_json_at(text, at + 1)
        at = _skip_space(text, at)
        if text[at : at + 1] != "]":
            raise InvalidTypeError(f"expected ']' at character {at + 1} of {_quoted(text)}")
        frozen = _frozen(schema, text)
        if not isinstance(frozen, (FrozenMapping, bool)):
            raise InvalidTypeError("the schema of a Json type is not an object or a bool")
        return JsonType(canonical_json(frozen)), at + 1
    raise InvalidTypeError(
        f"unknown type {_quoted(word or text)}: expected bool, int, float, str, Enum[...], Flags[...], "
        "Sequence<...>, Mapping<...>, Json or Json[schema]"
    )


def _parse_json_at(text: str, at: int) -> tuple[Any, int]:
    at = _skip_space(text, at)
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError) as exc:
        raise InvalidTypeError(f"expected JSON at character {at + 1} of {_quoted(text)}: {exc}") from None


def _parse_bracketed_json(text: str, at: int, word: str) -> tuple[list[Any], int]:
    if text[at : at + 1] != "[":
        raise InvalidTypeError(f"expected '[' after {word} at character {at + 1} of {_quoted(text)}")
    raw, at = _parse_json_at(text, at)
    return raw, at


def _frozen(raw: object, text: str) -> Value:
    try:
        return freeze(raw)
    except TypeMismatchError as exc:
        raise InvalidTypeError(f"in the type {_quoted(text)}: {exc}") from None


def _options(raw: list[Any], word: str) -> tuple[Value, ...]:
    if not raw:
        raise InvalidTypeError(f"{word} needs at least one option")
    by_text: dict[str, Value] = {}
    keys: set[Hashable] = set()
    for option in raw:
        frozen = _frozen(option, word)
        if frozen is None or isinstance(frozen, (tuple, FrozenMapping)):
            raise InvalidTypeError(f"{word} options are bools, numbers and strings, not {json.dumps(option)}")
        text, key = canonical_json(frozen), _option_key(frozen)
        if key in keys:
            raise InvalidTypeError(f"{word} has the option {text} twice")
        keys.add(key)
        by_text[text] = frozen
    return tuple(by_text[key] for key in sorted(by_text))


def _option_key(value: Value) -> Hashable:
    """Return what is equal for equal options: 1 and 1.0 are, true is not."""
    return isinstance(value, bool), value


def _by_key(options: Iterable[Value]) -> dict[Hashable, Value]:
    return {_option_key(option): option for option in options}


def normalise(type_: SettingType, value: Value) -> Value:
    """Return *value* in the form that *type_* stores: float for float, int for an integral int, recursively.

    Raises:
        TypeMismatchError: The value is not legal for the type; the message names the place inside it.
    """
    return _normalise(type_, value, "")


def _mismatch(type_: SettingType, value: Value, place: str) -> TypeMismatchError:
    shown = canonical_json(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    where = f" at {place}" if place else ""
    return TypeMismatchError(f"{shown}{where} is not of type {type_}")


def _normalise(type_: SettingType, value: Value, place: str) -> Value:
    match type_:
        case PrimitiveType(name):
            return _normalise_primitive(type_, name, value, place)
        case EnumType():
            return _option(type_, value, place)
        case FlagsType():
            if not isinstance(value, tuple):
                raise _mismatch(type_, value, place)
            flags = tuple(_option(type_, element, f"{place}[{i}]") for i, element in enumerate(value))
            if len({canonical_json(flag) for flag in flags}) != len(flags):
                raise TypeMismatchError(f"{canonical_json(value)} repeats a flag of {type_}")
            return flags
        case SequenceType(element):
            if not isinstance(value, tuple):
                raise _mismatch(type_, value, place)
            return tuple(_normalise(element, item, f"{place}[{i}]") for i, item in enumerate(value))
        case MappingType(element):
            if not isinstance(value, FrozenMapping):
                raise _mismatch(type_, value, place)
            return FrozenMapping(
                {key: _normalise(element, item, f"{place}.{key}") for key, item in value.items()}
            )
        case JsonType():
            return value


def _normalise_primitive(type_: SettingType, name: str, value: Value, place: str) -> Value:
    match name, value:
        case "bool", bool():
            return value
        case "str", str():
            return value
        case "int" | "float", bool():
            pass
        case "int", int():
            return value
        case "int", float() if value.is_integer() and INT64_MIN <= value <= INT64_MAX:
            # float(INT64_MAX) rounds up to 2**63, which no longer fits.
            if int(value) <= INT64_MAX:
                return int(value)
        case "float", int():
            return float(value)
        case "float", float() if math.isfinite(value):
            return value
        case _:
            pass
    raise _mismatch(type_, value, place)


def _option(type_: EnumType | FlagsType, value: Value, place: str) -> Value:
    option = type_.by_key.get(_option_key(value), ABSENT)
    if option is ABSENT:
        raise _mismatch(type_, value, place)
    return option


def is_subtype(narrow: SettingType, wide: SettingType) -> bool:
    """Tell whether every value of *narrow* is valid for *wide*; a type is its own subtype."""
    if narrow == wide and str(narrow) == str(wide):
        return True
    match narrow, wide:
        case PrimitiveType("int"), PrimitiveType("float"):
            return True
        case (EnumType(by_key=few), EnumType(by_key=many)) | (FlagsType(by_key=few), FlagsType(by_key=many)):
            return few.keys() <= many.keys()
        case (SequenceType(a), SequenceType(b)) | (MappingType(a), MappingType(b)):
            return is_subtype(a, b)
        case JsonType(), JsonType(None):
            return True
        case _:
            return False


def schema_of(type_: JsonType) -> Value:
    """Return the schema of a Json type as a value, or None when it has none."""
    return None if type_.schema is None else parse_json(type_.schema)
