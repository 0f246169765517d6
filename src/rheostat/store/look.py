"""Looking at a SQL store as it is at one moment, without making, migrating or changing anything."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rheostat.errors import StoreError
from rheostat.store import extra_for, parse_url
from rheostat.store.generation import GENERATION_KIND, Beginning, beginnings_in

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Description", "Side", "describe", "looking_at"]


@dataclass(frozen=True, slots=True)
class Description:
    """What a store is.

    Attributes:
        schema: Of its tables.
        store_id: 16 bytes; the same in copies.
        generation: The present one.
        revision: The newest.
        floor: Changes after this revision are complete; a watcher below it needs a snapshot.
        items: How many exist.
        records: How many are kept beside the history.
        beginnings: How its generations began, but for the first; oldest first.
    """

    schema: str
    store_id: bytes
    generation: int
    revision: int
    floor: int
    items: int
    records: int
    beginnings: Sequence[Beginning]


_BEGINNINGS: Final = 10_000
"""More than anybody reads."""


@dataclass(frozen=True, slots=True)
class Side:
    """A connection, in a transaction, to a store that is read or made.

    Attributes:
        connection: Not to be used by two threads at once.
        translated: Turns the driver's errors inside into those of `rheostat.errors`.
    """

    connection: Connection
    translated: Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def looking_at(url: str, *, any_schema: bool = False) -> Iterator[Side]:
    """Read the store at *url*: all that is read shows one moment, whoever writes meanwhile.

    Args:
        url: As of `rheostat.store.open_store`.
        any_schema: Of a store with another schema, the table ``store`` can be read.

    Raises:
        StoreError: There is none, it is damaged, or its schema is not that of this version.
        UnavailableError: The database cannot be reached.
        MissingDependencyError: An extra is not installed.
    """
    kind, path, _ = parse_url(url)
    if kind == "memory":
        raise StoreError("a store in memory belongs to the process that made it, and no other can reach it")
    with extra_for(kind):
        from rheostat.store.migration import require_schema, stored_schema

        look = _postgres if kind == "postgresql" else _sqlite
        with look(path) as side:
            with side.translated():
                # Either refuses what is no store.
                if not any_schema or stored_schema(side.connection) is None:
                    require_schema(side.connection)
            yield side


def describe(url: str) -> Description:
    """Look at the store at *url*; see `looking_at` for the errors."""
    with looking_at(url) as side, side.translated():
        from sqlalchemy import func, select

        from rheostat.store import history, record, tables

        connection = side.connection
        head = history.read_head(connection)
        items = select(func.count()).select_from(tables.item).where(~tables.item.c.deleted)
        return Description(
            head.schema,
            head.identity.store_id,
            head.identity.generation,
            head.revision,
            head.floor,
            connection.execute(items).scalar_one(),
            connection.execute(select(func.count()).select_from(tables.record)).scalar_one(),
            beginnings_in(
                record.select_prefix(connection, GENERATION_KIND, prefix="", after="", limit=_BEGINNINGS)
            ),
        )


@contextlib.contextmanager
def _sqlite(path: str) -> Iterator[Side]:
    from rheostat.store.pool import Pool, translated

    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise StoreError(f"there is no store {path!r}")
    pool = Pool(real, "full")
    try:
        with pool.reader() as connection:
            yield Side(connection, lambda: translated(real.name))
    finally:
        # It has no writing connection, so that closing changes nothing in the file.
        pool.close(contextlib.nullcontext())


@contextlib.contextmanager
def _postgres(url: str) -> Iterator[Side]:
    from rheostat.store.connection import Connections
    from rheostat.store.postgres import LOCK_TIMEOUT

    connections = Connections(url, lock_timeout=LOCK_TIMEOUT, check=lambda _: None)
    try:
        with connections.lend(snapshot=True) as connection:
            # Whoever reads may be waiting for somebody who writes.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield Side(connection, connections.translated)
    finally:
        connections.close()
