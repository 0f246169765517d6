"""The records of a SQL store, on a connection whose transaction the caller has begun.

Those who write hold the writer lock, so that nothing comes between their reading and their writing.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from rheostat.store import tables
from rheostat.store.base import Record
from rheostat.store.stamp import instant_text, utc

__all__ = ["delete_due", "due", "find", "put", "remove", "select_prefix", "version"]

_AT = (tables.record.c.kind == bindparam("at_kind"), tables.record.c.key == bindparam("at_key"))
_FIND = select(tables.record).where(*_AT)
_VERSION = select(tables.record.c.version).where(*_AT)
_ADD = insert(tables.record)
_CHANGE = update(tables.record).where(*_AT)
_REMOVE = delete(tables.record).where(*_AT)

_SURROGATES: Final = range(0xD800, 0xE000)


def find(connection: Connection, kind: str, key: str) -> Record | None:
    """Return a record, or None."""
    row = connection.execute(_FIND, {"at_kind": kind, "at_key": key}).one_or_none()
    return None if row is None else _decode(row)


def select_prefix(
    connection: Connection, kind: str, *, prefix: str, after: str, limit: int
) -> Sequence[Record]:
    """Return records by key; see `rheostat.store.base.Store.records`."""
    table = tables.record.c
    # Compared as a range, which the primary key serves and in which no character is a wildcard.
    query = select(tables.record).where(table.kind == kind, table.key >= prefix, table.key > after)
    end = _end(prefix)
    if end:
        query = query.where(table.key < end)
    return tuple(map(_decode, connection.execute(query.order_by(table.key).limit(limit))))


def due(connection: Connection, kind: str, now: datetime.datetime, limit: int) -> Sequence[Record]:
    """Return what is due, soonest first; see `rheostat.store.base.Store.due_records`."""
    table = tables.record.c
    query = select(tables.record).where(table.kind == kind, table.due <= instant_text(now))
    return tuple(map(_decode, connection.execute(query.order_by(table.due, table.key).limit(limit))))


def version(connection: Connection, kind: str, key: str) -> int:
    """Return the version of a record; 0 when there is none."""
    return connection.execute(_VERSION, {"at_kind": kind, "at_key": key}).scalar_one_or_none() or 0


def put(connection: Connection, record: Record) -> Record:
    """Write a record, whatever was stored; return it with its new version."""
    at = {"at_kind": record.kind, "at_key": record.key}
    before = version(connection, record.kind, record.key)
    written = Record(
        record.kind,
        record.key,
        record.body,
        None if record.due is None else utc(record.due),
        before + 1,
    )
    values = {
        "version": written.version,
        "due": None if record.due is None else instant_text(record.due),
        "body": record.body,
    }
    if before:
        connection.execute(_CHANGE, at | values)
    else:
        connection.execute(_ADD, {"kind": record.kind, "key": record.key} | values)
    return written


def remove(connection: Connection, kind: str, key: str, expected_version: int | None = None) -> bool:
    """Remove a record; return whether it was there, and had the expected version."""
    statement = _REMOVE
    if expected_version is not None:
        statement = statement.where(tables.record.c.version == expected_version)
    return connection.execute(statement, {"at_kind": kind, "at_key": key}).rowcount > 0


def delete_due(connection: Connection, kind: str, now: datetime.datetime) -> int:
    """Remove what is due; return how many records those were."""
    table = tables.record.c
    return connection.execute(
        delete(tables.record).where(table.kind == kind, table.due <= instant_text(now))
    ).rowcount


def _end(prefix: str) -> str:
    """Return the first text after all that begin with *prefix*; empty when there is none."""
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    # Surrogates have no form in UTF-8.
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)


def _decode(row: Row[Any]) -> Record:
    return Record(
        row.kind,
        row.key,
        row.body,
        None if row.due is None else datetime.datetime.fromisoformat(row.due),
        row.version,
    )
