"""Planning: a state and mutations become changes and warnings, or an error. Pure.

Mutations are applied in order to a draft; what the whole must satisfy (references, cycles, features, limits) is
checked once at the end, so that a change-set may pass through states that would not be legal on their own.
Errors name the field of the mutation that caused them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, cast

from rheostat.errors import (
    AlreadyExistsError,
    Conflict,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    InvalidConditionError,
    InvalidSettingError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    RevisionConflictError,
    RheostatError,
    SettingNotFoundError,
    TypeMismatchError,
)
from rheostat.evaluation.analysis import (
    attributes_read,
    check_condition,
    check_nesting,
    find_cycle,
    find_segment_cycle,
)
from rheostat.evaluation.dependency import Dependencies, Node
from rheostat.evaluation.specificity import order_by_specificity
from rheostat.model.change import (
    SETTING_FIELDS,
    Change,
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    Environment,
    Item,
    MoveRule,
    Mutation,
    PlanWarning,
    Project,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Literal,
    Not,
    Operand,
    Percentage,
    SegmentReference,
    SettingReference,
    segments_of,
    settings_of,
    walk,
)
from rheostat.model.encoding import encode_item
from rheostat.model.key import Key
from rheostat.model.rule import TOTAL_WEIGHT, Distribution, Outcome, Rule, ValueOutcome
from rheostat.model.setting import (
    FEATURE_NAME,
    METADATA_KEY,
    RULE_ID,
    SEGMENT_NAME,
    SETTING_NAME,
    SLUG,
    Order,
    Segment,
    Setting,
)
from rheostat.model.snapshot import Snapshot
from rheostat.model.state import ProjectState, State
from rheostat.model.type import SettingType, normalise, parse_type
from rheostat.model.value import ABSENT, Absent, Value, canonical_json
from rheostat.model.webhook import Webhook
from rheostat.service.credential import check_credentials
from rheostat.service.limit import Limits
from rheostat.service.review import review
from rheostat.service.schema import check_schema, validate_schema

__all__ = ["Plan", "checked_value", "plan", "plan_declarations", "plan_key", "plan_revert", "plan_webhook"]

ItemAddress = tuple[str, str, str]
"""Environment (empty for project-wide items), kind and key of an item in a project."""

RemovedAt: TypeAlias = Callable[[ItemAddress], int]
"""Returns the revision that removed an item which is not there; 0 when that is not known, or it never was."""

_GUARDED_FIELDS: Final = ("name", "aliases", "type", "default", "features", "metadata", "version")
"""What only a declaration, or a higher version, may change once code has declared a setting.

The version is among them because it never falls: with a lower one, the fields would be free.
"""


def _never(_: ItemAddress) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change-set would do.

    Attributes:
        project: The project it is about.
        changes: One for each item that differs; empty when there is nothing to do.
        warnings: What the writer should know.
        rule_number: The highest rule number given, including the new ones.
        environments: The environments whose snapshot it changes.
        forced_clients: The clients that could not decode a value of it, when it is to be written all the same.
    """

    project: str
    changes: tuple[Change, ...]
    warnings: tuple[PlanWarning, ...] = ()
    rule_number: int = 0
    environments: tuple[str, ...] = ()
    forced_clients: tuple[str, ...] = ()


def plan(
    state: State,
    project: str,
    environment: str,
    mutations: Sequence[Mutation],
    *,
    revision: int,
    new_id: Callable[[], str],
    limits: Limits | None = None,
    expected_revision: int | None = None,
    removed_at: RemovedAt = _never,
    sees: Callable[[str], bool] = bool,
    clock: Callable[[], float] = time.monotonic,
) -> Plan:
    """Apply *mutations* to a draft of *state* and return what changes.

    Args:
        state: What there is.
        project: The slug of the project; it must exist unless the first mutation creates it.
        environment: For mutations that name none; empty when every mutation names its own.
        mutations: In order.
        revision: What the changed items will carry.
        new_id: Makes ids of settings and rules; called again when an id is taken.
        limits: Of the node.
        expected_revision: Refuse when an item that is touched changed after it.
        removed_at: Tells when an item that is not there was removed.
        sees: Tells whether the writer may know of an environment, and so change what is in it. Nothing that the
            writer does not see is looked at for an answer.
        clock: Monotonic; it only ends the analysis behind the warnings.

    Raises:
        PermissionDeniedError: A mutation is about an environment that is unknown or that the writer does not see,
            the same either way; or it is project-wide, and the writer does not see all environments.
        RheostatError: One of the classes for bad arguments, missing or taken names, conflicts, limits. Its
            violations start with ``mutations[i]``.
    """
    limits = limits or Limits()
    if len(mutations) > limits.max_mutations:
        raise LimitExceededError(
            f"{len(mutations)} mutations are more than {limits.max_mutations}", limit="max_mutations"
        )
    draft = _Draft(state, project, environment, revision, new_id, limits, removed_at, sees, clock=clock)
    for index, mutation in enumerate(mutations):
        draft.index = index
        with_place = functools.partial(_at, f"mutations[{index}]")
        try:
            draft.apply(mutation)
        except RheostatError as exc:
            raise with_place(exc) from exc.__cause__
    return draft.finish(expected_revision, by_operator=True)


def plan_declarations(
    state: State,
    project: str,
    environment: str,
    mutations: Sequence[RenameSetting | PutSetting],
    *,
    revision: int,
    new_id: Callable[[], str],
    limits: Limits | None = None,
) -> Plan:
    """Plan what acceptable declarations ask for; each setting that is put is declared by code from then on.

    Args:
        state: What there is.
        project: The slug of the project.
        environment: The slug of the environment.
        mutations: In order.
        revision: What the changed items will carry.
        new_id: As in `plan`.
        limits: As in `plan`.

    Raises:
        RheostatError: As `plan`.
    """
    draft = _Draft(state, project, environment, revision, new_id, limits or Limits(), _never, placed=False)
    for mutation in mutations:
        draft.apply(mutation)
        if isinstance(mutation, PutSetting):
            draft._put(environment, replace(draft.its_setting(environment, mutation.name), declared=True))
    return draft.finish(None, by_operator=False)


def plan_revert(
    state: State,
    project: str,
    undone: Sequence[Sequence[Change]],
    *,
    revision: int,
    new_id: Callable[[], str],
    limits: Limits | None = None,
    expected_revision: int | None = None,
    removed_at: RemovedAt = _never,
    sees: Callable[[str], bool] = bool,
    strict: bool = True,
) -> Plan:
    """Plan the way back from change-sets.

    Args:
        state: What there is.
        project: The slug of the project.
        undone: The changes of each change-set to undo, newest change-set first; none that made a project or an
            environment, because those are never removed.
        revision: What the changed items will carry.
        new_id: As in `plan`.
        limits: As in `plan`.
        expected_revision: As in `plan`.
        removed_at: As in `plan`.
        sees: As in `plan`.
        strict: Refuse when an item was changed again after the change-sets.

    Raises:
        PermissionDeniedError: The writer does not see an environment that would change.
        RevisionConflictError: *strict*, and something changed again later; it lists those items.
        RheostatError: As `plan`.
    """
    draft = _Draft(state, project, "", revision, new_id, limits or Limits(), removed_at, sees, placed=False)
    # Before anything else: a conflict would name items of environments that the writer does not see.
    if not all(draft.sees_all_of(change) for changes in undone for change in changes):
        raise PermissionDeniedError(
            "what would be undone lies in an environment that this key does not see", reason="OUT_OF_SCOPE"
        )
    conflicts: list[Conflict] = []
    for changes in undone:
        for change in reversed(changes):
            address = (change.environment, change.kind, change.key)
            current = draft.item(address)
            if strict and not _equal(current, change.after):
                changed_at = removed_at(address) if current is None else current.revision
                conflicts.append(Conflict(change.kind, change.key, change.environment, changed_at))
                continue
            draft.put(address, change.before)
    if conflicts:
        raise RevisionConflictError(min(c.revision for c in conflicts) - 1, conflicts)
    return draft.finish(expected_revision, by_operator=False)


def plan_key(state: State, key: Key, *, revision: int) -> Plan:
    """Plan the creation or replacement of a key."""
    before = state.keys.get(key.selector)
    after = replace(key, revision=revision)
    if before is not None and replace(before, revision=revision) == after:
        return Plan(key.project, ())
    return Plan(
        key.project,
        (Change(key.project, "", "key", key.selector, before, after),),
        rule_number=state.rule_number,
    )


def plan_webhook(state: State, webhook: Webhook, *, revision: int, delete: bool = False) -> Plan:
    """Plan the creation, replacement or removal of a webhook."""
    before = state.webhooks.get(webhook.id)
    after = None if delete else replace(webhook, revision=revision)
    if (before is None and after is None) or (before and after == replace(before, revision=revision)):
        return Plan(webhook.project, (), rule_number=state.rule_number)
    return Plan(
        webhook.project,
        (Change(webhook.project, "", "webhook", webhook.id, before, after),),
        rule_number=state.rule_number,
    )


def _at(place: str, exc: RheostatError) -> RheostatError:
    """Give *exc* the place of its mutation: as violations where it has them, and in its metadata."""
    if isinstance(exc, InvalidArgumentError):
        exc.violations = tuple(
            FieldViolation(
                place
                if not v.field
                else v.field
                if v.field.startswith("mutations[")
                else f"{place}.{v.field}",
                v.description,
            )
            for v in exc.violations or (FieldViolation("", exc.message),)
        )
        first = exc.violations[0].field
        if not exc.message.startswith("mutations["):
            exc.message = f"{first}: {exc.message}"
    exc.metadata.setdefault("field", place)
    return exc


def _equal(left: Item | None, right: Item | None) -> bool:
    """Tell whether two items are the same but for their revision."""
    if left is None or right is None:
        return left is right
    return left is right or encode_item(replace(left, revision=0)) == encode_item(replace(right, revision=0))


def _invalid(field_: str, message: str) -> InvalidSettingError:
    return InvalidSettingError(message, violations=[FieldViolation(field_, message)])


def checked_value(type_: SettingType, value: Value, place: str, limits: Limits) -> Value:
    """Return *value* in the form that *type_* stores; *place* is the field that an error names.

    Raises:
        TypeMismatchError: It does not fit the type, or the schema inside it.
        LimitExceededError: It is too large.
        InvalidSettingError: It looks like a credential.
    """
    # First, because the other errors quote the value.
    check_credentials(value, place)
    try:
        value = normalise(type_, value)
        validate_schema(type_, value)
    except TypeMismatchError as exc:
        exc.violations = (FieldViolation(place, exc.message),)
        raise
    size = len(canonical_json(value).encode())
    if size > limits.max_value_bytes:
        raise LimitExceededError(
            f"{place}: a value of {size} bytes is larger than {limits.max_value_bytes}",
            limit="max_value_bytes",
        )
    return value


def _check_texts(place: str, *, title: str | None, description: str | None) -> None:
    check_credentials(title, f"{place}.title")
    check_credentials(description, f"{place}.description")


@dataclass
class _Draft:
    """A working copy of one project's items, by address, over an untouched state."""

    state: State
    project: str
    environment: str
    revision: int
    new_id: Callable[[], str]
    limits: Limits
    removed_at: RemovedAt
    sees: Callable[[str], bool] = bool
    placed: bool = True
    clock: Callable[[], float] = time.monotonic
    index: int = 0
    items: dict[ItemAddress, Item | None] = field(default_factory=dict)
    touched_by: dict[ItemAddress, int] = field(default_factory=dict)
    # By address and id of a rule: what put it.
    ruled_by: dict[tuple[ItemAddress, str], int] = field(default_factory=dict)
    warnings: list[PlanWarning] = field(default_factory=list)
    rule_number: int = 0

    def __post_init__(self) -> None:
        self.rule_number = self.state.rule_number
        self._overlay: dict[str, dict[str, Setting]] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._ids: dict[str, set[str]] = {}
        self._environments: list[str] | None = None

    # Reading through the draft.

    @property
    def base(self) -> ProjectState | None:
        return self.state.projects.get(self.project)

    def stored(self, address: ItemAddress) -> Item | None:
        environment, kind, key = address
        base = self.base
        if base is None:
            return None
        match kind:
            case "project":
                return base.project if key == self.project else None
            case "environment":
                entry = base.environments.get(key)
                return None if entry is None else entry.environment
            case "segment":
                return base.segments.get(key)
            case "setting":
                entry = base.environments.get(environment)
                return None if entry is None else entry.settings.get(key)
            case _:
                return None

    def item(self, address: ItemAddress) -> Item | None:
        if address in self.items:
            return self.items[address]
        return self.stored(address)

    def put(self, address: ItemAddress, item: Item | None) -> None:
        environment, kind, key = address
        self.items[address] = item
        self.touched_by[address] = self.index
        if kind == "environment":
            self._environments = None
        if kind == "setting":
            settings = self.settings(environment)
            old = settings.get(key)
            aliases = self._aliases.get(environment)
            ids = self._ids.get(environment)
            if old is not None:
                if ids is not None:
                    ids.discard(old.id)
                if aliases is not None:
                    for alias in old.aliases:
                        # A rename may have given it to the setting's new name already.
                        if aliases.get(alias) == key:
                            del aliases[alias]
            if item is None:
                settings.pop(key, None)
                return
            setting = cast("Setting", item)
            settings[key] = setting
            if ids is not None:
                ids.add(setting.id)
            if aliases is not None:
                aliases.update(dict.fromkeys(setting.aliases, key))

    def settings(self, environment: str) -> dict[str, Setting]:
        """The draft's settings of an environment, by name."""
        if environment not in self._overlay:
            base = self.base
            entry = None if base is None else base.environments.get(environment)
            self._overlay[environment] = {} if entry is None else dict(entry.settings)
        return self._overlay[environment]

    def segments(self) -> dict[str, Segment]:
        base = self.base
        merged = {} if base is None else dict(base.segments)
        for (_, kind, key), item in self.items.items():
            if kind == "segment":
                if item is None:
                    merged.pop(key, None)
                else:
                    merged[key] = cast("Segment", item)
        return merged

    def environments(self) -> list[str]:
        """The slugs of the draft's environments."""
        if self._environments is None:
            base = self.base
            slugs = dict.fromkeys(() if base is None else base.environments)
            for (_, kind, key), item in self.items.items():
                if kind == "environment" and item is None:
                    slugs.pop(key, None)
                elif kind == "environment":
                    slugs[key] = None
            self._environments = list(slugs)
        return self._environments

    def its_project(self) -> Project:
        found = self.item(("", "project", self.project))
        if found is None:
            raise PermissionDeniedError(f"the project {self.project!r} is unknown", reason="UNKNOWN_PROJECT")
        return cast("Project", found)

    def its_environment(self, named: str) -> str:
        environment = named or self.environment
        known = self.environments()
        if not environment:
            choices = ", ".join(slug for slug in known if self.sees(slug))
            raise InvalidArgumentError(
                f"no environment is named; choose one of {choices or 'none'}",
                violations=[FieldViolation("environment", "is empty")],
                reason="ENVIRONMENT_REQUIRED",
            )
        if environment not in known or not self.sees(environment):
            raise PermissionDeniedError(
                f"the environment {environment!r} is unknown", reason="UNKNOWN_ENVIRONMENT"
            )
        return environment

    def sees_everything(self) -> bool:
        """Tell whether the writer sees all environments, which project-wide things are part of."""
        return all(map(self.sees, self.environments()))

    def sees_all_of(self, change: Change) -> bool:
        """Tell whether the writer sees every environment that *change* is in, or is about."""
        if change.kind == "environment":
            return self.sees(change.key)
        return self.sees(change.environment) if change.environment else self.sees_everything()

    def find(self, environment: str, name: str) -> Setting | None:
        settings = self.settings(environment)
        found = settings.get(name)
        if found is not None:
            return found
        aliases = self._aliases.get(environment)
        if aliases is None:
            aliases = self._aliases[environment] = {
                alias: setting.name for setting in settings.values() for alias in setting.aliases
            }
        current = aliases.get(name)
        return None if current is None else settings.get(current)

    def its_ids(self, environment: str) -> set[str]:
        """The ids of the draft's settings of an environment."""
        ids = self._ids.get(environment)
        if ids is None:
            settings = self.settings(environment).values()
            ids = self._ids[environment] = {setting.id for setting in settings}
        return ids

    def its_setting(self, environment: str, name: str) -> Setting:
        found = self.find(environment, name)
        if found is None:
            raise SettingNotFoundError(
                f"the environment {environment!r} has no setting {name!r}",
                metadata={"setting": name, "environment": environment},
            )
        return found

    # Applying.

    def apply(self, mutation: Mutation) -> None:
        self._check_scope(mutation)
        match mutation:
            case PutProject():
                self._put_project(mutation)
            case PutEnvironment():
                self._put_environment(mutation)
            case PutSetting():
                self._put_setting(mutation)
            case RenameSetting():
                self._rename_setting(mutation)
            case DeleteSetting(name, environment):
                environment = self.its_environment(environment)
                self.put((environment, "setting", self.its_setting(environment, name).name), None)
            case SetValue(name, value, environment):
                environment = self.its_environment(environment)
                setting = self.its_setting(environment, name)
                value = self._value(setting.type, value, "set_value.value")
                self._put(environment, replace(setting, value=value))
            case UnsetValue(name, environment):
                environment = self.its_environment(environment)
                self._put(environment, replace(self.its_setting(environment, name), value=ABSENT))
            case PutRule():
                self._put_rule(mutation)
            case MoveRule():
                self._move_rule(mutation)
            case DeleteRule():
                self._delete_rule(mutation)
            case PutSegment():
                self._put_segment(mutation)
            case DeleteSegment(name):
                self.its_project()
                if self.item(("", "segment", name)) is None:
                    raise NotFoundError(f"the project has no segment {name!r}", reason="SEGMENT_NOT_FOUND")
                self.put(("", "segment", name), None)
            case SetFeatures(features):
                self._set_features(features)

    def _check_scope(self, mutation: Mutation) -> None:
        """Refuse what reaches environments that the writer does not see, before anything of them shapes an answer.

        Mutations of settings are refused where they look for their environment.
        """
        match mutation:
            case PutProject() | PutSegment() | DeleteSegment() | SetFeatures():
                within = self.sees_everything()
            case PutEnvironment(slug=slug):
                within = self.sees(slug)
            case _:
                return
        if not within:
            raise PermissionDeniedError(
                "the change-set changes an environment that this key may not write", reason="OUT_OF_SCOPE"
            )

    def _put(self, environment: str, setting: Setting) -> None:
        self.put((environment, "setting", setting.name), setting)

    def _put_project(self, mutation: PutProject) -> None:
        if mutation.slug != self.project:
            raise InvalidArgumentError(
                f"a change-set is about one project: {self.project!r}, not {mutation.slug!r}",
                violations=[FieldViolation("put_project.project.name", f"is not {self.project!r}")],
            )
        _check_slug(mutation.slug, "put_project.project.name")
        _check_texts("put_project.project", title=mutation.title, description=mutation.description)
        address = ("", "project", self.project)
        old = cast("Project | None", self.item(address)) or Project(self.project)
        self.put(
            address,
            replace(
                old,
                title=old.title if mutation.title is None else mutation.title,
                description=old.description if mutation.description is None else mutation.description,
            ),
        )

    def _put_environment(self, mutation: PutEnvironment) -> None:
        self.its_project()
        _check_slug(mutation.slug, "put_environment.environment.name")
        _check_texts("put_environment.environment", title=mutation.title, description=mutation.description)
        address = ("", "environment", mutation.slug)
        old = cast("Environment | None", self.item(address)) or Environment(mutation.slug)
        self.put(
            address,
            replace(
                old,
                title=old.title if mutation.title is None else mutation.title,
                description=old.description if mutation.description is None else mutation.description,
                protected=old.protected if mutation.protected is None else mutation.protected,
                required_approvals=(
                    old.required_approvals
                    if mutation.required_approvals is None
                    else mutation.required_approvals
                ),
                self_approval=old.self_approval if mutation.self_approval is None else mutation.self_approval,
            ),
        )

    def _set_features(self, features: tuple[str, ...]) -> None:
        for i, feature in enumerate(features):
            if not FEATURE_NAME.fullmatch(feature):
                raise _invalid(
                    f"set_features.features[{i}]",
                    f"the feature {feature!r} is not of the form {FEATURE_NAME.pattern}",
                )
        if repeated := _repeated(features):
            raise _invalid("set_features.features", f"the feature {repeated!r} stands twice")
        self.put(("", "project", self.project), replace(self.its_project(), features=features))

    def _put_setting(self, mutation: PutSetting) -> None:
        environment = self.its_environment(mutation.environment)
        unknown = set(mutation.fields) - set(SETTING_FIELDS)
        if unknown:
            raise _invalid("put_setting.update_mask", f"the field {min(unknown)!r} is unknown")
        for name, content in mutation.fields.items():
            check_credentials(content, f"put_setting.setting.{name}")
        old = self.find(environment, mutation.name)
        fields = dict(mutation.fields)
        if old is None:
            old = self._new_setting(environment, mutation.name, fields)
        self._put(environment, self._with_fields(environment, old, fields))

    def _new_setting(self, environment: str, name: str, fields: dict[str, object]) -> Setting:
        if not SETTING_NAME.fullmatch(name):
            raise _invalid(
                "put_setting.setting.name", f"the name {name!r} is not of the form {SETTING_NAME.pattern}"
            )
        for required in ("type", "default"):
            if fields.get(required, ABSENT) is ABSENT:
                raise _invalid(
                    f"put_setting.setting.{required}",
                    f"the setting {name!r} does not exist in {environment!r}; to create it, give its {required}",
                )
        type_ = self._type(cast("str", fields["type"]))
        default = self._value(type_, cast("Value", fields["default"]), "put_setting.setting.default")
        aliases = fields.get("aliases", ABSENT)
        names = (name, *(() if aliases is ABSENT else cast("tuple[str, ...]", aliases)))
        return Setting(id=self._identity(environment, names), name=name, type=type_, default=default)

    def _identity(self, environment: str, names: tuple[str, ...]) -> str:
        """The id under which other environments know the name, or else an alias of it; else a new one."""
        others = [slug for slug in self.environments() if slug != environment]
        candidates = [
            found
            for name in names
            for find in (lambda slug, name: self.settings(slug).get(name), self.find)
            for slug in others
            if (found := find(slug, name)) is not None
        ]
        here = self.its_ids(environment)
        for candidate in candidates:
            if candidate.id not in here:
                return candidate.id
        while any((made := self.new_id()) in self.its_ids(slug) for slug in (environment, *others)):
            continue
        return made

    def _fresh(self, taken: Iterable[str]) -> str:
        taken = set(taken)
        while (made := self.new_id()) in taken:
            continue
        return made

    def _type(self, text: str) -> SettingType:
        try:
            type_ = parse_type(text)
            check_schema(type_)
        except InvalidSettingError as exc:
            exc.violations = (FieldViolation("put_setting.setting.type", exc.message),)
            raise
        return type_

    def _with_fields(self, environment: str, old: Setting, fields: Mapping[str, object]) -> Setting:
        new: dict[str, Any] = {}
        blank = Setting(old.id, old.name, old.type, old.default)
        for name, content in fields.items():
            if content is ABSENT and name in ("type", "default"):
                raise _invalid(f"put_setting.setting.{name}", f"a setting cannot be without {name}")
            new[name] = getattr(blank, name) if content is ABSENT else content
        if "type" in new and not isinstance(new["type"], str):
            new["type"] = str(new["type"])
        type_ = self._type(new["type"]) if "type" in new else old.type
        new["type"] = type_
        setting = replace(old, **new)
        if str(type_) != str(old.type) or {"default", "value", "off"} & fields.keys():
            setting = self._retyped(setting)
        self._check_names(environment, setting)
        self._check_features(setting)
        for key in setting.metadata:
            if not METADATA_KEY.fullmatch(key):
                raise _invalid(
                    "put_setting.setting.metadata",
                    f"the key {key!r} is not of the form {METADATA_KEY.pattern}",
                )
        if repeated := _repeated(setting.tags):
            raise _invalid("put_setting.setting.tags", f"the tag {repeated!r} stands twice")
        return setting

    def _retyped(self, setting: Setting) -> Setting:
        """Bring every value of *setting* into the form of its type."""
        prefix = "put_setting.setting"
        rules = tuple(
            replace(rule, outcome=self._outcome(setting.type, rule.outcome, f"{prefix}.rules[{i}]"))
            for i, rule in enumerate(setting.rules)
        )
        return replace(
            setting,
            default=self._value(setting.type, setting.default, f"{prefix}.default"),
            value=self._optional_value(setting.type, setting.value, f"{prefix}.value"),
            off=self._optional_value(setting.type, setting.off, f"{prefix}.off"),
            rules=rules,
        )

    def _optional_value(self, type_: SettingType, value: Value | Absent, place: str) -> Value | Absent:
        return ABSENT if value is ABSENT else self._value(type_, value, place)

    def _value(self, type_: SettingType, value: Value, place: str) -> Value:
        return checked_value(type_, value, place, self.limits)

    def _outcome(self, type_: SettingType, outcome: Outcome | None, place: str) -> Outcome:
        match outcome:
            case None:
                raise _invalid(f"{place}.outcome", "a rule needs a value or a distribution")
            case ValueOutcome(value):
                return ValueOutcome(self._value(type_, value, f"{place}.value"))
            case Distribution():
                place = f"{place}.distribution"
                if not outcome.unit:
                    raise _invalid(f"{place}.unit", "a distribution needs the attribute of its unit")
                if not outcome.variants:
                    raise _invalid(f"{place}.variants", "a distribution needs at least one variant")
                if repeated := _repeated([v.name for v in outcome.variants]):
                    raise _invalid(f"{place}.variants", f"the variant {repeated!r} stands twice")
                for i, variant in enumerate(outcome.variants):
                    if not 0 <= variant.weight <= TOTAL_WEIGHT:
                        raise _invalid(
                            f"{place}.variants[{i}].weight",
                            f"{variant.weight} is not between 0 and {TOTAL_WEIGHT}",
                        )
                total = sum(variant.weight for variant in outcome.variants)
                if total != TOTAL_WEIGHT:
                    raise _invalid(
                        f"{place}.variants",
                        f"the weights sum to {total} thousandths of a per cent, not {TOTAL_WEIGHT}",
                    )
                return replace(
                    outcome,
                    variants=tuple(
                        replace(v, value=self._value(type_, v.value, f"{place}.variants[{i}].value"))
                        for i, v in enumerate(outcome.variants)
                    ),
                )

    def _check_names(self, environment: str, setting: Setting) -> None:
        if repeated := _repeated(setting.names):
            raise _invalid("put_setting.setting.aliases", f"the name {repeated!r} stands twice")
        for alias in setting.aliases:
            if not SETTING_NAME.fullmatch(alias):
                raise _invalid(
                    "put_setting.setting.aliases",
                    f"the alias {alias!r} is not of the form {SETTING_NAME.pattern}",
                )
            owner = self.find(environment, alias)
            if owner is not None and owner.id != setting.id:
                raise AlreadyExistsError(
                    f"the alias {alias!r} already belongs to the setting {owner.name!r} in {environment!r}",
                    metadata={"name": alias, "environment": environment},
                )

    def _check_features(self, setting: Setting) -> None:
        if setting.features is None:
            return
        if repeated := _repeated(setting.features):
            raise _invalid("put_setting.setting.features", f"the feature {repeated!r} stands twice")

    def _rename_setting(self, mutation: RenameSetting) -> None:
        environment = self.its_environment(mutation.environment)
        setting = self.its_setting(environment, mutation.name)
        if not SETTING_NAME.fullmatch(mutation.new_name):
            raise _invalid(
                "rename_setting.new_name",
                f"the name {mutation.new_name!r} is not of the form {SETTING_NAME.pattern}",
            )
        if mutation.new_name == setting.name:
            return
        owner = self.find(environment, mutation.new_name)
        if owner is not None and owner.id != setting.id:
            raise AlreadyExistsError(
                f"the name {mutation.new_name!r} already belongs to the setting {owner.name!r} in "
                f"{environment!r}",
                metadata={"name": mutation.new_name, "environment": environment},
            )
        aliases = (*(a for a in setting.aliases if a != mutation.new_name), setting.name)
        self.put((environment, "setting", setting.name), None)
        self._put(environment, replace(setting, name=mutation.new_name, aliases=aliases))
        for other in list(self.settings(environment).values()):
            rewritten = _renamed_references(other, setting.name, mutation.new_name)
            if rewritten is not other:
                self._put(environment, rewritten)

    def _put_rule(self, mutation: PutRule) -> None:
        environment = self.its_environment(mutation.environment)
        setting = self.its_setting(environment, mutation.setting)
        rule = mutation.rule
        check_credentials(rule.description, "put_rule.rule.description")
        check_credentials(rule.metadata, "put_rule.rule.metadata")
        if rule.id and not RULE_ID.fullmatch(rule.id):
            raise _invalid(
                "put_rule.rule.id", f"the rule id {rule.id!r} is not of the form {RULE_ID.pattern}"
            )
        old = setting.rule(rule.id) if rule.id else None
        if not rule.id:
            rule = replace(rule, id=self._fresh(r.id for r in setting.rules))
        if rule.condition is not None:
            self._check_condition(rule.condition, "put_rule.rule.condition")
        outcome = self._outcome(setting.type, rule.outcome, "put_rule.rule")
        rule = _completed_rule(
            replace(rule, outcome=outcome), old, setting.name, keep_algorithms=mutation.keep_algorithms
        )
        if old is not None:
            rule = replace(
                rule, number=old.number, enabled=old.enabled if mutation.keep_enabled else rule.enabled
            )
        else:
            self.rule_number += 1
            rule = replace(rule, number=self.rule_number)
        if old is not None and not mutation.before_id and not mutation.after_id:
            rules = [rule if r.id == rule.id else r for r in setting.rules]
        else:
            rest = [r for r in setting.rules if r.id != rule.id]
            rules = self._placed(setting, rest, rule, mutation.before_id, mutation.after_id, "put_rule")
        if len(rules) > self.limits.max_rules:
            raise LimitExceededError(
                f"the setting {setting.name!r} would have more than {self.limits.max_rules} rules",
                limit="max_rules",
            )
        self.ruled_by[(environment, "setting", setting.name), rule.id] = self.index
        self._put(environment, replace(setting, rules=tuple(rules)))

    def _check_condition(self, condition: Condition, place: str) -> None:
        for part in walk(condition):
            if isinstance(part, Comparison):
                right = part.right.value if isinstance(part.right, Literal) else None
                check_credentials((right, *(part.literals or ())), place)
        try:
            check_condition(condition, max_depth=self.limits.max_condition_depth)
        except InvalidConditionError as exc:
            exc.violations = tuple(
                FieldViolation(f"{place}.{v.field}" if v.field else place, v.description)
                for v in exc.violations or (FieldViolation("", exc.message),)
            )
            raise

    def _placed(
        self, setting: Setting, rest: list[Rule], rule: Rule, before_id: str, after_id: str, place: str
    ) -> list[Rule]:
        if before_id and after_id:
            raise InvalidArgumentError(
                "a rule goes before one rule or after one, not both",
                violations=[FieldViolation(f"{place}.after_id", "stands beside before_id")],
            )
        if not before_id and not after_id:
            return [*rest, rule]
        if setting.order is Order.SPECIFICITY:
            raise FailedPreconditionError(
                f"the rules of {setting.name!r} are ordered by specificity; they cannot be placed",
                reason="ORDERED_BY_SPECIFICITY",
            )
        anchor = before_id or after_id
        at = next((i for i, other in enumerate(rest) if other.id == anchor), None)
        if at is None:
            raise NotFoundError(
                f"the setting {setting.name!r} has no rule {anchor!r}", reason="RULE_NOT_FOUND"
            )
        at += 0 if before_id else 1
        return [*rest[:at], rule, *rest[at:]]

    def _its_rule(self, setting: Setting, rule_id: str) -> Rule:
        rule = setting.rule(rule_id)
        if rule is None:
            raise NotFoundError(
                f"the setting {setting.name!r} has no rule {rule_id!r}",
                reason="RULE_NOT_FOUND",
                metadata={"setting": setting.name, "rule": rule_id},
            )
        return rule

    def _move_rule(self, mutation: MoveRule) -> None:
        environment = self.its_environment(mutation.environment)
        setting = self.its_setting(environment, mutation.setting)
        rule = self._its_rule(setting, mutation.rule_id)
        if not mutation.before_id and not mutation.after_id:
            raise InvalidArgumentError(
                "a move names the rule to go before or after",
                violations=[FieldViolation("move_rule.before_id", "is empty, and so is after_id")],
            )
        rest = [r for r in setting.rules if r.id != rule.id]
        rules = self._placed(setting, rest, rule, mutation.before_id, mutation.after_id, "move_rule")
        self._put(environment, replace(setting, rules=tuple(rules)))

    def _delete_rule(self, mutation: DeleteRule) -> None:
        environment = self.its_environment(mutation.environment)
        setting = self.its_setting(environment, mutation.setting)
        rule = self._its_rule(setting, mutation.rule_id)
        self._put(environment, replace(setting, rules=tuple(r for r in setting.rules if r.id != rule.id)))

    def _put_segment(self, mutation: PutSegment) -> None:
        self.its_project()
        segment = mutation.segment
        if not SEGMENT_NAME.fullmatch(segment.name):
            raise _invalid(
                "put_segment.segment.name",
                f"the name {segment.name!r} is not of the form {SEGMENT_NAME.pattern}",
            )
        check_credentials(segment.description, "put_segment.segment.description")
        address = ("", "segment", segment.name)
        old = cast("Segment | None", self.item(address))
        if mutation.keep_condition:
            if old is None:
                raise _invalid(
                    "put_segment.segment.condition",
                    f"the segment {segment.name!r} does not exist; to create it, give its condition",
                )
            condition = old.condition
        else:
            self._check_condition(segment.condition, "put_segment.segment.condition")
            condition = _completed(segment.condition, None if old is None else old.condition, segment.name)
        description = segment.description
        if mutation.keep_description:
            description = "" if old is None else old.description
        self.put(address, Segment(segment.name, condition, description))

    # Finishing.

    def finish(self, expected_revision: int | None, *, by_operator: bool) -> Plan:
        """Check the whole; *by_operator* unless what code has declared may go back to what it was."""
        self._reorder()
        changes = tuple(self._changes())
        if expected_revision is not None:
            self._check_expected(expected_revision)
        if by_operator:
            self._check_declared(changes)
        self._check_whole(changes)
        self.warnings += review(changes, self.settings, self.segments(), self._place_of, self.clock)
        project_wide = any(change.kind == "segment" for change in changes) or any(
            change.kind == "project" and _features(change.before) != _features(change.after)
            for change in changes
        )
        environments = (
            tuple(self.environments())
            if project_wide
            else tuple(dict.fromkeys(change.environment for change in changes if change.environment))
        )
        return Plan(self.project, changes, tuple(self.warnings), self.rule_number, environments)

    def _reorder(self) -> None:
        """Put the rules of SPECIFICITY settings in order: of those touched, or of all when features moved."""
        project = cast("Project | None", self.item(("", "project", self.project)))
        features = () if project is None else project.features
        stored = self.base
        everywhere = stored is not None and stored.project.features != features
        for environment, setting in self._settings_of_all() if everywhere else self._settings_touched():
            if setting.order is not Order.SPECIFICITY:
                continue
            address = (environment, "setting", setting.name)
            cause = address if address in self.touched_by else ("", "project", self.project)
            self.index = self.touched_by.get(cause, self.index)
            hierarchy = features
            if setting.features is not None:
                hierarchy = tuple(f for f in features if f in setting.features)
            try:
                rules = order_by_specificity(setting.rules, hierarchy)
            except RheostatError as exc:
                raise self._placed_error(cause, exc) from None
            if rules != setting.rules:
                self._put(environment, replace(setting, rules=rules))

    def _settings_of_all(self) -> list[tuple[str, Setting]]:
        """The draft's settings, by environment."""
        return [
            (environment, setting)
            for environment in self.environments()
            for setting in self.settings(environment).values()
        ]

    def _settings_touched(self) -> list[tuple[str, Setting]]:
        """Those that mutations have touched and left; looking at all of them would cost more than the rest of a plan."""
        return [
            (environment, item)
            for (environment, kind, _), item in self.items.items()
            if kind == "setting" and isinstance(item, Setting)
        ]

    def _changes(self) -> Iterator[Change]:
        # Project-wide items first: who applies the changes in order then never meets an unknown environment.
        rank = {"project": 0, "environment": 1, "segment": 2, "setting": 3}
        for address in sorted(self.items, key=lambda a: (rank[a[1]], a[0], a[2])):
            environment, kind, key = address
            before, after = self.stored(address), self.items[address]
            if _equal(before, after):
                continue
            if after is not None:
                after = replace(after, revision=self.revision)
            yield Change(self.project, environment, kind, key, before, after)

    def _check_expected(self, expected_revision: int) -> None:
        conflicts = []
        for address in self.items:
            before = self.stored(address)
            changed_at = self.removed_at(address) if before is None else before.revision
            if changed_at > expected_revision:
                environment, kind, key = address
                conflicts.append(Conflict(kind, key, environment, changed_at))
        if conflicts:
            raise RevisionConflictError(expected_revision, conflicts)

    def _check_declared(self, changes: Sequence[Change]) -> None:
        """Refuse to change what code has declared, unless with a higher version."""
        declared = {
            (change.environment, change.before.id): change.before
            for change in changes
            if isinstance(change.before, Setting) and change.before.declared
        }
        for change in changes if declared else ():
            new = change.after
            old = declared.get((change.environment, new.id)) if isinstance(new, Setting) else None
            if not isinstance(new, Setting) or old is None or new.version > old.version:
                continue
            for name in _GUARDED_FIELDS:
                if encode_item(replace(old, **{name: getattr(new, name)})) != encode_item(old):
                    raise self._placed_error(
                        (change.environment, "setting", new.name),
                        FailedPreconditionError(
                            f"the setting {old.name!r} is declared by code in version {old.version}; its {name} "
                            "changes by a declaration, or with a higher version",
                            reason="DECLARED_BY_CODE",
                            metadata={"setting": old.name, "field": name},
                        ),
                    )

    def _check_unique(self, environment: str, changes: Sequence[Change]) -> None:
        """Refuse two settings of one name, alias or identity: a revert might bring back one that was replaced."""
        before = [change.before for change in changes if isinstance(change.before, Setting)]
        after = [change.after for change in changes if isinstance(change.after, Setting)]
        if {(s.id, name) for s in before for name in s.names} >= {
            (s.id, name) for s in after for name in s.names
        }:
            return
        owners: dict[str, str] = {}
        for setting in self.settings(environment).values():
            for taken in (f"id {setting.id}", *setting.names):
                owner = owners.setdefault(taken, setting.name)
                if owner != setting.name:
                    raise self._placed_error(
                        (environment, "setting", setting.name),
                        AlreadyExistsError(
                            f"{taken!r} would belong to the settings {owner!r} and {setting.name!r} in "
                            f"{environment!r}",
                            metadata={"name": taken, "environment": environment},
                        ),
                    )

    def _check_whole(self, changes: Sequence[Change]) -> None:
        segments = self.segments()
        if len(segments) > self.limits.max_segments:
            raise LimitExceededError(
                f"the project would have more than {self.limits.max_segments} segments", limit="max_segments"
            )
        changed_segments = {c.key for c in changes if c.kind == "segment"}
        features_changed = any(
            c.kind == "project" and _features(c.before) != _features(c.after) for c in changes
        )
        for name in changed_segments & segments.keys():
            self._check_item_size("segment", name, segments[name])
        self._check_segment_references(segments, changed_segments)
        for environment in self.environments():
            its_changes = [c for c in changes if c.kind == "setting" and c.environment == environment]
            touched = {c.key for c in its_changes}
            if not (touched or changed_segments or features_changed):
                continue
            settings = self.settings(environment)
            if len(settings) > self.limits.max_settings:
                raise LimitExceededError(
                    f"the environment {environment!r} would have more than {self.limits.max_settings} settings",
                    limit="max_settings",
                )
            self._check_unique(environment, its_changes)
            whole = _Whole(self, environment, settings, segments)
            if features_changed:
                names = list(settings)
            else:
                # A name that is gone, a segment, rules and aliases can break whatever leads to them.
                changed: set[Node] = {("segment", name) for name in changed_segments}
                changed |= {("setting", name) for name in _lost_names(its_changes)}
                changed |= {("setting", c.key) for c in its_changes if _leads_elsewhere(c)}
                names = sorted((touched | whole.dependents(changed)) & settings.keys())
            for name in names:
                whole.check(settings[name], touched=name in touched)

    def _check_segment_references(self, segments: Mapping[str, Segment], changed: set[str]) -> None:
        for segment in segments.values():
            for name in sorted(segments_of(segment.condition) - segments.keys()):
                self._missing_segment(name, f"the segment {segment.name!r}", ("", "segment", segment.name))
        dependencies = Dependencies(Snapshot(0, {}, segments))
        for name in sorted(changed & segments.keys()):
            cycle = find_segment_cycle(dependencies, name)
            if cycle is not None:
                raise self._placed_error(
                    ("", "segment", name),
                    FailedPreconditionError(
                        f"the references form a cycle: {' → '.join(cycle)}", reason="CYCLE"
                    ),
                )

    def _missing_segment(self, name: str, user: str, address: ItemAddress, rule_id: str = "") -> None:
        if self.stored(("", "segment", name)) is not None:
            raise self._placed_error(
                ("", "segment", name),
                FailedPreconditionError(
                    f"the segment {name!r} is in use by {user}",
                    reason="IN_USE",
                    metadata={"segment": name, "user": user},
                ),
            )
        raise self._placed_error(
            address,
            InvalidConditionError(
                f"{user} refers to the segment {name!r}, which does not exist", reason="UNKNOWN_SEGMENT"
            ),
            rule_id,
        )

    def _placed_error(self, address: ItemAddress, exc: RheostatError, rule_id: str = "") -> RheostatError:
        index = self.ruled_by.get((address, rule_id), self.touched_by.get(address))
        return exc if index is None or not self.placed else _at(f"mutations[{index}]", exc)

    def _place_of(self, environment: str, kind: str, key: str, rule_id: str) -> int:
        address = environment, kind, key
        place = self.ruled_by.get((address, rule_id), self.touched_by.get(address, -1))
        return place if self.placed else -1

    def _check_item_size(self, kind: str, key: str, item: Item) -> None:
        size = len(encode_item(item).encode())
        if size > self.limits.max_item_bytes:
            raise LimitExceededError(
                f"the {kind} {key!r} would take {size} bytes, more than {self.limits.max_item_bytes}",
                limit="max_item_bytes",
            )


class _Whole:
    """What one environment must satisfy as a whole after the mutations."""

    def __init__(
        self,
        draft: _Draft,
        environment: str,
        settings: Mapping[str, Setting],
        segments: Mapping[str, Segment],
    ) -> None:
        self._draft = draft
        self._environment = environment
        self._settings = settings
        self._segments = segments
        # Shared by all checks: what a segment leads to is followed once.
        self._dependencies = Dependencies(Snapshot(0, settings, segments))

    @functools.cached_property
    def _aliases(self) -> frozenset[str]:
        return frozenset(alias for setting in self._settings.values() for alias in setting.aliases)

    def check(self, setting: Setting, *, touched: bool) -> None:
        draft, environment = self._draft, self._environment
        address = self._cause(setting)
        if touched:
            draft._check_item_size("setting", setting.name, setting)
        known = draft.its_project().features
        for feature in setting.features or ():
            if feature not in known:
                if draft.base is None or feature not in draft.base.project.features:
                    raise draft._placed_error(
                        address,
                        _invalid(
                            "put_setting.setting.features",
                            f"the feature {feature!r} is not registered in the project; known are "
                            f"{', '.join(known) or 'none'}",
                        ),
                    )
                raise draft._placed_error(
                    ("", "project", draft.project),
                    FailedPreconditionError(
                        f"the feature {feature!r} is in use by the setting {setting.name!r} in {environment!r}",
                        reason="IN_USE",
                        metadata={"feature": feature, "setting": setting.name},
                    ),
                )
        for rule in setting.rules:
            user = f"rule {rule.id!r} of the setting {setting.name!r} in {environment!r}"
            if rule.condition is not None:
                self._check_references(rule.condition, user, address, rule.id)
                self._check_nesting(rule.condition, address, rule.id)
            if setting.features is not None:
                self._check_read(setting, rule, user, address)
            elif touched:
                self._warn_undeclared(rule, known, address)
        cycle = find_cycle(self._dependencies, setting.name)
        if cycle is not None:
            raise draft._placed_error(
                address,
                FailedPreconditionError(
                    f"in {environment!r} the references form a cycle: {' → '.join(cycle)}", reason="CYCLE"
                ),
            )

    def dependents(self, nodes: Iterable[Node]) -> set[str]:
        """Return the settings whose rules lead to one of *nodes*, through settings and segments."""
        found = set(nodes)
        if not found:
            return set()
        users: dict[Node, list[Node]] = {}
        readers: list[Node] = [("segment", name) for name in self._segments]
        readers += [("setting", setting.name) for setting in self._settings.values() if _refers(setting)]
        for node in readers:
            for target in self._dependencies.direct(node):
                users.setdefault(target, []).append(node)
        stack = list(found)
        while stack:
            for user in users.get(stack.pop(), ()):
                if user not in found:
                    found.add(user)
                    stack.append(user)
        return {name for kind, name in found if kind == "setting"}

    def _cause(self, setting: Setting) -> ItemAddress:
        """What was touched so that *setting* may be wrong now: itself, or else something that it leads to."""
        draft, own = self._draft, (self._environment, "setting", setting.name)
        if own in draft.touched_by:
            return own
        reached = self._dependencies.reachable([("setting", setting.name)])
        causes: list[ItemAddress] = [
            (self._environment if kind == "setting" else "", kind, name) for kind, name in reached
        ]
        causes.append(("", "project", draft.project))
        return max(causes, key=lambda cause: draft.touched_by.get(cause, -1))

    def _check_references(self, condition: Condition, user: str, address: ItemAddress, rule_id: str) -> None:
        for name in sorted(segments_of(condition)):
            if name not in self._segments:
                self._draft._missing_segment(name, user, address, rule_id)
        names = set(settings_of(condition))
        for name in sorted(segments_of(condition)):
            names |= self._settings_behind(name, set())
        for name in sorted(names):
            if name in self._settings or name in self._aliases:
                continue
            base = self._draft.base
            entry = None if base is None else base.environments.get(self._environment)
            gone = None if entry is None else entry.setting(name)
            if gone is not None:
                raise self._draft._placed_error(
                    (self._environment, "setting", gone.name),
                    FailedPreconditionError(
                        f"the setting {name!r} is in use by {user}",
                        reason="IN_USE",
                        metadata={"setting": name, "user": user},
                    ),
                )
            raise self._draft._placed_error(
                address,
                InvalidConditionError(
                    f"{user} refers to the setting {name!r}, which does not exist in {self._environment!r}",
                    reason="UNKNOWN_SETTING",
                ),
                rule_id,
            )

    def _check_nesting(self, condition: Condition, address: ItemAddress, rule_id: str) -> None:
        try:
            check_nesting(self._dependencies, condition)
        except InvalidConditionError as exc:
            raise self._draft._placed_error(address, exc, rule_id) from None

    def _settings_behind(self, segment: str, seen: set[str]) -> set[str]:
        if segment in seen or segment not in self._segments:
            return set()
        seen.add(segment)
        condition = self._segments[segment].condition
        names = set(settings_of(condition))
        for inner in segments_of(condition):
            names |= self._settings_behind(inner, seen)
        return names

    def _check_read(self, setting: Setting, rule: Rule, user: str, address: ItemAddress) -> None:
        for attribute in sorted(attributes_read(self._dependencies, rule)):
            if attribute not in (setting.features or ()):
                raise self._draft._placed_error(
                    address,
                    InvalidConditionError(
                        f"{user} reads the attribute {attribute!r}, which is not among the setting's features "
                        f"({', '.join(setting.features or ()) or 'none'})",
                        reason="UNDECLARED_FEATURE",
                        metadata={"attribute": attribute, "setting": setting.name},
                    ),
                    rule.id,
                )

    def _warn_undeclared(self, rule: Rule, known: tuple[str, ...], address: ItemAddress) -> None:
        if not known:
            return
        for attribute in sorted(attributes_read(self._dependencies, rule)):
            warning = PlanWarning(
                "UNDECLARED_ATTRIBUTE",
                f"the attribute {attribute!r} is not among the project's features",
                self._draft.touched_by.get(address, -1) if self._draft.placed else -1,
            )
            if attribute not in known and warning not in self._draft.warnings:
                self._draft.warnings.append(warning)


def _lost_names(changes: Iterable[Change]) -> set[str]:
    """The names and aliases that no setting of *changes* has any more."""
    before = {name for c in changes if isinstance(c.before, Setting) for name in c.before.names}
    return before - {name for c in changes if isinstance(c.after, Setting) for name in c.after.names}


def _leads_elsewhere(change: Change) -> bool:
    """Tell whether what refers to a setting, by its name or an alias, finds other rules now."""
    before, after = change.before, change.after
    if not isinstance(after, Setting):
        return False
    if not isinstance(before, Setting):
        return bool(after.aliases)
    return before.rules is not after.rules or before.names != after.names


def _refers(setting: Setting) -> bool:
    return any(
        isinstance(part, SegmentReference)
        or (
            isinstance(part, Comparison)
            and (isinstance(part.left, SettingReference) or isinstance(part.right, SettingReference))
        )
        for rule in setting.rules
        if rule.condition is not None
        for part in walk(rule.condition)
    )


def _features(item: Item | None) -> tuple[str, ...]:
    return item.features if isinstance(item, Project) else ()


def _check_slug(slug: str, place: str) -> None:
    if not SLUG.fullmatch(slug):
        message = f"{slug!r} is not of the form {SLUG.pattern}"
        raise InvalidArgumentError(
            message, violations=[FieldViolation(place, message)], reason="INVALID_SLUG"
        )


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _completed_rule(rule: Rule, old: Rule | None, name: str, *, keep_algorithms: bool) -> Rule:
    """Write out what was left unsaid: absent salts, and algorithms that the replaced rule had."""
    outcome = rule.outcome
    if isinstance(outcome, Distribution):
        stored = old.outcome if old is not None and isinstance(old.outcome, Distribution) else None
        if not outcome.salt:
            outcome = replace(outcome, salt=name if stored is None else stored.salt)
        if keep_algorithms and stored is not None:
            outcome = replace(outcome, algorithm=stored.algorithm)
    condition = rule.condition
    if condition is not None:
        stored_condition = None if old is None else old.condition
        condition = _completed(condition, stored_condition, name, keep_algorithms=keep_algorithms)
    return replace(rule, outcome=outcome, condition=condition)


def _completed(
    condition: Condition, old: Condition | None, name: str, *, keep_algorithms: bool = False
) -> Condition:
    """Write out absent salts: what a percentage of the same unit in *old* had, else *name*."""
    stored: dict[str, Percentage] = {}
    for part in () if old is None else walk(old):
        if isinstance(part, Percentage):
            stored.setdefault(part.attribute, part)

    def complete(part: Condition) -> Condition:
        match part:
            case Percentage(attribute, salt):
                found = stored.get(attribute)
                if not salt:
                    part = replace(part, salt=name if found is None else found.salt)
                if keep_algorithms and found is not None:
                    part = replace(part, algorithm=found.algorithm)
                return part
            case AllOf(conditions):
                return AllOf(tuple(complete(inner) for inner in conditions))
            case AnyOf(conditions):
                return AnyOf(tuple(complete(inner) for inner in conditions))
            case Not(inner):
                return Not(complete(inner))
            case _:
                return part

    return complete(condition) if any(isinstance(part, Percentage) for part in walk(condition)) else condition


def _renamed_references(setting: Setting, old: str, new: str) -> Setting:
    """Return *setting* with its references to *old* pointing to *new*; itself when it has none."""

    def operand(part: Operand) -> Operand:
        return SettingReference(new) if isinstance(part, SettingReference) and part.name == old else part

    def rewrite(part: Condition) -> Condition:
        match part:
            case Comparison(left, _, right):
                return replace(part, left=operand(left), right=None if right is None else operand(right))
            case AllOf(conditions):
                return AllOf(tuple(rewrite(inner) for inner in conditions))
            case AnyOf(conditions):
                return AnyOf(tuple(rewrite(inner) for inner in conditions))
            case Not(inner):
                return Not(rewrite(inner))
            case _:
                return part

    if not any(rule.condition is not None and old in settings_of(rule.condition) for rule in setting.rules):
        return setting
    return replace(
        setting,
        rules=tuple(
            rule if rule.condition is None else replace(rule, condition=rewrite(rule.condition))
            for rule in setting.rules
        ),
    )
