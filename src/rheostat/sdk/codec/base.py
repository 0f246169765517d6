"""What every codec does: Python values to the model's and back, and mending what a server sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from rheostat.errors import TypeMismatchError
from rheostat.model.type import SettingType
from rheostat.model.value import ABSENT, Absent, Value, canonical_json, freeze

__all__ = ["Codec", "Coerced", "Coercion", "IdentityCodec", "Misfit", "misfit", "refuse", "shown", "under"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Coercion:
    """One part of a server's value that had to be dropped.

    Attributes:
        path: Where it was: ``['a'][2].name``; empty for the whole value.
        dropped: What was there.
        reason: Why, in words.
    """

    path: str
    dropped: Value
    reason: str

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.reason}"


@dataclass(frozen=True, slots=True)
class Coerced:
    """A server's value brought into the local type.

    Attributes:
        value: In the type's normal form; ABSENT when nothing of it can be used.
        coercions: What was dropped. Empty when the value fits; numbers of the other kind fit without a word.
    """

    value: Value | Absent
    coercions: tuple[Coercion, ...] = ()


class Misfit(Exception):  # noqa: N818 - it never leaves the package, where it becomes a TypeMismatchError
    """A Python value does not fit; collects the path on its way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def under(self, step: str) -> Misfit:
        """Put *step* in front of the path."""
        self.path = step + self.path
        return self


class Codec(ABC, Generic[T]):
    """Translates between a Python type and the type of a setting. Immutable; safe from any thread.

    Attributes:
        type: The type of the setting.
        identity: `decode` returns the model's value unchanged.
        immutable: What `decode` returns cannot be changed, so that one object may be handed to many readers.
    """

    type: SettingType
    identity: bool = False
    immutable: bool = True

    @abstractmethod
    def decode(self, value: Value) -> T:
        """Return the Python value of *value*, which `coerce` returned: immutable, or a fresh object."""

    def encode(self, value: T) -> Value:
        """Return the model's value of a Python value, in the type's normal form.

        Raises:
            TypeMismatchError: It is not of the type; the message names the place inside it, such as ``['a'][2]``.
        """
        try:
            return freeze(self.to_value(value))
        except Misfit as exc:
            place = f"{exc.path}: " if exc.path else ""
            raise TypeMismatchError(f"{place}{exc.reason}") from None

    def coerce(self, value: Value) -> Coerced:
        """Return what of a server's value can be used. Never raises."""
        found: list[Coercion] = []
        try:
            mended = self.mend(value, found)
        except Exception as exc:  # noqa: BLE001 - a server's value must never stop a reader
            return Coerced(ABSENT, (Coercion("", value, f"it cannot be read: {exc!r}"),))
        return Coerced(mended, tuple(found))

    def copy(self, value: T) -> T:
        """Return *value*, or an equal fresh object where the type is a mutable one."""
        return value

    @abstractmethod
    def to_value(self, value: object) -> Value:
        """Do what `encode` does, for use by other codecs.

        Raises:
            Misfit: It is not of the type.
        """

    @abstractmethod
    def mend(self, value: Value, found: list[Coercion]) -> Value | Absent:
        """Do what `coerce` does, for use by other codecs: append to *found*, with paths from *value* on.

        A value that fits as it is comes back as the same object.
        """

    @abstractmethod
    def schema(self) -> Any:
        """Return the JSON Schema of the type's values, as fresh data."""


class IdentityCodec(Codec[T]):
    """A codec whose Python values are the model's."""

    identity: bool = True

    def decode(self, value: Value) -> T:
        """See `Codec.decode`."""
        return cast("T", value)


def shown(value: object) -> str:
    """Return a short text of any object."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the object is a caller's
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def misfit(value: object, type_: object) -> Misfit:
    """Return the error of a Python value that is not of a type."""
    return Misfit(f"{shown(value)} is not of type {type_}")


def refuse(value: Value, type_: object, found: list[Coercion]) -> Absent:
    """Note that nothing of *value* can be used."""
    try:
        text = canonical_json(value)
    except Exception:  # noqa: BLE001 - what is no value has no text
        text = shown(value)
    if len(text) > 80:
        text = text[:77] + "..."
    found.append(Coercion("", value, f"{text} is not of type {type_}"))
    return ABSENT


def under(found: list[Coercion], start: int, step: str) -> None:
    """Put *step* in front of the paths in *found* from *start* on."""
    for i in range(start, len(found)):
        inner = found[i]
        found[i] = Coercion(step + inner.path, inner.dropped, inner.reason)
