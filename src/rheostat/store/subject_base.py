"""What a store keeps of subjects and events, beside its history."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

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
    SubjectReference,
)

__all__ = ["SubjectName", "SubjectStore"]

SubjectName: TypeAlias = bytes | SubjectReference
"""A subject by its id, or by any of its keys."""


class SubjectStore(Protocol):
    """Subjects, events and their counts. All methods are safe from any thread and may block.

    Writes are durable when they return, run in one transaction each, and give other processes a hint when they added
    to the feed. The feed and its gapless number are written in the same transaction; its entries are tailed as
    revisions are. All instants are aware; a naive one is a ValueError. Keys are compared after `fold`, and keep the
    spelling in which they came first. An id begins with the time at which it was drawn, so that ids are in the order
    of storing; none is used twice.

    Raises:
        UnavailableError: From any method, when the store is away or busy for too long.
        StoreError: From any method, when it is damaged or was closed.
    """

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
        """Create or change subjects, in order: a patch sees what those before it did. Return what became of each.

        Patches are independent: when the store fails, some in front may have been kept, to be sent again.
        One that changes nothing writes nothing and keeps its version. What a patch both sets and removes is set; what
        has ended among overrides goes with the next change. The patches are valid in themselves: names and
        values have been checked. What is over a limit already may stay so, or become less. Refused, with these reasons, are SUBJECT_CONFLICT (keys of several subjects),
        LIMIT_EXCEEDED (the message names the limit) and UNKNOWN_SUBJECT (to become a member of).

        When a subject's keys change or it is removed, those that are members of it get a new version and a feed
        entry each, or, when there are more than a thousand in one call, one entry for the whole environment, all
        subjects of which get a new version then. Members are answered as they are after the call, others as they are
        after their patch.
        """

    def get_subjects(
        self, project: str, environment: str, names: Sequence[SubjectName], *, now: datetime.datetime
    ) -> Sequence[Subject | KeyConflict | None]:
        """Return subjects as they are, with the counters of the periods that *now* is in; None for unknown ones.

        The sum of a week or month that leaves 64 bits, though none of its days does, stops at their end.
        """

    def delete_subjects(
        self,
        project: str,
        environment: str,
        names: Sequence[tuple[SubjectName, int | None]],
        *,
        actor: str,
        now: datetime.datetime,
    ) -> Sequence[Subject | KeyConflict | bool]:
        """Remove subjects with their keys, traits, overrides, memberships and counters, unless they have another version.

        Returns:
            For each what was removed, without counters; False when there is none, True when it has another version
            than the one that was asked for, and stays.
        """

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
        """Return up to *limit* subjects, of one kind or all, in the order in which they were stored.

        Args:
            project: Slug.
            environment: Slug.
            kind: Empty for all.
            after: The id of the last subject of the page before; gone ones are no reason to fail or to begin anew
                (ids begin with the time at which they were drawn, so their order is that of storing).
            limit: At most so many.
            now: In whose periods the counters are.
        """

    def subject_changes(
        self, project: str, environment: str, *, id: bytes = b"", before: int | None = None, limit: int = 100
    ) -> Sequence[SubjectChange]:
        """Return who changed subjects, newest first, of one or of all; *before* a `SubjectChange.number`.

        Counters leave no trace here.
        """

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
        """Count events, each once by its idempotency key; those counted before are taken again without effect.

        Keys are remembered for two days at least. An unknown subject is stored, with the reference's keys; one that
        is known by some of them is left as it is. A counted event raises the versions of its subjects once for the
        whole call, with a feed entry each; those that the call has stored begin at the lowest. A subject that an event
        names twice counts once. An exposure counts no subject, and stores none.

        Returns:
            For each None when it is counted now or was before, else why not: SUBJECT_CONFLICT, LIMIT_EXCEEDED, or
            COUNT_OVERFLOW when a counter of a subject would leave 64 bits (what is counted of all subjects together
            stops there). What is refused leaves nothing behind, its key included.
        """

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
        """Return how often values were given on the days from *since* to before *until*, UTC.

        By setting, revision, rule, variant and value, in that order.
        """

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
        """Return how often events happened on the days from *since* to before *until*, UTC, by name."""

    def subject_feed_number(self) -> int:
        """Return the number of the newest feed entry ever written, read afresh; 0 when there was none."""

    def subject_feed(self, after: int, limit: int = 1000) -> Sequence[FeedEntry]:
        """Return up to *limit* feed entries after the number *after*, in order.

        Raises:
            RevisionCompactedError: The feed no longer reaches back so far, or not as far as *after*: it is another
                feed. It begins anew with each generation, far above all numbers that anybody has seen, because who
                has seen what was lost must read everything again.
        """

    def purge_subject_records(self, now: datetime.datetime) -> int:
        """Remove what is kept no longer, and return how many rows that were.

        Feed entries after an hour, idempotency keys after two days (whole days of them, UTC), changes after 90 days,
        counts by day after 400 days, and days of subjects' counters after 62 (their totals stay). What a clock that
        was ahead has dated goes with what was written after it. Works in steps that hold up no writer for long.
        """
