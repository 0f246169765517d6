"""A setting as one environment sees it, and segments."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final

from rheostat.model.condition import Condition
from rheostat.model.rule import Rule
from rheostat.model.type import SettingType
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value

__all__ = [
    "FEATURE_NAME",
    "METADATA_KEY",
    "RULE_ID",
    "SEGMENT_NAME",
    "SETTING_NAME",
    "SLUG",
    "Lifecycle",
    "Order",
    "Segment",
    "Setting",
    "Version",
]

SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SETTING_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
SEGMENT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}")
FEATURE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
METADATA_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
RULE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Order(enum.Enum):
    """How the rules of a setting are ordered."""

    STORED = "STORED"
    SPECIFICITY = "SPECIFICITY"


class Lifecycle(enum.Enum):
    """Where a setting stands in its life."""

    ACTIVE = "ACTIVE"
    DEPRECATED = "DEPRECATED"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """The version of a declaration, compared numerically; ``1.0`` and ``1.00`` are the same."""

    major: int = 1
    minor: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read ``major.minor``.

        Raises:
            ValueError: The text is something else.
        """
        match = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", text)
        if match is None:
            raise ValueError(f"the version {text!r} is not of the form major.minor, such as 1.0")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class Setting:
    """A named, typed value with a default and rules, as one environment holds it.

    Attributes:
        id: The identity within the project, the same in all its environments.
        name: The current name in this environment.
        type: What values are legal.
        default: The definition's default.
        aliases: Former names; each belongs to this setting alone.
        features: The attributes that rules may read; None means any, empty means none.
        value: This environment's default, which wins over `default`; ABSENT when it has none.
        off: What a disabled setting answers; ABSENT means the environment's default.
        declared: Code has declared the setting, so its compared fields change by declarations only.
        revision: The newest revision that changed this entry; 0 before it is stored.
    """

    id: str
    name: str
    type: SettingType
    default: Value
    aliases: tuple[str, ...] = ()
    description: str = ""
    version: Version = Version()
    features: tuple[str, ...] | None = None
    metadata: FrozenMapping = field(default_factory=FrozenMapping)
    owner: str = ""
    tags: tuple[str, ...] = ()
    order: Order = Order.STORED
    enabled: bool = True
    value: Value | Absent = ABSENT
    off: Value | Absent = ABSENT
    rules: tuple[Rule, ...] = ()
    lifecycle: Lifecycle = Lifecycle.ACTIVE
    declared: bool = False
    revision: int = 0

    @property
    def base_value(self) -> Value:
        """The value where no rule decides: the environment's, else the definition's default."""
        return self.default if self.value is ABSENT else self.value

    @property
    def names(self) -> tuple[str, ...]:
        """The name and all aliases."""
        return (self.name, *self.aliases)

    def rule(self, rule_id: str) -> Rule | None:
        """Return the rule called *rule_id*, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)


@dataclass(frozen=True, slots=True)
class Segment:
    """A named condition that rules share; it belongs to a project.

    Attributes:
        name: Unique in the project.
        condition: What it stands for.
        description: For people.
        revision: The newest revision that changed it; 0 before it is stored.
    """

    name: str
    condition: Condition
    description: str = ""
    revision: int = 0
