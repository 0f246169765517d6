"""A store in a PostgreSQL database, which the nodes of several machines may serve.

How revisions are ordered, what a hint is worth, and how lost history is noticed, is argued in
docs/decisions/0009-postgresql.md.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

import psycopg
import sqlalchemy
from psycopg.rows import namedtuple_row
from sqlalchemy.dialects import postgresql

from rheostat.errors import UnavailableError
from rheostat.store import client, history
from rheostat.store import record as beside
from rheostat.store.base import ClientRow
from rheostat.store.batch import Batches, Flush
from rheostat.store.connection import AWAY, Connections, driver_connection
from rheostat.store.generation import MOVED
from rheostat.store.listener import CHANNEL, Listener
from rheostat.store.migration import check_schema, migrate, require_schema, stored_schema
from rheostat.store.origin import ORIGIN_KIND, origin_of, read_origin
from rheostat.store.row import Rows, put_in_postgres
from rheostat.store.session import Request, SqlSession, SqlWrites
from rheostat.store.stamp import NONCE_BYTES, new_identity, utc_now
from rheostat.store.tables import SCHEMA

__all__ = ["WRITER_LOCK", "PostgresStore"]

T = TypeVar("T")

SAFETY_POLL: Final = 1.0
"""Seconds after which a commit is noticed whose hint was lost."""

LOCK_TIMEOUT: Final = 2.0
"""Seconds that a writer waits for those of other processes."""

_TURN_TIMEOUT: Final = 5.0
"""Seconds that a writer waits for those of its own process, each of which may wait for the lock."""

_SPACE: Final = 0x7268656F
"""Of the advisory locks: "rheo". Such locks belong to one database."""

WRITER_LOCK: Final = f"SELECT pg_advisory_xact_lock({_SPACE}, 1)"
"""A statement of its own, before any other: one that also reads would read what was there before it waited."""

_CLIENT_LOCK: Final = f"SELECT pg_advisory_xact_lock({_SPACE}, 2)"
"""Keeps two nodes from locking rows of clients crosswise."""

_HINT: Final = f"NOTIFY {CHANNEL}"

_HEAD: Final = str(history.HEAD.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]

_REQUESTS: Final = b"""
SELECT asked.actor, asked.id FROM unnest(%s::text[], %s::text[]) AS asked (actor, id), LATERAL (
    SELECT FROM change_set
    WHERE change_set.actor = asked.actor AND change_set.request_id = asked.id AND change_set.request_id != ''
    LIMIT 1
) AS used
"""
"""Uses the partial index, whose condition it repeats, for each that is asked, whatever the planner believes."""

_logger = logging.getLogger(__name__)

_stores: weakref.WeakSet[PostgresStore] = weakref.WeakSet()

_inherited: list[object] = []
# What a child has of its parent's, as in `rheostat.store.connection`.


class PostgresStore(SqlWrites):
    """A store in a PostgreSQL database; see `rheostat.store.base.Store` for its methods.

    Safe from any thread and in forked children. Concurrent commits of one process may share a transaction, in
    which each sees those before it; a `Write` must therefore not wait for another writer to be done.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], datetime.datetime] = utc_now,
        randomness: Callable[[int], bytes] = os.urandom,
        timeout: float = LOCK_TIMEOUT,
        upgrade: bool = False,
    ) -> None:
        """Open the store at *url*; make it when the database is empty.

        Args:
            url: ``postgresql://user:password@host:port/database?parameter=value``, as libpq reads it.
            clock: Gives the aware time of each commit.
            randomness: Gives so many random bytes.
            timeout: Seconds that a commit waits for those of other processes.
            upgrade: Bring an older store to the schema of this version, instead of refusing it.

        Raises:
            StoreError: It cannot be opened, is damaged, is of another version, or is no store.
            UnavailableError: The server cannot be reached.
        """
        self._clock = clock
        self._randomness = randomness
        self._prepared = False
        self._connections = Connections(url, lock_timeout=timeout, check=self._check)
        self._start()
        _stores.add(self)
        try:
            self._prepare(upgrade)
        except BaseException:
            self.close()
            raise

    def put_clients(self, rows: Sequence[ClientRow]) -> None:
        """See `Store.put_clients`."""
        with self._writing_clients() as connection:
            client.put(connection, rows)

    def end_clients(
        self, clients: Sequence[tuple[str, str, str]], node: str, expires_at: datetime.datetime
    ) -> None:
        """See `Store.end_clients`."""
        with self._writing_clients() as connection:
            client.end(connection, clients, node, expires_at)

    def expire_clients(self, now: datetime.datetime) -> int:
        """See `Store.expire_clients`."""
        with self._writing_clients() as connection:
            return client.expire(connection, now)

    def wait_hint(self, timeout: float) -> bool:
        """See `Store.wait_hint`.

        The first call of each thread returns True at once, and so does one a second later: whether the hint was
        lost, the caller finds out by reading. A call that is ended by `close` returns False.
        """
        self._connections.check_open()
        now = time.monotonic()
        deadline = now + timeout
        seen: int | None = getattr(self._seen, "count", None)
        if seen is None:
            count = self._listener.start()
        else:
            count = self._listener.wait(seen, min(deadline, self._seen.next_poll) - now)
            if self._connections.closed or (count == seen and time.monotonic() < self._seen.next_poll):
                return False
        self._seen.count = count
        self._seen.next_poll = time.monotonic() + SAFETY_POLL
        return True

    def close(self) -> None:
        """See `Store.close`."""
        self._connections.close()
        self._listener.close()

    def after_fork_in_child(self) -> None:
        """Start afresh. Only for the hook below."""
        _inherited.append(self._listener)
        self._connections.after_fork_in_child()
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._batches: Batches[_Session] = Batches(self._begin, timeout=_TURN_TIMEOUT)
        # Of sessions that have written, by the number that the server gives them.
        self._writers: weakref.WeakValueDictionary[int, psycopg.Connection] = weakref.WeakValueDictionary()
        self._listener = Listener(self._connections.connect, own=lambda number: number in self._writers)
        self._seen = threading.local()

    def _read(self, read: Callable[[sqlalchemy.Connection], T]) -> T:
        try:
            with self._connections.lend(snapshot=True) as connection:
                return read(connection)
        except UnavailableError as exc:
            if exc.reason != AWAY:
                raise
        # An idle connection tells only when it is used that the server has been restarted since.
        with self._connections.lend(snapshot=True) as connection:
            return read(connection)

    def _write(
        self, work: Callable[[SqlSession], Flush[T] | None], *, request: Request | None = None
    ) -> T | None:
        if self._pid != os.getpid():
            # Forked by something that does not run Python's hooks.
            self.after_fork_in_child()
        return self._batches.run(work, wish=request)

    def _begin(self) -> _Session:
        try:
            return _Session(self)
        except UnavailableError as exc:
            if exc.reason != AWAY:
                raise
        # As in `_read`; nothing has been written yet.
        return _Session(self)

    @contextlib.contextmanager
    def _writing_clients(self) -> Iterator[sqlalchemy.Connection]:
        with self._connections.lend() as connection:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            connection.exec_driver_sql(_CLIENT_LOCK)
            check_schema(history.read_head(connection).schema)
            yield connection
            connection.commit()

    def _prepare(self, upgrade: bool) -> None:
        with self._connections.lend() as connection:
            schema = stored_schema(connection)
            connection.rollback()
            if schema is None or (upgrade and schema != SCHEMA):
                # A large table takes its time.
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql(WRITER_LOCK)
                if migrate(connection):
                    history.put_identity(connection, new_identity(self._randomness))
                connection.commit()
            else:
                require_schema(connection)
            if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off":
                _logger.warning(
                    "synchronous_commit is off: a crash of the server may undo acknowledged change-sets"
                )
            connection.rollback()
            self._prepared = True
            self._check(connection)

    def _check(self, connection: sqlalchemy.Connection) -> None:
        """Begin a new generation when the database is not the one that was last written.

        Called with each new connection, which can only lead to another timeline than those before it; so that
        nothing of a history is read before what it does not share with the last one is marked.
        """
        if not self._prepared:
            return
        origin = read_origin(connection)
        if origin is None:
            return
        here = origin_of(origin)
        found = beside.find(connection, ORIGIN_KIND, "")
        if found is not None and found.body == here.body:
            return
        connection.rollback()
        connection.exec_driver_sql(WRITER_LOCK)
        found = beside.find(connection, ORIGIN_KIND, "")
        if found is not None and found.body != here.body:
            identity = history.raise_generation(
                connection, 0, self._randomness(NONCE_BYTES), MOVED, self._clock()
            )
            _logger.warning("%s; the generation is raised to %d", MOVED, identity.generation)
        if found is None or found.body != here.body:
            beside.put(connection, here)
            connection.exec_driver_sql(_HINT)
        connection.commit()


class _Session(SqlSession):
    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._connections = connections = store._connections
        connection = connections.borrow()
        try:
            with connections.translated():
                self._raw = driver_connection(connection)
                store._writers[self._raw.info.backend_pid] = self._raw
                # Sent in one go, so that nothing goes to and fro while others wait for the lock.
                with self._raw.pipeline():
                    self._raw.execute(WRITER_LOCK)
                    row = self._raw.cursor(row_factory=namedtuple_row).execute(_HEAD.encode()).fetchone()
            head = history.head_of(row)
            check_schema(head.schema)
        except BaseException:
            connections.give_back(connection)
            raise
        super().__init__(connection, head, store._clock)

    def close(self) -> None:
        self._connections.give_back(self.connection)

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return self._connections.translated()

    def _find_used(self, request: Request) -> tuple[Iterable[Request], Iterable[Request]]:
        if not _is_plain(request):
            found = history.find_request(self.connection, *request)
            return [request], [] if found is None else [request]
        # Those of the others who wait as well: a question to the server takes longer than all else that is asked of it.
        wishes = [
            wish for wish in self._store._batches.wishes() if isinstance(wish, tuple) and _is_plain(wish)
        ]
        asked = [request, *wishes]
        actors, ids = zip(*asked, strict=True)
        return asked, self._raw.execute(_REQUESTS, (list(actors), list(ids))).fetchall()

    def _execute(self, statement: str) -> None:
        self._raw.execute(statement.encode())

    def _put(self, rows: Sequence[Rows], rule_number: int) -> None:
        with self._raw.pipeline():
            put_in_postgres(self._raw, rows, rule_number)

    def _commit(self, rows: Sequence[Rows], rule_number: int) -> None:
        with self._raw.pipeline():
            if rows:
                put_in_postgres(self._raw, rows, rule_number)
            if self.hint:
                self._raw.execute(_HINT.encode())
            self._raw.commit()


def _is_plain(request: Request) -> bool:
    """Tell whether the server has the texts as they are; see `rheostat.store.tables`."""
    return not any(character in text for text in request for character in "\0\1")


def _after_fork_in_child() -> None:
    for store in list(_stores):
        store.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
