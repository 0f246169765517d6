"""Counting events: the same on each store."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Sequence
from typing import Final

from rheostat.model.subject import (
    Exposure,
    KeyConflict,
    Refusal,
    SubjectEvent,
    SubjectLimits,
    SubjectReference,
    Track,
)
from rheostat.model.value import ABSENT, INT64_MAX, INT64_MIN, canonical_json
from rheostat.store.stamp import utc
from rheostat.store.subject import (
    BUMPS,
    CONFLICT,
    LIMIT,
    TOTAL,
    Cell,
    Desk,
    EventDay,
    ExposureDay,
    Shelf,
    Writes,
    clamped,
)

__all__ = ["record"]

_OVERFLOW: Final = "COUNT_OVERFLOW"

_VALUE_CHARACTERS: Final = 200

_NOTHING: Final[dict[Cell, int]] = {}


def record(
    shelf: Shelf,
    events: Sequence[SubjectEvent],
    *,
    actor: str,
    now: datetime.datetime,
    limits: SubjectLimits,
    draw_id: Callable[[], bytes],
) -> tuple[Sequence[Refusal | None], Writes]:
    """Count events; see `rheostat.store.subject_base.SubjectStore.record_events`."""
    tally = _Tally(shelf, events, actor, utc(now), limits, draw_id)
    return tuple(tally.count(event) for event in events), tally.writes()


class _Tally:
    def __init__(
        self,
        shelf: Shelf,
        events: Sequence[SubjectEvent],
        actor: str,
        now: datetime.datetime,
        limits: SubjectLimits,
        draw_id: Callable[[], bytes],
    ) -> None:
        self._limits = limits
        self._draw_id = draw_id
        self._desk = Desk(shelf, now, actor)
        self._now = now
        days = [utc(event.time).date().toordinal() for event in events]
        self._used = set(shelf.used_keys(actor, {event.idempotency_key for event in events}, now))
        ids = self._desk.find(
            reference
            for event in events
            if isinstance(event.what, Track) and event.idempotency_key not in self._used
            for reference in event.subjects
        )
        self._counts: dict[bytes, dict[Cell, int]] = {}
        if ids:
            found = shelf.counts(ids, min(days), max(days))
            self._counts = {who: dict(counts) for who, counts in found.items()}
        self._written = Writes(now, actor)
        # What was created for the event at hand.
        self._fresh: list[bytes] = []

    def writes(self) -> Writes:
        """Return what is to be written."""
        made = self._desk.writes()
        written = self._written
        for who, counts in written.counts.items():
            written.touched[who] = None
            if not self._desk.is_new(who):
                counts[BUMPS] = self._counts[who].get(BUMPS, 0) + 1
        written.put, written.new, written.won, written.changes = made.put, made.new, made.won, made.changes
        written.touched |= made.touched
        return written

    def count(self, event: SubjectEvent) -> Refusal | None:
        """Count an event, unless its key was used."""
        if event.idempotency_key in self._used:
            return None
        if isinstance(event.what, Exposure):
            self._expose(event.what, utc(event.time))
        elif refusal := self._track(event, event.what):
            return refusal
        self._used.add(event.idempotency_key)
        self._written.event_keys.append(event.idempotency_key)
        return None

    def _track(self, event: SubjectEvent, track: Track) -> Refusal | None:
        ids = self._resolve(event.subjects)
        if isinstance(ids, Refusal):
            return ids
        at = utc(event.time)
        total, of_day = (TOTAL, track.name), (at.date().toordinal(), track.name)
        counted: list[tuple[bytes, int, int]] = []
        for who in ids:
            counts = self._counts.get(who, _NOTHING)
            if total not in counts and self._has_too_many(counts):
                return self._undone(
                    LIMIT,
                    f"the subject would have more than {self._limits.max_subject_events} names of events "
                    "(max_subject_events)",
                )
            ever = counts.get(total, 0) + track.quantity
            then = counts.get(of_day, 0) + track.quantity
            if not (INT64_MIN <= ever <= INT64_MAX and INT64_MIN <= then <= INT64_MAX):
                return self._undone(_OVERFLOW, f"the count of {track.name!r} would not fit 64 bits any more")
            counted.append((who, ever, then))
        for who, ever, then in counted:
            for kept in (self._counts, self._written.counts):
                counts = kept.setdefault(who, {})
                counts[total] = ever
                counts[of_day] = then
        self._fresh.clear()
        added = self._written.event_days.setdefault((track.name, of_day[0]), EventDay(0, 0, at))
        added.events += 1
        added.quantity = clamped(added.quantity + track.quantity)
        added.last_at = max(added.last_at, at)
        return None

    def _resolve(self, references: Sequence[SubjectReference]) -> Collection[bytes] | Refusal:
        """Return the ids of an event's subjects, some of which may have been created for it."""
        ids: dict[bytes, None] = {}
        for reference in references:
            who: bytes | KeyConflict | Refusal | None = self._desk.id_of(reference)
            if who is None:
                who = self._desk.create(reference, self._limits, self._draw_id)
                if isinstance(who, bytes):
                    self._fresh.append(who)
            if isinstance(who, KeyConflict):
                return self._undone(CONFLICT, who.message)
            if isinstance(who, Refusal):
                return self._undone(who.reason, who.message)
            ids[who] = None
        return ids

    def _undone(self, reason: str, message: str) -> Refusal:
        while self._fresh:
            self._desk.undo_create(self._fresh.pop())
        return Refusal(reason, message)

    def _has_too_many(self, counts: dict[Cell, int]) -> bool:
        names = sum(day == TOTAL and event != "" for day, event in counts)
        return names >= self._limits.max_subject_events

    def _expose(self, exposure: Exposure, at: datetime.datetime) -> None:
        text = "" if exposure.value is ABSENT else canonical_json(exposure.value)
        if len(text) > _VALUE_CHARACTERS:
            text = f"{text[: _VALUE_CHARACTERS - 1]}…"
        key = (
            exposure.setting,
            exposure.revision,
            exposure.rule_id,
            exposure.variant,
            text,
            at.date().toordinal(),
        )
        total = self._written.exposure_days.setdefault(key, ExposureDay(0, at, at))
        total.count = clamped(total.count + exposure.count)
        total.first_at = min(total.first_at, at)
        total.last_at = max(total.last_at, at)
