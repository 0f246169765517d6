"""The types that clients have declared: sets that many clients share, each known by the hash of its content. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from rheostat.errors import InvalidTypeError, TypeMismatchError
from rheostat.model.change import Change
from rheostat.model.declaration import Declaration
from rheostat.model.setting import Setting
from rheostat.model.type import SettingType, normalise, parse_type
from rheostat.model.value import Value, canonical_json, freeze, parse_json
from rheostat.service.schema import validate_schema
from rheostat.service.value import shortened, stored_values

__all__ = ["Misfit", "NewValues", "TypeSet", "new_values"]

_Line: TypeAlias = tuple[str, ...]
"""A declaration: the text of its type, its name, and its aliases in order."""


@dataclass(frozen=True)
class TypeSet:
    """What a client has declared. Immutable.

    Attributes:
        lines: The declarations, in order, without repeats.
    """

    lines: tuple[_Line, ...] = ()

    @classmethod
    def of(cls, declarations: Iterable[object]) -> TypeSet:
        """Return the set of *declarations*; what could not be read, and stands among them as its answer, is left out."""
        found = (
            (str(declared.type), declared.name, *sorted(set(declared.aliases)))
            for declared in declarations
            if isinstance(declared, Declaration)
        )
        return cls(tuple(sorted(set(found))))

    @classmethod
    def parse(cls, text: str) -> TypeSet:
        """Return the set of which `text` is the text.

        Raises:
            ValueError: It is none.
        """
        decoded = freeze(parse_json(text))
        if not isinstance(decoded, tuple):
            raise ValueError("a set of types is a list")  # noqa: TRY004 - the text is at fault, not the caller
        return cls(tuple(tuple(map(str, line)) for line in decoded if isinstance(line, tuple)))

    def merged(self, other: TypeSet) -> TypeSet:
        """Return the set of both; of a setting that both declare, what *other* says."""
        replaced = {line[1] for line in other.lines}
        kept = (line for line in self.lines if line[1] not in replaced)
        return TypeSet(tuple(sorted({*kept, *other.lines})))

    @cached_property
    def text(self) -> str:
        """The same text for equal sets."""
        return canonical_json(self.lines)

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that name the set."""
        return hashlib.sha256(self.text.encode()).digest()

    @cached_property
    def _types(self) -> Mapping[str, Sequence[SettingType]]:
        found: dict[str, list[SettingType]] = {}
        for text, *names in self.lines:
            try:
                type_ = parse_type(text)
            except InvalidTypeError:
                # Of a newer version, by another node: only who knows it can judge by it.
                continue
            for name in names:
                found.setdefault(name, []).append(type_)
        return found

    def misfit(self, new: NewValues) -> Misfit | None:
        """Return a value among *new* that a client with these types could not decode, or None."""
        if not any(name in self._types for name in new.names):
            return None
        for name in new.names:
            # To whom knew it under no name before, all its values are new.
            values = new.values if name in new.former_names else new.all_values
            for type_ in self._types.get(name, ()):
                for place, value in values:
                    if not _fits(type_, value):
                        return Misfit(new, place, value, type_)
        return None


@dataclass(frozen=True, slots=True)
class NewValues:
    """The values that a change gives to a setting.

    Attributes:
        environment: Slug.
        setting: Its name, from then on.
        names: With its aliases.
        former_names: Those that it had before; empty for a new setting.
        values: Those that it did not have before, each with the place where it stands, in words.
        all_values: All that it has from then on.
    """

    environment: str
    setting: str
    names: tuple[str, ...]
    former_names: frozenset[str]
    values: tuple[tuple[str, Value], ...]
    all_values: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, environment: str, before: Setting | None, after: Setting) -> NewValues | None:
        """Return what is new in *after*; None when no client can see a value that it did not see before."""
        if before is after:
            return None
        all_values = tuple(_values(after))
        values, former = all_values, frozenset[str]()
        if before is not None:
            known = {canonical_json(value) for _, value in _values(before)}
            values = tuple(
                (place, value) for place, value in all_values if canonical_json(value) not in known
            )
            former = frozenset(before.names)
        if not values and former.issuperset(after.names):
            return None
        return cls(environment, after.name, after.names, former, values, all_values)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that some clients could not decode.

    Attributes:
        new: Where it comes from.
        place: Where it stands in the setting, in words.
        value: The value.
        type: What those clients declared.
    """

    new: NewValues
    place: str
    value: Value
    type: SettingType

    def __str__(self) -> str:
        return (
            f"{shortened(canonical_json(self.value))} ({self.place}) of the setting {self.new.setting!r} in "
            f"{self.new.environment!r} does not fit the type {shortened(str(self.type))}"
        )


def new_values(changes: Sequence[Change]) -> Iterator[NewValues]:
    """Yield the values that the changes of a change-set give to settings and that those did not have before."""
    # Under a rename there is one change for each name.
    removed = {
        (change.environment, change.before.id): change.before
        for change in changes
        if isinstance(change.before, Setting) and change.after is None
    }
    for change in changes:
        after, before = change.after, change.before
        if not isinstance(after, Setting):
            continue
        if before is None:
            before = removed.get((change.environment, after.id))
        found = NewValues.of(change.environment, before if isinstance(before, Setting) else None, after)
        if found is not None:
            yield found


def _values(setting: Setting) -> Iterator[tuple[str, Value]]:
    yield "the default", setting.default
    yield from stored_values(setting)


def _fits(type_: SettingType, value: Value) -> bool:
    """Tell whether a client that declared *type_* uses *value* as it is: it would only drop what does not fit."""
    try:
        validate_schema(type_, normalise(type_, value))
    except TypeMismatchError:
        return False
    except InvalidTypeError:
        # The schema inside is none, and nobody can check by it.
        return True
    return True
