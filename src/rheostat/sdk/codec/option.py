"""Codecs of types with options: Enum, Flag and Literal."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, cast

from rheostat.model.type import EnumType, FlagsType, SettingType
from rheostat.model.value import Absent, Value, thaw
from rheostat.sdk.codec.base import Codec, Coercion, IdentityCodec, Misfit, misfit, refuse, shown

__all__ = ["EnumCodec", "FlagCodec", "FlagsCodec", "LiteralCodec"]

E = TypeVar("E", bound=enum.Enum)
F = TypeVar("F", bound=enum.Flag)
T = TypeVar("T")


class _Options(Generic[T]):
    """What stands for each option; looks them up as `same` compares, but with 1 equal to 1.0."""

    def __init__(self, pairs: Iterable[tuple[Value, T]]) -> None:
        # In Python 1 equals True, and both would be one key.
        self._found = {(isinstance(option, bool), option): held for option, held in pairs}

    def get(self, value: object) -> T | None:
        # Tuples and mappings hash, but are slow to; whatever else comes may not hash at all.
        if not isinstance(value, (str, int, float)):
            return None
        return self._found.get((isinstance(value, bool), value))


class LiteralCodec(IdentityCodec[Any]):
    """Codec of an Enum type whose options are handed out as they are."""

    def __init__(self, type_: EnumType) -> None:
        self.type: SettingType = type_
        self._options: _Options[tuple[Value]] = _Options((option, (option,)) for option in type_.options)
        self._schema = {"enum": [thaw(option) for option in type_.options]}

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        held = self._options.get(value)
        if held is None:
            raise misfit(value, self.type)
        return held[0]

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        held = self._options.get(value)
        if held is None:
            return refuse(value, self.type, found)
        option = held[0]
        # 1.0 is the option 1, and -0.0 the option 0.0.
        if type(option) is not type(value) or (isinstance(value, float) and str(option) != str(value)):
            return option
        return value

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return dict(self._schema)


class EnumCodec(Codec[E]):
    """Codec of an Enum class; the wire has the members' values."""

    def __init__(self, enum_class: type[E], type_: EnumType) -> None:
        self.type: SettingType = type_
        self._class = enum_class
        self._members = _Options((member.value, member) for member in enum_class)
        self._options = LiteralCodec(type_)

    def decode(self, value: Value) -> E:
        """See `Codec.decode`."""
        member = self._members.get(value)
        if member is None:
            raise ValueError(f"{value!r} is not of type {self.type}")
        return member

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if isinstance(value, self._class):
            return self._options.to_value(value.value)
        member = self._members.get(value)
        hint = "" if member is None else f": write {member}"
        raise Misfit(f"{shown(value)} is no member of {self._class.__qualname__}{hint}")

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        return self._options.mend(value, found)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return self._options.schema()


class FlagsCodec(IdentityCodec[Any]):
    """Codec of a Flags type whose lists of options are handed out as tuples."""

    def __init__(self, type_: FlagsType) -> None:
        self.type: SettingType = type_
        self._option = LiteralCodec(EnumType(type_.options))

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if not isinstance(value, (list, tuple)):
            raise misfit(value, self.type)
        flags: list[Value] = []
        for i, item in enumerate(value):
            try:
                flag = self._option.to_value(item)
            except Misfit as exc:
                raise exc.under(f"[{i}]") from None
            if _key(flag) in map(_key, flags):
                raise Misfit(f"{shown(item)} stands twice").under(f"[{i}]")
            flags.append(flag)
        return tuple(flags)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        if not isinstance(value, tuple):
            return refuse(value, self.type, found)
        kept: dict[tuple[bool, object], Value] = {}
        changed = False
        for i, item in enumerate(value):
            start = len(found)
            flag = self._option.mend(item, found)
            if isinstance(flag, Absent):
                del found[start:]
                found.append(Coercion(f"[{i}]", item, f"{shown(item)} is no flag of {self.type}"))
                changed = True
            elif _key(flag) in kept:
                found.append(Coercion(f"[{i}]", item, f"{shown(item)} stands twice"))
                changed = True
            else:
                kept[_key(flag)] = flag
                changed = changed or flag is not item
        return tuple(kept.values()) if changed else value

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "array", "items": self._option.schema(), "uniqueItems": True}


class FlagCodec(Codec[F]):
    """Codec of a Flag class; the wire has the names of its single-bit members, in the order of the type."""

    def __init__(self, flag_class: type[F], type_: FlagsType) -> None:
        self.type: SettingType = type_
        self._class = flag_class
        self._flags = FlagsCodec(type_)
        self._members: dict[str, F] = {
            cast("str", name): flag_class[cast("str", name)] for name in type_.options
        }
        self._mask: int = functools.reduce(operator.or_, (m.value for m in self._members.values()))

    def decode(self, value: Value) -> F:
        """See `Codec.decode`."""
        names = cast("tuple[str, ...]", value)
        return functools.reduce(operator.or_, (self._members[name] for name in names), self._class(0))

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if not isinstance(value, self._class):
            raise Misfit(f"{shown(value)} is no {self._class.__qualname__}")
        bits: int = value.value
        if bits & ~self._mask:
            raise Misfit(f"{shown(value)} has bits that no member of {self._class.__qualname__} has")
        return tuple(name for name, member in self._members.items() if bits & member.value)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        return self._flags.mend(value, found)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return self._flags.schema()


def _key(value: object) -> tuple[bool, object]:
    return isinstance(value, bool), value
