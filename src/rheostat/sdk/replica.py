"""The local replica: what the stream has delivered, as this process reads it.

Between the two stand the declared settings, which fit values to their local types, and the overrides. Readers take
`Replica.view` once and see one revision, whatever arrives meanwhile: a new state is a new view, and showing it is one
assignment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from rheostat.errors import TypeMismatchError
from rheostat.evaluation.compile import CompiledSnapshot
from rheostat.model.change import ItemKey
from rheostat.model.condition import segments_of, settings_of
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.type import JSON
from rheostat.model.value import ABSENT, Absent, Value, freeze, same
from rheostat.sdk.held import Held, HeldItem
from rheostat.sdk.setting import Problem

if TYPE_CHECKING:
    from rheostat.sdk.setting import Setting as DeclaredSetting

__all__ = ["Publication", "Replica", "View", "ViewSource"]

_NO_PROGRAMS: Final[Mapping[str, Any]] = {}

_Decoded = Mapping[tuple[bool, str | None, str | None], object]


class View(CompiledSnapshot):
    """One revision, ready to be evaluated. Immutable but for what is compiled lazily; safe from any thread.

    Attributes:
        decoded: For declared settings whose values are not those of the wire: by current name, the values of the
            declared type by (is the off value, rule id, variant).
        overridden: Current names whose values were set in this process.
        programs: By name, the function of a setting, or its outcome where that is always the same, of the settings
            that `note_read` was called with. For reads that cannot afford the call of `value`.
    """

    __slots__ = ("_read", "decoded", "overridden", "programs")

    programs: dict[str, Any]

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        previous: CompiledSnapshot | None = None,
        settings: Collection[str] = (),
        segments: Collection[str] = (),
        decoded: Mapping[str, _Decoded] | None = None,
        overridden: frozenset[str] = frozenset(),
        read: set[str] | None = None,
    ) -> None:
        """Evaluate *snapshot*; see `CompiledSnapshot` for the first four arguments, and `note_read` for the last."""
        # Before what it is a part of, into which another thread may be compiling.
        programs: dict[str, Any] = previous.programs.copy() if isinstance(previous, View) else {}
        super().__init__(snapshot, previous=previous, settings=settings, segments=segments)
        if previous is not None:
            # What was not taken over: the changed settings, and those that refer to something changed.
            for name in {*settings, *(previous._references.keys() - self._references.keys())}:
                known = previous.snapshot.settings.get(name)
                for each in (name,) if known is None else known.names:
                    programs.pop(each, None)
        self.programs = programs
        self.decoded = decoded or {}
        self.overridden = overridden
        self._read: set[str] = set() if read is None else read

    def note_read(self, name: str) -> None:
        """Note that a setting, which there is, was read by *name*; later reads of it may run its program.

        So a read that runs a program need not note anything, and what was read is known all the same.
        """
        program = self._programs.get(name)
        if program is not None:
            self.programs[name] = program
        self._read.add(name)


class ViewSource(Protocol):
    """What a reader reads from: the live replica, or one of its views for good."""

    view: View
    """What is read now."""

    @property
    def programs(self) -> Mapping[str, Any]:
        """The programs of the view; empty where reads have more to do than to run one of them."""

    @property
    def joining(self) -> frozenset[str]:
        """Kinds of subjects that reads look for; a context that names none of them needs the program alone."""

    @property
    def idle(self) -> Callable[[], None] | None:
        """What the next read has to call before it reads; None once the client has started."""

    @property
    def replica(self) -> Replica:
        """The replica that the views are of."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A step from one view to the next.

    Attributes:
        before: What was shown until now.
        after: What is shown now.
        affected: The current names, before and after, of the settings that may now give other values; and aliases
            that have come or gone without their settings giving other values.
        problems: Values that do not fit their declared settings, with these.
    """

    before: View
    after: View
    affected: frozenset[str]
    problems: tuple[tuple[DeclaredSetting[Any], Problem], ...] = ()


class Replica:
    """The state of one client. Reads take no lock; the writing methods are safe from any thread.

    Attributes:
        view: What readers see.
        held: What the stream has delivered; ahead of the view while that is frozen.
        programs: See `ViewSource`.
        listener: Called with each publication, under the lock; it must not block or raise.
        joining: Kinds of subjects that are held: reads look for those of them that a context names.
        wants_affected: Publications are to say which settings they affect, which costs an index of references.
    """

    def __init__(self) -> None:
        """Hold nothing."""
        # By the names that were given, as in `View.note_read`; of all views.
        self._read: set[str] = set()
        self.view = View(Snapshot(), read=self._read)
        self.held = Held()
        # What the view was made of; behind `held` while the view is frozen.
        self._shown = self.held
        self.programs: Mapping[str, Any] = self.view.programs
        self._idle: Callable[[], None] | None = None
        self.joining: frozenset[str] = frozenset()
        self.listener: Callable[[Publication], None] | None = None
        self.wants_affected = False
        self._locks: dict[str, AbstractContextManager[object]] = {}
        self._declared: dict[str, DeclaredSetting[Any]] = {}
        self._overrides: dict[str, object] = {}
        # One token for each block that has frozen the view, and the thread that it is in.
        self._frozen: dict[object, int] = {}
        # Whether a writing method has begun and not ended: a fork in between leaves the child half a step.
        self._writing = False
        # What has arrived since the view was frozen.
        self._withheld: set[ItemKey] = set()
        # None until somebody wants to be told of changes.
        self._references: _References | None = None

    @property
    def replica(self) -> Replica:
        """Itself."""
        return self

    @property
    def idle(self) -> Callable[[], None] | None:
        """See `ViewSource`."""
        return self._idle

    @idle.setter
    def idle(self, idle: Callable[[], None] | None) -> None:
        with self.lock():
            self._idle = idle
            self._show_programs()

    def join(self, kinds: frozenset[str]) -> None:
        """Let reads look for subjects of *kinds* from now on, and of no others: only where none is named the program runs."""
        self.joining = kinds

    def _show_programs(self) -> None:
        self.programs = self.view.programs if self._idle is None else _NO_PROGRAMS

    def declared(self, name: str) -> DeclaredSetting[Any] | None:
        """Return the declaration whose name or alias is *name*."""
        return self._declared.get(name)

    @property
    def declarations(self) -> tuple[DeclaredSetting[Any], ...]:
        """All declarations, each once, in the order they were made."""
        return tuple(dict.fromkeys(self._declared.values()))

    @property
    def overrides(self) -> Mapping[str, object]:
        """The values that were set in this process, by the names that were given."""
        return self._overrides

    @property
    def shown(self) -> Held:
        """The state that is read; behind `held` while the view is frozen."""
        return self._shown if self._frozen else self.held

    def take_read(self) -> set[str]:
        """Return the names by which settings were read for the first time since the last call, or `forget_read`."""
        taken = set()
        while self._read:
            # Reads take no lock.
            taken.add(self._read.pop())
        return taken

    def forget_read(self) -> None:
        """Note the next read of each setting anew."""
        self.view.programs.clear()

    def after_fork(self) -> None:
        """Go on without the threads of the parent, which may have held the lock, frozen the view, or been writing."""
        self._locks = {}
        self._references = None
        here = threading.get_ident()
        frozen = self._frozen
        self._frozen = {token: thread for token, thread in frozen.items() if thread == here}
        if not self._frozen and (self._writing or frozen):
            shown = self.view.snapshot
            everything = {*self.held.items, *self._withheld}
            everything.update(("setting", name) for name in (*shown.settings, *self._overrides))
            everything.update(("segment", name) for name in shown.segments)
            self._withheld = set()
            self._publish(everything)
        self._writing = False

    # What changes the state.

    def advance(self, held: Held, changed: Iterable[ItemKey]) -> None:
        """Take over what was delivered and show it, unless the view is frozen."""
        with self._changing():
            self.held = held
            if self._frozen:
                self._withheld.update(changed)
            else:
                self._publish(changed)

    def confirm(self, held: Held) -> None:
        """Take over a position at which nothing else has changed."""
        with self._changing():
            if held is self.held:
                return
            self.held = held
            if not self._frozen and held.revision != self.view.snapshot.revision:
                self._publish(())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Go on showing the same view inside the block; what arrives is shown at its end."""
        token = object()
        with self.lock():
            self._frozen[token] = threading.get_ident()
        try:
            yield
        finally:
            with self._changing():
                self._frozen.pop(token, None)
                if not self._frozen:
                    withheld, self._withheld = self._withheld, set()
                    if withheld or self.held.revision != self.view.snapshot.revision:
                        self._publish(withheld)

    def declare(self, settings: Iterable[DeclaredSetting[Any]]) -> list[DeclaredSetting[Any]]:
        """Fit values to *settings* from now on; returns those that were not declared before.

        A name that was declared before belongs to the newer declaration.
        """
        with self._changing():
            new = [setting for setting in settings if self._declared.get(setting.name) is not setting]
            if new:
                declared = dict(self._declared)
                for setting in new:
                    for name in (setting.name, *setting.aliases):
                        declared[name] = setting
                self._declared = declared
                self._show_again(name for setting in new for name in (setting.name, *setting.aliases))
            return new

    def watch_affected(self) -> None:
        """Say from now on which settings a publication affects; a large state takes a while to index."""
        if not self.wants_affected:
            with self.lock():
                self.wants_affected = True
                self._references = _References(self.view.snapshot)

    def override(self, values: Mapping[str, object]) -> None:
        """Set values for this process alone.

        Raises:
            TypeMismatchError: A value does not fit the declared type of its setting, or is no value at all.
        """
        with self._changing():
            overrides = dict(self._overrides)
            for name, value in values.items():
                # Before anything is changed.
                self._encoded(name, value)
                overrides[name] = value
            self._overrides = overrides
            self._show_again(values)

    def clear_overrides(self, names: Iterable[str] | None = None) -> None:
        """Go back to the server's values, of *names* or of all; unknown names do nothing."""
        with self._changing():
            gone = tuple(self._overrides) if names is None else tuple(names)
            self._overrides = {name: value for name, value in self._overrides.items() if name not in gone}
            self._show_again(gone)

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock of the writing methods.

        Made at its first use, so that a program may still patch `threading` after it has made its clients.
        """
        # `setdefault` is atomic: two threads that come first get the same one.
        return self._locks.get("") or self._locks.setdefault("", threading.RLock())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self.lock():
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    # How a view comes about.

    def _show_again(self, names: Iterable[str]) -> None:
        shown = set(names)
        for name in tuple(shown):
            current = self._held_name(name)
            if current is not None:
                shown.add(current)
            known = self.view.snapshot.setting(name)
            if known is not None:
                shown.add(known.name)
        self._publish(("setting", name) for name in shown)

    def _held_name(self, name: str) -> str | None:
        """Return the current name of the held setting that is called *name*."""
        items = self.shown.items
        if ("setting", name) in items:
            return name
        found = self.view.snapshot.setting(name)
        return None if found is None or ("setting", found.name) not in items else found.name

    def _publish(self, changed: Iterable[ItemKey]) -> None:
        before = self.view
        held = self._shown = self.shown
        settings: dict[str, Setting | None] = {}
        segments: dict[str, Segment | None] = {}
        decoded = dict(before.decoded)
        problems: list[tuple[DeclaredSetting[Any], Problem]] = []
        for kind, key in changed:
            received = held.items.get((kind, key))
            if kind == "segment":
                item = None if received is None else received.item
                segments[key] = item if isinstance(item, Segment) else None
            elif kind == "setting":
                decoded.pop(key, None)
                settings[key] = self._effective(key, received, decoded, problems)
        overridden = before.overridden
        if self._overrides or overridden:
            overridden = self._apply_overrides(held, settings, decoded, overridden, problems)
        snapshot = before.snapshot.replace(held.revision, settings=settings, segments=segments)
        after = View(
            snapshot,
            previous=before,
            settings=_names(before.snapshot, snapshot, settings),
            segments=segments,
            decoded=decoded,
            overridden=overridden,
            read=self._read,
        )
        affected: frozenset[str] = frozenset()
        if self.wants_affected and (settings or segments):
            affected = self._affected(before.snapshot, snapshot, settings, segments)
        elif not self.wants_affected:
            self._references = None
        # Between the two a read goes the slow way, so that none sees a later view than the one after it.
        self.programs = _NO_PROGRAMS
        self.view = after
        self._show_programs()
        if self.listener is not None:
            self.listener(Publication(before, after, affected, tuple(problems)))

    def _effective(
        self,
        name: str,
        received: HeldItem | None,
        decoded: dict[str, _Decoded],
        problems: list[tuple[DeclaredSetting[Any], Problem]],
    ) -> Setting | None:
        """Return the setting as this process reads it, and note its decoded values."""
        item = None if received is None else received.item
        if not isinstance(item, Setting):
            return None
        declaration = self._declaration_of(item)
        if declaration is None:
            return item
        localised = declaration.localise(item)
        if localised.decoded:
            decoded[name] = localised.decoded
        problems.extend((declaration, problem) for problem in localised.problems)
        return localised.setting

    def _declaration_of(self, setting: Setting) -> DeclaredSetting[Any] | None:
        if not self._declared:
            return None
        return next((self._declared[name] for name in setting.names if name in self._declared), None)

    def _apply_overrides(
        self,
        held: Held,
        settings: dict[str, Setting | None],
        decoded: dict[str, _Decoded],
        before: frozenset[str],
        problems: list[tuple[DeclaredSetting[Any], Problem]],
    ) -> frozenset[str]:
        """Put the overrides in the place of the settings that are about to be shown."""
        overridden: set[str] = set()
        shown = self.view.snapshot
        for name, value in self._overrides.items():
            declaration = self._declared.get(name)
            try:
                frozen = self._encoded(name, value)
            except TypeMismatchError as error:
                # Set before the setting was declared. What is received has to be shown all the same.
                assert declaration is not None
                message = f"setting {name!r}: {error.message}; it is not used"
                problems.append((declaration, Problem(None, ABSENT, (), message)))
                continue
            current = name
            if name not in settings or settings[name] is None:
                known = shown.setting(name)
                if known is not None and known.name not in settings:
                    current = known.name
                else:
                    renamed = (s.name for s in settings.values() if s is not None and name in s.aliases)
                    current = next(renamed, name)
            original = settings[current] if current in settings else shown.settings.get(current)
            settings[current] = _overridden(current, frozen, original)
            decoded.pop(current, None)
            if declaration is not None and not declaration.codec.identity:
                # Not the caller's own object, which may change.
                ours = declaration.codec.decode(frozen)
                decoded[current] = {(False, None, None): ours, (True, None, None): ours}
            overridden.add(current)
        for name in before - overridden - settings.keys():
            # No longer overridden, and not about to be shown anew: back to what is held.
            settings[name] = self._effective(name, held.items.get(("setting", name)), decoded, [])
        return frozenset(overridden)

    def _encoded(self, name: str, value: object) -> Value:
        declaration = self._declared.get(name)
        try:
            # In the form of the wire, too, in which it had to be set before the setting was declared.
            return freeze(value) if declaration is None else declaration.fitted(value)
        except TypeMismatchError as error:
            raise TypeMismatchError(f"the override of {name!r}: {error.message}") from error

    # Who is affected.

    def _affected(
        self,
        before: Snapshot,
        after: Snapshot,
        settings: Mapping[str, Setting | None],
        segments: Mapping[str, Segment | None],
    ) -> frozenset[str]:
        """Return the names of the settings whose values may differ: those that changed, and all that refer to them."""
        references = self._references
        if references is None:
            references = self._references = _References(before)
        changed: set[ItemKey] = set()
        affected: set[str] = set()
        former = {s.id: s for n in settings if (s := before.settings.get(n)) is not None and s.id}
        later = {s.id: s for n in settings if (s := after.settings.get(n)) is not None and s.id}
        for name in settings:
            old, new = before.settings.get(name), after.settings.get(name)
            # Under a rename the setting is the same, and only its value can make a difference.
            old = former.get(new.id) if old is None and new is not None and new.id else old
            if new is None and old is not None and old.id:
                new = later.get(old.id)
            if not _gives_the_same(old, new):
                for each in (old, new):
                    if each is not None:
                        affected.add(each.name)
                        changed.update(("setting", written) for written in each.names)
            elif old is not None and new is not None and old.names != new.names:
                changed.update(("setting", written) for written in {*old.names} ^ {*new.names})
            references.note(("setting", name), after.settings.get(name))
        for name in _names(before, after, settings):
            current = name in before.settings or name in after.settings
            if not current and not _gives_the_same(before.setting(name), after.setting(name)):
                affected.add(name)
        for name in segments:
            old_segment, new_segment = before.segments.get(name), after.segments.get(name)
            if old_segment is None or new_segment is None or old_segment.condition != new_segment.condition:
                changed.add(("segment", name))
            references.note(("segment", name), new_segment)
        pending = list(changed)
        while pending:
            for user in references.users(pending.pop()):
                kind, name = user
                if kind == "setting":
                    setting = after.settings.get(name)
                    if setting is None or name in affected:
                        continue
                    affected.add(name)
                    pending.extend(("setting", written) for written in setting.names)
                elif user not in changed:
                    changed.add(user)
                    pending.append(user)
        return frozenset(affected)


class _References:
    """Who refers to what, by the names that are written. For one thread."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._users: dict[ItemKey, set[ItemKey]] = {}
        self._used: dict[ItemKey, set[ItemKey]] = {}
        for name, setting in snapshot.settings.items():
            self.note(("setting", name), setting)
        for name, segment in snapshot.segments.items():
            self.note(("segment", name), segment)

    def users(self, used: ItemKey) -> Iterable[ItemKey]:
        """Return the settings and segments that refer to *used*."""
        return self._users.get(used, ())

    def note(self, user: ItemKey, item: Setting | Segment | None) -> None:
        """Note what *user* refers to, now that it is *item*."""
        for used in self._used.pop(user, ()):
            self._users[used].discard(user)
        if isinstance(item, Setting):
            conditions = [rule.condition for rule in item.rules if rule.condition is not None]
        else:
            conditions = [] if item is None else [item.condition]
        found: set[ItemKey] = set()
        for condition in conditions:
            found.update(("setting", name) for name in settings_of(condition))
            found.update(("segment", name) for name in segments_of(condition))
        if found:
            self._used[user] = found
            for used in found:
                self._users.setdefault(used, set()).add(user)


def _names(before: Snapshot, after: Snapshot, changed: Iterable[str]) -> set[str]:
    """Return all names, aliases too, that *changed* settings have or had."""
    names = set(changed)
    for name in changed:
        for snapshot in (before, after):
            setting = snapshot.settings.get(name)
            if setting is not None:
                names.update(setting.names)
    return names


def _gives_the_same(old: Setting | None, new: Setting | None) -> bool:
    """Tell whether two states of a setting give the same value in every context, as far as they themselves say."""
    if old is None or new is None:
        return old is new
    return (
        old.enabled == new.enabled
        and same(old.base_value, new.base_value)
        and _same_or_absent(old.off, new.off)
        and len(old.rules) == len(new.rules)
        # The text form tells 1 from True, which are equal.
        and all(
            a is b
            or (
                a.enabled == b.enabled
                and a.condition == b.condition
                and repr((a.outcome, a.condition)) == repr((b.outcome, b.condition))
            )
            for a, b in zip(old.rules, new.rules, strict=True)
        )
    )


def _same_or_absent(old: Value | Absent, new: Value | Absent) -> bool:
    if old is ABSENT or new is ABSENT:
        return old is new
    return same(old, new)


def _overridden(name: str, value: Value, original: Setting | None) -> Setting:
    if original is None:
        return Setting(id="", name=name, type=JSON, default=value)
    return replace(original, value=value, rules=(), enabled=True, off=ABSENT)
