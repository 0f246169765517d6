"""Copies of stored subjects, and what they add to evaluations.

A copy is fresh while the stream that tells of changed subjects is open and has not named it, or for `UNWATCHED_SECONDS`
after the server was asked. Nothing here waits or does I/O: `SubjectCache.resolving` is a generator of effects.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final, Protocol, TypeAlias

from rheo.v1 import event_service_pb2, subject_pb2
from rheostat.errors import (
    ClientClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    RheostatError,
    UnavailableError,
)
from rheostat.evaluation.compiled.operand import Base, LiveBase
from rheostat.evaluation.join import implied, join
from rheostat.model.subject import (
    KEY_NAME,
    MAX_KEY_CHARACTERS,
    MAX_KEYS,
    RESERVED_KINDS,
    SUBJECT_KIND,
    USAGE,
    Subject,
    SubjectReference,
    Track,
    UsageCounter,
    UsagePeriod,
    fold,
    period_end,
)
from rheostat.model.value import Value
from rheostat.sdk import ambient
from rheostat.sdk.effect import Effect, Fetch, Own, Wait
from rheostat.sdk.event import Entry
from rheostat.wire.subject import reference_to_proto, subject_from_proto

__all__ = ["UNWATCHED_SECONDS", "Joined", "SharedCache", "SubjectCache", "keys_of"]

log = logging.getLogger("rheostat")

_REVALIDATION_SECONDS: Final = 10.0
"""How long a request for all that is held may take."""

_ABANDONED: Final = "abandoned"
"""In the place of what went wrong: whoever asked was cancelled, and another one has to."""

UNWATCHED_SECONDS: Final = 30.0
"""How long a copy counts as fresh without a stream that would tell of its change."""

_ABSENT_SECONDS: Final = 60.0
"""How long a subject that is not stored is not asked for again, unless the stream tells of any change."""

_AWAY_SECONDS: Final = (1.0, 60.0)
"""How long nothing is asked after the server did not answer, and after it has refused to."""

_LEAST_PATIENCE: Final = 0.5
"""Seconds: a server that has not answered sooner need not be away."""

_CHUNK: Final = 200
"""Subjects that are asked for at once: as large as they may be, they fit into the 16 MiB of an answer."""

_PENDING: Final = 1000
"""How many local counts of a copy are looked through for those that the server has."""

_BASES: Final = 8
"""For how many readers, or requests, a join is kept ready."""

_Name: TypeAlias = tuple[str, str, str]
"""A kind, the name of a key, and its folded value."""

_MORE: Final = object()
"""At the end of the key of a join: calls say more than plain text."""

_Found: TypeAlias = "_Copy | _Absence | None"


class SharedCache(Protocol):
    """Copies that several processes share; see `rheostat.sdk.shared_cache.RedisCache`."""

    def check_kind(self, *, waits: bool) -> None:
        """Refuse a client that *waits* in its thread, or does not, when the cache is for the other kind."""

    def bind(self, scope: str) -> SharedCache:
        """Return the cache of one environment."""

    def look_up(self, names: Sequence[Sequence[_Name]]) -> Own:
        """Return what gives a generation and what is stored, or None when that cannot be found out.

        What is stored is, for each subject that is named by any of some names, its message as bytes, or None.
        """

    def put(self, subjects: Sequence[tuple[subject_pb2.Subject, Sequence[_Name]]], generation: str) -> Own:
        """Return what stores subjects with their names, unless they are stored in a newer version.

        They are as they were after *generation* was looked up: when all was dropped since, that holds for them, too.
        """

    def drop(self, ids: Sequence[bytes] | None) -> Own:
        """Return what drops subjects; None drops all."""


class _Copy:
    """A subject as it was last heard of. Its serial rises whenever what it joins may be another.

    All but reading its attributes is done under the lock of whoever holds it.
    """

    __slots__ = (
        "_applied",
        "_bound",
        "_counters",
        "_max_events",
        "_pending",
        "checked_at",
        "fresh",
        "lent",
        "serial",
        "subject",
    )

    def __init__(
        self, subject: Subject, checked_at: float, *, fresh: bool, max_events: int = _PENDING
    ) -> None:
        self.subject = subject
        self.checked_at = checked_at
        self.fresh = fresh
        # From the shared cache, into which somebody may have written it whom nobody has told of changes since.
        self.lent = False
        self.serial = 0
        # Local events that the subject's counters lack, how many of them are in `_counters` already.
        self._pending: list[Entry] = []
        self._applied = 0
        self._bound = _PENDING
        self._max_events = max_events
        self._counters: dict[tuple[str, UsagePeriod], UsageCounter] | None = None

    def count(self, entry: Entry) -> None:
        """Add an event of this process."""
        self._pending.append(entry)
        self.serial += 1
        if len(self._pending) > self._bound:
            self._settle()
            self._pending = self._unsent()
            self._applied = len(self._pending)
            # So that looking through them all costs little for each.
            self._bound = max(_PENDING, 2 * self._applied)

    def renew(self, subject: Subject, checked_at: float, *, fresh: bool) -> None:
        """Take over what the server has answered, with those local events that it cannot have."""
        self._pending = self._unsent()
        self._applied = 0
        self._bound = max(_PENDING, 2 * len(self._pending))
        self._counters = None
        self.lent = False
        self.subject = subject
        self.checked_at = checked_at
        self.fresh = fresh
        self.serial += 1

    def inherit(self) -> None:
        """Go on in a child process, which sends none of the events that the parent has counted."""
        self._settle()
        self._pending = []
        self._applied = 0

    def current(self) -> Subject:
        """Return the subject with the local events in its counters."""
        self._settle()
        if self._counters is None:
            return self.subject
        return replace(self.subject, counters=tuple(self._counters.values()))

    def _unsent(self) -> list[Entry]:
        """Return the local events that may be sent yet."""
        left = [entry for entry in self._pending if not entry.attempted]
        # Of more the buffer has dropped the oldest.
        return left[-self._max_events :]

    def _settle(self) -> None:
        """Count what has been added."""
        if self._applied == len(self._pending):
            return
        if self._counters is None:
            self._counters = {(each.event, each.period): each for each in self.subject.counters}
        for entry in self._pending[self._applied :]:
            self._apply(entry, self._counters)
        self._applied = len(self._pending)

    def _apply(self, entry: Entry, counters: dict[tuple[str, UsagePeriod], UsageCounter]) -> None:
        what = entry.what
        assert isinstance(what, Track)
        at = datetime.datetime.fromtimestamp(entry.time, datetime.UTC)
        for period in UsagePeriod:
            known = counters.get((what.name, period))
            count = what.quantity
            if known is not None and (known.period_end is None or known.period_end > at):
                counters[what.name, period] = replace(known, count=known.count + count)
            else:
                end = period_end(period, at.date(), self.subject.month_day)
                counters[what.name, period] = UsageCounter(what.name, period, count, end)


class _Absence:
    """That nobody is stored under some name."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class _Request:
    """Lookups that are under way, and what was told of meanwhile: the answer may be older than that."""

    __slots__ = ("all", "touched")

    def __init__(self) -> None:
        self.touched: set[bytes] = set()
        self.all = False


class Joined:
    """What subjects add to an evaluation. Immutable but for what is kept ready.

    Attributes:
        layer: Their attributes.
        overrides: Values by the names of settings.
        attributes: What the call says of subjects beyond the keys of those that are known: a layer of the call's own.
        keys: By kind, the names in what the call says that are keys of the subject.
        until: Seconds since the epoch: when it is to be made anew.
        bases: By the id of what stands behind these attributes: that itself, and both together.
        note: What is missing, for people.
        conflict: Why nothing can be decided; empty when that is not so.
    """

    __slots__ = ("attributes", "bases", "conflict", "keys", "layer", "note", "overrides", "parts", "until")

    def __init__(
        self,
        layer: Mapping[str, object],
        overrides: Mapping[str, Value],
        *,
        attributes: dict[str, object] | None = None,
        keys: Mapping[str, frozenset[str]] | None = None,
        until: float = float("inf"),
        parts: tuple[tuple[_Copy, int], ...] = (),
        note: str = "",
        conflict: str = "",
    ) -> None:
        """Take it all over."""
        self.layer = layer
        self.overrides = overrides
        self.attributes = attributes if attributes is not None else {}
        self.until = until
        self.parts = parts
        self.keys = keys or {}
        self.note = note
        self.conflict = conflict
        self.bases: dict[int, tuple[object, Base | LiveBase]] = {}

    def before(
        self, base: Base | LiveBase, layers: Callable[[], tuple[Mapping[str, object], ...]]
    ) -> Base | LiveBase:
        """Return the layers behind a call's own: these, then *layers*, which *base* was made of.

        Both are kept as long as this is: for what lives as long as the client, not for the context of a request.
        """
        found = self.bases.get(id(base))
        if found is not None and found[0] is base:
            return found[1]
        made = self.behind(base, layers)
        if len(self.bases) >= _BASES:
            self.bases.clear()
        self.bases[id(base)] = base, made
        return made

    def behind(
        self, base: Base | LiveBase, layers: Callable[[], tuple[Mapping[str, object], ...]]
    ) -> Base | LiveBase:
        """Return what `before` does, and keep nothing."""
        return ambient.base_of((self.layer, *layers())) if self.layer else base

    def saying(self, subjects: Mapping[str, object]) -> Joined:
        """Return the same for a call that says *subjects*, of the same keys."""
        said = Joined(
            self.layer,
            self.overrides,
            attributes=_attributes(subjects, self.keys),
            keys=self.keys,
            note=self.note,
            conflict=self.conflict,
        )
        said.bases = self.bases
        return said

    def raised(self, plus: Mapping[str, int]) -> Joined:
        """Return the same with the counters of all subjects raised, by event."""
        layer = dict(self.layer)
        for kind in {path.partition(".")[0] for path in self.layer}:
            for event, quantity in plus.items():
                for period in UsagePeriod:
                    path = f"{kind}.{USAGE}.{event}.{period.value}"
                    count = layer.get(path, 0)
                    layer[path] = count + quantity if isinstance(count, int) else quantity
        return Joined(
            layer, self.overrides, attributes=self.attributes, note=self.note, conflict=self.conflict
        )


class SubjectCache:
    """Holds copies of subjects. Safe from any thread.

    Attributes:
        holds: There are copies: reads look for subjects to join.
        first_held: Called when the first copy is there.
        kinds_held: Called with the kinds of all copies when there is another one, or one less; under the lock.
        local: What is held is all that there is, as in a stub.
    """

    def __init__(
        self,
        *,
        max_subjects: int,
        max_events: int = 10_000,
        project: str = "",
        environment: str = "",
        check_open: Callable[[], None] = lambda: None,
        shared: SharedCache | None = None,
        later: Callable[[Generator[Effect, Any, None]], None] = lambda work: work.close(),
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold nothing.

        Args:
            max_subjects: How many copies are held; of more those that were not used for longest are dropped.
            max_events: How many events wait at most to be sent.
            project: As in requests.
            environment: As in requests.
            check_open: Raises what is wrong when nothing can be asked.
            shared: Copies that are shared with other processes.
            later: Has work done by a driver.
            wall_clock: Seconds since the epoch.
            clock: Monotonic seconds.
        """
        self.holds = False
        self.first_held: Callable[[], None] = lambda: None
        self.kinds_held: Callable[[frozenset[str]], object] = lambda _: None
        self.local = False
        self._max = max_subjects
        self._max_events = max_events
        self._project = project
        self._environment = environment
        self._check_open = check_open
        self._shared = shared
        self._later = later
        self._wall_clock = wall_clock
        self._clock = clock
        self._locks: dict[str, AbstractContextManager[object]] = {}
        # Whether a stream tells of changes, and whether one ever did.
        self._watching = self._watched = False
        self._begin()

    def _begin(self) -> None:
        self._copies: OrderedDict[bytes, _Copy] = OrderedDict()
        # How many copies there are of each kind; never one with none.
        self._kinds: dict[str, int] = {}
        self._names: dict[_Name, bytes] = {}
        self._crowded = False
        self._absent: OrderedDict[_Name, _Absence] = OrderedDict()
        self._conflicts: OrderedDict[object, float] = OrderedDict()
        # By what was named: joins of fresh copies, and those that reads make of what there is.
        self._joined: OrderedDict[tuple[object, ...], Joined] = OrderedDict()
        self._loose: OrderedDict[tuple[object, ...], Joined] = OrderedDict()
        # Stands for all that are not stored: its serial rises when one may be.
        self._nobody = _Copy(_nobody(), 0.0, fresh=True)
        # Likewise for all that is held.
        self._anybody = _Copy(_nobody(), 0.0, fresh=True)
        self._requests: set[_Request] = set()
        self._flights: dict[object, concurrent.futures.Future[str]] = {}
        # Until when nothing is asked, on the monotonic clock, and why.
        self._away_until = 0.0
        self._away = ""
        # What was told to have changed: a shared copy may be an older one.
        self._told: OrderedDict[bytes, None] = OrderedDict()

    def after_fork(self) -> None:
        """Go on in a child process with the copies, none of which is fresh."""
        self._locks = {}
        self._watching = False
        self._requests = set()
        self._flights = {}
        self._away_until = 0.0
        for copy in tuple(self._copies.values()):
            copy.inherit()
        self._doubt()

    def _lock(self) -> Any:
        return self._locks.get("") or self._locks.setdefault("", threading.RLock())

    def __len__(self) -> int:
        return len(self._copies)

    # What the stream tells.

    def watched(self) -> None:
        """A stream has begun that tells of changes; what was missed before is asked for."""
        with self._lock():
            self._away_until = 0.0
            again, self._watched = self._watched, True
            self._watching = True
            self._doubt()
            waiting = bool(self._copies)
        if again and self._shared is not None:
            self._later(self._dropping(None))
        if waiting:
            self._later(self.revalidating())

    def unwatched(self) -> None:
        """The stream has ended, or none could be opened."""
        with self._lock():
            if not self._watching:
                # Copies have not been watched, and are as old as they were.
                return
            self._watching = False
            now = self._wall_clock()
            for copy in tuple(self._copies.values()):
                copy.checked_at = now
            self._joined.clear()

    def abandoned(self) -> None:
        """Nobody listens any more, and for how long already is not known."""
        with self._lock():
            self._watching = False
            self._doubt()
            self._joined.clear()

    def changed(self, ids: Sequence[bytes], *, everything: bool) -> None:
        """Subjects have changed."""
        with self._lock():
            if everything:
                self._doubt()
            for each in ids:
                self._touch(each)
            for request in self._requests:
                request.all = request.all or everything
                request.touched.update(ids)
            self._forget_absent()
            waiting = everything and bool(self._copies)
        if self._shared is not None:
            self._later(self._dropping(None if everything else tuple(ids)))
        if waiting:
            self._later(self.revalidating())

    def _touch(self, which: bytes) -> None:
        copy = self._copies.get(which)
        if copy is not None:
            copy.fresh = False
            copy.serial += 1
        self._told[which] = None
        while len(self._told) > self._max:
            self._told.popitem(last=False)

    def _doubt(self) -> None:
        # Reads, which take no lock, move what they use to the end.
        for copy in tuple(self._copies.values()):
            copy.fresh = False
            copy.serial += 1
        for request in self._requests:
            request.all = True
        self._forget_absent()

    def _forget_absent(self) -> None:
        self._absent.clear()
        self._conflicts.clear()
        self._nobody.serial += 1

    def _dropping(self, ids: Sequence[bytes] | None) -> Generator[Effect, Any, None]:
        assert self._shared is not None
        yield self._shared.drop(ids)

    # What this process does.

    def count(self, entry: Entry) -> None:
        """Add an event of this process to the counters of the copies that it names. Never raises."""
        if not self.holds:
            return
        with self._lock():
            for reference in entry.subjects:
                found = self._find(reference.kind, reference.keys)
                if isinstance(found, _Copy):
                    found.count(entry)

    def store(self, messages: Iterable[subject_pb2.Subject]) -> None:
        """Take over what the server has answered to patches, of what is held or thought to be absent."""
        if not self.holds and not self._absent:
            return
        with self._lock():
            self._forget_absent()
            for message in messages:
                copy = self._copies.get(message.id)
                subject = _subject(message)
                if copy is not None and subject is not None and subject.version >= copy.subject.version:
                    self._put(subject, fresh=copy.fresh)

    def put(self, subject: Subject) -> None:
        """Hold *subject*, as it is."""
        with self._lock():
            self._forget_absent()
            self._put(subject, fresh=True)

    def found(self, kind: str, keys: Mapping[str, str]) -> Subject | None:
        """Return the copy that any of *keys* finds."""
        found = self._find(kind, keys)
        return found.subject if isinstance(found, _Copy) else None

    def remove(self, which: bytes) -> None:
        """Hold a subject no longer."""
        with self._lock():
            self._remove(which)

    def clear(self) -> None:
        """Hold nothing."""
        with self._lock():
            for which in tuple(self._copies):
                self._remove(which)
            self._forget_absent()

    def _put(self, subject: Subject, *, fresh: bool) -> _Copy:
        now = self._wall_clock()
        copy = self._copies.get(subject.id)
        self._anybody.serial += 1
        if copy is None:
            copy = self._copies[subject.id] = _Copy(subject, now, fresh=fresh, max_events=self._max_events)
            self._count_kind(subject.kind, 1)
        elif subject.version >= copy.subject.version or self.local:
            self._unname(copy.subject)
            copy.renew(subject, now, fresh=fresh)
        for name, value in copy.subject.keys.items():
            self._names[subject.kind, name, fold(value)] = subject.id
            self._absent.pop((subject.kind, name, fold(value)), None)
        while len(self._copies) > self._max:
            self._remove(next(iter(self._copies)))
        # Until then it does not matter which ones were used last.
        self._crowded = len(self._copies) * 2 > self._max
        if not self.holds:
            self.holds = True
            self.first_held()
        return copy

    def _remove(self, which: bytes) -> None:
        copy = self._copies.pop(which, None)
        if copy is not None:
            copy.serial += 1
            self._anybody.serial += 1
            self._unname(copy.subject)
            self._count_kind(copy.subject.kind, -1)

    def _count_kind(self, kind: str, more: int) -> None:
        before = self._kinds.get(kind, 0)
        if before + more:
            self._kinds[kind] = before + more
        else:
            del self._kinds[kind]
        if not before or not before + more:
            self.kinds_held(frozenset(self._kinds))

    def _unname(self, subject: Subject) -> None:
        for name, value in subject.keys.items():
            named = (subject.kind, name, fold(value))
            if self._names.get(named) == subject.id:
                del self._names[named]

    def _find(self, kind: str, keys: Mapping[str, str]) -> _Found | str:
        """Return a copy, that nobody is stored, None when that is not known, or why the keys contradict each other."""
        if self._conflicts and self._conflicts.get(_reference_key(kind, keys), 0.0) > self._wall_clock():
            return _conflict(kind, keys)
        found: _Copy | None = None
        others: list[_Copy] = []
        until = float("inf")
        unknown = False
        for name, value in keys.items():
            named = (kind, name, fold(value))
            which = self._names.get(named)
            copy = None if which is None else self._copies.get(which)
            if copy is None:
                absence = self._absent.get(named)
                if absence is None or absence.until <= self._wall_clock():
                    unknown = True
                else:
                    until = min(until, absence.until)
            elif found is None:
                found = copy
            elif copy is not found:
                others.append(copy)
        if found is not None and others:
            # One of them may be gone by now, or have another key.
            return _conflict(kind, keys) if all(map(self._is_fresh, (found, *others))) else None
        if found is None:
            return None if unknown else _Absence(until)
        if unknown:
            for name, value in keys.items():
                own = found.subject.keys.get(name)
                if (
                    own is not None
                    and fold(own) != fold(value)
                    and (kind, name, fold(value)) not in self._absent
                ):
                    # Another subject may have it.
                    return None
        return found

    def _named(self, reference: SubjectReference) -> list[_Copy]:
        """Return the copies that any of the keys finds."""
        named = [(reference.kind, name, fold(value)) for name, value in reference.keys.items()]
        ids = dict.fromkeys(which for each in named if (which := self._names.get(each)) is not None)
        return [copy for which in ids if (copy := self._copies.get(which)) is not None]

    # What reads ask for: what is at hand.

    def settled(self, subjects: Mapping[str, object]) -> Joined | None:
        """Return what *subjects* add, if that is at hand and fresh."""
        # What `_key` does, without its call: this is a good part of the time of a check.
        key: list[object] = []
        plain = True
        for kind, said in subjects.items():
            if type(said) is not dict or not said:
                plain = False
                break
            for name, value in said.items():
                if type(value) is str and type(name) is str:
                    key += kind, name, value
                else:
                    plain = False
                    break
        if not plain:
            try:
                key = _key(subjects)
            except Exception:  # noqa: BLE001 - mappings are the caller's, and a check never raises
                return None
        joined = self._joined.get(tuple(key))
        if joined is None:
            return None
        # What `_is_valid` does.
        for copy, serial in joined.parts:
            if copy.serial != serial:
                return None
        if joined.until <= self._wall_clock():
            return None
        if self._crowded:
            self._use(joined)
        return joined if plain else joined.saying(subjects)

    def _is_valid(self, joined: Joined) -> bool:
        for copy, serial in joined.parts:
            if copy.serial != serial:
                return False
        if joined.until <= self._wall_clock():
            return False
        if self._crowded:
            self._use(joined)
        return True

    def _use(self, joined: Joined) -> None:
        """Note that the copies in *joined* were used."""
        for copy, _ in joined.parts:
            try:
                self._copies.move_to_end(copy.subject.id)
            except KeyError:
                # Dropped just now, or the one that stands for others.
                continue

    def at_hand(
        self, layers: Iterable[Mapping[str, object]], *, without: Collection[str] = ()
    ) -> Joined | None:
        """Return what subjects add that *layers* of a context name by the way; None when none of them is held.

        Args:
            layers: The strongest first.
            without: Kinds that do not count.
        """
        said: list[tuple[str, Mapping[Any, object]]] = []
        key: list[object] = []
        kinds = self._kinds
        for layer in layers:
            for kind, value in layer.items():
                if (
                    kind in kinds
                    and (type(value) is dict or isinstance(value, Mapping))
                    and kind not in without
                ):
                    said.append((kind, value))
                    for name, text in value.items():
                        if isinstance(text, str) and isinstance(name, str):
                            key += kind, str.__str__(name), str.__str__(text)
        if not key:
            return None
        named: dict[str, dict[str, str]] = {}
        known = self._loose.get(tuple(key))
        if known is not None and self._is_valid(known):
            return known if known.layer else None
        with self._lock():
            anybody = self._anybody, self._anybody.serial
            for kind, value in said:
                # The strongest layer's text is the key where several have one of a name.
                named[kind] = {**keys_of(kind, value), **named.get(kind, {})}
            copies: list[_Copy] = []
            for kind, keys in named.items():
                found = self._find(kind, keys)
                if isinstance(found, _Copy):
                    copies.append(found)
            joined = self._made(copies, extra=(anybody,))
            self._loose[tuple(key)] = joined
            while len(self._loose) > self._max:
                self._loose.popitem(last=False)
        return joined if joined.layer else None

    def _made(
        self,
        copies: Sequence[_Copy],
        *,
        attributes: dict[str, object] | None = None,
        keys: Mapping[str, frozenset[str]] | None = None,
        until: float = float("inf"),
        extra: tuple[tuple[_Copy, int], ...] = (),
        note: str = "",
    ) -> Joined:
        # Before they are read: what comes meanwhile makes it invalid.
        all_copies = list(copies)
        for which in implied([copy.subject for copy in copies]):
            further = self._copies.get(which)
            if further is not None:
                all_copies.append(further)
        parts = tuple([(copy, copy.serial) for copy in all_copies]) + extra
        now = self._wall_clock()
        found = join(
            [copy.current() for copy in all_copies], datetime.datetime.fromtimestamp(now, datetime.UTC)
        )
        return Joined(
            found.layer,
            found.overrides,
            attributes=attributes,
            keys=keys,
            until=min(until, found.until),
            parts=parts,
            note=note,
        )

    # What checks ask for: what the server has.

    def resolving(self, subjects: Mapping[str, object], timeout: float) -> Generator[Effect, Any, Joined]:
        """Return what *subjects* add, after asking the server for those that are not at hand or not fresh.

        Args:
            subjects: By kind, what the call says of each.
            timeout: Seconds that asking may take.
        """
        deadline = self._clock() + timeout
        references = [
            SubjectReference(kind, keys)
            for kind, said in subjects.items()
            if isinstance(said, Mapping) and (keys := keys_of(kind, said))
        ]
        problem = yield from self._had(references, (), deadline)
        with self._lock():
            copies, conflict = self._conclude(references)
            if not conflict:
                brought = implied([copy.subject for copy in copies])
        if conflict:
            return Joined({}, {}, attributes=dict(subjects), conflict=conflict)
        if brought:
            problem = (yield from self._had((), brought, deadline)) or problem
        with self._lock():
            return self._joined_of(subjects, references, problem)

    def _conclude(self, references: Sequence[SubjectReference]) -> tuple[list[_Copy], str]:
        copies: list[_Copy] = []
        for reference in references:
            found = self._find(reference.kind, reference.keys)
            if isinstance(found, str):
                return [], found
            if isinstance(found, _Copy):
                copies.append(found)
        return copies, ""

    def _joined_of(
        self, subjects: Mapping[str, object], references: Sequence[SubjectReference], problem: str
    ) -> Joined:
        """Return what is known of *subjects* now, and a note of what is not."""
        copies: list[_Copy] = []
        keys: dict[str, frozenset[str]] = {}
        unknown: list[str] = []
        missing: list[str] = []
        doubtful: list[str] = []
        until = float("inf")
        for reference in references:
            found = self._find(reference.kind, reference.keys)
            named = f"{reference.kind} ({', '.join(sorted(reference.keys))})"
            if isinstance(found, str):
                return Joined({}, {}, attributes=dict(subjects), conflict=found)
            if isinstance(found, _Copy):
                copies.append(found)
                own = found.subject.keys
                keys[reference.kind] = frozenset(
                    name
                    for name, value in reference.keys.items()
                    if name in own and fold(own[name]) == fold(value)
                )
                if not self._is_fresh(found):
                    doubtful.append(named)
            elif found is None and problem:
                missing.append(named)
            else:
                unknown.append(named)
                until = min(until, found.until if found is not None else 0.0)
        named_ids = {copy.subject.id for copy in copies}
        for which in implied([copy.subject for copy in copies]):
            further = self._copies.get(which)
            if further is None:
                missing.append("whom they are members of")
            elif which not in named_ids and not self._is_fresh(further):
                doubtful.append(further.subject.kind)
        listed = {reference.kind for reference in references}
        keyless = [
            kind for kind, said in subjects.items() if isinstance(said, Mapping) and kind not in listed
        ]
        notes = [
            text
            for text, about in (
                (f"not stored, and joined without traits: {', '.join(unknown)}", unknown),
                (f"traits unavailable ({problem}): {', '.join(missing)}", missing),
                (
                    f"traits may be out of date ({problem or 'not confirmed'}): {', '.join(doubtful)}",
                    doubtful,
                ),
                (f"named by no key: {', '.join(keyless)}", keyless),
            )
            if about
        ]
        if not self.local:
            aging = [copy.checked_at for copy in copies if copy.lent or not self._watching]
            until = min(until, min(aging, default=float("inf")) + UNWATCHED_SECONDS)
        joined = self._made(
            copies,
            attributes=_attributes(subjects, keys),
            keys=keys,
            until=until,
            extra=((self._nobody, self._nobody.serial),) if unknown else (),
            note="; ".join(notes),
        )
        key = tuple(_key(subjects))
        if key and not missing and not doubtful and until > 0:
            self._joined[key] = joined
            while len(self._joined) > self._max:
                self._joined.popitem(last=False)
        return joined

    def _is_fresh(self, copy: _Copy) -> bool:
        if self.local:
            return True
        told = self._watching and not copy.lent
        return copy.fresh and (told or self._wall_clock() < copy.checked_at + UNWATCHED_SECONDS)

    def _had(
        self,
        references: Sequence[SubjectReference],
        ids: Sequence[bytes],
        deadline: float,
        *,
        shared: bool = True,
    ) -> Generator[Effect, Any, str]:
        """Ask for what is not at hand or not fresh; return what went wrong, in words, empty when nothing did.

        Others who ask for the same wait for the answer, where it is *shared*.
        """
        if self.local:
            return ""
        problem = ""
        for attempt in range(3):
            with self._lock():
                if attempt:
                    # One that is not there any more need not be asked for again.
                    ids = [which for which in ids if which in self._copies]
                # Again, too, for what has changed while it was asked for.
                lookups, flights = self._lookups(references, ids)
                if not lookups:
                    return problem
                own = {key: lookup for key, lookup in lookups.items() if key not in flights}
                future: concurrent.futures.Future[str] = concurrent.futures.Future()
                if shared:
                    for key in own:
                        self._flights[key] = future
            if own:
                problem = yield from self._flown(own, future, deadline)
            if not flights:
                if problem:
                    return problem
                continue
            abandoned = False
            for flight in set(flights.values()):
                left = deadline - self._clock()
                if left > 0:
                    yield Wait(flight, left)
                if not flight.done():
                    problem = "no answer in time"
                elif (found := flight.result()) == _ABANDONED:
                    abandoned = True
                else:
                    problem = found or problem
            if not abandoned:
                return problem
        return problem or "no answer in time"

    def _lookups(
        self, references: Sequence[SubjectReference], ids: Sequence[bytes]
    ) -> tuple[dict[object, event_service_pb2.SubjectLookup], dict[object, concurrent.futures.Future[str]]]:
        lookups: dict[object, event_service_pb2.SubjectLookup] = {}
        for reference in references:
            found = self._find(reference.kind, reference.keys)
            if found is None:
                key = _reference_key(reference.kind, reference.keys)
                lookups[key] = event_service_pb2.SubjectLookup(reference=reference_to_proto(reference))
                # Copies that contradict each other.
                for held in self._named(reference):
                    if not self._is_fresh(held):
                        which = held.subject.id
                        lookups[which] = event_service_pb2.SubjectLookup(
                            id=which, if_version=held.subject.version
                        )
            elif isinstance(found, _Copy) and not self._is_fresh(found):
                which = found.subject.id
                lookups[which] = event_service_pb2.SubjectLookup(id=which, if_version=found.subject.version)
        for which in ids:
            copy = self._copies.get(which)
            if copy is None:
                lookups[which] = event_service_pb2.SubjectLookup(id=which)
            elif not self._is_fresh(copy):
                lookups[which] = event_service_pb2.SubjectLookup(id=which, if_version=copy.subject.version)
        return lookups, {key: self._flights[key] for key in lookups if key in self._flights}

    def _flown(
        self,
        lookups: Mapping[object, event_service_pb2.SubjectLookup],
        future: concurrent.futures.Future[str],
        deadline: float,
    ) -> Generator[Effect, Any, str]:
        """Ask for *lookups*, for whoever waits for *future*, too."""
        problem = _ABANDONED
        try:
            problem = yield from self._asked(list(lookups.values()), deadline)
        finally:
            with self._lock():
                for key in lookups:
                    if self._flights.get(key) is future:
                        del self._flights[key]
            future.set_result(problem)
        return problem

    def _asked(
        self, lookups: list[event_service_pb2.SubjectLookup], deadline: float
    ) -> Generator[Effect, Any, str]:
        begun = self._clock()
        generation: str | None = None
        if self._shared is not None:
            generation, lookups = yield from self._asked_shared(lookups)
        for start in range(0, len(lookups), _CHUNK):
            chunk = lookups[start : start + _CHUNK]
            try:
                results = yield from self._fetched(chunk, deadline)
            except RheostatError as error:
                return self._failed(error, deadline - begun)
            if self._shared is not None and generation is not None:
                found = [
                    (each.subject, _names_of(each.subject)) for each in results if each.HasField("subject")
                ]
                if found:
                    yield self._shared.put(found, generation)
        return ""

    def _fetched(
        self, lookups: Sequence[event_service_pb2.SubjectLookup], deadline: float
    ) -> Generator[Effect, Any, Sequence[event_service_pb2.SubjectResult]]:
        """Ask the server, and take over what it answers.

        Raises:
            RheostatError: It does not.
        """
        self._check_open()
        now = self._clock()
        if now < self._away_until:
            raise UnavailableError(self._away)
        request = _Request()
        message = event_service_pb2.GetSubjectsRequest(
            project=self._project, environment=self._environment, lookups=lookups
        )
        with self._lock():
            self._requests.add(request)
        try:
            for attempt in (1, 2):
                left = deadline - self._clock()
                if left <= 0:
                    raise DeadlineExceededError("no answer in time")
                try:
                    answer = yield Fetch("GetSubjects", message, left)
                    break
                except UnavailableError:
                    # A connection that was kept open, and that the server has closed, fails at once.
                    if attempt == 2:
                        raise
            results: Sequence[event_service_pb2.SubjectResult] = answer.message.results
            with self._lock():
                for lookup, result in zip(lookups, results, strict=False):
                    self._take(lookup, result, request)
        finally:
            with self._lock():
                self._requests.discard(request)
        return results

    def _failed(self, error: RheostatError, asked_for: float) -> str:
        if isinstance(error, ClientClosedError):
            return error.message
        if isinstance(error, DeadlineExceededError) and asked_for < _LEAST_PATIENCE:
            # It was the caller who had no time.
            return error.message
        if isinstance(error, (UnavailableError, DeadlineExceededError)):
            pause = _AWAY_SECONDS[0]
        elif isinstance(error, FailedPreconditionError) and error.reason != "NOT_SERVED":
            # Offline, or without a server: it costs nothing to find out.
            return error.message
        else:
            pause = _AWAY_SECONDS[1]
        if self._clock() >= self._away_until:
            self._away = error.message
            self._away_until = self._clock() + pause
            log.warning("stored subjects cannot be read, and settings are evaluated without them: %s", error)
        return error.message

    def _take(
        self,
        lookup: event_service_pb2.SubjectLookup,
        result: event_service_pb2.SubjectResult,
        request: _Request,
    ) -> None:
        outcome = result.outcome
        fresh = not request.all
        if outcome == event_service_pb2.SUBJECT_OUTCOME_FOUND:
            subject = _subject(result.subject)
            if subject is None:
                return
            told = subject.id in request.touched
            self._told.pop(subject.id, None)
            self._put(subject, fresh=fresh and not told)
            reference = lookup.reference
            if not request.touched and fresh and reference.keys:
                for name, value in reference.keys.items():
                    if name in subject.keys and fold(subject.keys[name]) != fold(value):
                        self._note_absent(reference.kind, {name: value})
        elif outcome == event_service_pb2.SUBJECT_OUTCOME_UNCHANGED:
            copy = self._copies.get(lookup.id)
            if copy is not None and copy.subject.version == lookup.if_version:
                copy.fresh = fresh and lookup.id not in request.touched
                copy.checked_at = self._wall_clock()
                copy.lent = False
                self._told.pop(lookup.id, None)
        elif outcome == event_service_pb2.SUBJECT_OUTCOME_MISSING:
            if lookup.WhichOneof("by") == "id":
                self._remove(lookup.id)
            elif fresh and not request.touched:
                self._note_absent(lookup.reference.kind, lookup.reference.keys)
        elif outcome == event_service_pb2.SUBJECT_OUTCOME_CONFLICT and fresh and not request.touched:
            key = _reference_key(lookup.reference.kind, lookup.reference.keys)
            self._conflicts[key] = self._wall_clock() + _ABSENT_SECONDS
            while len(self._conflicts) > self._max:
                self._conflicts.popitem(last=False)

    def _note_absent(self, kind: str, keys: Mapping[str, str]) -> None:
        until = self._wall_clock() + _ABSENT_SECONDS
        for name, value in keys.items():
            named = (kind, name, fold(value))
            if named not in self._names:
                self._absent[named] = _Absence(until)
        while len(self._absent) > self._max:
            self._absent.popitem(last=False)

    def _asked_shared(
        self, lookups: list[event_service_pb2.SubjectLookup]
    ) -> Generator[Effect, Any, tuple[str | None, list[event_service_pb2.SubjectLookup]]]:
        """Take over what other processes have, of what is not held here.

        Returns:
            The generation, None when it is not known, and what is left to ask for.
        """
        assert self._shared is not None
        asked = [lookup for lookup in lookups if lookup.WhichOneof("by") == "reference"]
        request = _Request()
        with self._lock():
            self._requests.add(request)
        try:
            names = [_names_of_reference(lookup.reference) for lookup in asked]
            generation, found = (yield self._shared.look_up(names)) or (None, [None] * len(asked))
        finally:
            with self._lock():
                self._requests.discard(request)
        left = [lookup for lookup in lookups if lookup not in asked]
        with self._lock():
            for lookup, content in zip(asked, found, strict=False):
                subject = None if content is None else _parsed(content)
                usable = (
                    subject is not None
                    and not request.all
                    and subject.id not in request.touched
                    and subject.id not in self._told
                    and _fits(subject, lookup.reference)
                )
                if usable and subject is not None:
                    copy = self._put(subject, fresh=True)
                    copy.lent = copy.lent or copy.subject is subject
                else:
                    left.append(lookup)
        return generation, left

    def revalidating(self) -> Generator[Effect, Any, None]:
        """Ask for all copies that are not fresh, in one request if they are few."""
        with self._lock():
            doubtful = [which for which, copy in tuple(self._copies.items()) if not copy.fresh]
        for start in range(0, len(doubtful), _CHUNK):
            # The time that a request may take; each has its own. A check does not wait that long, and asks for itself.
            deadline = self._clock() + _REVALIDATION_SECONDS
            yield from self._had((), doubtful[start : start + _CHUNK], deadline, shared=False)


def keys_of(kind: str, said: Mapping[Any, object]) -> dict[str, str]:
    """Return what may be a key in what a call says of a subject."""
    if kind in RESERVED_KINDS or SUBJECT_KIND.fullmatch(kind) is None:
        return {}
    found: dict[str, str] = {}
    for name, value in said.items():
        if (
            isinstance(value, str)
            and 1 <= len(value) <= MAX_KEY_CHARACTERS
            and isinstance(name, str)
            and KEY_NAME.fullmatch(name) is not None
            and len(found) < MAX_KEYS
            and _is_text(value)
        ):
            # Of an enumeration's member, and the like, only the text itself.
            found[str.__str__(name)] = str.__str__(value)
    return found


def _is_text(value: str) -> bool:
    """Tell whether *value* can be sent: not with lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(subjects: Mapping[str, object]) -> list[object]:
    """Return what a join is kept by: all that `keys_of` may take, and which kinds are named.

    Two calls of one key join the same. A key that is marked stands for calls that say more, or otherwise, than plain
    text: what they say has to be looked at each time (`Joined.saying`).
    """
    key: list[object] = []
    plain = True
    for kind, said in subjects.items():
        if not isinstance(said, Mapping):
            plain = False
            continue
        if type(said) is not dict or not said:
            plain = False
        before = len(key)
        for name, value in said.items():
            if type(value) is not str or type(name) is not str:
                plain = False
            if isinstance(value, str) and isinstance(name, str):
                key += kind, str.__str__(name), str.__str__(value)
        if len(key) == before:
            # It joins nobody, and is noted.
            key.append((kind,))
    if not plain:
        key.append(_MORE)
    return key


def _attributes(subjects: Mapping[str, object], keys: Mapping[str, frozenset[str]]) -> dict[str, object]:
    """Return what a call says beyond keys, which join as they are stored."""
    found: dict[str, object] = {}
    for kind, said in subjects.items():
        known = keys.get(kind)
        if known and isinstance(said, Mapping):
            rest = {name: value for name, value in said.items() if name not in known}
            if rest:
                found[kind] = rest
        else:
            # The caller may change a dict after the call, and what is made of this one is kept.
            found[kind] = dict(said) if type(said) is dict else said
    return found


def _reference_key(kind: str, keys: Mapping[str, str]) -> object:
    return kind, frozenset([(name, fold(value)) for name, value in keys.items()])


def _conflict(kind: str, keys: Mapping[str, str]) -> str:
    return f"the keys {', '.join(sorted(keys))} of the {kind} belong to different subjects"


def _names_of(subject: subject_pb2.Subject) -> list[_Name]:
    return [(subject.kind, name, fold(value)) for name, value in subject.keys.items()]


def _names_of_reference(reference: subject_pb2.SubjectReference) -> list[_Name]:
    return [(reference.kind, name, fold(value)) for name, value in reference.keys.items()]


def _subject(message: subject_pb2.Subject) -> Subject | None:
    try:
        return subject_from_proto(message)
    except (RheostatError, ValueError) as error:
        log.warning("this version cannot read a stored subject: %s", error)
        return None


def _parsed(content: bytes) -> Subject | None:
    message = subject_pb2.Subject()
    try:
        message.ParseFromString(content)
    except Exception:  # noqa: BLE001 - whatever others have written there
        return None
    return _subject(message)


def _fits(subject: Subject, reference: subject_pb2.SubjectReference) -> bool:
    """Tell whether *subject* is surely who is meant: no key that was given may be another one's."""
    own = subject.keys
    if subject.kind != reference.kind:
        return False
    same = [fold(own[name]) == fold(value) for name, value in reference.keys.items() if name in own]
    return bool(same) and all(same)


def _nobody() -> Subject:
    never = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
    return Subject(b"", "", {}, {}, never, never)
