"""Mutations that a writer asks for, and the changes that a plan makes of them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rheostat.model.key import Key
from rheostat.model.rule import Rule
from rheostat.model.setting import Segment, Setting
from rheostat.model.value import FrozenMapping, Value
from rheostat.model.webhook import Webhook

__all__ = [
    "SETTING_FIELDS",
    "Change",
    "ChangeKind",
    "ChangeSet",
    "DeleteRule",
    "DeleteSegment",
    "DeleteSetting",
    "Environment",
    "Item",
    "ItemKey",
    "MoveRule",
    "Mutation",
    "PlanWarning",
    "Project",
    "PutEnvironment",
    "PutProject",
    "PutRule",
    "PutSegment",
    "PutSetting",
    "RenameSetting",
    "SetFeatures",
    "SetValue",
    "UnsetValue",
]

ChangeKind: TypeAlias = str
"""``project`` (features included), ``environment``, ``segment``, ``setting``, ``key`` or ``webhook``."""


@dataclass(frozen=True, slots=True)
class Project:
    """Holds the identity of settings, the features and the segments.

    Attributes:
        slug: Immutable name, ``[a-z0-9][a-z0-9-]{0,62}``.
        title: For people.
        description: For people.
        features: The hierarchy of context attributes, general to specific.
        revision: The newest revision that changed it.
    """

    slug: str
    title: str = ""
    description: str = ""
    features: tuple[str, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Environment:
    """Holds names, definitions, values and rules of a project's settings.

    Attributes:
        slug: Immutable name, unique in the project.
        protected: Change-sets need an approval, and code may not declare without a permission.
        revision: The newest revision that changed it.
        required_approvals: How many people must approve a change-set when it is protected; 0 means 1.
        self_approval: The author of a change-set may be one of them.
    """

    slug: str
    title: str = ""
    description: str = ""
    protected: bool = False
    revision: int = 0
    required_approvals: int = 0
    self_approval: bool = False

    @property
    def approvals(self) -> int:
        """How many people must approve a change-set that touches it."""
        return max(self.required_approvals, 1) if self.protected else 0


Item: TypeAlias = Project | Environment | Segment | Setting | Key | Webhook

ItemKey: TypeAlias = tuple[str, str]
"""Kind and key of an item in one environment's stream, such as ``("setting", "checkout.timeout")``."""


SETTING_FIELDS: Final = (
    "type",
    "default",
    "description",
    "version",
    "aliases",
    "features",
    "metadata",
    "owner",
    "tags",
    "order",
    "enabled",
    "value",
    "off",
    "lifecycle",
)
"""The fields of a setting that `PutSetting` can name in its mask."""


@dataclass(frozen=True, slots=True)
class PutProject:
    """Create the request's project or change its title and description (None leaves alone)."""

    slug: str
    title: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class PutEnvironment:
    """Create an environment or change it (None leaves alone)."""

    slug: str
    title: str | None = None
    description: str | None = None
    protected: bool | None = None
    required_approvals: int | None = None
    self_approval: bool | None = None


@dataclass(frozen=True, slots=True)
class PutSetting:
    """Create a setting in one environment, or change the named fields of it.

    Attributes:
        name: Name or alias of the setting.
        fields: New contents by field name of `SETTING_FIELDS`, typed as in `Setting` except that ``type`` is
            the text of a type. A field that is not there is left alone; `ABSENT` clears it.
        environment: Empty means the request's.
    """

    name: str
    fields: Mapping[str, object]
    environment: str = ""


@dataclass(frozen=True, slots=True)
class RenameSetting:
    """Give a setting a new name in one environment; the old name becomes an alias."""

    name: str
    new_name: str
    environment: str = ""


@dataclass(frozen=True, slots=True)
class DeleteSetting:
    """Remove a setting from one environment."""

    name: str
    environment: str = ""


@dataclass(frozen=True, slots=True)
class SetValue:
    """Set the environment's value of a setting."""

    name: str
    value: Value
    environment: str = ""


@dataclass(frozen=True, slots=True)
class UnsetValue:
    """Remove the environment's value, so that the definition's default applies."""

    name: str
    environment: str = ""


@dataclass(frozen=True, slots=True)
class PutRule:
    """Create a rule, or replace the one with the same id.

    Attributes:
        setting: Name or alias of the setting.
        rule: An empty id makes a new rule. An empty salt in it means the stored one, or the setting's name.
        before_id: Put it before this rule.
        after_id: Put it after this rule. With neither, a new rule goes to the end and an old one stays.
        keep_enabled: The writer did not say whether the rule is enabled: keep what is stored.
        keep_algorithms: The writer named no bucket algorithm: keep those that are stored.
    """

    setting: str
    rule: Rule
    before_id: str = ""
    after_id: str = ""
    keep_enabled: bool = False
    keep_algorithms: bool = False
    environment: str = ""


@dataclass(frozen=True, slots=True)
class MoveRule:
    """Move a rule before or after another one; exactly one of the two is given."""

    setting: str
    rule_id: str
    before_id: str = ""
    after_id: str = ""
    environment: str = ""


@dataclass(frozen=True, slots=True)
class DeleteRule:
    """Remove a rule."""

    setting: str
    rule_id: str
    environment: str = ""


@dataclass(frozen=True, slots=True)
class PutSegment:
    """Create or replace a segment of the project.

    Attributes:
        keep_description: The writer did not give a description: keep what is stored.
        keep_condition: The writer did not give a condition: keep what is stored.
    """

    segment: Segment
    keep_description: bool = False
    keep_condition: bool = False


@dataclass(frozen=True, slots=True)
class DeleteSegment:
    """Remove a segment of the project; refused while something refers to it."""

    name: str


@dataclass(frozen=True, slots=True)
class SetFeatures:
    """Replace the project's hierarchy of features, general to specific."""

    features: tuple[str, ...]


Mutation: TypeAlias = (
    PutProject
    | PutEnvironment
    | PutSetting
    | RenameSetting
    | DeleteSetting
    | SetValue
    | UnsetValue
    | PutRule
    | MoveRule
    | DeleteRule
    | PutSegment
    | DeleteSegment
    | SetFeatures
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a change-set did to one item: the item before and after it.

    Attributes:
        project: The item's project.
        environment: Empty for project-wide items (project, segment, key, webhook, and the environments themselves).
        kind: See `ChangeKind`.
        key: The item's key, such as the setting's name; under a rename there is one change for each name.
        before: None when it was created.
        after: None when it was removed.
    """

    project: str
    environment: str
    kind: ChangeKind
    key: str
    before: Item | None
    after: Item | None


@dataclass(frozen=True, slots=True)
class PlanWarning:
    """Something a writer should know before publishing; it does not refuse the change-set.

    Attributes:
        code: Stable UPPER_SNAKE word.
        message: For people, in lower case.
        mutation: Index of the mutation, or -1.
        context: An example context for which it shows, or None.
    """

    code: str
    message: str
    mutation: int = -1
    context: FrozenMapping | None = None


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """The writes that commit together.

    Attributes:
        project: The project that the mutations are about.
        changes: One for each item that differs, in a stable order.
        author: Who wrote it, for display.
        message: Why.
        actor: The selector of the key that wrote it, or empty in open mode.
        request_id: Chosen by the writer, scoped to the key; empty when there is none.
        payload_digest: SHA-256 of the request's payload, to tell a repeat from a reuse of the request id.
        rule_numbers: How many new rule numbers it used.
        reverts: The revision that this undoes, or 0.
        revision: Given by the store at commit.
        generation: The store's at commit.
        created_at: The commit's time, aware, UTC.
        warnings: Of the plan, kept for the answer to a repeat.
        draft: The id of the draft that it was, or empty.
        approved_by: The selectors of the keys that approved it.
        forced_clients: The clients that could not decode a value of it, when it was committed in spite of them.
    """

    project: str
    changes: tuple[Change, ...]
    author: str = ""
    message: str = ""
    actor: str = ""
    request_id: str = ""
    payload_digest: bytes = b""
    rule_numbers: int = 0
    reverts: int = 0
    revision: int = 0
    generation: int = 0
    created_at: datetime.datetime | None = None
    warnings: tuple[PlanWarning, ...] = field(default=())
    draft: str = ""
    approved_by: tuple[str, ...] = ()
    forced_clients: tuple[str, ...] = ()
