"""What becomes of subjects: the same on each store, which only keeps the rows.

A store opens its `Shelf`, inside a transaction in which nobody else writes, and calls `upsert`, `delete` or
`rheostat.store.subject_event.record`; these read in sets, work on what they have read, and give back `Writes`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

from rheostat.model.subject import (
    KeyConflict,
    Membership,
    Refusal,
    Subject,
    SubjectChange,
    SubjectLimits,
    SubjectOverride,
    SubjectPatch,
    SubjectReference,
    UsageCounter,
    UsagePeriod,
    fold,
    period_end,
    period_start,
)
from rheostat.model.value import INT64_MAX, INT64_MIN, FrozenMapping, Value, canonical_json, freeze, same
from rheostat.store.stamp import instant_text, utc
from rheostat.store.subject_base import SubjectName

__all__ = [
    "BUMPS",
    "CONFLICT",
    "LIMIT",
    "MAX_FEED_MEMBERS",
    "TOTAL",
    "Address",
    "Cell",
    "Desk",
    "EventDay",
    "ExposureDay",
    "ExposureKey",
    "Shelf",
    "Stored",
    "Writes",
    "clamped",
    "delete",
    "read",
    "render",
    "upsert",
]

Address: TypeAlias = tuple[str, str, str]
"""Where a subject is found: its kind, the name of a key, and the folded value."""

Cell: TypeAlias = tuple[int, str]
"""What a subject's counts are kept by: the ordinal of a day, or `TOTAL`, and the name of an event."""

TOTAL: Final = 0
"""In the place of a day: the count of all time."""

BUMPS: Final[Cell] = (TOTAL, "")
"""In the place of a count: how often the subject's counters have changed. It is a part of the version, and is kept
with the counts because the page that holds them is written anyway."""

CONFLICT: Final = "SUBJECT_CONFLICT"
LIMIT: Final = "LIMIT_EXCEEDED"
_UNKNOWN: Final = "UNKNOWN_SUBJECT"

MAX_FEED_MEMBERS: Final = 1000
"""When more than so many members of a subject change with it, the feed has one entry for the whole environment, all of
which get another version: no row of theirs is written while others wait for the lock."""

_NOTHING: Final[Mapping[Cell, int]] = {}


@dataclass(frozen=True, slots=True)
class Stored:
    """A subject as a store keeps it, without what it is counted and without what it is a member of.

    Attributes:
        id: See `Subject`.
        kind: See `Subject`.
        created_at: In UTC.
        updated_at: In UTC.
        keys: By name.
        traits: By name.
        overrides: By setting.
        member_of: The ids of the others, in order.
        month_day: See `Subject`.
        version: Without `BUMPS` and `Shelf.base`.
    """

    id: bytes
    kind: str
    created_at: datetime.datetime
    updated_at: datetime.datetime
    keys: Mapping[str, str] = field(default_factory=dict)
    traits: Mapping[str, Value] = field(default_factory=dict)
    overrides: Mapping[str, SubjectOverride] = field(default_factory=dict)
    member_of: Sequence[bytes] = ()
    month_day: int = 1
    version: int = 0

    @property
    def addresses(self) -> set[Address]:
        """Where it is found."""
        return {(self.kind, name, fold(value)) for name, value in self.keys.items()}


ExposureKey: TypeAlias = tuple[str, int, str, str, str, int]
"""Setting, revision, rule, variant, value as JSON, and the ordinal of the day."""


@dataclass(slots=True)
class ExposureDay:
    """What is added to the exposures of a day.

    Attributes:
        count: How many.
        first_at: In UTC.
        last_at: In UTC.
    """

    count: int
    first_at: datetime.datetime
    last_at: datetime.datetime


@dataclass(slots=True)
class EventDay:
    """What is added to the events of a day.

    Attributes:
        events: How many.
        quantity: The sum of their quantities.
        last_at: In UTC.
    """

    events: int
    quantity: int
    last_at: datetime.datetime


@dataclass(slots=True)
class Writes:
    """What a call changes; all of it or nothing.

    Attributes:
        now: In UTC.
        actor: Who makes the call.
        put: Subjects that are new or another than before.
        new: The ids of those of them that are new.
        removed: The ids of subjects that are no more.
        lost: Addresses at which nobody is found any more. To be taken away before `won` is put in.
        won: Addresses, and who is found there now.
        moved: The ids of those of `put` that are members of others than before.
        raised: The ids of others that get a new version, as members of what has other keys or is no more.
        raises_all: All of the environment get one, since there would be too many of those.
        changes: For the audit.
        counts: By id, and then by cell, what the count is now.
        event_keys: Idempotency keys that have been used now.
        event_days: By event and ordinal of the day, what is added.
        exposure_days: What is added.
        touched: The ids of those that are another than before; for the feed.
    """

    now: datetime.datetime
    actor: str
    put: list[Stored] = field(default_factory=list)
    new: set[bytes] = field(default_factory=set)
    removed: list[bytes] = field(default_factory=list)
    lost: set[Address] = field(default_factory=set)
    won: dict[Address, bytes] = field(default_factory=dict)
    moved: list[bytes] = field(default_factory=list)
    raised: list[bytes] = field(default_factory=list)
    raises_all: bool = False
    changes: list[SubjectChange] = field(default_factory=list)
    counts: dict[bytes, dict[Cell, int]] = field(default_factory=dict)
    event_keys: list[str] = field(default_factory=list)
    event_days: dict[tuple[str, int], EventDay] = field(default_factory=dict)
    exposure_days: dict[ExposureKey, ExposureDay] = field(default_factory=dict)
    touched: dict[bytes, None] = field(default_factory=dict)

    @property
    def fed(self) -> Sequence[bytes]:
        """The ids that the feed tells of; an empty one for all of the environment."""
        return (b"",) if self.raises_all else (*self.touched, *self.raised)

    def __bool__(self) -> bool:
        return bool(self.put or self.removed or self.event_keys)


class Shelf(Protocol):
    """The subjects of one environment, as one transaction sees them."""

    def find(self, addresses: Collection[Address]) -> Mapping[Address, bytes]:
        """Return who is found where."""

    def load(self, ids: Collection[bytes]) -> Mapping[bytes, Stored]:
        """Return those that exist."""

    def names(self, ids: Collection[bytes]) -> Mapping[bytes, tuple[str, Mapping[str, str]]]:
        """Return the kinds and keys of those that exist."""

    def members_of(self, targets: Collection[bytes]) -> Collection[bytes]:
        """Return the members of any of them, once each; when they are more than `MAX_FEED_MEMBERS`, one more."""

    def count(self) -> int:
        """Return how many there are."""

    def base(self) -> int:
        """Return what is added to the versions of all of them."""

    def counts(self, ids: Collection[bytes], first: int, last: int) -> Mapping[bytes, Mapping[Cell, int]]:
        """Return what is counted of those that anything is, in total and on the days from *first* to *last*."""

    def sums(
        self, ids: Collection[bytes], spans: Sequence[tuple[int, int]]
    ) -> Mapping[bytes, Mapping[Cell, int]]:
        """Return what is counted of those that anything is, in total and on days that are in any of the spans.

        Days that are in the same of them may be added up, at any of them. A span is of the days from the first to
        before the second.
        """

    def used_keys(self, actor: str, keys: Collection[str], now: datetime.datetime) -> Collection[str]:
        """Return those of the idempotency keys that *actor* has used."""


def read(
    shelf: Shelf, names: Sequence[SubjectName], now: datetime.datetime
) -> Sequence[Subject | KeyConflict | None]:
    """Return subjects; see `rheostat.store.subject_base.SubjectStore.get_subjects`."""
    desk = Desk(shelf, utc(now))
    desk.fetch(names)
    found: list[Subject | KeyConflict | None] = []
    for name in names:
        stored = desk.at(name)
        found.append(desk.rendered(stored) if isinstance(stored, Stored) else stored)
    return tuple(found)


def render(shelf: Shelf, stored: Sequence[Stored], now: datetime.datetime) -> Sequence[Subject]:
    """Return subjects that have been read already."""
    desk = Desk(shelf, utc(now))
    desk.take(stored)
    return tuple(map(desk.rendered, stored))


def upsert(
    shelf: Shelf,
    patches: Sequence[SubjectPatch],
    *,
    actor: str,
    now: datetime.datetime,
    limits: SubjectLimits,
    draw_id: Callable[[], bytes],
) -> tuple[Sequence[Subject | Refusal], Writes]:
    """Create or change subjects; see `rheostat.store.subject_base.SubjectStore.upsert_subjects`."""
    desk = Desk(shelf, utc(now), actor)
    desk.fetch(
        [
            reference
            for patch in patches
            for reference in (patch.reference, *patch.member_of, *patch.remove_member_of)
        ]
    )
    results = [desk.upsert(patch, limits, draw_id) for patch in patches]
    writes = desk.writes()
    return tuple(map(desk.followed, results)), writes


def delete(
    shelf: Shelf, names: Sequence[tuple[SubjectName, int | None]], *, actor: str, now: datetime.datetime
) -> tuple[Sequence[Subject | KeyConflict | bool], Writes]:
    """Remove subjects; see `rheostat.store.subject_base.SubjectStore.delete_subjects`."""
    desk = Desk(shelf, utc(now), actor)
    desk.fetch([name for name, _ in names])
    return tuple(desk.delete(name, version) for name, version in names), desk.writes()


class Desk:
    """Subjects that are being worked on, with what has become of them so far."""

    def __init__(self, shelf: Shelf, now: datetime.datetime, actor: str = "") -> None:
        """Begin with nothing.

        Args:
            shelf: What is read.
            now: In UTC.
            actor: Who changes them.
        """
        self._shelf = shelf
        self._now = now
        self._actor = actor
        self._ids: dict[Address, bytes | None] = {}
        self._before: dict[bytes, Stored | None] = {}
        self._after: dict[bytes, Stored | None] = {}
        self._names: dict[bytes, tuple[str, Mapping[str, str]]] = {}
        self._counts: dict[bytes, Mapping[Cell, int]] = {}
        self._changes: list[SubjectChange] = []
        self._count: int | None = None
        self._base: int | None = None
        self._followers: set[bytes] = set()

    def find(self, references: Iterable[SubjectReference]) -> set[bytes]:
        """Look for subjects, and return the ids of those that exist."""
        wanted = {address for reference in references for address in _addresses(reference)}
        missing = wanted - self._ids.keys()
        if missing:
            self._ids.update(dict.fromkeys(missing))
            self._ids.update(self._shelf.find(missing))
        return {who for address in wanted if (who := self._ids[address]) is not None}

    def fetch(self, names: Iterable[SubjectName]) -> None:
        """Read subjects, and everything that they are rendered with."""
        names = list(names)
        ids = {name for name in names if isinstance(name, bytes)}
        ids |= self.find(name for name in names if isinstance(name, SubjectReference))
        if missing := ids - self._before.keys():
            loaded = self._shelf.load(missing)
            self.take([loaded[who] for who in missing if who in loaded])
            for who in missing - loaded.keys():
                self._before[who] = self._after[who] = None

    def take(self, subjects: Iterable[Stored]) -> None:
        """Take in subjects that have been read, and read what they are rendered with."""
        ids: dict[int, list[bytes]] = {}
        targets: set[bytes] = set()
        for stored in subjects:
            self._before[stored.id] = self._after[stored.id] = stored
            ids.setdefault(stored.month_day, []).append(stored.id)
            targets.update(stored.member_of)
        if targets := targets - self._after.keys() - self._names.keys():
            self._names.update(self._shelf.names(targets))
        for month_day, alike in ids.items():
            self._count_days(alike, month_day)

    def id_of(self, reference: SubjectReference) -> bytes | KeyConflict | None:
        """Return who is named by keys that were looked for; None for nobody."""
        found: bytes | None = None
        by = ""
        for name, value in reference.keys.items():
            who = self._ids[reference.kind, name, fold(value)]
            if who is None or who == found:
                continue
            if found is not None:
                return KeyConflict(
                    f"the keys {by!r} and {name!r} belong to two different subjects of the kind {reference.kind!r}"
                )
            found, by = who, name
        return found

    def at(self, name: SubjectName) -> Stored | KeyConflict | None:
        """Return a subject that was fetched, as it is by now."""
        who = name if isinstance(name, bytes) else self.id_of(name)
        return self._after[who] if isinstance(who, bytes) else who

    def rendered(self, stored: Stored) -> Subject:
        """Return a subject as others see it."""
        counts = self._counts.get(stored.id, _NOTHING)
        return Subject(
            id=stored.id,
            kind=stored.kind,
            keys=stored.keys,
            traits=stored.traits,
            created_at=stored.created_at,
            updated_at=stored.updated_at,
            overrides=tuple(stored.overrides[setting] for setting in sorted(stored.overrides)),
            counters=_counters(counts, self._now.date(), stored.month_day),
            member_of=tuple(self._memberships(stored)),
            month_day=stored.month_day,
            version=self._version(stored),
        )

    def upsert(
        self, patch: SubjectPatch, limits: SubjectLimits, draw_id: Callable[[], bytes]
    ) -> Subject | Refusal:
        """Create or change a subject whose references were fetched."""
        stored = self.at(patch.reference)
        if isinstance(stored, KeyConflict):
            return Refusal(CONFLICT, stored.message)
        joins, leaves = [], set()
        for reference in patch.member_of:
            target = self.at(reference)
            if isinstance(target, KeyConflict):
                return Refusal(CONFLICT, target.message)
            if target is None:
                return Refusal(
                    _UNKNOWN,
                    f"there is no subject of the kind {reference.kind!r} with these keys to be a member of",
                )
            joins.append(target.id)
        for reference in patch.remove_member_of:
            target = self.at(reference)
            if isinstance(target, KeyConflict):
                return Refusal(CONFLICT, target.message)
            if target is not None:
                leaves.add(target.id)
        before = stored or Stored(draw_id(), patch.reference.kind, self._now, self._now)
        after, fields = self._patched(before, patch, joins, leaves)
        if not fields:
            return self.rendered(before)
        if refusal := self._over_limits(before, after, limits, is_new=stored is None):
            return refusal
        return self.rendered(self._put(before, after, fields, is_new=stored is None))

    def create(
        self, reference: SubjectReference, limits: SubjectLimits, draw_id: Callable[[], bytes]
    ) -> bytes | Refusal:
        """Create a subject that was looked for and is not there."""
        before = Stored(draw_id(), reference.kind, self._now, self._now)
        after, fields = self._patched(before, SubjectPatch(reference), (), set())
        if refusal := self._over_limits(before, after, limits, is_new=True):
            return refusal
        self._put(before, after, fields, is_new=True)
        return after.id

    def undo_create(self, who: bytes) -> None:
        """Undo the last `create`, which made *id*."""
        stored = self._after.pop(who)
        assert stored is not None
        del self._before[who]
        self._changes.pop()
        self._ids.update(dict.fromkeys(stored.addresses))
        self._count = self._counted() - 1

    def delete(self, name: SubjectName, version: int | None) -> Subject | KeyConflict | bool:
        """Remove a subject that was fetched, unless it has another version."""
        stored = self.at(name)
        if not isinstance(stored, Stored):
            return stored if stored is not None else False
        subject = self.rendered(stored)
        if version is not None and version != subject.version:
            return True
        self._after[stored.id] = None
        self._ids.update(dict.fromkeys(stored.addresses))
        self._changes.append(SubjectChange(stored.id, stored.kind, 0, self._now, self._actor, ("deleted",)))
        return replace(subject, counters=())

    def is_new(self, who: bytes) -> bool:
        """Tell whether the subject was created here."""
        return who in self._before and self._before[who] is None

    def writes(self) -> Writes:
        """Return what has changed."""
        writes = Writes(self._now, self._actor, changes=self._changes)
        renamed: list[bytes] = []
        for who, before in self._before.items():
            after = self._after[who]
            if after is before:
                continue
            writes.touched[who] = None
            had = set() if before is None else before.addresses
            has = set() if after is None else after.addresses
            writes.lost |= had - has
            writes.won.update(dict.fromkeys(has - had, who))
            if had and had != has:
                renamed.append(who)
            if after is None:
                writes.removed.append(who)
                continue
            writes.put.append(after)
            if before is None:
                writes.new.add(who)
            if tuple(after.member_of) != tuple(() if before is None else before.member_of):
                writes.moved.append(who)
        if renamed:
            self._follow(renamed, writes)
        return writes

    def followed(self, result: Subject | Refusal) -> Subject | Refusal:
        """Return what is answered of a subject, which may have followed another one since; after `writes`."""
        if isinstance(result, Subject) and result.id in self._followers:
            stored = self._after[result.id]
            assert stored is not None
            return self.rendered(stored)
        return result

    def _follow(self, renamed: Sequence[bytes], writes: Writes) -> None:
        """Give the members of subjects new versions; those that have one by themselves have only other memberships."""
        members = dict.fromkeys(self._shelf.members_of(renamed))
        if len(members) > MAX_FEED_MEMBERS:
            writes.raises_all = True
            self._base = self._shelf.base() + 1
            writes.changes = [
                replace(made, version=made.version + 1) if made.version else made for made in writes.changes
            ]
            self._followers = {who for who, after in self._after.items() if after is not None}
            return
        writes.raised = [who for who in members if who not in writes.touched]
        for who in writes.raised:
            if stored := self._after.get(who):
                self._after[who] = replace(stored, version=stored.version + 1)
        targets = set(renamed)
        self._followers = {*members, *(put.id for put in writes.put if not targets.isdisjoint(put.member_of))}

    def _put(self, before: Stored, after: Stored, fields: set[str], *, is_new: bool) -> Stored:
        after = replace(
            after,
            version=after.version + 1,
            updated_at=self._now,
            # Those that have ended are of no use to anybody.
            overrides={
                setting: override
                for setting, override in after.overrides.items()
                if override.expires_at is None or override.expires_at > self._now
            },
        )
        if is_new:
            self._before[after.id] = None
            self._count = self._counted() + 1
        elif after.month_day != before.month_day:
            self._count_days([after.id], after.month_day)
        self._after[after.id] = after
        self._ids.update(dict.fromkeys(before.addresses - after.addresses))
        self._ids.update(dict.fromkeys(after.addresses, after.id))
        self._changes.append(
            SubjectChange(
                after.id, after.kind, self._version(after), self._now, self._actor, tuple(sorted(fields))
            )
        )
        return after

    def _count_days(self, ids: Collection[bytes], month_day: int) -> None:
        spans = _spans(self._now.date(), month_day)
        self._counts.update(self._shelf.sums(ids, [(first, after) for _, first, after, _ in spans]))

    def _version(self, stored: Stored) -> int:
        if self._base is None:
            self._base = self._shelf.base()
        return self._base + stored.version + self._counts.get(stored.id, _NOTHING).get(BUMPS, 0)

    def _patched(
        self, before: Stored, patch: SubjectPatch, joins: Sequence[bytes], leaves: Collection[bytes]
    ) -> tuple[Stored, set[str]]:
        """Return the subject as the patch wants it, and the names of what it changes."""
        fields: set[str] = set()
        keys = dict(before.keys)
        for name, value in patch.reference.keys.items():
            if name not in keys or fold(keys[name]) != fold(value):
                keys[name] = value
                fields.add(f"keys.{name}")
        traits = {name: value for name, value in before.traits.items() if name not in patch.remove_traits}
        for name, raw in patch.traits.items():
            traits[name] = freeze(raw)
        for name in traits.keys() | before.traits.keys():
            if not _same(traits, before.traits, name):
                fields.add(f"traits.{name}")
        overrides = {
            setting: override
            for setting, override in before.overrides.items()
            if setting not in patch.remove_overrides
        }
        for override in patch.overrides:
            overrides[override.setting] = _in_utc(override)
        for setting in overrides.keys() | before.overrides.keys():
            if not _same_override(overrides.get(setting), before.overrides.get(setting)):
                fields.add(f"overrides.{setting}")
        member_of = [who for who in before.member_of if who not in leaves]
        member_of += [who for who in dict.fromkeys(joins) if who not in member_of]
        if member_of != list(before.member_of):
            fields.add("member_of")
        month_day = before.month_day if patch.month_day is None else patch.month_day
        if month_day != before.month_day:
            fields.add("month_day")
        return replace(
            before,
            keys=keys,
            traits=traits,
            overrides=overrides,
            member_of=tuple(member_of),
            month_day=month_day,
        ), fields

    def _over_limits(
        self, before: Stored, after: Stored, limits: SubjectLimits, *, is_new: bool
    ) -> Refusal | None:
        if is_new and self._counted() >= limits.max_subjects:
            return _over("max_subjects", "the environment", limits.max_subjects, "subjects")
        for limit, had, has, maximum, noun in (
            ("max_subject_keys", before.keys, after.keys, limits.max_subject_keys, "keys"),
            ("max_traits", before.traits, after.traits, limits.max_traits, "traits"),
            ("max_memberships", before.member_of, after.member_of, limits.max_memberships, "memberships"),
            (
                "max_overrides",
                self._lasting(before),
                self._lasting(after),
                limits.max_overrides,
                "overrides",
            ),
        ):
            # What was allowed under another limit may stay, and become less.
            if len(has) > maximum and len(has) > len(had):
                return _over(limit, "the subject", maximum, noun)
        for name, value in after.traits.items():
            if value is not before.traits.get(name, after) and _size(value) > limits.max_trait_bytes:
                return _over("max_trait_bytes", f"the trait {name!r}", limits.max_trait_bytes, "bytes")
        size = _subject_size(after)
        if size > limits.max_subject_bytes and size > _subject_size(before):
            return _over("max_subject_bytes", "the subject", limits.max_subject_bytes, "bytes")
        return None

    def _lasting(self, stored: Stored) -> Sequence[SubjectOverride]:
        return [
            override
            for override in stored.overrides.values()
            if override.expires_at is None or override.expires_at > self._now
        ]

    def _memberships(self, stored: Stored) -> Iterable[Membership]:
        for who in stored.member_of:
            if who in self._after:
                target = self._after[who]
                if target is not None:
                    yield Membership(who, target.kind, target.keys)
            elif who in self._names:
                yield Membership(who, *self._names[who])

    def _counted(self) -> int:
        if self._count is None:
            self._count = self._shelf.count()
        return self._count


def clamped(number: int) -> int:
    """Return the nearest integer of 64 bits."""
    return max(INT64_MIN, min(number, INT64_MAX))


def _spans(today: datetime.date, month_day: int) -> Sequence[tuple[UsagePeriod, int, int, datetime.datetime]]:
    """Return the periods that have an end: the ordinals of the first day and of the one after the last, and that."""
    spans = []
    for period in (UsagePeriod.DAY, UsagePeriod.WEEK, UsagePeriod.MONTH):
        start, end = period_start(period, today, month_day), period_end(period, today, month_day)
        assert start is not None
        assert end is not None
        spans.append((period, start.toordinal(), end.toordinal(), end))
    return spans


def _counters(counts: Mapping[Cell, int], today: datetime.date, month_day: int) -> Sequence[UsageCounter]:
    if not counts:
        return ()
    spans = _spans(today, month_day)
    sums: dict[str, dict[UsagePeriod, int]] = {}
    for (day, event), count in counts.items():
        if (day, event) == BUMPS:
            continue
        of_event = sums.setdefault(event, dict.fromkeys(UsagePeriod, 0))
        if day == TOTAL:
            of_event[UsagePeriod.ALL] = count
            continue
        for period, first, after, _ in spans:
            if first <= day < after:
                of_event[period] += count
    ends = {period: end for period, _, _, end in spans}
    return tuple(
        UsageCounter(event, period, clamped(count), ends.get(period))
        for event in sorted(sums)
        for period, count in sums[event].items()
        if count
    )


def _addresses(reference: SubjectReference) -> Iterable[Address]:
    return ((reference.kind, name, fold(value)) for name, value in reference.keys.items())


def _same(left: Mapping[str, Value], right: Mapping[str, Value], name: str) -> bool:
    return name in left and name in right and same(left[name], right[name])


def _same_override(left: SubjectOverride | None, right: SubjectOverride | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.expires_at == right.expires_at and same(left.value, right.value)


def _in_utc(override: SubjectOverride) -> SubjectOverride:
    expires_at = None if override.expires_at is None else utc(override.expires_at)
    return SubjectOverride(override.setting, freeze(override.value), expires_at)


def _over(limit: str, what: str, maximum: int, noun: str) -> Refusal:
    return Refusal(LIMIT, f"{what} would have more than {maximum} {noun} ({limit})")


def _size(value: Value) -> int:
    return len(canonical_json(value).encode())


def _subject_size(stored: Stored) -> int:
    overrides = {
        override.setting: (
            override.value,
            None if override.expires_at is None else instant_text(override.expires_at),
        )
        for override in stored.overrides.values()
    }
    whole = (FrozenMapping(stored.keys), FrozenMapping(stored.traits), FrozenMapping(overrides))
    return _size(whole)
