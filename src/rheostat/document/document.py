"""A declarative document as data: what somebody wants of a project, and what is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rheostat.errors import FieldViolation, InvalidDocumentError
from rheostat.language import WrittenCondition
from rheostat.model.rule import Distribution, ValueOutcome
from rheostat.model.value import FrozenMapping

__all__ = [
    "CLEARABLE_FIELDS",
    "DEFINITION_FIELDS",
    "ENVIRONMENT_FIELDS",
    "Document",
    "EnvironmentEntry",
    "RuleEntry",
    "SegmentEntry",
    "SettingEntry",
    "WrittenDistribution",
]

DEFINITION_FIELDS: Final = (
    "type",
    "default",
    "description",
    "version",
    "aliases",
    "owner",
    "tags",
    "features",
    "order",
    "lifecycle",
    "metadata",
)
"""What a setting's entry says for every environment, and an environment's section where it differs."""

ENVIRONMENT_FIELDS: Final = ("enabled", "value", "off")
"""What only an environment's section says, beside its rules."""

CLEARABLE_FIELDS: Final = tuple(
    name for name in (*DEFINITION_FIELDS, *ENVIRONMENT_FIELDS) if name not in ("type", "default", "version")
)
"""What ``unset`` may name."""


@dataclass(frozen=True, slots=True)
class WrittenDistribution:
    """A split as it was written.

    Attributes:
        distribution: With the empty salt, and MURMUR3, where none was written.
        has_algorithm: Whether the algorithm was.
    """

    distribution: Distribution
    has_algorithm: bool = False


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A rule of a document. None leaves alone what is stored; a new rule has the default.

    Attributes:
        id: Empty when it is to be found by its contents.
        where: The condition. None in a rule without an id means no condition.
        outcome: None only in a rule with an id.
        unset: Of ``where``, ``description``, ``metadata``.
    """

    id: str = ""
    where: WrittenCondition | None = None
    outcome: ValueOutcome | WrittenDistribution | None = None
    enabled: bool | None = None
    description: str | None = None
    metadata: FrozenMapping | None = None
    unset: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EnvironmentEntry:
    """What a document says of a setting in one environment.

    Attributes:
        fields: By name, of `DEFINITION_FIELDS` and `ENVIRONMENT_FIELDS`, typed as in `Setting`.
        unset: The fields to clear.
        rules: The whole ordered list, or None to leave the rules alone.
    """

    fields: Mapping[str, object] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    rules: tuple[RuleEntry, ...] | None = None


@dataclass(frozen=True, slots=True)
class SettingEntry:
    """What a document says of a setting: in all of its environments, and in some.

    Where `fields` and `unset` are both empty, the entry is about the environments that it names alone.

    Attributes:
        fields: By name, of `DEFINITION_FIELDS`, typed as in `Setting`.
        unset: The fields to clear.
        environments: What differs, by slug.
    """

    fields: Mapping[str, object] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    environments: Mapping[str, EnvironmentEntry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """What a document says of a segment; None leaves alone.

    Attributes:
        where: The condition.
        description: For people; the empty text clears it.
    """

    where: WrittenCondition | None = None
    description: str | None = None


Place: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Document:
    """A declarative document. What is None was not written, and is left alone.

    Attributes:
        project: The slug, or empty when the reader's project is meant.
        environments: Where the definitions apply; None means all of the project's.
        features: The hierarchy, general to specific.
        segments: By name.
        settings: By name.
        source: The file's name, for messages.
        places: Line and column of each part, by its path, such as ``settings.x.default``.
    """

    project: str = ""
    environments: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    segments: Mapping[str, SegmentEntry] | None = None
    settings: Mapping[str, SettingEntry] | None = None
    source: str = field(default="<document>", compare=False)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)

    def place(self, path: str) -> Place | None:
        """Return where the part at *path* stands, or the nearest part around it whose place is known."""
        while path and path not in self.places:
            cut = max(path.rfind("."), path.rfind("["))
            path = path[:cut] if cut > 0 else ""
        return self.places.get(path)

    def located(self, path: str) -> str:
        """Return the file with line and column of `place`, as editors read it; the file alone without one."""
        place = self.place(path)
        return self.source if place is None else f"{self.source}:{place[0]}:{place[1]}"

    def error(self, path: str, problem: str) -> InvalidDocumentError:
        """Return an error about the part at *path*, with its `place`."""
        line, column = self.place(path) or (None, None)
        return InvalidDocumentError(
            f"{self.located(path)}: {path}: {problem}",
            line=line,
            column=column,
            violations=[FieldViolation(path, problem)],
        )
