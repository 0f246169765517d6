"""Declarations against what an environment holds: what is answered, and what changes. Pure.

Each declaration of a batch is answered by itself: nothing that is wrong with one of them reaches the others. Those
that are acceptable become mutations of one change-set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Final

from rheostat.errors import InvalidSettingError, LimitExceededError, RheostatError, TypeMismatchError
from rheostat.evaluation.analysis import attributes_read
from rheostat.evaluation.dependency import Dependencies
from rheostat.model.change import PutSetting, RenameSetting
from rheostat.model.declaration import (
    Declaration,
    DeclarationOutcome,
    DeclarationResult,
    Difference,
    DifferenceLevel,
)
from rheostat.model.encoding import encode_item
from rheostat.model.rule import Distribution, Outcome, Rule, ValueOutcome
from rheostat.model.setting import METADATA_KEY, SETTING_NAME, Lifecycle, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.state import ProjectState
from rheostat.model.type import SettingType, is_subtype, normalise
from rheostat.model.value import ABSENT, Absent, FrozenMapping, Value, canonical_json
from rheostat.service.credential import check_credentials
from rheostat.service.limit import Limits
from rheostat.service.plan import checked_value
from rheostat.service.schema import check_schema, validate_schema
from rheostat.service.value import shortened, stored_values

__all__ = [
    "Answers",
    "Blocking",
    "BlockingClients",
    "UsedAttributes",
    "answer_declarations",
    "differences_between",
]

UsedAttributes = Callable[[Rule], set[str]]
"""Returns the attributes that a rule reads, through segments and other settings too."""


@dataclass(frozen=True, slots=True)
class BlockingClients:
    """Why connected clients keep a definition from being accepted.

    Attributes:
        message: Which value they could not decode, and who they are; for people.
        clients: Their ids.
    """

    message: str
    clients: tuple[str, ...]


Blocking = Callable[[Setting | None, Setting], BlockingClients | None]
"""Tells which clients could not decode what a setting would be, given what it was; None when all could."""

_ORDER: Final = (DifferenceLevel.MINOR, DifferenceLevel.MAJOR, DifferenceLevel.MISMATCH)

_TAKING_NAMES: Final = frozenset(
    # Those that are denied are answered as if they were accepted, and so are the ones after them.
    (DeclarationOutcome.CREATED, DeclarationOutcome.UPGRADED, DeclarationOutcome.DENIED)
)

_LISTED: Final = 3
"""Refused values, and keys of metadata, that a message lists."""

_WIDEST: Final[Mapping[str, Any]] = {"id": "0" * 32, "revision": 2**63 - 1, "declared": True}
"""What a setting gets later, at its longest, so that its size is known now."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What becomes of a batch.

    Attributes:
        results: One for each declaration, in order.
        mutations: What the acceptable ones change, in order; each `PutSetting` is of a declared setting.
    """

    results: tuple[DeclarationResult, ...]
    mutations: tuple[RenameSetting | PutSetting, ...]


def answer_declarations(
    project: ProjectState,
    environment: str,
    declarations: Sequence[Declaration | DeclarationResult],
    *,
    permitted: bool,
    limits: Limits | None = None,
    room: int | None = None,
    blocking: Blocking = lambda _, __: None,
) -> Answers:
    """Answer *declarations* and tell what they change.

    Args:
        project: What there is.
        environment: Where they are declared; it exists.
        declarations: The batch; what could not even be read stands in it as its answer.
        permitted: Whether the declarer may change anything.
        limits: Of the node.
        room: By how many bytes the environment's settings may grow together; None for as much as they like.
        blocking: Judges what would be created or upgraded by what connected clients can decode.
    """
    batch = _Batch(
        project, environment, permitted=permitted, limits=limits or Limits(), room=room, blocking=blocking
    )
    results = tuple(
        declared if isinstance(declared, DeclarationResult) else batch.answer(declared)
        for declared in declarations
    )
    return Answers(results, tuple(batch.mutations))


def differences_between(
    stored: Setting, declaration: Declaration, used: UsedAttributes, *, outdated: bool = False
) -> tuple[Difference, ...]:
    """Return what *declaration* and *stored* disagree on, at most one difference for each attribute.

    Args:
        stored: What the environment holds.
        declaration: Its default is in the form of its type.
        used: What rules read.
        outdated: The levels are those of the way from the declaration to what is stored, not the other way round.
    """
    found = (
        _name_difference(stored, declaration),
        _type_difference(stored, declaration, outdated=outdated),
        _default_difference(stored, declaration),
        _features_difference(stored, declaration, used, outdated=outdated),
        _metadata_difference(stored, declaration),
    )
    return tuple(difference for difference in found if difference is not None)


def _name_difference(stored: Setting, declaration: Declaration) -> Difference | None:
    if stored.name == declaration.name:
        return None
    message = f"the setting is called {stored.name!r}, and declared as {declaration.name!r}"
    return Difference(DifferenceLevel.MINOR, "name", declaration.name, stored.name, message)


def _type_difference(stored: Setting, declaration: Declaration, *, outdated: bool) -> Difference | None:
    if _same_type(stored.type, declaration.type):
        return None
    before, after = (declaration.type, stored.type) if outdated else (stored.type, declaration.type)
    level = DifferenceLevel.MINOR if is_subtype(after, before) else DifferenceLevel.MAJOR
    message = f"the type is {shortened(str(stored.type))}, and declared as {shortened(str(declaration.type))}"
    # One more than is listed: a setting may have thousands of rules.
    refused = [] if outdated else list(islice(_refused_values(stored, declaration.type), _LISTED + 1))
    if refused:
        level = DifferenceLevel.MISMATCH
        more = "; and more" if len(refused) > _LISTED else ""
        message = f"{message}, which refuses values that are in use: {'; '.join(refused[:_LISTED])}{more}"
    return Difference(level, "type", str(declaration.type), str(stored.type), message)


def _default_difference(stored: Setting, declaration: Declaration) -> Difference | None:
    if _alike(stored.default, declaration.default):
        return None
    message = (
        f"the default is {shortened(canonical_json(stored.default))}, and declared as "
        f"{shortened(canonical_json(declaration.default))}"
    )
    return Difference(DifferenceLevel.MINOR, "default", declaration.default, stored.default, message)


def _features_difference(
    stored: Setting, declaration: Declaration, used: UsedAttributes, *, outdated: bool
) -> Difference | None:
    before, after = stored.features, declaration.features
    if _feature_set(before) == _feature_set(after):
        return None
    if outdated:
        before, after = after, before
    # None stands for any attribute.
    adds = before is not None and (after is None or bool(set(after) - set(before)))
    level = DifferenceLevel.MAJOR if adds else DifferenceLevel.MINOR
    message = f"the features are {_listed(stored.features)}, and declared as {_listed(declaration.features)}"
    if after is not None and not outdated:
        read = {attribute: rule.id for rule in reversed(stored.rules) for attribute in used(rule)}
        missing = sorted(read.keys() - set(after))
        if missing:
            level = DifferenceLevel.MISMATCH
            attribute = missing[0]
            message = f"{message}, but rule {read[attribute]!r} reads {shortened(repr(attribute))}"
    return Difference(
        level,
        "features",
        ABSENT if declaration.features is None else declaration.features,
        ABSENT if stored.features is None else stored.features,
        message,
    )


def _metadata_difference(stored: Setting, declaration: Declaration) -> Difference | None:
    if _alike(stored.metadata, declaration.metadata):
        return None
    keys = sorted(
        key
        for key in stored.metadata.keys() | declaration.metadata.keys()
        if not _alike(stored.metadata.get(key, ABSENT), declaration.metadata.get(key, ABSENT))
    )
    message = f"the metadata differs in {shortened(', '.join(map(repr, keys[:_LISTED])))}"
    if len(keys) > _LISTED:
        message = f"{message} and {len(keys) - _LISTED} more"
    return Difference(DifferenceLevel.MINOR, "metadata", declaration.metadata, stored.metadata, message)


def _same_type(left: SettingType, right: SettingType) -> bool:
    # Not by text: `Enum[1]` and `Enum[1.0]` have the same values.
    return is_subtype(left, right) and is_subtype(right, left)


def _alike(left: Value | Absent, right: Value | Absent) -> bool:
    """Tell whether two values are the same JSON: ``1`` is ``1.0``, and no number is a bool."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return isinstance(left, bool) is isinstance(right, bool) and left == right
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(_alike(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, FrozenMapping) and isinstance(right, FrozenMapping):
        return left.keys() == right.keys() and all(_alike(part, right[key]) for key, part in left.items())
    return type(left) is type(right) and left == right


def _feature_set(features: tuple[str, ...] | None) -> frozenset[str] | None:
    # Their order is the project's, so it means nothing here.
    return None if features is None else frozenset(features)


def _listed(features: tuple[str, ...] | None) -> str:
    if features is None:
        return "any"
    return shortened(", ".join(map(repr, features))) or "none"


def _refused_values(setting: Setting, type_: SettingType) -> Iterator[str]:
    for place, value in stored_values(setting):
        try:
            validate_schema(type_, normalise(type_, value))
        except TypeMismatchError as exc:
            yield f"{place}: {shortened(exc.message)}"


class _Batch:
    """A batch being answered: what was there before it, and the names that it has taken so far."""

    def __init__(
        self,
        project: ProjectState,
        environment: str,
        *,
        permitted: bool,
        limits: Limits,
        room: int | None,
        blocking: Blocking,
    ) -> None:
        self.mutations: list[RenameSetting | PutSetting] = []
        self._environment = environment
        self._settings: Mapping[str, Setting] = project.environments[environment].settings
        self._known = project.project.features
        self._permitted = permitted
        self._limits = limits
        self._room = room
        self._blocking = blocking
        self._created = 0
        self._segments = project.segments
        # A setting goes by the name that it had before the batch, or was made with in it.
        self._taken: dict[str, str] = {}
        self._declared: dict[str, str] = {}

    @cached_property
    def _aliases(self) -> Mapping[str, str]:
        return {alias: setting.name for setting in self._settings.values() for alias in setting.aliases}

    @cached_property
    def _dependencies(self) -> Dependencies:
        return Dependencies(Snapshot(0, self._settings, self._segments))

    def answer(self, declared: Declaration) -> DeclarationResult:
        """Answer one declaration."""
        try:
            declaration = self._checked(declared)
            owner = self._owner(declaration)
            stored = None if owner is None else self._settings[owner]
            if stored is None:
                result, after = self._created_anew(declaration)
            else:
                result, after = self._compared(stored, declaration)
            blocked = None if after is None else self._blocking(stored, after)
            if blocked is not None:
                result = replace(
                    result,
                    outcome=DeclarationOutcome.REJECTED,
                    message=blocked.message,
                    blocking_clients=blocked.clients,
                )
                after = None
            if after is not None:
                self._take_room(stored, after)
        except RheostatError as exc:
            return DeclarationResult(declared.name, DeclarationOutcome.INVALID, message=exc.message)
        key = declaration.name if stored is None else stored.name
        self._declared[key] = declaration.name
        if result.outcome in _TAKING_NAMES:
            self._taken.update(dict.fromkeys((declaration.name, *declaration.aliases), key))
        if after is not None:
            self._change(stored, after)
        return result

    # What is wrong with a declaration, whatever it is compared with.

    def _checked(self, declaration: Declaration) -> Declaration:
        """Return *declaration* with its default in the form of its type."""
        check_credentials(str(declaration.type), "type")
        for place in ("metadata", "description", "owner", "tags"):
            check_credentials(getattr(declaration, place), place)
        for name in (declaration.name, *declaration.aliases):
            if not SETTING_NAME.fullmatch(name):
                word = "name" if name == declaration.name else "alias"
                raise InvalidSettingError(
                    f"the {word} {shortened(repr(name))} is not of the form {SETTING_NAME.pattern}"
                )
        repeated = _repeated((declaration.name, *declaration.aliases))
        if repeated is not None:
            raise InvalidSettingError(f"the name {repeated!r} stands twice")
        check_schema(declaration.type)
        default = checked_value(declaration.type, declaration.default, "default", self._limits)
        repeated = _repeated(declaration.features or ())
        if repeated is not None:
            raise InvalidSettingError(f"the feature {shortened(repr(repeated))} stands twice")
        for feature in declaration.features or ():
            if feature not in self._known:
                known = shortened(", ".join(self._known)) or "none"
                raise InvalidSettingError(
                    f"the feature {shortened(repr(feature))} is not registered in the project; known are {known}"
                )
        for key in declaration.metadata:
            if not METADATA_KEY.fullmatch(key):
                raise InvalidSettingError(
                    f"the key {shortened(repr(key))} of the metadata is not of the form {METADATA_KEY.pattern}"
                )
        return replace(declaration, default=default, tags=tuple(dict.fromkeys(declaration.tags)))

    def _owner(self, declaration: Declaration) -> str | None:
        """Return the former name of the setting that is declared, found by name or else by alias; None if new."""
        names = (declaration.name, *declaration.aliases)
        owners = [self._owner_of(name) for name in names]
        owner = next(filter(None, owners), None)
        for name, other in zip(names, owners, strict=True):
            if other not in (None, owner):
                raise InvalidSettingError(f"the alias {name!r} belongs to the setting {other!r}")
        if owner in self._declared:
            raise InvalidSettingError(
                f"the batch declares this setting already, as {self._declared[owner]!r}"
            )
        if owner is not None and self._settings[owner].lifecycle is Lifecycle.ARCHIVED:
            raise InvalidSettingError(f"the setting {owner!r} is archived")
        return owner

    def _owner_of(self, name: str) -> str | None:
        if name in self._taken:
            return self._taken[name]
        return name if name in self._settings else self._aliases.get(name)

    # The table of answers.

    def _created_anew(self, declaration: Declaration) -> tuple[DeclarationResult, Setting | None]:
        if len(self._settings) + self._created >= self._limits.max_settings:
            raise LimitExceededError(
                f"the environment {self._environment!r} would have more than {self._limits.max_settings} settings",
                limit="max_settings",
            )
        if not self._permitted:
            return self._denied(declaration, None, ()), None
        blank = Setting("", declaration.name, declaration.type, declaration.default)
        after = replace(
            _described(blank, declaration),
            version=declaration.version,
            aliases=declaration.aliases,
            features=declaration.features,
            metadata=declaration.metadata,
        )
        return DeclarationResult(declaration.name, DeclarationOutcome.CREATED), after

    def _compared(
        self, stored: Setting, declaration: Declaration
    ) -> tuple[DeclarationResult, Setting | None]:
        outdated = declaration.version < stored.version
        differences = differences_between(
            stored,
            declaration,
            lambda rule: attributes_read(self._dependencies, rule),
            outdated=outdated,
        )
        result = DeclarationResult(
            declaration.name, DeclarationOutcome.UP_TO_DATE, stored.version, differences
        )
        if outdated:
            return replace(result, outcome=DeclarationOutcome.OUTDATED), None
        if declaration.version == stored.version:
            if differences:
                return replace(result, outcome=DeclarationOutcome.MISMATCH), None
            if stored.declared or not self._permitted:
                return result, None
            # Made by hand, and the code's from now on.
            return result, _described(stored, declaration)
        refusal = _refusal(stored, declaration, differences)
        if refusal:
            return replace(result, outcome=DeclarationOutcome.REJECTED, message=refusal), None
        if not self._permitted:
            return self._denied(declaration, stored, differences), None
        after = self._upgraded(stored, declaration, differences)
        return replace(result, outcome=DeclarationOutcome.UPGRADED), after

    def _denied(
        self, declaration: Declaration, stored: Setting | None, differences: tuple[Difference, ...]
    ) -> DeclarationResult:
        done = "create" if stored is None else "upgrade"
        return DeclarationResult(
            declaration.name,
            DeclarationOutcome.DENIED,
            None if stored is None else stored.version,
            differences,
            f"the key may not declare in {self._environment!r}, and this would {done} the setting",
        )

    def _upgraded(
        self, stored: Setting, declaration: Declaration, differences: tuple[Difference, ...]
    ) -> Setting:
        new: dict[str, Any] = {
            difference.attribute: getattr(declaration, difference.attribute) for difference in differences
        }
        # An alias is never taken away: an old client may still ask by it.
        name = new.get("name", stored.name)
        aliases = tuple(
            alias
            for alias in dict.fromkeys((*stored.names[1:], stored.name, *declaration.aliases))
            if alias != name
        )
        after = replace(_described(stored, declaration), version=declaration.version, aliases=aliases, **new)
        return self._retyped(after) if {"type", "default"} & new.keys() else after

    def _retyped(self, setting: Setting) -> Setting:
        """Bring every value into the form of the type, which takes them all."""

        def bring(value: Value) -> Value:
            return checked_value(setting.type, value, "value", self._limits)

        def of_outcome(outcome: Outcome | None) -> Outcome | None:
            match outcome:
                case ValueOutcome(value):
                    return ValueOutcome(bring(value))
                case Distribution(variants=variants):
                    return replace(
                        outcome, variants=tuple(replace(v, value=bring(v.value)) for v in variants)
                    )
                case None:
                    return None

        return replace(
            setting,
            default=bring(setting.default),
            value=ABSENT if setting.value is ABSENT else bring(setting.value),
            off=ABSENT if setting.off is ABSENT else bring(setting.off),
            rules=tuple(replace(rule, outcome=of_outcome(rule.outcome)) for rule in setting.rules),
        )

    # What changes.

    def _take_room(self, stored: Setting | None, after: Setting) -> None:
        """Refuse a setting that is too large, by itself or together with the others."""
        size = len(encode_item(replace(after, **_WIDEST)).encode())
        if size > self._limits.max_item_bytes:
            raise LimitExceededError(
                f"the setting {after.name!r} would take {size} bytes, more than {self._limits.max_item_bytes}",
                limit="max_item_bytes",
            )
        if self._room is None:
            return
        growth = size - (0 if stored is None else len(encode_item(stored).encode()))
        if growth > max(self._room, 0):
            raise LimitExceededError(
                f"the snapshot of {self._environment!r} would take more than {self._limits.max_snapshot_bytes} bytes",
                limit="max_snapshot_bytes",
            )
        self._room -= growth

    def _change(self, stored: Setting | None, after: Setting) -> None:
        blank = Setting("", after.name, after.type, after.default) if stored is None else stored
        if stored is None:
            self._created += 1
        elif stored.name != after.name:
            self.mutations.append(RenameSetting(stored.name, after.name, self._environment))
        names = ("version", "aliases", "features", "metadata", "description", "owner", "tags")
        fields: dict[str, object] = {
            name: getattr(after, name) for name in names if getattr(after, name) != getattr(blank, name)
        }
        if stored is None or str(stored.type) != str(after.type):
            fields["type"] = str(after.type)
        if stored is None or canonical_json(stored.default) != canonical_json(after.default):
            fields["default"] = after.default
        self.mutations.append(PutSetting(after.name, fields, self._environment))


def _described(setting: Setting, declaration: Declaration) -> Setting:
    """Return *setting* with what the declaration says for people, where the setting says nothing."""
    return replace(
        setting,
        description=setting.description or declaration.description,
        owner=setting.owner or declaration.owner,
        tags=setting.tags or declaration.tags,
    )


def _refusal(stored: Setting, declaration: Declaration, differences: tuple[Difference, ...]) -> str:
    """Return why a higher version cannot be accepted; empty when it can."""
    highest = (
        DifferenceLevel.MAJOR if declaration.version.major > stored.version.major else DifferenceLevel.MINOR
    )
    over = [d for d in differences if _ORDER.index(d.level) > _ORDER.index(highest)]
    if not over:
        return ""
    reasons = "; ".join(difference.message for difference in over)
    if all(difference.level is DifferenceLevel.MAJOR for difference in over):
        return (
            f"it takes version {stored.version.major + 1}.0 or higher, not {declaration.version}: {reasons}"
        )
    return reasons


def _repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
