"""Which codec a Python type has."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import json
import types
import typing
from typing import Any, Final, TypeVar, overload

from rheostat.errors import InvalidSettingError, InvalidTypeError, TypeMismatchError
from rheostat.model.type import (
    EnumType,
    FlagsType,
    JsonType,
    MappingType,
    PrimitiveType,
    SequenceType,
    SettingType,
    parse_type,
)
from rheostat.model.value import freeze
from rheostat.sdk.codec.base import Codec
from rheostat.sdk.codec.collection import DictCodec, ListCodec, MappingCodec, OptionalCodec, SequenceCodec
from rheostat.sdk.codec.option import EnumCodec, FlagCodec, FlagsCodec, LiteralCodec
from rheostat.sdk.codec.scalar import BoolCodec, FloatCodec, IntCodec, JsonCodec, StrCodec
from rheostat.sdk.codec.structure import DataclassCodec, Field, TypedDictCodec

__all__ = ["codec_for"]

T = TypeVar("T")

_SUPPORTED: Final = (
    "use bool, int, float, str, a subclass of Enum or Flag, Literal[...], Sequence[T], list[T], tuple[T, ...], "
    "Mapping[str, T], dict[str, T], a TypedDict, a dataclass, T | None, Any, or the text of a type such as "
    """'Enum["a","b"]'"""
)
_PRIMITIVES: Final[dict[object, Codec[Any]]] = {
    bool: BoolCodec(),
    int: IntCodec(),
    float: FloatCodec(),
    str: StrCodec(),
}
_BY_NAME: Final = {str(codec.type): codec for codec in _PRIMITIVES.values()}
_LISTS: Final = (list, collections.abc.MutableSequence)
_SEQUENCES: Final = (tuple, collections.abc.Sequence)
_DICTS: Final = (dict, collections.abc.MutableMapping)
_MAPPINGS: Final = (collections.abc.Mapping,)


@overload
def codec_for(python_type: type[T]) -> Codec[T]: ...


@overload
def codec_for(python_type: object) -> Codec[Any]: ...


def codec_for(python_type: object) -> Codec[Any]:
    """Return the codec of a Python type, of a type's text, or of a type of the model.

    Sequence, tuple and Mapping are handed out as immutable objects, list and dict as fresh ones. A type and its
    text give the model's values as they are.

    Raises:
        InvalidSettingError: There is none; the message names the type and what is supported.
    """
    codec = _codec(python_type, ())
    try:
        # How deep types may nest, and what options may be, is known there.
        parse_type(str(codec.type))
    except InvalidTypeError as exc:
        raise InvalidTypeError(f"the type {_name(python_type)} cannot be used: {exc.message}") from None
    return codec


def _codec(given: object, within: tuple[object, ...]) -> Codec[Any]:
    if isinstance(given, str):
        return _codec_of(parse_type(given))
    if isinstance(given, (PrimitiveType, EnumType, FlagsType, SequenceType, MappingType, JsonType)):
        return _codec_of(given)
    given = _unwrapped(given)
    if given is Any or given is object:
        return JsonCodec(JsonType())
    if isinstance(given, type) and given in _PRIMITIVES:
        return _PRIMITIVES[given]
    origin = typing.get_origin(given)
    arguments = typing.get_args(given)
    if origin is typing.Literal:
        return LiteralCodec(_enum_type(given, arguments))
    if origin is typing.Union or origin is types.UnionType:
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) == 1 and len(arguments) == 2:
            return OptionalCodec(_codec(others[0], within))
        raise _unsupported(given, "of a union only T | None is")
    if isinstance(given, type) and origin is None:
        if issubclass(given, enum.Flag):
            return _flag_codec(given)
        if issubclass(given, enum.Enum):
            if not list(given):
                raise _unsupported(given, "it has no members")
            return EnumCodec(given, _enum_type(given, [member.value for member in given]))
        if _is_typed_dict(given) or dataclasses.is_dataclass(given):
            if given in within:
                raise _unsupported(given, "it contains itself; use Any where it does")
            return _structure_codec(given, (*within, given))
    return _collection_codec(given, origin if origin is not None else given, arguments, within)


def _codec_of(type_: SettingType) -> Codec[Any]:
    match type_:
        case PrimitiveType(name):
            return _BY_NAME[name]
        case EnumType():
            return LiteralCodec(type_)
        case FlagsType():
            return FlagsCodec(type_)
        case SequenceType(element):
            return SequenceCodec(_codec_of(element))
        case MappingType(element):
            return MappingCodec(_codec_of(element))
        case JsonType():
            return JsonCodec(type_)


def _unwrapped(given: object) -> object:
    """Return what stands behind Annotated, NewType and type aliases."""
    while True:
        if typing.get_origin(given) is typing.Annotated:
            given = typing.get_args(given)[0]
        elif isinstance(given, typing.NewType):
            given = given.__supertype__
        elif type(given).__name__ == "TypeAliasType":
            given = given.__value__  # type: ignore[attr-defined]  # of Python 3.12
        else:
            return given


def _collection_codec(
    given: object, origin: object, arguments: tuple[object, ...], within: tuple[object, ...]
) -> Codec[Any]:
    if origin in _DICTS or origin in _MAPPINGS:
        key, element = arguments if len(arguments) == 2 else (str, Any)
        if _unwrapped(key) is not str:
            raise _unsupported(given, "the keys of a mapping are str")
        inner = _codec(element, within)
        return DictCodec(inner) if origin in _DICTS else MappingCodec(inner)
    if origin is tuple and given is not tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        raise _unsupported(given, "of a tuple only tuple[T, ...] is")
    if origin in _LISTS or origin in _SEQUENCES:
        inner = _codec(arguments[0] if arguments else Any, within)
        return ListCodec(inner) if origin in _LISTS else SequenceCodec(inner)
    raise _unsupported(given)


def _enum_type(given: object, options: typing.Iterable[object]) -> EnumType:
    return EnumType(_options(given, options, "Enum"))


def _options(given: object, options: typing.Iterable[object], word: str) -> tuple[Any, ...]:
    plain: list[object] = []
    for option in options:
        if isinstance(option, enum.Enum) or not isinstance(option, (bool, int, float, str)):
            raise _unsupported(given, f"its option {option!r} is not a bool, int, float or str")
        try:
            plain.append(freeze(option))
        except TypeMismatchError as exc:
            raise _unsupported(given, exc.message) from None
    try:
        parsed = parse_type(f"{word}{json.dumps(plain)}")
    except InvalidTypeError as exc:
        raise _unsupported(given, exc.message) from None
    assert isinstance(parsed, (EnumType, FlagsType))
    return parsed.options


def _flag_codec(given: type[enum.Flag]) -> Codec[Any]:
    # Iterating gives the members of a single bit; combinations and other names for them are no options.
    names = [member.name for member in given]
    if not names:
        raise _unsupported(given, "it has no members")
    return FlagCodec(given, FlagsType(_options(given, names, "Flags")))


def _is_typed_dict(given: type) -> bool:
    # Also those of typing_extensions, which typing.is_typeddict does not know.
    return issubclass(given, dict) and hasattr(given, "__required_keys__") and hasattr(given, "__total__")


def _structure_codec(given: type, within: tuple[object, ...]) -> Codec[Any]:
    try:
        hints = typing.get_type_hints(given, include_extras=True)
    except Exception as exc:  # noqa: BLE001 - evaluating annotations may raise anything
        raise _unsupported(
            given, f"its annotations cannot be resolved ({exc}); define what they name at the top of a module"
        ) from None
    if not dataclasses.is_dataclass(given):
        required_keys: frozenset[str] = given.__required_keys__  # type: ignore[attr-defined]  # a TypedDict
        entries = {}
        for name, hint in hints.items():
            bare, required = _without_markers(hint, name in required_keys)
            entries[name] = Field(_field_codec(given, name, bare, within), required)
        return TypedDictCodec(given, entries)
    if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
        raise _unsupported(given, "a field of it is an InitVar, which its objects do not keep")
    fields = {
        field.name: Field(
            _field_codec(given, field.name, hints[field.name], within),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(given)
        if field.init
    }
    frozen: bool = given.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return DataclassCodec(given, fields, frozen=frozen)


def _field_codec(given: type, name: str, hint: object, within: tuple[object, ...]) -> Codec[Any]:
    try:
        return _codec(hint, within)
    except InvalidSettingError as exc:
        raise InvalidSettingError(f"in {given.__qualname__}, field {name!r}: {exc.message}") from None


def _without_markers(hint: object, required: bool) -> tuple[object, bool]:
    """Return a key's type without Required and NotRequired, and whether the key is required.

    Where annotations are texts, ``__required_keys__`` does not know of these markers.
    """
    while True:
        origin = typing.get_origin(hint)
        if origin is typing.Required or origin is typing.NotRequired:
            required = origin is typing.Required
        elif origin is not typing.Annotated and getattr(origin, "_name", "") != "ReadOnly":
            return hint, required
        hint = typing.get_args(hint)[0]


def _name(given: object) -> str:
    return given.__qualname__ if isinstance(given, type) and typing.get_origin(given) is None else str(given)


def _unsupported(given: object, why: str = "") -> InvalidSettingError:
    reason = f" ({why})" if why else ""
    return InvalidSettingError(f"the type {_name(given)} is not supported{reason}: {_SUPPORTED}")
