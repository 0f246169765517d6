"""Declarations: settings as code defines them, and what became of each."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from rheostat.model.setting import Version
from rheostat.model.type import SettingType
from rheostat.model.value import Absent, FrozenMapping, Value

__all__ = ["Declaration", "DeclarationOutcome", "DeclarationResult", "Difference", "DifferenceLevel"]


@dataclass(frozen=True, slots=True)
class Declaration:
    """A setting as code declares it.

    Attributes:
        name: Matches `SETTING_NAME`.
        type: What values are legal.
        default: The value when the environment has none and no rule matches.
        version: Of the definition.
        aliases: Former names, by any of which the existing setting may be found.
        features: The attributes that rules may read; None means any, empty means none.
        metadata: Anything that tools want to keep with the setting.
        description: For people; never compared.
        owner: Who answers for the setting; never compared.
        tags: Words to find the setting by; never compared.
    """

    name: str
    type: SettingType
    default: Value
    version: Version = field(default_factory=Version)
    aliases: tuple[str, ...] = ()
    features: tuple[str, ...] | None = None
    metadata: FrozenMapping = field(default_factory=FrozenMapping)
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()


class DeclarationOutcome(enum.Enum):
    """What became of a declaration."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not said, or in a word of a newer server."""
    CREATED = "CREATED"
    """The setting is new."""
    UP_TO_DATE = "UP_TO_DATE"
    """Same version, same attributes."""
    MISMATCH = "MISMATCH"
    """Same version, but differences. Nothing has changed."""
    OUTDATED = "OUTDATED"
    """The server has a higher version. Nothing has changed."""
    UPGRADED = "UPGRADED"
    """The definition is now the declared one."""
    REJECTED = "REJECTED"
    """A higher version whose differences are not acceptable. Nothing has changed."""
    DENIED = "DENIED"
    """The key may not declare here, and something would have changed. Nothing has."""
    INVALID = "INVALID"
    """The declaration itself is wrong. Nothing has changed."""


class DifferenceLevel(enum.Enum):
    """How much a difference matters."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not said, or in a word of a newer server."""
    MINOR = "MINOR"
    """Accepted with a higher minor version."""
    MAJOR = "MAJOR"
    """Accepted with a higher major version."""
    MISMATCH = "MISMATCH"
    """Never accepted: a stored value does not fit the new type, or a rule still uses a removed feature."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute in which a declaration and the stored definition disagree.

    Attributes:
        level: How much it matters.
        attribute: ``name``, ``type``, ``default``, ``features`` or ``metadata``.
        declared: What the code says: names and types as strings, features as a tuple; ABSENT when nothing.
        stored: What the server has; ABSENT when nothing.
        message: The difference in words.
    """

    level: DifferenceLevel
    attribute: str
    declared: Value | Absent
    stored: Value | Absent
    message: str = ""


@dataclass(frozen=True, slots=True)
class DeclarationResult:
    """The answer to one declaration.

    Attributes:
        name: The name, as it was declared.
        outcome: What became of it.
        stored_version: What the server had before: the previous version of UPGRADED and REJECTED, the latest of
            OUTDATED. None when there was no such setting.
        differences: What the declaration and the stored definition disagree on.
        message: Why, for people; set for INVALID, DENIED and REJECTED.
        blocking_clients: The connected clients that could not decode the new values, when that is why it was
            REJECTED.
    """

    name: str
    outcome: DeclarationOutcome
    stored_version: Version | None = None
    differences: tuple[Difference, ...] = ()
    message: str = ""
    blocking_clients: tuple[str, ...] = ()
