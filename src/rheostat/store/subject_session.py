"""The subjects of the SQL stores, in their transactions."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy
from sqlalchemy import Connection

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
from rheostat.store import subject, subject_event, subject_purge, subject_row
from rheostat.store.batch import Flush
from rheostat.store.stamp import utc
from rheostat.store.subject import Writes
from rheostat.store.subject_base import SubjectName
from rheostat.store.subject_row import SqlShelf

if TYPE_CHECKING:
    from rheostat.store.session import SqlSession

__all__ = ["SqlSubjects"]

T = TypeVar("T")

_TURN: Final = 100
"""So many subjects are changed at first while others wait for the lock, and then as many as are of the size below."""

_TURN_CHARACTERS: Final = 4 * 2**20

_SCATTERED: Final = 100
_TOGETHER: Final = 32


class SqlSubjects(ABC):
    """What a SQL store keeps of subjects; see `rheostat.store.subject_base.SubjectStore`."""

    @abstractmethod
    def _read(self, read: Callable[[sqlalchemy.Connection], T]) -> T:
        """Return what *read* finds on a connection that sees one moment."""

    @abstractmethod
    def _write(self, work: Callable[[SqlSession], Flush[T] | None]) -> T | None:
        """Do *work* in its turn; see `rheostat.store.batch.Batches.run`."""

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
        results: list[Subject | Refusal] = []
        size = _TURN
        while True:
            part = patches[len(results) : len(results) + size]
            looked: list[int] = []

            def decide(
                shelf: SqlShelf, part: Sequence[SubjectPatch] = part, looked: list[int] = looked
            ) -> tuple[Sequence[Subject | Refusal], Writes]:
                decided = subject.upsert(shelf, part, actor=actor, now=now, limits=limits, draw_id=draw_id)
                looked.append(shelf.characters)
                return decided

            results.extend(self._change(project, environment, decide))
            if len(results) == len(patches):
                return tuple(results)
            size = max(1, len(part) * _TURN_CHARACTERS // max(1, looked[-1]))

    def get_subjects(
        self, project: str, environment: str, names: Sequence[SubjectName], *, now: datetime.datetime
    ) -> Sequence[Subject | KeyConflict | None]:
        """See `SubjectStore.get_subjects`."""
        return self._read(
            lambda connection: subject.read(SqlShelf(connection, project, environment), names, now)
        )

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
        return self._change(
            project, environment, lambda shelf: subject.delete(shelf, names, actor=actor, now=now)
        )

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

        def read(connection: Connection) -> Sequence[Subject]:
            found = subject_row.page(connection, project, environment, kind=kind, after=after, limit=limit)
            return subject.render(SqlShelf(connection, project, environment), found, now)

        return self._read(read)

    def subject_changes(
        self, project: str, environment: str, *, id: bytes = b"", before: int | None = None, limit: int = 100
    ) -> Sequence[SubjectChange]:
        """See `SubjectStore.subject_changes`."""
        return self._read(
            lambda connection: subject_row.changes(
                connection, project, environment, who=id, before=before, limit=limit
            )
        )

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
        return self._change(
            project,
            environment,
            lambda shelf: subject_event.record(
                shelf, events, actor=actor, now=now, limits=limits, draw_id=draw_id
            ),
        )

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
        return self._read(
            lambda connection: subject_row.exposures(
                connection,
                project,
                environment,
                setting=setting,
                since=since,
                until=until,
                offset=offset,
                limit=limit,
            )
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
        return self._read(
            lambda connection: subject_row.event_counts(
                connection, project, environment, since=since, until=until, after=after, limit=limit
            )
        )

    def subject_feed_number(self) -> int:
        """See `SubjectStore.subject_feed_number`."""
        return self._read(subject_row.feed_number)

    def subject_feed(self, after: int, limit: int = 1000) -> Sequence[FeedEntry]:
        """See `SubjectStore.subject_feed`."""
        return self._read(lambda connection: subject_row.feed(connection, after, limit))

    def purge_subject_records(self, now: datetime.datetime) -> int:
        """See `SubjectStore.purge_subject_records`."""
        at = utc(now)
        removed = 0
        for find, remove in subject_purge.PURGES:
            after: Any = None
            while True:
                found, after = self._read(lambda connection: find(connection, at, after))  # noqa: B023 - called at once
                if found:
                    removed += self._remove(lambda connection: remove(connection, found))  # noqa: B023
                if after is None:
                    break
        return removed

    def _remove(self, remove: Callable[[Connection], int]) -> int:
        def work(session: SqlSession) -> Flush[int]:
            with session.writing() as connection:
                removed = remove(connection)
            session.beside += removed
            return lambda: removed

        return self._write(work) or 0

    def _change(self, project: str, environment: str, decide: Callable[[SqlShelf], tuple[T, Writes]]) -> T:
        """Return what is decided in the writing transaction, once what it writes is durable."""
        decided: list[T] = []

        def work(session: SqlSession) -> Flush[None] | None:
            with session.reading() as connection:
                results, writes = decide(SqlShelf(connection, project, environment))
            decided.append(results)
            if not writes:
                return None
            with session.writing() as connection:
                rows = SqlShelf(connection, project, environment).write(writes)
            # Of few rows each has a page of its own; of many most stand beside others, and too frequent checkpoints
            # would be a fifth of what they cost.
            session.beside += min(rows, _SCATTERED + rows // _TOGETHER) + len(writes.raised)
            session.hint = session.hint or bool(writes.touched)
            return lambda: None

        self._write(work)
        return decided[0]
