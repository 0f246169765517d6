"""Codecs of dataclasses and TypedDicts: Json objects under a schema derived from the fields.

The schema has neither the defaults nor the order of fields, so that changing those does not change the type. It
allows no other fields: an operator's misspelt field is an error at once. What a newer schema added is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from rheostat.model.type import JsonType
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value, canonical_text
from rheostat.sdk.codec.base import Codec, Coercion, Misfit, refuse, shown, under

__all__ = ["DataclassCodec", "Field", "TypedDictCodec"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure.

    Attributes:
        codec: Of its type.
        required: It has no default and may not be missing.
    """

    codec: Codec[Any]
    required: bool


class _StructureCodec(Codec[T]):
    def __init__(self, cls: type[T], fields: Mapping[str, Field]) -> None:
        self._class = cls
        self._fields = fields
        self._required = tuple(name for name, field in fields.items() if field.required)
        self.type = JsonType(canonical_text(self.schema()))

    def _step(self, name: str) -> str:
        return f"[{name!r}]"

    def _encoded(self, present: Mapping[str, object]) -> Value:
        items: dict[str, Value] = {}
        for name, held in present.items():
            try:
                items[name] = self._fields[name].codec.to_value(held)
            except Misfit as exc:
                raise exc.under(self._step(name)) from None
        return FrozenMapping(items)

    def _fields_of(self, value: Value) -> dict[str, Any]:
        return {
            name: self._fields[name].codec.decode(item) for name, item in cast("FrozenMapping", value).items()
        }

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        if not isinstance(value, FrozenMapping):
            return refuse(value, self._class.__qualname__, found)
        for name in self._required:
            if name not in value:
                found.append(Coercion("", value, f"the field {name!r} is missing"))
                return ABSENT
        first = len(found)
        kept: dict[str, Value] | None = None
        for name, item in value.items():
            start = len(found)
            field = self._fields.get(name)
            if field is None:
                known = ", ".join(self._fields) or "none"
                found.append(Coercion("", item, f"there is no such field; the fields are {known}"))
                mended: Value | Absent = ABSENT
            else:
                mended = field.codec.mend(item, found)
            if len(found) != start:
                under(found, start, self._step(name))
            if mended is item:
                continue
            if mended is ABSENT and field is not None and field.required:
                reason = str(found[-1])
                # The whole goes, and its parts with it.
                del found[first:]
                found.append(Coercion("", value, f"the field {name!r} cannot be used: {reason}"))
                return ABSENT
            if kept is None:
                kept = dict(value)
            if mended is ABSENT:
                del kept[name]
            else:
                kept[name] = mended
        return value if kept is None else FrozenMapping(kept)

    def schema(self) -> Any:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: field.codec.schema() for name, field in self._fields.items()},
            "additionalProperties": False,
        }
        if self._required:
            schema["required"] = sorted(self._required)
        return schema


class DataclassCodec(_StructureCodec[T]):
    """Codec of a dataclass; optional fields are those with a default."""

    def __init__(self, cls: type[T], fields: Mapping[str, Field], *, frozen: bool) -> None:
        super().__init__(cls, fields)
        self.immutable = frozen and all(field.codec.immutable for field in fields.values())

    def _step(self, name: str) -> str:
        return f".{name}"

    def decode(self, value: Value) -> T:
        """See `Codec.decode`."""
        return self._class(**self._fields_of(value))

    def copy(self, value: T) -> T:
        """See `Codec.copy`."""
        return value if self.immutable else copy.deepcopy(value)

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if not isinstance(value, self._class):
            raise Misfit(f"{shown(value)} is no {self._class.__qualname__}")
        return self._encoded({name: getattr(value, name) for name in self._fields})

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        start = len(found)
        mended = super().mend(value, found)
        if mended is not ABSENT:
            try:
                # What the class itself refuses is to spoil no more than one element of a list.
                self.decode(mended)
            except Exception as exc:  # noqa: BLE001 - __post_init__ may raise anything
                del found[start:]
                reason = f"{self._class.__qualname__} refuses it: {exc or type(exc).__name__}"
                found.append(Coercion("", value, reason))
                return ABSENT
        return mended


class TypedDictCodec(_StructureCodec[T]):
    """Codec of a TypedDict, handed out as fresh dicts."""

    immutable = False

    def decode(self, value: Value) -> T:
        """See `Codec.decode`."""
        return cast("T", self._fields_of(value))

    def copy(self, value: T) -> T:
        """See `Codec.copy`."""
        held = cast("Mapping[str, Any]", value)
        return cast("T", {name: self._fields[name].codec.copy(item) for name, item in held.items()})

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if not isinstance(value, Mapping):
            raise Misfit(f"{shown(value)} is no {self._class.__qualname__}")
        for name in value:
            if name not in self._fields:
                raise Misfit(f"{name!r} is no key of {self._class.__qualname__}")
        for name in self._required:
            if name not in value:
                raise Misfit(f"the key {name!r} is missing")
        return self._encoded(value)
