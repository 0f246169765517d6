"""Copying a whole store to another place, of the same kind or another.

What is carried, and why the copy begins a generation, is argued in docs/decisions/0011-moving-stores.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import Connection, Select, Table, delete, insert, select

from rheostat.errors import FailedPreconditionError, RheostatError, StoreError, UnavailableError
from rheostat.store import extra_for, history, parse_url, redacted, tables
from rheostat.store import record as beside
from rheostat.store.base import Identity
from rheostat.store.disk import sync_directory
from rheostat.store.generation import beginning_of
from rheostat.store.look import Side, looking_at
from rheostat.store.migration import migrate, require_schema, stored_schema
from rheostat.store.origin import ORIGIN_KIND, origin_of, read_origin
from rheostat.store.stamp import NONCE_BYTES, utc_now
from rheostat.store.subject_life import KEY_LIFE
from rheostat.store.subject_row import skip_feed

__all__ = ["Copied", "back_up", "copy_store"]

Progress = Callable[[int, int], None]
"""Told how many change-sets are copied, and how many there are."""

_REVISIONS: Final = 500
"""So many change-sets are copied, and told to the progress, at a time."""

_FETCHED: Final = 50
"""Rows that the driver holds at a time; each may have a few megabytes."""

_SUBJECTS: Final = (
    tables.subject_scope,
    tables.subject,
    tables.subject_key,
    tables.subject_member,
    tables.subject_usage,
    tables.subject_change,
    tables.subject_counter,
    tables.event_day,
    tables.exposure_day,
)

_BATCH_ROWS: Final = 500
_BATCH_CHARACTERS: Final = 2**20
"""What is written in one go."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds.

    Attributes:
        revision: The newest.
        generation: The one that it begins with; above the source's.
        change_sets: How many.
        items: How many, with the tombstones.
        records: How many of what is kept beside the history.
        subjects: How many, with all that is counted of them.
        missed: How many change-sets were committed to the source meanwhile and are not in the copy; None when the
            source could not be asked any more.
    """

    revision: int
    generation: int
    change_sets: int
    items: int
    records: int
    missed: int | None
    subjects: int = 0


def copy_store(
    source: str,
    destination: str,
    *,
    on_progress: Progress | None = None,
    clock: Callable[[], datetime.datetime] = utc_now,
    randomness: Callable[[int], bytes] = os.urandom,
) -> Copied:
    """Copy all of the store at *source* to the one at *destination*, which begins a generation there.

    The source is read as it is at one moment and left as it is. The copy is there as a whole or not at all, however
    this ends. Memory does not grow with the history.

    Args:
        source: See `rheostat.store.open_store`; it must have this version's schema.
        destination: A file that does not exist, or a database without tables or with a store that nothing was ever
            written to.
        on_progress: Called now and then, in this thread.
        clock: Gives the time at which the generation begins.
        randomness: Gives so many random bytes.

    Raises:
        FailedPreconditionError: There is something at the destination.
        StoreError: One of the two cannot be opened, is damaged or has another schema.
        UnavailableError: One of the two cannot be reached, or is being made or written by another process.
        MissingDependencyError: An extra is not installed.
    """
    with looking_at(source) as read, _making(destination) as made:
        copied = _Copy(read, made, on_progress).run(f"copied from {redacted(source)}", clock(), randomness)
    with contextlib.suppress(RheostatError), looking_at(source) as read, read.translated():
        newest = history.read_head(read.connection).revision
        return dataclasses.replace(copied, missed=max(0, newest - copied.revision))
    return copied


def back_up(source: str, destination: str) -> int:
    """Copy the SQLite store at *source* to a new file as it is at one moment, and return its newest revision.

    The copy is the same history, to be put in the place of the source one day, and begins no generation. The source
    may be in use, and of an older schema. The file is there as a whole or not at all, however this ends.

    Raises:
        FailedPreconditionError: There is a file at the destination.
        StoreError: The source is no SQLite store, or is damaged.
        UnavailableError: Another process is making the same file, or its disk is full.
    """
    from rheostat.store.pool import translated

    for url in (source, destination):
        kind, _, _ = parse_url(url)
        if kind != "sqlite":
            hint = "; for a database use pg_basebackup or pg_dump" if kind == "postgresql" else ""
            raise StoreError(f"a backup is made of one sqlite file to another, and this is {kind}{hint}")
    with looking_at(source, any_schema=True):
        pass
    path = Path(os.path.realpath(parse_url(source)[1]))
    with (
        _placing(parse_url(destination)[1]) as part,
        translated(path.name),
        # One that may only read cannot checkpoint either: see docs/decisions/0004-sqlite.md.
        contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)
        ) as connection,
    ):
        connection.execute("VACUUM INTO ?", (str(part),))
    with looking_at(destination, any_schema=True) as made, made.translated():
        return history.read_head(made.connection).revision


class _Copy:
    def __init__(self, source: Side, destination: Side, on_progress: Progress | None) -> None:
        self._source = source
        self._destination = destination
        self._tell = on_progress or (lambda _, __: None)

    def run(self, cause: str, now: datetime.datetime, randomness: Callable[[int], bytes]) -> Copied:
        """Copy everything; the row that makes it a store comes last."""
        with self._source.translated():
            head = history.read_head(self._source.connection)
        change_sets = self._history(head.revision)
        items = self._rows(select(tables.item), tables.item)
        # Where the source was last written is true of no copy, and who is connected will say so again.
        records = self._rows(select(tables.record).where(tables.record.c.kind != ORIGIN_KIND), tables.record)
        subjects = self._subjects(now)
        identity = Identity(
            head.identity.store_id,
            head.identity.generation + 1,
            randomness(NONCE_BYTES),
            head.identity.token_key,
        )
        with self._destination.translated():
            connection = self._destination.connection
            beside.put(connection, beginning_of(identity, head.revision, cause, now))
            history.put_head(connection, dataclasses.replace(head, identity=identity))
        return Copied(head.revision, identity.generation, change_sets, items, records, None, subjects)

    def _subjects(self, now: datetime.datetime) -> int:
        copied = {table: self._rows(select(table), table) for table in _SUBJECTS}
        keys = tables.event_key
        self._rows(select(keys).where(keys.c.day >= (now - KEY_LIFE).date().toordinal()), keys)
        with self._destination.translated():
            skip_feed(self._destination.connection)
        return copied[tables.subject]

    def _history(self, newest: int) -> int:
        number = tables.change_set.c.revision
        copied = last = 0
        self._tell(0, newest)
        while True:
            query = select(tables.change_set).where(number > last).order_by(number).limit(_REVISIONS)
            first = last
            for rows in self._batches(query):
                self._write(tables.change_set, rows)
                copied += len(rows)
                last = rows[-1]["revision"]
            if last == first:
                break
            revision = tables.change.c.revision
            self._rows(select(tables.change).where(revision > first, revision <= last), tables.change)
            self._tell(last, newest)
        if (copied, last) != (newest, newest):
            raise StoreError(
                f"the store is damaged: it has {copied} change-sets up to revision {last}, and its counter says {newest}"
            )
        return copied

    def _rows(self, query: Select[Any], table: Table) -> int:
        copied = 0
        for rows in self._batches(query):
            self._write(table, rows)
            copied += len(rows)
        return copied

    def _batches(self, query: Select[Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Read rows in batches, however many and however large they are."""
        with self._source.translated():
            result = self._source.connection.execution_options(yield_per=_FETCHED).execute(query)
        batch: list[Mapping[str, Any]] = []
        characters = 0
        with contextlib.closing(result):
            while True:
                with self._source.translated():
                    fetched = result.mappings().fetchmany(_FETCHED)
                for row in fetched:
                    batch.append(dict(row))
                    characters += sum(len(value) for value in row.values() if isinstance(value, str))
                if batch and (not fetched or len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS):
                    yield batch
                    batch, characters = [], 0
                if not fetched:
                    return

    def _write(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        with self._destination.translated():
            self._destination.connection.execute(insert(table), rows)


@contextlib.contextmanager
def _making(url: str) -> Iterator[Side]:
    """Make the tables of a store, and keep what was written to them when nothing is raised inside."""
    kind, path, _ = parse_url(url)
    if kind == "memory":
        raise StoreError("a store in memory ends with this command: copy to another kind")
    with extra_for(kind):
        make = _making_database if kind == "postgresql" else _making_file
        with make(path) as side:
            yield side


@contextlib.contextmanager
def _making_database(url: str) -> Iterator[Side]:
    from rheostat.store.connection import Connections
    from rheostat.store.postgres import LOCK_TIMEOUT, WRITER_LOCK

    connections = Connections(url, lock_timeout=LOCK_TIMEOUT, check=lambda _: None)
    try:
        with connections.lend() as connection:
            origin = read_origin(connection)
            connection.rollback()
            # One transaction, however long: whoever opens the database sees all of the store or none.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.exec_driver_sql(WRITER_LOCK)
            if stored_schema(connection) is None:
                migrate(connection)
            else:
                _empty(connection)
            yield Side(connection, connections.translated)
            if origin is not None:
                beside.put(connection, origin_of(origin))
            connection.commit()
    finally:
        connections.close()


def _empty(connection: Connection) -> None:
    """Take what a new store has out of it, under the writer lock."""
    require_schema(connection)
    revision = history.read_head(connection).revision
    if connection.execute(select(tables.subject_scope)).first() is not None:
        raise FailedPreconditionError(
            "the destination is a store with subjects or events; copy to an empty database",
            reason="STORE_NOT_EMPTY",
        )
    if revision:
        raise FailedPreconditionError(
            f"the destination is a store with a history, up to revision {revision}; copy to an empty database",
            reason="STORE_NOT_EMPTY",
        )
    for table in (tables.client, tables.record, tables.item, tables.store, tables.subject_counter):
        connection.execute(delete(table))


@contextlib.contextmanager
def _making_file(path: str) -> Iterator[Side]:
    from rheostat.store.pool import translated

    with _placing(path) as part:
        name = Path(path).name
        with translated(name), _private_engine(part).begin() as connection:
            migrate(connection)
            yield Side(connection, lambda: translated(name))


@contextlib.contextmanager
def _placing(path: str) -> Iterator[Path]:
    """Lend the name of an empty file, and put the file at *path* when nothing is raised inside."""
    target = Path(os.path.realpath(path))
    # A name of its own until it is whole. It holds secrets from the first byte on.
    part = target.with_name(f"{target.name}.copying")
    with _locked(part) as descriptor:
        for suffix in ("", "-wal", "-shm", "-journal"):
            if os.path.lexists(f"{target}{suffix}"):
                raise FailedPreconditionError(
                    f"the destination has the file {target.name + suffix!r}; copy to a new one",
                    reason="STORE_NOT_EMPTY",
                )
        # What a copy that was killed has left.
        os.ftruncate(descriptor, 0)
        yield part
        os.fsync(descriptor)
        if not _names(part, descriptor):
            raise StoreError(f"the file {part.name!r} was removed while the copy was made")
        try:
            # Unlike a renaming, this never takes the place of a file that somebody has made meanwhile.
            target.hardlink_to(part)
        except OSError as exc:
            raise StoreError(f"the copy {target.name!r} cannot be put in its place: {exc.strerror}") from exc
        sync_directory(target.parent)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[int]:
    """Open the file *part* for this process alone, with what is in it, and remove it in the end."""
    descriptor = _open_alone(part)
    try:
        yield descriptor
    finally:
        try:
            if _names(part, descriptor):
                part.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _open_alone(part: Path) -> int:
    """Open the file *part*, made if need be, locked and without another name."""
    while True:
        with contextlib.ExitStack() as opened:
            try:
                descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                raise StoreError(f"the file {part.name!r} cannot be made: {exc.strerror}") from exc
            opened.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(part) from None
            # Only who has the lock of the file that has this name removes the name. Whoever had it until now may have
            # done that, and what is open here is then the whole store, in its place.
            if not _names(part, descriptor):
                raise _busy(part)
            if os.fstat(descriptor).st_nlink == 1:
                opened.pop_all()
                return descriptor
            # Left by a copy that was killed once it had put its file in its place: the other name is a store's.
            part.unlink(missing_ok=True)


def _names(part: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(part.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _busy(part: Path) -> UnavailableError:
    return UnavailableError(f"another process is making {part.name!r}", reason="STORE_BUSY", retry_after=1.0)


def _private_engine(path: Path) -> sqlalchemy.Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
        # Nobody else reads it, and one that is not finished is thrown away: a journal would protect nothing.
        connection.execute("PRAGMA journal_mode = OFF").fetchall()
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    engine = sqlalchemy.create_engine(
        "sqlite://", creator=connect, poolclass=sqlalchemy.NullPool, hide_parameters=True
    )
    sqlalchemy.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine
