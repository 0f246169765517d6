"""How the drivers are asked for many rows, and given many, in few statements.

Without SQLAlchemy, whose share in each row would be more than the database's. Statements are written as for SQLite. In
those that read, ``{here}`` is the condition that a row is of the environment, whose project and slug are the first
parameters; and ``{in}`` compares a column with one of many values, which are the last ones.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from rheostat.store.tables import escape, unescape

if TYPE_CHECKING:
    import sqlite3

    import psycopg

__all__ = ["Driver", "driver_of"]

_SIZES: Final = (1, 8, 64, 500)
"""How many values a statement of SQLite compares with: few lengths, so that those that were compiled are found again.
Builds of SQLite may allow as few as 999 parameters."""


_HERE: Final = "scope = (SELECT number FROM subject_scope WHERE project = ? AND environment = ?)"


class Driver(ABC):
    """What is below SQLAlchemy's connection, in its transaction."""

    @abstractmethod
    def select(self, statement: str, parameters: Sequence[object], values: Collection[Any]) -> Iterator[Any]:
        """Give the rows of a statement that reads, for however many values."""

    @abstractmethod
    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement with each of the rows."""

    @abstractmethod
    def text(self, value: str) -> str:
        """Return the form in which any text can be a parameter."""

    @abstractmethod
    def plain(self, value: str) -> str:
        """Return the text whose form that is."""


class _Sqlite(Driver):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def select(self, statement: str, parameters: Sequence[object], values: Collection[Any]) -> Iterator[Any]:
        listed = list(values)
        start = 0
        while start < len(listed):
            size = next((size for size in _SIZES if size >= len(listed) - start), _SIZES[-1])
            chunk = listed[start : start + size]
            start += size
            # One that is named twice is found once.
            chunk += chunk[-1:] * (size - len(chunk))
            sql = _in_sqlite(statement, size)
            yield from self._connection.execute(sql, (*parameters, *chunk)).fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        self._connection.executemany(statement, rows)

    def text(self, value: str) -> str:
        return value

    def plain(self, value: str) -> str:
        return value


class _Postgres(Driver):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def select(self, statement: str, parameters: Sequence[object], values: Collection[Any]) -> Iterator[Any]:
        if values:
            sql = _in_postgres(statement)
            yield from self._connection.execute(sql, (*parameters, list(values))).fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(_in_postgres(statement), rows)

    def text(self, value: str) -> str:
        return escape(value)

    def plain(self, value: str) -> str:
        return unescape(value)


def driver_of(connection: Connection) -> Driver:
    """Return the driver of a connection, in a transaction."""
    if not connection.in_transaction():
        # Otherwise each statement would see another moment.
        connection.begin()
    raw: Any = connection.connection.driver_connection
    return _Sqlite(raw) if connection.dialect.name == "sqlite" else _Postgres(raw)


@functools.cache
def _in_sqlite(statement: str, size: int) -> str:
    return statement.replace("{here}", _HERE).replace("{in}", f"IN ({', '.join('?' * size)})")


@functools.cache
def _in_postgres(statement: str) -> bytes:
    return statement.replace("{here}", _HERE).replace("{in}", "= ANY(?)").replace("?", "%s").encode()
