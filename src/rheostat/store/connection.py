"""The PostgreSQL connections of one process: a pool, and single ones for listening."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg
import sqlalchemy
import sqlalchemy.exc
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import DBAPIError

from rheostat.errors import RheostatError, StoreError, UnavailableError

__all__ = ["AWAY", "Connections", "driver_connection", "translated"]

AWAY: Final = "STORE_AWAY"
"""The reason of an UnavailableError when the server cannot be reached, or a connection to it broke."""

_MINIMUM_VERSION: Final = 14

_DEFAULTS: Final = {
    "application_name": "rheostat",
    "connect_timeout": "5",
    # After a failover only the new primary has the history; a standby would also refuse to write.
    "target_session_attrs": "primary",
    # A host that has vanished is noticed within about ten seconds, where the system's own default is two hours.
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""Parameters of libpq that a URL may set otherwise."""

_POOL_SIZE: Final = 8
_POOL_OVERFLOW: Final = 24
_POOL_TIMEOUT: Final = 5.0

_POOL_RECYCLE: Final = 1800.0
"""Seconds after which a pooled connection is replaced, so that those of a balanced address spread anew."""

_lost_connections: list[object] = []
# What a child inherited. Closing it would end the parent's sessions: it is kept for good.

_logger = logging.getLogger(__name__)


class Connections:
    """Hands out connections that are in no transaction. Safe from any thread, and in forked children."""

    def __init__(
        self, url: str, *, lock_timeout: float, check: Callable[[sqlalchemy.Connection], None]
    ) -> None:
        """Make it for the database at *url*; nothing is opened yet.

        Args:
            url: As libpq reads it.
            lock_timeout: Seconds that a statement waits for a lock.
            check: Called with each new connection before anything else uses it; may write and commit.

        Raises:
            StoreError: The URL cannot be read.
        """
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # Its message would quote a part of the URL, and that may be the password's.
            raise StoreError(
                "the postgresql url of the store cannot be read; see libpq's connection URIs"
            ) from None
        self._parameters: dict[str, Any] = {**_DEFAULTS, **given}
        self._settings = {
            "lock_timeout": f"{lock_timeout * 1000:.0f}ms",
            "idle_in_transaction_session_timeout": "5s",
            "statement_timeout": "30s",
            # The form of texts that errors and encodings depend on.
            "client_encoding": "UTF8",
        }
        self._check = check
        self._closed = False
        self.name = str(given.get("dbname") or "rheostat")
        self._start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise StoreError after `close`."""
        if self._closed:
            raise StoreError("the store was closed")

    def borrow(self, *, snapshot: bool = False) -> sqlalchemy.Connection:
        """Return a connection, which the caller gives back.

        Args:
            snapshot: All statements of a transaction read at one moment, and none may write.
        """
        self._enter()
        with self.translated():
            pool = self._engine.pool
            connection = self._engine.connect()
            self._borrowed[connection] = pool
            try:
                self._checked(connection)
                raw = driver_connection(connection)
                raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ if snapshot else None
                raw.read_only = snapshot or None
            except BaseException:
                self.give_back(connection)
                raise
        return connection

    def give_back(self, connection: sqlalchemy.Connection) -> None:
        """Take a connection back; what is not committed is rolled back."""
        pool = self._borrowed.pop(connection, None)
        if pool is None:
            # Forked meanwhile: the session is the parent's.
            _lost_connections.append(connection)
            return
        if not connection.invalidated:
            try:
                # Below SQLAlchemy, to which a session that broke meanwhile would be an error worth a log.
                driver_connection(connection).rollback()
            except psycopg.Error:
                connection.invalidate()
            else:
                if self._closed or pool is not self._engine.pool:
                    # Its pool is disposed of, and would keep it open.
                    connection.detach()
        connection.close()

    @contextlib.contextmanager
    def lend(self, *, snapshot: bool = False) -> Iterator[sqlalchemy.Connection]:
        """Lend a connection, and turn the errors inside into those of `rheostat.errors`; see `borrow`."""
        connection = self.borrow(snapshot=snapshot)
        try:
            with self.translated():
                yield connection
        finally:
            self.give_back(connection)

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the driver's errors inside into those of `rheostat.errors`."""
        engine, pid = self._engine, self._pid
        try:
            with translated(self.name):
                yield
        except UnavailableError as exc:
            if exc.reason == AWAY and pid == os.getpid():
                # Whatever broke one connection has broken the idle ones too.
                engine.dispose()
            raise

    def connect(self) -> psycopg.Connection:
        """Open a connection that is in no pool and commits each statement by itself. The caller closes it."""
        self._enter()
        with translated(self.name):
            connection = self._connect()
        connection.autocommit = True
        return connection

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back. Idempotent."""
        self._closed = True
        if self._pid == os.getpid():
            self._engine.dispose()

    def after_fork_in_child(self) -> None:
        """Leave everything to the parent and start afresh."""
        _lost_connections.append(self._engine)
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._borrowed: dict[sqlalchemy.Connection, sqlalchemy.Pool] = {}
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            pool_size=_POOL_SIZE,
            max_overflow=_POOL_OVERFLOW,
            pool_timeout=_POOL_TIMEOUT,
            pool_recycle=_POOL_RECYCLE,
            # The one that was used last is the least likely to have been cut off by something on the way.
            pool_use_lifo=True,
            use_native_hstore=False,
            # Values of settings have no place in errors and logs.
            hide_parameters=True,
        )

    def _enter(self) -> None:
        if self._pid != os.getpid():
            # Forked by something that does not run Python's hooks.
            self.after_fork_in_child()
        self.check_open()

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(**self._parameters)
        try:
            if connection.info.server_version < _MINIMUM_VERSION * 10000:
                raise StoreError(
                    f"the store needs PostgreSQL {_MINIMUM_VERSION} or newer, and the server has "
                    f"{connection.info.server_version // 10000}"
                )
            # Not as startup parameters, which some proxies refuse.
            settings = ", ".join("set_config(%s, %s, false)" for _ in self._settings)
            connection.execute(
                f"SELECT {settings}".encode(), [text for item in self._settings.items() for text in item]
            )
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _checked(self, connection: sqlalchemy.Connection) -> None:
        if not connection.info.get("checked"):
            self._check(connection)
            connection.rollback()
            connection.info["checked"] = True


def driver_connection(connection: sqlalchemy.Connection) -> psycopg.Connection:
    """Return psycopg's connection below SQLAlchemy's."""
    raw = connection.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError("the engine has another driver than psycopg")
    return raw


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn the driver's errors inside into those of `rheostat.errors`; *name* is the database's."""
    try:
        yield
    except DBAPIError as exc:
        if not isinstance(exc.orig, psycopg.Error):
            raise
        raise _translate(exc.orig, name) from exc
    except psycopg.Error as exc:
        raise _translate(exc, name) from exc
    except sqlalchemy.exc.TimeoutError as exc:
        raise _busy(name) from exc
    except sqlalchemy.exc.InvalidRequestError as exc:
        # What SQLAlchemy says of a connection whose session has broken before.
        raise UnavailableError(f"the connection to the store {name!r} broke", reason=AWAY) from exc


def _translate(error: psycopg.Error, name: str) -> RheostatError:
    # https://www.postgresql.org/docs/current/errcodes-appendix.html; only the primary message of the server
    # is passed on: its details may hold values.
    code = error.sqlstate or ""
    primary = error.diag.message_primary or ""
    match code:
        case "53100":
            return UnavailableError(f"the disk of the store {name!r} is full", reason="STORE_FULL")
        case "25006":
            return UnavailableError(f"the store {name!r} cannot be written", reason="STORE_READ_ONLY")
        case "55P03" | "57014" | "40001" | "40P01" | "25P03" | "25P04" | "53300":
            return _busy(name)
        case "28000" | "28P01" | "3D000" | "42501":
            return StoreError(f"the store {name!r} cannot be opened: {primary}")
        case "":
            if isinstance(error, psycopg.OperationalError):
                return _unreachable(error, name)
            return StoreError(f"the store {name!r} failed: {type(error).__name__}")
    if code[:2] in ("08", "57", "53", "58"):
        return UnavailableError(f"the store {name!r} is away: {primary}", reason=AWAY, retry_after=1.0)
    if code in ("XX001", "XX002"):
        return StoreError(f"the store {name!r} is damaged: {primary}")
    return StoreError(f"the store {name!r} failed: {primary} ({code})")


def _unreachable(error: psycopg.OperationalError, name: str) -> RheostatError:
    # A refused connection has no code, and a message that names hosts and sockets.
    _logger.debug("the store %r cannot be reached: %s", name, error)
    _, refused, reason = str(error).partition("FATAL:  ")
    detail = f": {reason.splitlines()[0].strip()}" if refused and reason else ""
    return UnavailableError(f"the store {name!r} cannot be reached{detail}", reason=AWAY, retry_after=1.0)


def _busy(name: str) -> UnavailableError:
    return UnavailableError(f"the store {name!r} is busy", reason="STORE_BUSY", retry_after=1.0)
