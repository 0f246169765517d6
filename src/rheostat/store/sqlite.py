"""A store in one SQLite file, which several processes of one machine may serve.

How commits are ordered, made durable and checkpointed, and why SQLite's automatic checkpoints are off, is
argued in docs/decisions/0004-sqlite.md.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import sqlalchemy
from sqlalchemy.dialects.sqlite import dialect

from rheostat.errors import StoreError
from rheostat.model.change import ChangeSet
from rheostat.store import client, history
from rheostat.store.base import ClientRow, Identity
from rheostat.store.batch import Batches, Flush
from rheostat.store.disk import sync_directory
from rheostat.store.hint import HintSocket
from rheostat.store.lock import WriterLock
from rheostat.store.migration import check_schema, migrate
from rheostat.store.pool import BUSY_TIMEOUT, Pool, Synchronous, driver_connection, translated
from rheostat.store.row import Rows, put_in_sqlite
from rheostat.store.session import Request, SqlSession, SqlWrites
from rheostat.store.stamp import new_identity, utc_now

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

_REQUEST: Final = "SELECT 1 FROM change_set WHERE actor = ? AND request_id = ? AND request_id != ''"
"""Repeats the condition of the partial index, without which it would not be used."""

_logger = logging.getLogger(__name__)

_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_forking: list[SqliteStore] = []
_fork_lock = threading.Lock()


class SqliteStore(SqlWrites):
    """A store in one SQLite file; see `rheostat.store.base.Store` for its methods.

    Safe from any thread and in forked children. Concurrent commits of one process may share a transaction, in
    which each sees those before it; a `Write` must therefore not wait for another writer to be done. Beside the file lie its ``-wal`` and ``-shm``, the lock files
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
        self._batches = self._new_batches()
        self._seen = threading.local()
        _stores.add(self)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def put_clients(self, rows: Sequence[ClientRow]) -> None:
        """See `Store.put_clients`."""
        with self._writing_clients() as connection:
            client.put(connection, rows)
            self._beside += _ROW_BYTES * len(rows)

    def end_clients(
        self, clients: Sequence[tuple[str, str, str]], node: str, expires_at: datetime.datetime
    ) -> None:
        """See `Store.end_clients`."""
        with self._writing_clients() as connection:
            client.end(connection, clients, node, expires_at)
            self._beside += _ROW_BYTES * len(clients)

    def expire_clients(self, now: datetime.datetime) -> int:
        """See `Store.expire_clients`."""
        with self._writing_clients() as connection:
            expired = client.expire(connection, now)
            self._beside += _ROW_BYTES * expired
        return expired

    def newest(self) -> tuple[Identity, int]:
        """See `Store.newest`."""
        head = self._read(lambda connection: _read_head(driver_connection(connection)))
        return head.identity, head.revision

    def read_since(self, revision: int, limit: int = 1000) -> Sequence[ChangeSet]:
        """See `Store.read_since`."""

        def read(connection: sqlalchemy.Connection) -> Sequence[ChangeSet]:
            raw = driver_connection(connection)
            # All of it is to be of one moment.
            raw.execute("BEGIN")
            try:
                return history.since(_executing(raw), revision, limit)
            finally:
                raw.rollback()

        return self._read(read)

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
                sync_directory(self._path.parent)

    def _read(self, read: Callable[[sqlalchemy.Connection], T]) -> T:
        with self._pool.reader() as connection, self._translated():
            return read(connection)

    def _new_batches(self) -> Batches[_Session]:
        return Batches(lambda: _Session(self), timeout=self._timeout)

    def _write(
        self, work: Callable[[SqlSession], Flush[T] | None], *, request: Request | None = None
    ) -> T | None:
        def turn(session: _Session) -> Flush[T] | None:
            with self._pool.inside():
                return work(session)

        return self._batches.run(turn)

    @contextlib.contextmanager
    def _writing_clients(self) -> Iterator[sqlalchemy.Connection]:
        """Lend the writing connection, and commit without waiting for the disk.

        The next durable commit syncs it with its own.
        """
        with self._lock.hold(self._timeout), self._pool.writer() as connection:
            with self._translated(), _unsynced(connection):
                check_schema(history.read_head(connection).schema)
                yield connection
                connection.commit()
            self._checkpoint(connection)

    def _checkpoint(self, connection: sqlalchemy.Connection, *, due: bool = False) -> None:
        if due or self._checkpoint_due or self._beside > BESIDE_SIZE:
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
        self._batches = self._new_batches()
        self._hints.after_fork_in_child()
        self._seen = threading.local()


class _Session(SqlSession):
    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._committed = False
        self._lock = store._lock.hold(store._timeout)
        self._lock.__enter__()
        try:
            connection = store._pool.borrow_writer()
            try:
                with store._translated():
                    self._raw = driver_connection(connection)
                    self._raw.execute("BEGIN IMMEDIATE")
                    head = _read_head(self._raw)
                check_schema(head.schema)
            except BaseException:
                store._pool.give_back_writer(connection, sound=False)
                raise
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        super().__init__(connection, head, store._clock)

    def close(self) -> None:
        if self._pid != os.getpid():
            # Forked by a turn: all of it is the parent's.
            return
        store = self._store
        try:
            if self._committed:
                store._beside += _ROW_BYTES * self.beside + self.characters
                passed = self.head.revision // store._checkpoint_interval
                due = passed > self._began // store._checkpoint_interval
                store._checkpoint(self.connection, due=due or self.characters > CHECKPOINT_SIZE)
        finally:
            try:
                store._pool.give_back_writer(self.connection, sound=not self._broken)
            finally:
                self._lock.__exit__(None, None, None)

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return self._store._translated()

    def _find_used(self, request: Request) -> tuple[Iterable[Request], Iterable[Request]]:
        found = self._raw.execute(_REQUEST, request).fetchone()
        return [request], [] if found is None else [request]

    def _execute(self, statement: str) -> None:
        self._raw.execute(statement)

    def _put(self, rows: Sequence[Rows], rule_number: int) -> None:
        put_in_sqlite(self._raw, rows, rule_number)

    def _commit(self, rows: Sequence[Rows], rule_number: int) -> None:
        if rows:
            put_in_sqlite(self._raw, rows, rule_number)
        self._raw.commit()
        self._committed = True
        if self.hint:
            self._store._hints.send()


def _executing(raw: sqlite3.Connection) -> history.Execute:
    """Return what runs statements without SQLAlchemy, whose share would be more than SQLite's.

    For those that each commit, and each follower after it, waits for.
    """

    def execute(statement: sqlalchemy.Select[Any], parameters: Mapping[str, object]) -> Sequence[Any]:
        text, names, added, columns = _compiled(statement)
        values = {**added, **parameters}
        found = raw.execute(text, [values[name] for name in names])
        return [SimpleNamespace(**dict(zip(columns, row, strict=True))) for row in found]

    return execute


@functools.cache
def _compiled(
    statement: sqlalchemy.Select[Any],
) -> tuple[str, Sequence[str], Mapping[str, object], Sequence[str]]:
    """Return a statement's text, its parameters in their order, those that SQLAlchemy adds, and its columns."""
    compiled = statement.compile(dialect=dialect())
    columns = tuple(column.name for column in statement.selected_columns)
    # One that the caller forgets is not to be NULL.
    added = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
    return str(compiled), compiled.positiontup or (), added, columns


def _read_head(raw: sqlite3.Connection) -> history.Head:
    rows = _executing(raw)(history.HEAD, {})
    return history.head_of(rows[0] if rows else None)


@contextlib.contextmanager
def _unsynced(connection: sqlalchemy.Connection) -> Iterator[None]:
    """Commit without waiting for the disk. Entered and left between transactions."""
    raw = driver_connection(connection)
    ((level,),) = raw.execute("PRAGMA synchronous").fetchall()
    raw.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.rollback()
        raw.execute(f"PRAGMA synchronous = {level}")


def _checkpoint(connection: sqlalchemy.Connection) -> bool:
    """Copy the log into the database, under the writer lock; return whether all of it was copied."""
    raw = driver_connection(connection)
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
