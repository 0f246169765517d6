"""The rows of change-sets, and how those of many are written in a few statements.

Through the drivers and not through SQLAlchemy, whose share in each statement would be more than the database's.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy.dialects import postgresql

from rheostat.model.change import ChangeSet, Item, PlanWarning
from rheostat.model.encoding import encode_item
from rheostat.model.value import FrozenMapping, canonical_json
from rheostat.store import tables
from rheostat.store.stamp import instant_text

if TYPE_CHECKING:
    import psycopg

__all__ = ["Rows", "put_in_postgres", "put_in_sqlite", "rows_of"]

Row = Mapping[str, Any]
"""By column."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one change-set.

    Attributes:
        revision: Its revision.
        change_set: Its row in the audit history.
        changes: Those of its changes.
        items: Those of its items, by their addresses.
        size: How many characters of items it holds.
    """

    revision: int
    change_set: Row
    changes: Sequence[Row]
    items: Mapping[tuple[str, str, str, str], Row]
    size: int


def rows_of(written: ChangeSet) -> Rows:
    """Return the rows of a change-set as it is kept.

    Raises:
        ValueError: A text of it is none that a database could hold; it must not be found out only when the
            change-sets of others are written with it.
    """
    if written.created_at is None:
        raise ValueError(f"the change-set of revision {written.revision} has no time")
    change_set = {
        "revision": written.revision,
        "generation": written.generation,
        "project": written.project,
        "author": written.author,
        "message": written.message,
        "actor": written.actor,
        "request_id": written.request_id,
        "payload_digest": written.payload_digest,
        "rule_numbers": written.rule_numbers,
        "reverts": written.reverts,
        "warnings": _encode_warnings(written.warnings),
        "created_at": instant_text(written.created_at),
        "draft": written.draft,
        "approved_by": _encode_names(written.approved_by),
        "forced_clients": _encode_names(written.forced_clients),
    }
    size = 0
    changes = []
    items = {}
    for sequence, change in enumerate(written.changes):
        address = (change.project, change.environment, change.kind, change.key)
        place = {
            "project": change.project,
            "environment": change.environment,
            "kind": change.kind,
            "key": change.key,
            "revision": written.revision,
        }
        before, after = _encode(change.before), _encode(change.after)
        size += len(before or "") + len(after or "")
        changes.append({**place, "sequence": sequence, "before": before, "after": after})
        items[address] = {**place, "deleted": after is None, "body": after}
    for row in (change_set, *changes):
        for text in row.values():
            if isinstance(text, str) and not text.isascii():
                text.encode()
    return Rows(written.revision, change_set, changes, items, size)


def put_in_sqlite(connection: sqlite3.Connection, rows: Sequence[Rows], rule_number: int) -> None:
    """Write change-sets, by revision and without a gap, and count them.

    Args:
        connection: In the writing transaction.
        rows: At least one change-set's.
        rule_number: The highest rule number after them.
    """
    connection.execute(_ADVANCE.format("?", "?"), (rows[-1].revision, rule_number))
    for statement, batch in zip(_SQLITE, _batches(rows), strict=True):
        connection.executemany(statement, batch)


def put_in_postgres(connection: psycopg.Connection[Any], rows: Sequence[Rows], rule_number: int) -> None:
    """Do the same in PostgreSQL; in a pipeline nothing is waited for."""
    connection.execute(_ADVANCE.format("%s", "%s").encode(), (rows[-1].revision, rule_number))
    for statement, table, batch in zip(_POSTGRES, _TABLES, _batches(rows), strict=True):
        text = json.dumps(batch, default=_hexadecimal, separators=(",", ":"))
        if r"\u0000" in text or r"\u0001" in text:
            batch = [_escaped(table, row) for row in batch]
            text = json.dumps(batch, default=_hexadecimal, separators=(",", ":"))
        connection.execute(statement, (text,))


def _batches(rows: Sequence[Rows]) -> tuple[list[Row], list[Row], list[Row]]:
    items: dict[tuple[str, str, str, str], Row] = {}
    for each in rows:
        # The last one of an item: no statement of PostgreSQL writes a row twice.
        items.update(each.items)
    return (
        [each.change_set for each in rows],
        [row for each in rows for row in each.changes],
        list(items.values()),
    )


_TABLES: Final = (tables.change_set, tables.change, tables.item)

_DIALECT: Final = postgresql.dialect()  # type: ignore[no-untyped-call]

_ADVANCE: Final = "UPDATE store SET revision = {}, rule_number = {}"

_REPLACING: Final = (
    " ON CONFLICT (project, environment, kind, key) DO UPDATE SET"
    " revision = excluded.revision, deleted = excluded.deleted, body = excluded.body"
)


def _columns(table: sqlalchemy.Table, form: str = '"{}"') -> str:
    return ", ".join(form.format(column.name) for column in table.columns)


_SQLITE: Final = tuple(
    f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({_columns(table, ':{}')})"  # noqa: S608 - names of ours
    + (_REPLACING if table is tables.item else "")
    for table in _TABLES
)
_POSTGRES: Final = tuple(
    (
        f"INSERT INTO {table.name} ({_columns(table)}) "  # noqa: S608 - names of ours
        f"SELECT {_columns(table)} FROM json_populate_recordset(NULL::{table.name}, %s::json)"
        + (_REPLACING if table is tables.item else "")
    ).encode()
    for table in _TABLES
)


def _escaped(table: sqlalchemy.Table, row: Row) -> Row:
    escaped = {}
    for name, value in row.items():
        process = table.c[name].type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
        escaped[name] = value if process is None or not isinstance(value, str) else process(value)
    return escaped


def _hexadecimal(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no place in a row")
    return rf"\x{value.hex()}"


def _encode(item: Item | None) -> str | None:
    return None if item is None else encode_item(item)


def _encode_names(names: Sequence[str]) -> str:
    return canonical_json(tuple(names)) if names else "[]"


def _encode_warnings(warnings: Sequence[PlanWarning]) -> str:
    if not warnings:
        return "[]"
    return canonical_json(
        tuple(
            FrozenMapping(
                {
                    "code": warning.code,
                    "message": warning.message,
                    "mutation": warning.mutation,
                    "context": warning.context,
                }
            )
            for warning in warnings
        )
    )
