"""A store in one SQLite file, which several processes of one machine may serve.

How commits are ordered, made durable and checkpointed, and why SQLite's automatic checkpoints are off, is
argued in docs/decisions/0004-sqlite.md.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy

from rheostat.errors import StoreError
from rheostat.model.change import ChangeSet
from rheostat.store import client, history
from rheostat.store import record as beside
from rheostat.store.base import ClientRow, Identity, Record, Write
from rheostat.store.hint import HintSocket
from rheostat.store.lock import WriterLock
from rheostat.store.migration import check_schema, migrate
from rheostat.store.pool import BUSY_TIMEOUT, Pool, Synchronous, translated
from rheostat.store.reading import SqlReads
from rheostat.store.stamp import NONCE_BYTES, new_identity, utc_now

__all__ = ["SqliteStore"]

T = TypeVar("T")

SAFETY_POLL: Final = 0.1
"""Seconds after which a commit is noticed whose hint was lost."""

CHECKPOINT_INTERVAL: Final = 128
"""Revisions between checkpoints, counted for all processes together: about 4 MiB of log."""

CHECKPOINT_SIZE: Final = 2**20
"""A change-set with more characters of item text than this is followed by a checkpoint at once."""

BESIDE_SIZE: Final = 4 * 2**20
"""A checkpoint follows when a process has written about so many bytes to the log that took no revision."""

_ROW_BYTES: Final = 2 * 4096
"""What a row adds to the log at least: the page that it is on, and one of an index."""

_CHECKPOINT_BUSY_MS: Final = 100
"""Milliseconds that a checkpoint waits for readers, with all writers waiting for it."""

_logger = logging.getLogger(__name__)

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_forking: list[SqliteStore] = []
_fork_lock = threading.Lock()


class SqliteStore(SqlReads):
    """A store in one SQLite file; see `rheostat.store.base.Store` for its methods.

    Safe from any thread and in forked children. Beside the file lie its ``-wal`` and ``-shm``, the lock files
    ``-lock`` and ``-turn``, and the directory ``-hints``; all but the lock files go when the last process
    closes the store.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], datetime.datetime] = utc_now,
        randomness: Callable[[int], bytes] = os.urandom,
        synchronous: Synchronous = "full",
        timeout: float = 5.0,
        checkpoint_interval: int = CHECKPOINT_INTERVAL,
    ) -> None:
        """Open the store at *path*; make it when there is none, migrate it when it is older.

        Args:
            path: The database file; its directory must exist and be writable.
            clock: Gives the aware time of each commit.
            randomness: Gives so many random bytes.
            synchronous: ``full``: a loss of power undoes no acknowledged commit. ``normal``: it may undo the
                last ones, never a part of one; several times faster.
            timeout: Seconds that a commit waits for other writers.
            checkpoint_interval: Revisions between checkpoints.

        Raises:
            StoreError: It cannot be opened, is damaged, is of a newer version, or is no store.
            UnavailableError: Another process is writing for too long.
        """
        # A later change of the working directory must not lead to another file.
        self._path = Path(os.path.realpath(path))
        self._clock = clock
        self._randomness = randomness
        self._timeout = timeout
        self._checkpoint_interval = checkpoint_interval
        self._checkpoint_due = False
        # Bytes that took no revision, since this process's last checkpoint. Changed under the writer lock only.
        self._beside = 0
        self._lock = WriterLock(self._path)
        self._pool = Pool(self._path, synchronous)
        self._hints = HintSocket(Path(f"{self._path}-hints"))
        self._seen = threading.local()
        _stores.add(self)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def commit(self, write: Write) -> ChangeSet | None:
        """See `Store.commit`."""
        with self._writing() as connection:
            with self._translated():
                head = history.read_head(connection)
            check_schema(head.schema)
            transaction = _SqliteTransaction(connection, head, self._path.name)
            try:
                change_set = write(transaction)
            finally:
                transaction.end()
            if change_set is None:
                return None
            with self._translated():
                written, size = history.append(connection, head, change_set, self._clock())
                connection.commit()
            size += transaction.size
            self._checkpoint(
                connection, written.revision % self._checkpoint_interval == 0 or size > CHECKPOINT_SIZE
            )
        self._hints.send()
        return written

    def raise_generation(self, above: int, cause: str = "") -> Identity:
        """See `Store.raise_generation`."""
        with self._writing() as connection, self._translated():
            identity = history.raise_generation(
                connection, above, self._randomness(NONCE_BYTES), cause, self._clock()
            )
            connection.commit()
        self._hints.send()
        return identity

    def compact(self, floor: int) -> int:
        """See `Store.compact`."""
        with self._writing() as connection, self._translated():
            raised = history.compact(connection, floor)
            connection.commit()
        return raised

    def put_record(self, record: Record, *, expected_version: int | None = None) -> Record | None:
        """See `Store.put_record`."""
        with self._writing_beside() as connection:
            if expected_version is not None:
                stored = beside.version(connection, record.kind, record.key)
                if stored != expected_version:
                    return None
            written = beside.put(connection, record)
            self._beside += _ROW_BYTES + len(record.body)
        self._hints.send()
        return written

    def delete_record(self, kind: str, key: str, *, expected_version: int | None = None) -> bool:
        """See `Store.delete_record`."""
        with self._writing_beside() as connection:
            removed = beside.remove(connection, kind, key, expected_version)
            self._beside += _ROW_BYTES * removed
        return removed

    def delete_due_records(self, kind: str, now: datetime.datetime) -> int:
        """See `Store.delete_due_records`."""
        with self._writing_beside() as connection:
            removed = beside.delete_due(connection, kind, now)
            self._beside += _ROW_BYTES * removed
        return removed

    def put_clients(self, rows: Sequence[ClientRow]) -> None:
        """See `Store.put_clients`."""
        with self._writing_beside(durable=False) as connection:
            client.put(connection, rows)
            self._beside += _ROW_BYTES * len(rows)

    def end_clients(
        self, clients: Sequence[tuple[str, str, str]], node: str, expires_at: datetime.datetime
    ) -> None:
        """See `Store.end_clients`."""
        with self._writing_beside(durable=False) as connection:
            client.end(connection, clients, node, expires_at)
            self._beside += _ROW_BYTES * len(clients)

    def expire_clients(self, now: datetime.datetime) -> int:
        """See `Store.expire_clients`."""
        with self._writing_beside(durable=False) as connection:
            expired = client.expire(connection, now)
            self._beside += _ROW_BYTES * expired
        return expired

    def wait_hint(self, timeout: float) -> bool:
        """See `Store.wait_hint`.

        The first call of each thread returns True at once; one that is ended by `close` returns False.
        """
        self._pool.check_open()
        try:
            return self._wait_hint(time.monotonic() + timeout)
        except StoreError:
            if self._pool.closed:
                return False
            raise

    def close(self) -> None:
        """See `Store.close`."""
        self._pool.close(self._lock.hold(self._timeout))
        self._hints.close()

    def _wait_hint(self, deadline: float) -> bool:
        while not self._pool.closed:
            now = time.monotonic()
            # Not at every call: the process's own commits change the version too, and need no hint.
            if now >= getattr(self._seen, "next_poll", now) and self._has_changed():
                return True
            if now >= deadline:
                return False
            if self._hints.wait(min(deadline, self._seen.next_poll) - now):
                self._has_changed()
                return True
        return False

    def _has_changed(self) -> bool:
        self._seen.next_poll = time.monotonic() + SAFETY_POLL
        version = self._pool.version()
        changed = version != getattr(self._seen, "version", None)
        self._seen.version = version
        return changed

    def _prepare(self) -> None:
        new = False
        with self._lock.hold(self._timeout):
            # The file holds key verifiers and the token key. Made only when there is none: to open and close
            # one that SQLite has open would drop this process's locks on it.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                new = True
            with self._pool.writer() as connection, self._translated():
                if migrate(connection):
                    history.put_identity(connection, new_identity(self._randomness))
                    new = True
                connection.commit()
            if new:
                _sync_directory(self._path.parent)

    def _read(self, read: Callable[[sqlalchemy.Connection], T]) -> T:
        with self._pool.reader() as connection, self._translated():
            return read(connection)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlalchemy.Connection]:
        with self._lock.hold(self._timeout), self._pool.writer() as connection:
            yield connection

    @contextlib.contextmanager
    def _writing_beside(self, *, durable: bool = True) -> Iterator[sqlalchemy.Connection]:
        """Lend the writing connection for what takes no revision, and commit it.

        What need not be durable does not wait for the disk: the next durable commit syncs it with its own.
        """
        with self._writing() as connection:
            with self._translated(), contextlib.nullcontext() if durable else _unsynced(connection):
                check_schema(history.read_head(connection).schema)
                yield connection
                connection.commit()
            self._checkpoint(connection, self._beside > BESIDE_SIZE)

    def _checkpoint(self, connection: sqlalchemy.Connection, due: bool) -> None:
        if due or self._checkpoint_due:
            # What cannot be copied, because a reader still needs the old pages, the next commit's will.
            self._checkpoint_due = not _checkpoint(connection)
            if not self._checkpoint_due:
                self._beside = 0

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return translated(self._path.name)

    def before_fork(self) -> None:
        """Let go of everything that a child must not inherit. Only for the hooks below."""
        self._pool.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on. Only for the hooks below."""
        self._pool.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start afresh. Only for the hooks below."""
        self._pool.after_fork_in_child()
        self._lock.after_fork_in_child()
        self._hints.after_fork_in_child()
        self._seen = threading.local()


class _SqliteTransaction:
    def __init__(self, connection: sqlalchemy.Connection, head: history.Head, name: str) -> None:
        self._connection: sqlalchemy.Connection | None = connection
        self._head = head
        self._name = name
        self.size = 0

    @property
    def identity(self) -> Identity:
        return self._head.identity

    @property
    def revision(self) -> int:
        return self._head.revision

    @property
    def rule_number(self) -> int:
        return self._head.rule_number

    def since(self, revision: int) -> Sequence[ChangeSet]:
        with translated(self._name):
            return history.since(self._live(), revision)

    def find_request(self, actor: str, request_id: str) -> ChangeSet | None:
        with translated(self._name):
            return history.find_request(self._live(), actor, request_id)

    def record(self, kind: str, key: str) -> Record | None:
        with translated(self._name):
            return beside.find(self._live(), kind, key)

    def put_record(self, record: Record) -> Record:
        with translated(self._name):
            written = beside.put(self._live(), record)
        self.size += len(record.body)
        return written

    def delete_record(self, kind: str, key: str) -> None:
        with translated(self._name):
            beside.remove(self._live(), kind, key)

    def end(self) -> None:
        self._connection = None

    def _live(self) -> sqlalchemy.Connection:
        if self._connection is None:
            raise StoreError("the transaction has ended")
        return self._connection


@contextlib.contextmanager
def _unsynced(connection: sqlalchemy.Connection) -> Iterator[None]:
    """Commit without waiting for the disk. Entered and left between transactions."""
    raw = _driver_connection(connection)
    ((level,),) = raw.execute("PRAGMA synchronous").fetchall()
    raw.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.rollback()
        raw.execute(f"PRAGMA synchronous = {level}")


def _driver_connection(connection: sqlalchemy.Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("the engine has another driver than sqlite3")
    return raw


def _checkpoint(connection: sqlalchemy.Connection) -> bool:
    """Copy the log into the database, under the writer lock; return whether all of it was copied."""
    raw = _driver_connection(connection)
    try:
        raw.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_BUSY_MS}").fetchall()
        # FULL and not PASSIVE: it takes SQLite's own write lock before it looks at the log, which keeps off
        # even programs that know nothing of the writer lock.
        ((busy, in_log, copied),) = raw.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
    except sqlite3.Error as exc:
        # The commit is durable all the same.
        _logger.warning("the checkpoint of the store failed and will be tried again: %s", exc)
        return False
    finally:
        raw.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}").fetchall()
    return not busy and in_log == copied


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking.extend(_stores)
    for store in _forking:
        store.before_fork()


def _after_fork_in_parent() -> None:
    for store in _forking:
        store.after_fork_in_parent()
    _forking.clear()
    _fork_lock.release()


def _after_fork_in_child() -> None:
    for store in _forking:
        store.after_fork_in_child()
    _forking.clear()
    _fork_lock.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
