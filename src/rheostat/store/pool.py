"""The SQLite connections of one process: one that writes, some that only read, none across a fork.

SQLite keeps its own list of the files that the process has open and of the locks it holds on them. A forked
child inherits the list but not the locks, so a child that opens a file which its parent had open works
without locks and can lose what was written. Hence all connections are closed before a fork, and opened again
after it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from rheostat.errors import RheostatError, StoreError, UnavailableError

__all__ = ["BUSY_TIMEOUT", "Pool", "Synchronous", "driver_connection", "translated"]

Synchronous = Literal["full", "normal"]
"""How durable an acknowledged commit is: against loss of power, or only against the end of the process."""

BUSY_TIMEOUT: Final = 2.0
"""Seconds that SQLite waits for locks of its own. Writers exclude each other before; what is left is recovery
after a crash, and other programs."""

FORK_TIMEOUT: Final = 5.0
"""Seconds that a fork waits for the reads and writes of other threads."""

WAL_LIMIT_BYTES: Final = 16 * 2**20
"""To what the log is cut when it starts again after a checkpoint; it stays at its size below that, because
writing over old blocks is faster than growing a file."""

_KEPT_READERS: Final = 8

_lost_connections: list[object] = []
# Connections that a child inherited all the same. To close them would harm the parent: they are kept for good.


class Pool:
    """Hands out connections that are in no transaction. Safe from any thread."""

    _writer: sqlalchemy.Connection | None
    _version_reader: sqlite3.Connection | None
    _idle: list[sqlalchemy.Connection]

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        """Make it for the database at *path*; nothing is opened yet."""
        self._path = path
        self._synchronous = synchronous
        self._writers = self._engine("rwc", "BEGIN IMMEDIATE")
        self._readers = self._engine("ro", "BEGIN")
        self._closed = False
        self._lost = False
        self._start()

    def borrow_writer(self) -> sqlalchemy.Connection:
        """Return the writing connection to a caller that holds the writer lock, so to one at a time.

        It is given back with `give_back_writer`, from whatever thread. A thread that works on it meanwhile says so
        with `inside`.
        """
        self._enter()
        try:
            if self._writer is None:
                self._writer = self._open(self._writers)
            return self._writer
        except BaseException:
            self._leave()
            raise

    def give_back_writer(self, connection: sqlalchemy.Connection, *, sound: bool) -> None:
        """Take the writing connection back; what is not committed is rolled back.

        Args:
            connection: What was lent.
            sound: No statement on it has failed. After a failed write or sync its state is unknown, and a new one
                reads the file afresh.
        """
        try:
            if not _rolled_back(connection) or not sound:
                self._writer = None
                connection.close()
        finally:
            self._leave()

    @contextlib.contextmanager
    def writer(self) -> Iterator[sqlalchemy.Connection]:
        """Lend the writing connection to one thread; see `borrow_writer`."""
        connection = self.borrow_writer()
        pid = os.getpid()
        sound = True
        try:
            with self.inside():
                yield connection
        except BaseException as exc:
            sound = not _is_database_error(exc)
            raise
        finally:
            # In a child that was forked meanwhile it is the parent's.
            if pid == os.getpid():
                self.give_back_writer(connection, sound=sound)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread use the pool while a fork waits for the writing connection, with which it works."""
        local = self._local
        local.depth = getattr(local, "depth", 0) + 1
        try:
            yield
        finally:
            local.depth -= 1

    @contextlib.contextmanager
    def reader(self) -> Iterator[sqlalchemy.Connection]:
        """Lend a read-only connection."""
        with self._use():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open(self._readers)
            try:
                yield connection
                connection.rollback()
            except BaseException:
                connection.close()
                raise
            if len(self._idle) < _KEPT_READERS:
                self._idle.append(connection)
            else:
                connection.close()

    def version(self) -> tuple[int, int]:
        """Return a pair that differs from the last one when the database has changed since."""
        with self._use(), self._version_lock:
            if self._version_reader is None:
                with translated(self._path.name):
                    self._version_reader = self._connect("ro")
                self._epoch += 1
            with translated(self._path.name):
                ((version,),) = self._version_reader.execute("PRAGMA data_version").fetchall()
            return self._epoch, version

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise StoreError after `close`."""
        if self._closed:
            raise StoreError("the store was closed")

    def close(self, lock: contextlib.AbstractContextManager[None]) -> None:
        """Close all connections, waiting for those in use. Idempotent.

        Args:
            lock: The writer lock, held around the closing: the last writing connection of all processes
                checkpoints and removes the log.
        """
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._in_use, FORK_TIMEOUT)
        with contextlib.ExitStack() as stack:
            # Whoever holds the lock for so long has a connection, so that ours is not the last.
            with contextlib.suppress(UnavailableError, StoreError):
                stack.enter_context(lock)
            with self._condition:
                self._close_readers()
                self._close_writer()

    def before_fork(self) -> None:
        """Close all connections and hold back new ones until `after_fork`."""
        with self._condition:
            self._paused = True
            inside = getattr(self._local, "depth", 0)
            if not inside and self._condition.wait_for(lambda: not self._in_use, FORK_TIMEOUT):
                # In this order no close checkpoints: the writer is not the last while a reader is open, and
                # readers cannot. So the fork does not wait for the disk, nor for the writer lock.
                self._close_writer()
                self._close_readers()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._condition:
            self._paused = False
            self._condition.notify_all()

    def after_fork_in_child(self) -> None:
        """Start afresh; the locks may be held by threads that the child does not have."""
        self._abandon()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._version_lock = threading.Lock()
        self._local = threading.local()
        self._in_use = 0
        self._paused = False
        self._epoch = 0
        self._writer = None
        self._idle = []
        self._version_reader = None

    def _abandon(self) -> None:
        inherited = [c for c in (self._writer, self._version_reader, *self._idle) if c is not None]
        if inherited or self._in_use:
            _lost_connections.extend(inherited)
            self._lost = True

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        self._enter()
        condition = self._condition
        try:
            with self.inside():
                yield
        finally:
            # Not in a child that was forked meanwhile: its count has started again.
            if condition is self._condition:
                self._leave()

    def _enter(self) -> None:
        if self._pid != os.getpid():
            # Forked by something that does not run Python's hooks.
            self.after_fork_in_child()
        with self._condition:
            if not getattr(self._local, "depth", 0):
                self._condition.wait_for(lambda: not self._paused or self._closed)
            self.check_open()
            if self._lost:
                raise StoreError(
                    "the store was in use while this process was forked, or was forked without python's fork "
                    "hooks; open it again after the fork"
                )
            self._in_use += 1

    def _leave(self) -> None:
        with self._condition:
            self._in_use -= 1
            self._condition.notify_all()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close_readers(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if self._version_reader is not None:
            self._version_reader.close()
            self._version_reader = None

    def _open(self, engine: sqlalchemy.Engine) -> sqlalchemy.Connection:
        with translated(self._path.name):
            return engine.connect()

    def _engine(self, mode: Literal["ro", "rwc"], begin: str) -> sqlalchemy.Engine:
        engine = sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: self._connect(mode),
            poolclass=sqlalchemy.NullPool,
            # Values of settings have no place in errors and logs.
            hide_parameters=True,
        )

        def on_begin(connection: sqlalchemy.Connection) -> None:
            # Who writes has begun already, without SQLAlchemy.
            if not driver_connection(connection).in_transaction:
                connection.exec_driver_sql(begin)

        sqlalchemy.event.listen(engine, "begin", on_begin)
        return engine

    def _connect(self, mode: Literal["ro", "rwc"]) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode={mode}",
            uri=True,
            # No implicit transactions: the engine begins them.
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT,
        )
        try:
            # First of all: see docs/decisions/0004-sqlite.md. No connection may checkpoint by itself.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA trusted_schema = OFF")
            if mode == "rwc":
                ((journal,),) = connection.execute("PRAGMA journal_mode = WAL").fetchall()
                if journal != "wal":
                    raise StoreError("the file system of the store does not support write-ahead logging")
                connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
                connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
                connection.execute("PRAGMA foreign_keys = ON")
                # Only macOS knows this one: there a plain fsync does not reach the disk.
                connection.execute("PRAGMA fullfsync = ON")
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn SQLite's errors inside into those of `rheostat.errors`; *name* is the file's, without folders."""
    try:
        yield
    except DBAPIError as exc:
        if not isinstance(exc.orig, sqlite3.Error):
            raise
        raise _translate(exc.orig, name) from exc
    except sqlite3.Error as exc:
        raise _translate(exc, name) from exc


def _translate(error: sqlite3.Error, name: str) -> RheostatError:
    # The low byte of an extended code is the plain one: https://sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return UnavailableError(f"the disk of the store {name!r} is full", reason="STORE_FULL")
        case sqlite3.SQLITE_READONLY:
            return UnavailableError(f"the store {name!r} cannot be written", reason="STORE_READ_ONLY")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return UnavailableError(f"reading or writing the store {name!r} failed: {error}")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL | sqlite3.SQLITE_INTERRUPT:
            return UnavailableError(f"the store {name!r} is busy", reason="STORE_BUSY", retry_after=1.0)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return StoreError(f"the store {name!r} cannot be opened: {error}")
        case sqlite3.SQLITE_NOTADB:
            return StoreError(f"the file {name!r} is not a store")
        case sqlite3.SQLITE_CORRUPT:
            return StoreError(f"the store {name!r} is damaged: {error}")
        case _:
            return StoreError(f"the store {name!r} failed: {error}")


def _is_database_error(error: BaseException) -> bool:
    return isinstance(error, (DBAPIError, sqlite3.Error)) or isinstance(
        error.__cause__, (DBAPIError, sqlite3.Error)
    )


def driver_connection(connection: sqlalchemy.Connection) -> sqlite3.Connection:
    """Return sqlite3's connection below SQLAlchemy's."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError("the engine has another driver than sqlite3")
    return raw


def _rolled_back(connection: sqlalchemy.Connection) -> bool:
    try:
        connection.rollback()
        driver_connection(connection).rollback()
    except (DBAPIError, sqlite3.Error):
        return False
    return True
