"""Codecs of sequences, mappings, and of what may be None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from rheostat.model.type import JsonType, MappingType, SequenceType
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value, canonical_text
from rheostat.sdk.codec.base import Codec, Coercion, Misfit, misfit, refuse, under
from rheostat.sdk.codec.scalar import frozen

__all__ = ["DictCodec", "ListCodec", "MappingCodec", "OptionalCodec", "SequenceCodec"]

T = TypeVar("T")


class SequenceCodec(Codec[Sequence[T]]):
    """Codec of sequences, handed out as tuples."""

    def __init__(self, element: Codec[T]) -> None:
        self.type = SequenceType(element.type)
        self.identity = element.identity
        self.immutable = element.immutable
        self._element = element

    def decode(self, value: Value) -> Sequence[T]:
        """See `Codec.decode`."""
        if self.identity:
            return cast("tuple[T, ...]", value)
        decode = self._element.decode
        return tuple([decode(item) for item in cast("tuple[Value, ...]", value)])

    def copy(self, value: Sequence[T]) -> Sequence[T]:
        """See `Codec.copy`."""
        return value if self.immutable else tuple([self._element.copy(item) for item in value])

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray, memoryview)):
            raise misfit(value, self.type)
        items: list[Value] = []
        for i, item in enumerate(value):
            try:
                items.append(self._element.to_value(item))
            except Misfit as exc:
                raise exc.under(f"[{i}]") from None
        return tuple(items)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        if not isinstance(value, tuple):
            return refuse(value, self.type, found)
        mend = self._element.mend
        kept: list[Value] | None = None
        for i, item in enumerate(value):
            start = len(found)
            mended = mend(item, found)
            if len(found) != start:
                under(found, start, f"[{i}]")
            if kept is None:
                if mended is item:
                    continue
                kept = list(value[:i])
            if mended is not ABSENT:
                kept.append(mended)
        return value if kept is None else tuple(kept)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "array", "items": self._element.schema()}


class ListCodec(SequenceCodec[T]):
    """Codec of lists, which are handed out fresh, as their reader may change them."""

    def __init__(self, element: Codec[T]) -> None:
        super().__init__(element)
        self.identity = self.immutable = False

    def decode(self, value: Value) -> list[T]:
        """See `Codec.decode`."""
        return list(super().decode(value))

    def copy(self, value: Sequence[T]) -> list[T]:
        """See `Codec.copy`."""
        return [self._element.copy(item) for item in value]


class MappingCodec(Codec[Mapping[str, T]]):
    """Codec of mappings from str, handed out as frozen mappings."""

    def __init__(self, element: Codec[T]) -> None:
        self.type = MappingType(element.type)
        self.identity = element.identity
        self.immutable = element.immutable
        self._element = element

    def decode(self, value: Value) -> Mapping[str, T]:
        """See `Codec.decode`."""
        if self.identity:
            return cast("Mapping[str, T]", value)
        return cast("Mapping[str, T]", FrozenMapping(cast("Any", self._decoded(value))))

    def copy(self, value: Mapping[str, T]) -> Mapping[str, T]:
        """See `Codec.copy`."""
        return (
            value
            if self.immutable
            else cast("Mapping[str, T]", FrozenMapping(cast("Any", self._copied(value))))
        )

    def _decoded(self, value: Value) -> dict[str, T]:
        decode = self._element.decode
        return {key: decode(item) for key, item in cast("FrozenMapping", value).items()}

    def _copied(self, value: Mapping[str, T]) -> dict[str, T]:
        return {key: self._element.copy(item) for key, item in value.items()}

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        if not isinstance(value, Mapping):
            raise misfit(value, self.type)
        items: dict[str, Value] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise Misfit(f"the key {key!r} is not a str")
            frozen(key)
            try:
                items[str.__str__(key)] = self._element.to_value(item)
            except Misfit as exc:
                raise exc.under(f"[{key!r}]") from None
        return FrozenMapping(items)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        if not isinstance(value, FrozenMapping):
            return refuse(value, self.type, found)
        mend = self._element.mend
        kept: dict[str, Value] | None = None
        for key, item in value.items():
            start = len(found)
            mended = mend(item, found)
            if len(found) != start:
                under(found, start, f"[{key!r}]")
            if mended is item:
                continue
            if kept is None:
                kept = dict(value)
            if mended is ABSENT:
                del kept[key]
            else:
                kept[key] = mended
        return value if kept is None else FrozenMapping(kept)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"type": "object", "additionalProperties": self._element.schema()}


class DictCodec(MappingCodec[T]):
    """Codec of dicts, which are handed out fresh, as their reader may change them."""

    def __init__(self, element: Codec[T]) -> None:
        super().__init__(element)
        self.identity = self.immutable = False

    def decode(self, value: Value) -> dict[str, T]:
        """See `Codec.decode`."""
        return self._decoded(value)

    def copy(self, value: Mapping[str, T]) -> dict[str, T]:
        """See `Codec.copy`."""
        return self._copied(value)


class OptionalCodec(Codec[T | None]):
    """Codec of a type or None; only Json has null, and so this is Json under a schema."""

    def __init__(self, inner: Codec[T]) -> None:
        self._inner = inner
        self.identity = inner.identity
        self.immutable = inner.immutable
        self.type = JsonType(canonical_text(self.schema()))

    def decode(self, value: Value) -> T | None:
        """See `Codec.decode`."""
        return None if value is None else self._inner.decode(value)

    def copy(self, value: T | None) -> T | None:
        """See `Codec.copy`."""
        return None if value is None else self._inner.copy(value)

    def to_value(self, value: object) -> Value:
        """See `Codec.to_value`."""
        return None if value is None else self._inner.to_value(value)

    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """See `Codec.mend`."""
        return None if value is None else self._inner.mend(value, found)

    def schema(self) -> Any:
        """See `Codec.schema`."""
        return {"anyOf": [self._inner.schema(), {"type": "null"}]}
