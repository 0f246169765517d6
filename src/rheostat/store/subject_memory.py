"""The subjects of a store in memory."""

from __future__ import annotations

import contextlib
import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from rheostat.errors import RevisionCompactedError
from rheostat.model.subject import (
    EventCount,
    ExposureCount,
    FeedEntry,
    KeyConflict,
    Refusal,
    Subject,
    SubjectChange,
    SubjectEvent,
    SubjectLimits,
    SubjectPatch,
)
from rheostat.store import subject, subject_event
from rheostat.store.stamp import utc
from rheostat.store.subject import (
    MAX_FEED_MEMBERS,
    TOTAL,
    Address,
    Cell,
    EventDay,
    ExposureDay,
    ExposureKey,
    Stored,
    Writes,
    clamped,
)
from rheostat.store.subject_base import SubjectName
from rheostat.store.subject_life import (
    AHEAD,
    CHANGE_LIFE,
    COUNT_LIFE,
    FEED_JUMP,
    FEED_LIFE,
    KEY_LIFE,
    USAGE_LIFE,
    VERSION_JUMP,
)

__all__ = ["MemorySubjects"]

K = TypeVar("K")
V = TypeVar("V")

_Place = tuple[str, str]


@dataclass(slots=True)
class _Environment:
    """A `rheostat.store.subject.Shelf`; in memory there is nothing to undo, as all is written in the end."""

    subjects: dict[bytes, Stored] = field(default_factory=dict)
    version_base: int = 0
    addresses: dict[Address, bytes] = field(default_factory=dict)
    # Of each that has any, as a set that keeps their order.
    members: dict[bytes, dict[bytes, None]] = field(default_factory=dict)
    usage: dict[bytes, dict[Cell, int]] = field(default_factory=dict)
    # When it was used, by actor and idempotency key.
    event_keys: dict[tuple[str, str], datetime.datetime] = field(default_factory=dict)
    event_days: dict[tuple[str, int], EventDay] = field(default_factory=dict)
    exposure_days: dict[ExposureKey, ExposureDay] = field(default_factory=dict)
    changes: list[SubjectChange] = field(default_factory=list)

    def find(self, addresses: Collection[Address]) -> Mapping[Address, bytes]:
        return {address: self.addresses[address] for address in addresses if address in self.addresses}

    def load(self, ids: Collection[bytes]) -> Mapping[bytes, Stored]:
        return {who: self.subjects[who] for who in ids if who in self.subjects}

    def names(self, ids: Collection[bytes]) -> Mapping[bytes, tuple[str, Mapping[str, str]]]:
        return {who: (stored.kind, stored.keys) for who, stored in self.load(ids).items()}

    def members_of(self, targets: Collection[bytes]) -> Collection[bytes]:
        members = dict.fromkeys(who for target in targets for who in self.members.get(target, ()))
        return list(islice(members, MAX_FEED_MEMBERS + 1))

    def count(self) -> int:
        return len(self.subjects)

    def base(self) -> int:
        return self.version_base

    def counts(self, ids: Collection[bytes], first: int, last: int) -> Mapping[bytes, Mapping[Cell, int]]:
        return {
            who: {
                cell: count
                for cell, count in self.usage[who].items()
                if cell[0] == TOTAL or first <= cell[0] <= last
            }
            for who in ids
            if who in self.usage
        }

    def sums(
        self, ids: Collection[bytes], spans: Sequence[tuple[int, int]]
    ) -> Mapping[bytes, Mapping[Cell, int]]:
        return self.counts(ids, min(first for first, _ in spans), max(after for _, after in spans) - 1)

    def used_keys(self, actor: str, keys: Collection[str], now: datetime.datetime) -> Collection[str]:
        return {key for key in keys if (actor, key) in self.event_keys}

    def write(self, writes: Writes) -> None:
        """Take in what has changed."""
        for address in writes.lost:
            del self.addresses[address]
        self.addresses |= writes.won
        for stored in writes.put:
            self._leave(stored.id)
            self.subjects[stored.id] = stored
            for target in stored.member_of:
                self.members.setdefault(target, {})[stored.id] = None
        self.version_base += writes.raises_all
        for who in writes.raised:
            self.subjects[who] = replace(self.subjects[who], version=self.subjects[who].version + 1)
        for removed in writes.removed:
            self._leave(removed)
            for who in self.members.pop(removed, ()):
                member = self.subjects[who]
                left = tuple(target for target in member.member_of if target != removed)
                self.subjects[who] = replace(member, member_of=left)
            del self.subjects[removed]
            self.usage.pop(removed, None)
        for who, counts in writes.counts.items():
            self.usage.setdefault(who, {}).update(counts)
        for key in writes.event_keys:
            self.event_keys[writes.actor, key] = writes.now
        for event_key, event in writes.event_days.items():
            kept = self.event_days.setdefault(event_key, EventDay(0, 0, event.last_at))
            kept.events += event.events
            kept.quantity = clamped(kept.quantity + event.quantity)
            kept.last_at = max(kept.last_at, event.last_at)
        for exposure_key, exposure in writes.exposure_days.items():
            shown = self.exposure_days.setdefault(
                exposure_key, ExposureDay(0, exposure.first_at, exposure.last_at)
            )
            shown.count = clamped(shown.count + exposure.count)
            shown.first_at = min(shown.first_at, exposure.first_at)
            shown.last_at = max(shown.last_at, exposure.last_at)

    def _leave(self, who: bytes) -> None:
        before = self.subjects.get(who)
        for target in () if before is None else before.member_of:
            members = self.members[target]
            del members[who]
            if not members:
                del self.members[target]


class MemorySubjects(ABC):
    """What a store in memory keeps beside its history; see `rheostat.store.subject_base.SubjectStore`."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._environments: dict[_Place, _Environment] = {}
        self._feed: list[tuple[datetime.datetime, FeedEntry]] = []
        self._feed_number = 0
        self._change_number = 0

    @abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[object]:
        """Keep off those who put the outcome of a write in place."""

    @abstractmethod
    def _writing_beside(self) -> contextlib.AbstractContextManager[None]:
        """Keep off everybody else."""

    @abstractmethod
    def _hint(self) -> None:
        """Wake those who wait for a hint."""

    def upsert_subjects(
        self,
        project: str,
        environment: str,
        patches: Sequence[SubjectPatch],
        *,
        actor: str,
        now: datetime.datetime,
        limits: SubjectLimits,
        draw_id: Callable[[], bytes],
    ) -> Sequence[Subject | Refusal]:
        """See `SubjectStore.upsert_subjects`."""
        with self._writing_beside():
            results, writes = subject.upsert(
                self._shelf(project, environment),
                patches,
                actor=actor,
                now=now,
                limits=limits,
                draw_id=draw_id,
            )
            self._write((project, environment), writes)
            return results

    def get_subjects(
        self, project: str, environment: str, names: Sequence[SubjectName], *, now: datetime.datetime
    ) -> Sequence[Subject | KeyConflict | None]:
        """See `SubjectStore.get_subjects`."""
        with self._reading():
            return subject.read(self._shelf(project, environment), names, now)

    def delete_subjects(
        self,
        project: str,
        environment: str,
        names: Sequence[tuple[SubjectName, int | None]],
        *,
        actor: str,
        now: datetime.datetime,
    ) -> Sequence[Subject | KeyConflict | bool]:
        """See `SubjectStore.delete_subjects`."""
        with self._writing_beside():
            results, writes = subject.delete(self._shelf(project, environment), names, actor=actor, now=now)
            self._write((project, environment), writes)
            return results

    def list_subjects(
        self,
        project: str,
        environment: str,
        *,
        kind: str = "",
        after: bytes = b"",
        limit: int = 100,
        now: datetime.datetime,
    ) -> Sequence[Subject]:
        """See `SubjectStore.list_subjects`."""
        with self._reading():
            shelf = self._shelf(project, environment)
            found = sorted(
                who for who, stored in shelf.subjects.items() if who > after and kind in ("", stored.kind)
            )
            return subject.render(shelf, [shelf.subjects[who] for who in found[:limit]], now)

    def subject_changes(
        self, project: str, environment: str, *, id: bytes = b"", before: int | None = None, limit: int = 100
    ) -> Sequence[SubjectChange]:
        """See `SubjectStore.subject_changes`."""
        with self._reading():
            found = (
                change
                for change in reversed(self._shelf(project, environment).changes)
                if id in (b"", change.id) and (before is None or change.number < before)
            )
            return tuple(islice(found, limit))

    def record_events(
        self,
        project: str,
        environment: str,
        events: Sequence[SubjectEvent],
        *,
        actor: str,
        now: datetime.datetime,
        limits: SubjectLimits,
        draw_id: Callable[[], bytes],
    ) -> Sequence[Refusal | None]:
        """See `SubjectStore.record_events`."""
        with self._writing_beside():
            results, writes = subject_event.record(
                self._shelf(project, environment),
                events,
                actor=actor,
                now=now,
                limits=limits,
                draw_id=draw_id,
            )
            self._write((project, environment), writes)
            return results

    def exposures(
        self,
        project: str,
        environment: str,
        *,
        setting: str = "",
        since: datetime.date | None = None,
        until: datetime.date | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> Sequence[ExposureCount]:
        """See `SubjectStore.exposures`."""
        sums: dict[tuple[str, int, str, str, str], ExposureDay] = {}
        with self._reading():
            for key, shown in self._shelf(project, environment).exposure_days.items():
                if setting not in ("", key[0]) or not _within(key[-1], since, until):
                    continue
                total = sums.setdefault(key[:-1], ExposureDay(0, shown.first_at, shown.last_at))
                total.count = clamped(total.count + shown.count)
                total.first_at = min(total.first_at, shown.first_at)
                total.last_at = max(total.last_at, shown.last_at)
        return tuple(
            ExposureCount(*key, sums[key].count, sums[key].first_at, sums[key].last_at)
            for key in sorted(sums)[offset : offset + limit]
        )

    def event_counts(
        self,
        project: str,
        environment: str,
        *,
        since: datetime.date | None = None,
        until: datetime.date | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[EventCount]:
        """See `SubjectStore.event_counts`."""
        sums: dict[str, EventDay] = {}
        with self._reading():
            for (event, day), kept in self._shelf(project, environment).event_days.items():
                if event <= after or not _within(day, since, until):
                    continue
                total = sums.setdefault(event, EventDay(0, 0, kept.last_at))
                total.events += kept.events
                total.quantity += kept.quantity
                total.last_at = max(total.last_at, kept.last_at)
        return tuple(
            EventCount(event, sums[event].events, clamped(sums[event].quantity), sums[event].last_at)
            for event in sorted(sums)[:limit]
        )

    def subject_feed_number(self) -> int:
        """See `SubjectStore.subject_feed_number`."""
        with self._reading():
            return self._feed_number

    def subject_feed(self, after: int, limit: int = 1000) -> Sequence[FeedEntry]:
        """See `SubjectStore.subject_feed`."""
        with self._reading():
            floor = self._feed_number - len(self._feed)
            if not floor <= after <= self._feed_number:
                raise RevisionCompactedError(after, floor)
            start = after - floor
            return tuple(entry for _, entry in self._feed[start : start + limit])

    def purge_subject_records(self, now: datetime.datetime) -> int:
        """See `SubjectStore.purge_subject_records`."""
        at = utc(now)
        counted = (at - COUNT_LIFE).date().toordinal()
        used = (at - USAGE_LIFE).date().toordinal()
        removed = 0
        with self._writing_beside():
            over = _over((entered_at for entered_at, _ in self._feed), at - FEED_LIFE, at + AHEAD)
            del self._feed[:over]
            removed += over
            for kept in self._environments.values():
                removed += _drop(kept.event_keys, lambda _, used_at: used_at < at - KEY_LIFE)
                removed += _drop(kept.event_days, lambda key, _: key[1] < counted)
                removed += _drop(kept.exposure_days, lambda key, _: key[-1] < counted)
                for counts in kept.usage.values():
                    removed += _drop(counts, lambda cell, _: TOTAL < cell[0] < used)
                over = _over((change.time for change in kept.changes), at - CHANGE_LIFE, at + AHEAD)
                del kept.changes[:over]
                removed += over
        return removed

    def _skip_feed(self) -> None:
        self._feed_number += FEED_JUMP
        self._feed.clear()
        for kept in self._environments.values():
            kept.version_base += VERSION_JUMP

    def _shelf(self, project: str, environment: str) -> _Environment:
        return self._environments.get((project, environment)) or _Environment()

    def _write(self, place: _Place, writes: Writes) -> None:
        if not writes:
            return
        kept = self._environments.setdefault(place, _Environment())
        kept.write(writes)
        for who in writes.fed:
            self._feed_number += 1
            self._feed.append((writes.now, FeedEntry(self._feed_number, *place, who)))
        for change in writes.changes:
            self._change_number += 1
            kept.changes.append(replace(change, number=self._change_number))
        if writes.touched:
            self._hint()


def _within(day: int, since: datetime.date | None, until: datetime.date | None) -> bool:
    return (since is None or day >= since.toordinal()) and (until is None or day < until.toordinal())


def _over(times: Iterable[datetime.datetime], cut: datetime.datetime, ahead: datetime.datetime) -> int:
    """Return how many come up to the last old one before the first that is not; those to come are neither."""
    over = 0
    for position, time in enumerate(times, 1):
        if time < cut:
            over = position
        elif time <= ahead:
            break
    return over


def _drop(kept: dict[K, V], is_over: Callable[[K, V], bool]) -> int:
    """Remove what is over, and return how many those were."""
    gone = [key for key, value in kept.items() if is_over(key, value)]
    for key in gone:
        del kept[key]
    return len(gone)
