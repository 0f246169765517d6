"""Clients without a server, for tests: what they read is what the test has set."""

from __future__ import annotations

import contextlib
import datetime
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from rheo.v1 import watch_pb2
from rheostat.errors import (
    InvalidArgumentError,
    InvalidSettingError,
    SettingNotFoundError,
    TypeMismatchError,
)
from rheostat.model.change import ItemKey
from rheostat.model.condition import Condition
from rheostat.model.exposure import ExposureRecord
from rheostat.model.position import Position
from rheostat.model.setting import FEATURE_NAME, SEGMENT_NAME, SETTING_NAME, Segment
from rheostat.model.setting import Setting as StoredSetting
from rheostat.model.subject import (
    Membership,
    Subject,
    SubjectOverride,
    SubjectPatch,
    Track,
    UsageCounter,
    UsagePeriod,
    period_end,
)
from rheostat.model.type import JSON, normalise
from rheostat.model.value import ABSENT, Value, freeze
from rheostat.sdk.aio import AsyncClient
from rheostat.sdk.client import BaseClient
from rheostat.sdk.codec import codec_for
from rheostat.sdk.event import Entry, patch_of
from rheostat.sdk.held import Held, HeldItem, Update
from rheostat.sdk.reader import S
from rheostat.sdk.setting import Setting
from rheostat.sdk.status import Status
from rheostat.sdk.sync import Client
from rheostat.testing.delivery import AsyncDelivery, Delivery
from rheostat.testing.recording import (
    RecordedEvaluation,
    RecordedEvent,
    RecordedIdentity,
    RecordingAsyncChecker,
    RecordingChecker,
    RecordingReader,
)
from rheostat.testing.rule import WrittenRule, checked_condition, rules_of
from rheostat.wire.watch import position_from_proto

__all__ = ["AsyncStubClient", "StubClient"]

_URL: Final = "http://stub.invalid"
"""Never asked: `Delivery` stands where connections are made."""


class _Stub(RecordingReader[S], BaseClient[S]):
    """What both stubs have beyond a client. Safe from any thread.

    It is live from the beginning, at revision 1; each change is one revision. Subscribers have been told when the
    method that makes a change returns.

    Attributes:
        evaluations: What was read, the oldest first: `RecordedEvaluation`. ``evaluations.clear()`` forgets it.
        events: What was tracked, the oldest first: `RecordedEvent`.
        exposures: What was checked, the oldest first: `ExposureRecord`.
        identities: What `identify` was called with, the oldest first: `RecordedIdentity`.
    """

    def __init__(
        self,
        values: Mapping[str, object] | None = None,
        *,
        context: Mapping[str, object] | None = None,
        defaults: Mapping[str, object] | None = None,
        settings: Iterable[Setting[Any]] | object = (),
        required: Iterable[str] = (),
        features: Iterable[str] | None = None,
        client_id: str = "stub",
        on_update: Callable[[Position], object] | None = None,
        on_status: Callable[[Status], object] | None = None,
    ) -> None:
        """Make a stub.

        Args:
            values: To begin with, by name.
            context: See `BaseClient`.
            defaults: See `BaseClient`.
            settings: Declared settings to bind to this stub. It checks values against their types.
            required: See `BaseClient`.
            features: The only attributes that contexts may have: with them the stub is strict, see `BaseClient`.
            client_id: The attribute ``client.id``.
            on_update: See `BaseClient`.
            on_status: See `BaseClient`.

        Raises:
            TypeMismatchError: A value does not fit the type of its declared setting.
            InvalidSettingError: A name is none.
        """
        known = None if features is None else frozenset(features)
        for feature in known or ():
            if FEATURE_NAME.fullmatch(feature) is None:
                raise InvalidSettingError(
                    f"the feature {feature!r} is not of the form {FEATURE_NAME.pattern}"
                )
        self.evaluations: list[RecordedEvaluation] = []
        self.events: list[RecordedEvent] = []
        self.identities: list[RecordedIdentity] = []
        self.exposures: list[ExposureRecord] = []
        super().__init__(
            _URL,
            key="",
            project="",
            environment="",
            context=context,
            defaults=defaults,
            settings=settings,
            required=required,
            client_id=client_id,
            strict=known is not None,
            on_update=on_update,
            on_status=on_status,
        )
        self._core.features = known
        self._core.events.record = self._record_entry
        self._core.subjects.local = True
        if known is None:
            self._core.replica.idle = None
        self._delivery = self._delivering()
        items = {("setting", name): self._made(name, value) for name, value in (values or {}).items()}
        self._show(items)

    def _delivering(self) -> Any:
        return Delivery(self._core)

    def _driver(self) -> Any:
        self._core.check_open()
        return self._delivery

    def _start_idle(self) -> None:
        """Do nothing: it is live."""

    def after_fork(self) -> None:
        """Go on in a child process with what was set; called by itself."""
        self._core.replica.after_fork()
        for each in tuple(self._core.ending):
            forget = getattr(each, "after_fork", None)
            if forget is not None:
                forget()
        self._delivery = self._delivering()

    def _unbind(self) -> None:
        """Let declared settings read from nothing again, so that the next test begins with their defaults."""
        for setting in self._core.replica.declarations:
            setting.unbind(self)

    # What a test sets.

    def __setitem__(self, name: str, value: object) -> None:
        """Let the setting *name* have *value* in every context: rules that it had are gone.

        Raises:
            TypeMismatchError: The value does not fit the type of the declared setting, or is no value at all.
            InvalidSettingError: The name is none.
        """
        self._show({("setting", self._name(name)): self._made(name, value)})

    def set_rules(self, name: str, rules: Iterable[WrittenRule], /, *, default: object = ABSENT) -> None:
        """Give the setting *name* these rules instead of those it has; the first that matches decides.

        Args:
            name: The setting's; it is made if need be.
            rules: Pairs of a condition's text and a value, such as ``('region == "eu"', 3.0)``, where None is the
                condition that always holds; mappings as in a document, also with a ``split``; or `Rule` objects.
            default: The value where no rule matches. When it is not given: the one it has, else that of its
                declaration, of `with_defaults` or of the stub.

        Raises:
            InvalidConditionError: A condition cannot be parsed, or refers to a segment or setting that the stub does
                not have.
            TypeMismatchError: A value does not fit the type of the declared setting.
            SettingNotFoundError: There is no such setting, and no default.
            InvalidArgumentError: Something is no rule.
        """
        with self._core.replica.lock():
            name = self._name(name)
            held = self._core.replica.held.items.get(("setting", name))
            if default is ABSENT and (held is None or not isinstance(held.item, StoredSetting)):
                default = self._default(name, ABSENT)
                if default is ABSENT:
                    raise SettingNotFoundError(
                        f"the stub has no setting {name!r}, and no default where no rule matches; set it first, "
                        "or give default="
                    )
                made = self._of(name, self._fitted(name, default))
            elif default is ABSENT:
                assert held is not None
                made = held.item  # type: ignore[assignment]
            else:
                made = self._made(name, default)
            listed = rules_of(name, rules, lambda value: self._encoded(name, value), self._knows)
            self._show({("setting", name): replace(made, rules=listed)})

    def set_segment(self, name: str, condition: str | Condition, /) -> None:
        """Make or replace a segment, which conditions refer to as ``segment("name")``.

        Raises:
            InvalidConditionError: The condition cannot be parsed, or refers to what the stub does not have.
            InvalidSettingError: The name is none.
        """
        if not isinstance(name, str) or SEGMENT_NAME.fullmatch(name) is None:
            raise InvalidSettingError(f"the segment name {name!r} is not of the form {SEGMENT_NAME.pattern}")
        parsed = checked_condition(f"the segment {name!r}", condition, self._knows)
        self._show({("segment", name): Segment(name, parsed)})

    def set_subject(
        self,
        kind: str,
        keys: Mapping[str, str],
        traits: Mapping[str, object] | None = None,
        *,
        overrides: Mapping[str, object] | None = None,
        member_of: Mapping[str, Mapping[str, str] | Sequence[Mapping[str, str]]] | None = None,
        usage: Mapping[str, int] | None = None,
    ) -> None:
        """Store a subject, which checks then join; one that any of *keys* finds is replaced.

        Args:
            kind: What it is, such as ``user``.
            keys: Its keys, by name.
            traits: Its traits.
            overrides: Values of settings for it alone.
            member_of: What it is a member of, by kind: the keys of one, or a list of those of several. These have to be
                stored before.
            usage: How often its events have happened, by event: in every period.

        Raises:
            InvalidArgumentError: An argument is not acceptable, or there is no such subject to be a member of.
        """
        patch = patch_of(kind, keys, traits, member_of)
        self._store_subject(
            patch,
            overrides={name: freeze(value) for name, value in (overrides or {}).items()},
            usage=usage or {},
            known=None,
        )

    def delete(self, name: str, /) -> None:
        """Remove the setting *name*, so that reads give defaults.

        Raises:
            SettingNotFoundError: There is no such setting.
        """
        with self._core.replica.lock():
            name = self._name(name)
            if ("setting", name) not in self._core.replica.held.items:
                raise SettingNotFoundError(f"the stub has no setting {name!r}")
            self._show({("setting", name): None})

    @contextmanager
    def override(self, values: Mapping[str, object] | None = None, /, **named: object) -> Iterator[None]:
        """Let settings have other values inside the block, over everything, then what they had. Blocks nest.

        Args:
            values: By name, for names that are no Python identifiers.
            named: More of them, which win.

        Raises:
            TypeMismatchError: A value does not fit the type of the declared setting, or is no value at all.
        """
        replica = self._core.replica
        wanted = {name: self._overriding(name, value) for name, value in {**(values or {}), **named}.items()}
        former = {name: replica.overrides[name] for name in wanted if name in replica.overrides}
        replica.override(wanted)
        try:
            yield
        finally:
            with replica.lock():
                replica.clear_overrides(wanted.keys() - former.keys())
                if former:
                    replica.override(former)

    def clear(self) -> None:
        """Forget everything that was set and recorded; declared settings stay bound."""
        replica = self._core.replica
        with replica.lock():
            if replica.overrides:
                replica.clear_overrides()
            if replica.held.items:
                self._show(dict.fromkeys(replica.held.items))
        self.evaluations.clear()
        self.events.clear()
        self.identities.clear()
        self.exposures.clear()
        self._core.subjects.clear()

    # How it is kept.

    def _record_entry(self, entry: Entry) -> None:
        what = entry.what
        if isinstance(what, Track):
            subjects = {subject.kind: dict(subject.keys) for subject in entry.subjects}
            self.events.append(
                RecordedEvent(what.name, what.quantity, dict(entry.attributes or {}), subjects)
            )
            found = self._core.subjects.found
            for subject in entry.subjects:
                # As a server does, before the event is counted.
                if not any(found(subject.kind, {name: value}) for name, value in subject.keys.items()):
                    self._store_subject(SubjectPatch(subject), overrides={}, usage={}, known=None)
        elif isinstance(what, SubjectPatch):
            keys, traits = dict(what.reference.keys), {**what.traits, **dict.fromkeys(what.remove_traits)}
            member_of = tuple((each.kind, dict(each.keys)) for each in what.member_of)
            self.identities.append(RecordedIdentity(what.reference.kind, keys, traits, member_of))
            known = self._core.subjects.found(what.reference.kind, keys)
            try:
                self._store_subject(what, overrides={}, usage={}, known=known)
            except InvalidArgumentError as error:
                self._core.warn_once(
                    ("identify", error.message), "a call of identify is not taken: %s", error
                )

    def _store_subject(
        self,
        patch: SubjectPatch,
        *,
        overrides: Mapping[str, Value],
        usage: Mapping[str, int],
        known: Subject | None,
    ) -> None:
        subjects = self._core.subjects
        reference = patch.reference
        memberships: dict[bytes, Membership] = {}
        for each in () if known is None else known.member_of:
            memberships[each.id] = each
        for other in patch.member_of:
            found = subjects.found(other.kind, other.keys)
            if found is None:
                raise InvalidArgumentError(f"the stub has no {other.kind} with the keys {dict(other.keys)!r}")
            memberships[found.id] = Membership(found.id, found.kind, found.keys)
        now = datetime.datetime.now(datetime.UTC)
        same = subjects.found(reference.kind, reference.keys)
        traits = {**({} if known is None else known.traits), **patch.traits}
        if known is None and same is not None:
            # With the events that were counted for it.
            subjects.remove(same.id)
        subjects.put(
            Subject(
                id=uuid.uuid4().bytes if same is None else same.id,
                kind=reference.kind,
                keys={**({} if known is None else known.keys), **reference.keys},
                traits={name: value for name, value in traits.items() if name not in patch.remove_traits},
                created_at=now,
                updated_at=now,
                overrides=tuple(SubjectOverride(name, value) for name, value in overrides.items())
                or (() if known is None else known.overrides),
                counters=tuple(
                    UsageCounter(event, period, count, period_end(period, now.date()))
                    for event, count in usage.items()
                    for period in UsagePeriod
                )
                or (() if known is None else known.counters),
                member_of=tuple(memberships.values()),
            )
        )

    def _name(self, name: object) -> str:
        """Return the name under which *name* is held: a declared setting's own one for its alias."""
        if not isinstance(name, str) or SETTING_NAME.fullmatch(name) is None:
            raise InvalidSettingError(f"the setting name {name!r} is not of the form {SETTING_NAME.pattern}")
        declared = self._core.replica.declared(name)
        return name if declared is None else declared.name

    def _made(self, name: str, value: object) -> StoredSetting:
        name = self._name(name)
        return self._of(name, self._encoded(name, value))

    def _of(self, name: str, value: Value) -> StoredSetting:
        declared = self._core.replica.declared(name)
        if declared is None:
            return StoredSetting(id=name, name=name, type=JSON, default=value)
        declaration = declared.declaration()
        return StoredSetting(
            id=name,
            name=name,
            type=declaration.type,
            default=value,
            aliases=declaration.aliases,
            description=declaration.description,
            features=declaration.features,
            metadata=declaration.metadata,
            owner=declaration.owner,
            tags=declaration.tags,
            declared=True,
        )

    def _encoded(self, name: str, value: object) -> Value:
        """Return a Python value, or one in the form of the wire, as it is stored."""
        declared = self._core.replica.declared(name)
        try:
            if declared is None:
                return _frozen(value)
            encoded: Value = declared.codec.encode(value)
        except TypeMismatchError as error:
            if declared is not None:
                # So that a value is written in one way, whether the setting was read through this stub before or not.
                with contextlib.suppress(TypeMismatchError):
                    return normalise(declared.codec.type, freeze(value))
            raise TypeMismatchError(f"the value of {name!r}: {error.message}") from error
        return encoded

    def _overriding(self, name: str, value: object) -> object:
        """Return an override in the form in which the replica takes it, which knows Python types once declared."""
        return (
            value if self._core.replica.declared(self._name(name)) is not None else self._encoded(name, value)
        )

    def _fitted(self, name: str, default: Any) -> Value:
        """Return a default of the declaration, which is encoded already, or of the caller, which is not."""
        declared = self._core.replica.declared(name)
        if declared is not None and default is declared.declaration().default:
            return declared.declaration().default
        return self._encoded(name, default)

    def _knows(self, kind: str, name: str) -> bool:
        if kind == "setting":
            return (
                self._core.replica.declared(name) is not None
                or self._view().snapshot.setting(name) is not None
            )
        return (kind, name) in self._core.replica.held.items

    def _show(self, changed: Mapping[ItemKey, StoredSetting | Segment | None]) -> None:
        """Make one revision of *changed*; None deletes."""
        core = self._core
        with core.replica.lock():
            held = core.replica.held
            revision = held.revision + 1
            items = dict(held.items)
            for key, item in changed.items():
                items.pop(key, None)
                if item is not None:
                    items[key] = HeldItem(
                        revision, replace(item, revision=revision), watch_pb2.Item(kind=key[0], key=key[1])
                    )
            position = watch_pb2.Position(store_id=b"stub", generation=1, revision=revision)
            core.advanced(Update(Held(position, items, 0), frozenset(changed)))


class StubClient(_Stub[S], RecordingChecker[S], Client[S]):
    """A `rheostat.Client` without a server and threads, for tests; whatever takes a client takes it.

    ::

        stub = StubClient({"new-checkout": False})
        stub["checkout.timeout"] = 2.5
        stub.set_rules("new-checkout", [('user.plan == "pro"', True)])
        with stub.override({"checkout.timeout": 9.0}):
            ...
        assert stub.evaluations[0].name == "new-checkout"

    Reads, contexts, defaults, pins, declared settings, subscriptions and changes are those of the client itself.
    What needs a server (`call`, `ping`, `stream`) is refused with `FailedPreconditionError`.
    """

    def close(self) -> None:
        """End what waits for changes, and unbind the declared settings, which give their defaults again."""
        super().close()
        self._unbind()

    def reload(self) -> Position:
        """Return the position: there is nothing to fetch.

        Raises:
            ClientClosedError: The stub was closed.
        """
        return _position_of(self)


class AsyncStubClient(_Stub[S], RecordingAsyncChecker[S], AsyncClient[S]):
    """A `rheostat.AsyncClient` without a server, for tests; see `StubClient`.

    Changes are told to plain functions at once, and to coroutine functions by a task of the running event loop, in
    order; `delivered` waits for them.
    """

    def _delivering(self) -> AsyncDelivery:
        return AsyncDelivery(self._core)

    async def delivered(self) -> None:
        """Wait until all callbacks have ended that were told of changes."""
        await self._delivery.delivered()

    async def close(self) -> None:
        """End what waits for changes, and unbind the declared settings, which give their defaults again."""
        await super().close()
        self._unbind()

    async def reload(self) -> Position:
        """Return the position: there is nothing to fetch.

        Raises:
            ClientClosedError: The stub was closed.
        """
        return _position_of(self)


def _frozen(value: object) -> Value:
    """Return a value of a setting that was not declared yet: JSON, or a member of an Enum, a dataclass's object."""
    try:
        return freeze(value)
    except TypeMismatchError:
        with contextlib.suppress(TypeMismatchError, InvalidSettingError):
            encoded: Value = codec_for(type(value)).encode(value)
            return encoded
        raise


def _position_of(stub: _Stub[Any]) -> Position:
    stub._core.check_open()
    position = stub._core.replica.held.position
    assert position is not None
    return position_from_proto(position)
