"""Removing what is kept of subjects no longer, in steps: each is looked for by a reader, and removed in a turn."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, delete, exists, literal, select, tuple_

from rheostat.store import tables
from rheostat.store.stamp import instant_text
from rheostat.store.subject import TOTAL
from rheostat.store.subject_life import AHEAD, CHANGE_LIFE, COUNT_LIFE, FEED_LIFE, KEY_LIFE, USAGE_LIFE

__all__ = ["PURGES", "Find", "Remove"]

_STEP: Final = 1000
"""Rows that one turn removes, or subjects whose rows it removes."""

Find = Callable[[Connection, datetime.datetime, Any], tuple[Sequence[Any], Any]]
"""Called with the time, and with what it returned before or None; returns what may go, and where to go on; None at
the end."""

Remove = Callable[[Connection, Sequence[Any]], int]
"""Removes what was found, and returns how many rows that were. Somebody else may have been faster."""


def _numbered(table: Table, life: datetime.timedelta, time: str) -> tuple[Find, Remove]:
    """Purge what has a rising number and a time: up to the last old one before the first that is not old enough.

    Those between them whose time is yet to come, since a clock was wrong, go with them.
    """

    def last(connection: Connection, now: datetime.datetime) -> int:
        at = table.c[time]
        cut, ahead = instant_text(now - life), instant_text(now + AHEAD)
        # From the oldest on, by the primary key, as far as the first that is found.
        young = select(table.c.number).where(table.c.number > 0, at >= cut, at <= ahead)
        young = young.order_by(table.c.number).limit(1)
        old = (
            select(table.c.number)
            .where(table.c.number > 0, at < cut)
            .order_by(table.c.number.desc())
            .limit(1)
        )
        if (first := connection.execute(young).scalar_one_or_none()) is not None:
            old = old.where(table.c.number < first)
        return connection.execute(old).scalar_one_or_none() or 0

    def find(connection: Connection, now: datetime.datetime, after: Any) -> tuple[Sequence[Any], Any]:
        end: int = last(connection, now) if after is None else after
        numbers = connection.execute(
            select(table.c.number).where(table.c.number <= end).order_by(table.c.number).limit(_STEP)
        )
        gone = numbers.scalars().all()
        return gone, end if len(gone) == _STEP else None

    def remove(connection: Connection, found: Sequence[Any]) -> int:
        return connection.execute(delete(table).where(table.c.number <= found[-1])).rowcount

    return find, remove


def _ranged(table: Table, life: datetime.timedelta) -> tuple[Find, Remove]:
    """Purge what has a day that its key begins with: everything up to one row, which is read alone."""
    key = list(table.primary_key)

    def find(connection: Connection, now: datetime.datetime, _: Any) -> tuple[Sequence[Any], Any]:
        cut = (now - life).date().toordinal()
        old = select(*key).where(table.c.day < cut).order_by(*key).limit(1)
        if (last := connection.execute(old.offset(_STEP - 1)).one_or_none()) is not None:
            return [(cut, tuple(last))], True
        return [] if connection.execute(old).first() is None else [(cut, None)], None

    def remove(connection: Connection, found: Sequence[Any]) -> int:
        removed = 0
        for cut, last in found:
            if last is None:
                statement = delete(table).where(table.c.day < cut)
            else:
                # Alone: with the day beside it SQLite would look at all rows of that.
                row = [literal(value, column.type) for value, column in zip(last, key, strict=True)]
                statement = delete(table).where(tuple_(*key) <= tuple_(*row))
            removed += connection.execute(statement).rowcount
        return removed

    return find, remove


def _daily(table: Table, life: datetime.timedelta) -> tuple[Find, Remove]:
    """Purge what has a day."""
    key = list(table.primary_key)

    def find(connection: Connection, now: datetime.datetime, _: Any) -> tuple[Sequence[Any], Any]:
        cut = (now - life).date().toordinal()
        query = select(*key).where(table.c.day < cut).limit(_STEP)
        rows = [tuple(row) for row in connection.execute(query)]
        return rows, True if len(rows) == _STEP else None

    statement = delete(table).where(*(column == bindparam(f"at_{column.name}") for column in key))

    def remove(connection: Connection, found: Sequence[Any]) -> int:
        connection.execute(
            statement,
            [{f"at_{column.name}": value for column, value in zip(key, row, strict=True)} for row in found],
        )
        return len(found)

    return find, remove


def _usage() -> tuple[Find, Remove]:
    """Purge days of subjects' counters. No index is kept over days: each subject is asked for its oldest ones."""
    subject, usage = tables.subject.c, tables.subject_usage.c

    def find(connection: Connection, now: datetime.datetime, after: Any) -> tuple[Sequence[Any], Any]:
        cut = (now - USAGE_LIFE).date().toordinal()
        scope, who = after or (-1, b"")
        page = (
            select(subject.scope, subject.id)
            .where(tuple_(subject.scope, subject.id) > tuple_(scope, who))
            .order_by(subject.scope, subject.id)
            .limit(_STEP)
            .subquery()
        )
        old = exists().where(
            usage.scope == page.c.scope,
            usage.id == page.c.id,
            usage.day > TOTAL,
            usage.day < cut,
        )
        rows = connection.execute(
            select(page.c.scope, page.c.id, old.label("old")).order_by(page.c.scope, page.c.id)
        ).all()
        found = [(row.scope, bytes(row.id), cut) for row in rows if row.old]
        return found, (rows[-1].scope, bytes(rows[-1].id)) if len(rows) == _STEP else None

    statement = delete(tables.subject_usage).where(
        usage.scope == bindparam("at_scope"),
        usage.id == bindparam("at_id"),
        usage.day > TOTAL,
        usage.day < bindparam("cut"),
    )

    def remove(connection: Connection, found: Sequence[Any]) -> int:
        removed = 0
        for scope, who, cut in found:
            removed += connection.execute(statement, {"at_scope": scope, "at_id": who, "cut": cut}).rowcount
        return removed

    return find, remove


PURGES: Final[Sequence[tuple[Find, Remove]]] = (
    _numbered(tables.subject_feed, FEED_LIFE, "at"),
    _numbered(tables.subject_change, CHANGE_LIFE, "time"),
    _ranged(tables.event_key, KEY_LIFE),
    _daily(tables.event_day, COUNT_LIFE),
    _daily(tables.exposure_day, COUNT_LIFE),
    _usage(),
)
