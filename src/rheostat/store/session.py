"""What the SQL stores write: transactions that the writers of one process share.

A change-set is not sent when its turn ends but with those of all others when the transaction does, in the same few
statements however many there are. Until then the session answers from memory what a later writer asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import sqlalchemy

from rheostat.errors import AlreadyExistsError, StoreError, UnavailableError
from rheostat.model.change import ChangeSet
from rheostat.store import history
from rheostat.store import record as beside
from rheostat.store.base import Group, Identity, Record, RequestWrite, Transaction, Write
from rheostat.store.batch import Flush
from rheostat.store.reading import SqlReads
from rheostat.store.row import Rows, rows_of
from rheostat.store.stamp import NONCE_BYTES, stamped
from rheostat.store.subject_session import SqlSubjects

__all__ = ["Request", "SqlSession", "SqlWrites"]

T = TypeVar("T")

Request = tuple[str, str]
"""Actor and request id."""


class SqlSession(ABC):
    """A writing transaction that has the writers' lock; see `rheostat.store.batch.Session`.

    Attributes:
        head: What the store is after the turns so far.
        hint: Other processes are to be told.
        characters: How many characters it has written, of items and of what is beside them.
        beside: How many rows it has written that took no revision.
    """

    def __init__(
        self, connection: sqlalchemy.Connection, head: history.Head, clock: Callable[[], datetime.datetime]
    ) -> None:
        """Begin with the first turn, on a connection in the writing transaction."""
        self.head = head
        self.hint = False
        self.characters = 0
        self.beside = 0
        self.connection = connection
        self._group = Group()
        self._kept = head
        self._clock = clock
        self._pid = os.getpid()
        self._began = head.revision
        self._waiting: list[Rows] = []
        self._requests: dict[Request, ChangeSet] = {}
        # In this transaction, in which nobody else writes.
        self._looked_for: set[Request] = set()
        self._used: set[Request] = set()
        self._touched = False
        self._broken = False

    @property
    def group(self) -> Group:
        """See `rheostat.store.batch.Session`."""
        return self._group

    # What the turns do.

    def append(self, change_set: ChangeSet) -> ChangeSet:
        """Take a change-set in, and return it as it is kept. Only as a flush.

        Raises:
            AlreadyExistsError: Its actor used its request id before.
            ValueError: It cannot be kept.
        """
        request = (change_set.actor, change_set.request_id)
        if change_set.request_id and self._is_used(request):
            raise AlreadyExistsError(f"the request id {change_set.request_id!r} was used before")
        written = stamped(change_set, self.head.identity, self.head.revision + 1, self._clock())
        rows = rows_of(written)
        self._waiting.append(rows)
        self._group.written.append(written)
        self.characters += rows.size
        self.hint = True
        if change_set.request_id:
            self._requests[request] = written
        self.head = dataclasses.replace(
            self.head,
            revision=written.revision,
            rule_number=self.head.rule_number + written.rule_numbers,
        )
        return written

    def since(self, revision: int) -> Sequence[ChangeSet]:
        """See `rheostat.store.base.Transaction`."""
        self._check_process()
        if revision >= max(self._began, self.head.floor):
            return tuple(self._group.written[revision - self._began :])
        with self.reading() as connection:
            stored = history.since(history.executing(connection), revision)
        # What has been sent is found there already.
        newest = revision + len(stored)
        return (*stored, *(each for each in self._group.written if each.revision > newest))

    def find_request(self, actor: str, request_id: str) -> ChangeSet | None:
        """See `rheostat.store.base.Transaction`."""
        request = (actor, request_id)
        if not request_id or not self._is_used(request):
            return None
        if request in self._requests:
            return self._requests[request]
        with self.reading() as connection:
            return history.find_request(connection, actor, request_id)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlalchemy.Connection]:
        """Lend the connection, on which change-sets that wait are not seen."""
        self._check_process()
        try:
            with self._translated():
                yield self.connection
        except (StoreError, UnavailableError):
            # Without a savepoint there is nothing to go back to.
            self._broken = self._broken or not self._touched
            raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlalchemy.Connection]:
        """Lend the connection for writing records; what is written is undone with the turn."""
        with self.reading() as connection:
            if not self._touched:
                self._execute("SAVEPOINT turn")
                self._touched = True
            yield connection

    @contextlib.contextmanager
    def writing_history(self) -> Iterator[sqlalchemy.Connection]:
        """As `writing`, with the change-sets that wait written first."""
        with self._breaking():
            if self._waiting:
                self._put(self._waiting, self.head.rule_number)
                self._waiting = []
        with self.writing() as connection:
            yield connection

    # How turns end.

    def keep(self, flush: Flush[T]) -> T:
        """See `rheostat.store.batch.Session`."""
        result = flush()
        if self._touched:
            with self._breaking():
                self._execute("RELEASE SAVEPOINT turn")
            self._touched = False
        self._kept = self.head
        return result

    def commit(self, flush: Flush[T] | None) -> T | None:
        """See `rheostat.store.batch.Session`."""
        result = None if flush is None else flush()
        with self._breaking():
            self._commit(self._waiting, self.head.rule_number)
        return result

    def undo(self) -> bool:
        """See `rheostat.store.batch.Session`."""
        self.head = self._kept
        if self._touched and not self._broken:
            with contextlib.suppress(StoreError, UnavailableError), self._breaking():
                self._execute("ROLLBACK TO SAVEPOINT turn")
                self._execute("RELEASE SAVEPOINT turn")
        self._touched = False
        return not self._broken

    @abstractmethod
    def close(self) -> None:
        """See `rheostat.store.batch.Session`."""

    # What an engine does in its own way.

    @abstractmethod
    def _translated(self) -> contextlib.AbstractContextManager[None]:
        """Turn the engine's errors inside into those of `rheostat.errors`."""

    @abstractmethod
    def _find_used(self, request: Request) -> tuple[Iterable[Request], Iterable[Request]]:
        """Find out, as fast as can be, whether the audit history has a request, and perhaps others that wait.

        Returns:
            Those that were looked for, and those of them that it has.
        """

    @abstractmethod
    def _execute(self, statement: str) -> None:
        """Execute what has neither parameters nor results."""

    @abstractmethod
    def _put(self, rows: Sequence[Rows], rule_number: int) -> None:
        """Write change-sets."""

    @abstractmethod
    def _commit(self, rows: Sequence[Rows], rule_number: int) -> None:
        """Write change-sets, if there are any, and commit; give a hint if that is wanted."""

    def _is_used(self, request: Request) -> bool:
        if request in self._requests:
            return True
        if request not in self._looked_for:
            with self.reading():
                looked_for, used = self._find_used(request)
            self._looked_for.update(looked_for)
            self._used.update(used)
        return request in self._used

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Do what cannot be undone once it has failed half-way."""
        self._check_process()
        before, self._broken = self._broken, True
        with self._translated():
            yield
        self._broken = before

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise StoreError("the store was being written while this process was forked")


class SqlWrites(SqlReads, SqlSubjects):
    """What the writers of a process do in turn; see `rheostat.store.base.Store`."""

    _clock: Callable[[], datetime.datetime]
    _randomness: Callable[[int], bytes]

    @abstractmethod
    def _write(
        self, work: Callable[[SqlSession], Flush[T] | None], *, request: Request | None = None
    ) -> T | None:
        """Do *work*, which looks for *request*, in its turn; see `rheostat.store.batch.Batches.run`."""

    def newest(self) -> tuple[Identity, int]:
        """See `Store.newest`."""
        head = self._read(history.read_head)
        return head.identity, head.revision

    def commit(self, write: Write) -> ChangeSet | None:
        """See `Store.commit`."""

        def work(session: SqlSession) -> Flush[ChangeSet] | None:
            transaction = _SqlTransaction(session)
            try:
                change_set = write(transaction)
            finally:
                transaction.end()
            return None if change_set is None else lambda: session.append(change_set)

        request = (write.actor, write.request_id) if isinstance(write, RequestWrite) else None
        return self._write(work, request=request)

    def raise_generation(self, above: int, cause: str = "") -> Identity:
        """See `Store.raise_generation`."""

        def work(session: SqlSession) -> Flush[Identity]:
            with session.writing_history() as connection:
                identity = history.raise_generation(
                    connection, above, self._randomness(NONCE_BYTES), cause, self._clock()
                )
            session.head = dataclasses.replace(session.head, identity=identity)
            session.hint = True
            return lambda: identity

        return _some(self._write(work))

    def compact(self, floor: int) -> int:
        """See `Store.compact`."""

        def work(session: SqlSession) -> Flush[int]:
            with session.writing_history() as connection:
                raised = history.compact(connection, floor)
            session.head = dataclasses.replace(session.head, floor=raised)
            return lambda: raised

        return _some(self._write(work))

    def put_record(self, record: Record, *, expected_version: int | None = None) -> Record | None:
        """See `Store.put_record`."""

        def work(session: SqlSession) -> Flush[Record] | None:
            if expected_version is not None:
                with session.reading() as connection:
                    stored = beside.version(connection, record.kind, record.key)
                if stored != expected_version:
                    return None
            with session.writing() as connection:
                written = beside.put(connection, record)
            session.characters += len(record.body)
            session.beside += 1
            session.hint = True
            return lambda: written

        return self._write(work)

    def delete_record(self, kind: str, key: str, *, expected_version: int | None = None) -> bool:
        """See `Store.delete_record`."""

        def work(session: SqlSession) -> Flush[bool] | None:
            with session.writing() as connection:
                removed = beside.remove(connection, kind, key, expected_version)
            session.beside += removed
            return (lambda: True) if removed else None

        return bool(self._write(work))

    def delete_due_records(self, kind: str, now: datetime.datetime) -> int:
        """See `Store.delete_due_records`."""

        def work(session: SqlSession) -> Flush[int] | None:
            with session.writing() as connection:
                removed = beside.delete_due(connection, kind, now)
            session.beside += removed
            return (lambda: removed) if removed else None

        return self._write(work) or 0


class _SqlTransaction(Transaction):
    def __init__(self, session: SqlSession) -> None:
        self._session: SqlSession | None = session

    @property
    def group(self) -> Group:
        return self._live().group

    @property
    def identity(self) -> Identity:
        return self._live().head.identity

    @property
    def revision(self) -> int:
        return self._live().head.revision

    @property
    def rule_number(self) -> int:
        return self._live().head.rule_number

    def since(self, revision: int) -> Sequence[ChangeSet]:
        return self._live().since(revision)

    def find_request(self, actor: str, request_id: str) -> ChangeSet | None:
        return self._live().find_request(actor, request_id)

    def record(self, kind: str, key: str) -> Record | None:
        with self._live().reading() as connection:
            return beside.find(connection, kind, key)

    def put_record(self, record: Record) -> Record:
        session = self._live()
        with session.writing() as connection:
            written = beside.put(connection, record)
        session.characters += len(record.body)
        return written

    def delete_record(self, kind: str, key: str) -> None:
        with self._live().writing() as connection:
            beside.remove(connection, kind, key)

    def end(self) -> None:
        self._session = None

    def _live(self) -> SqlSession:
        if self._session is None:
            raise StoreError("the transaction has ended")
        return self._session


def _some(result: T | None) -> T:
    assert result is not None
    return result
