"""The subjects of a SQL store, on a connection whose transaction the caller has begun.

Those who write hold the writer lock, so that nothing comes between their reading and their writing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from rheostat.errors import RevisionCompactedError
from rheostat.model.subject import (
    EventCount,
    ExposureCount,
    FeedEntry,
    SubjectChange,
    SubjectOverride,
)
from rheostat.model.value import INT64_MAX, INT64_MIN, FrozenMapping, Value, canonical_text, parse_json, thaw
from rheostat.store import tables
from rheostat.store.stamp import instant_text, utc
from rheostat.store.subject import (
    MAX_FEED_MEMBERS,
    TOTAL,
    Address,
    Cell,
    Stored,
    Writes,
    clamped,
    fed,
)
from rheostat.store.subject_life import KEY_LIFE

__all__ = [
    "SqlShelf",
    "changes",
    "event_counts",
    "exposures",
    "feed",
    "feed_number",
    "page",
]

T = TypeVar("T")

_CHUNK: Final = 500
"""How many rows one statement names; SQLite builds may allow as few as 999 parameters."""

_SCOPE = (
    select(tables.subject_scope.c.number)
    .where(
        tables.subject_scope.c.project == bindparam("project"),
        tables.subject_scope.c.environment == bindparam("environment"),
    )
    .scalar_subquery()
)
_FIND = select(tables.subject_key.c.folded, tables.subject_key.c.id).where(
    tables.subject_key.c.scope == _SCOPE,
    tables.subject_key.c.kind == bindparam("kind"),
    tables.subject_key.c.name == bindparam("name"),
    tables.subject_key.c.folded.in_(bindparam("folded", expanding=True)),
)
_LOAD = select(tables.subject).where(
    tables.subject.c.scope == _SCOPE, tables.subject.c.id.in_(bindparam("ids", expanding=True))
)
_MEMBERSHIPS = (
    select(tables.subject_member.c.id, tables.subject_member.c.target)
    .where(
        tables.subject_member.c.scope == _SCOPE,
        tables.subject_member.c.id.in_(bindparam("ids", expanding=True)),
    )
    .order_by(tables.subject_member.c.id, tables.subject_member.c.position)
)
_NAMES = select(tables.subject.c.id, tables.subject.c.kind, tables.subject.c["keys"]).where(
    tables.subject.c.scope == _SCOPE, tables.subject.c.id.in_(bindparam("ids", expanding=True))
)
_COUNT = select(tables.subject_scope.c.subjects).where(tables.subject_scope.c.number == _SCOPE)


def _counts(days: ColumnElement[bool]) -> Select[Any]:
    usage = tables.subject_usage.c
    return select(usage.id, usage.day, usage.event, usage["count"]).where(
        usage.scope == _SCOPE, usage.id.in_(bindparam("ids", expanding=True)), days
    )


# Two ranges of the primary key, in the place of a walk over all the days that a subject has.
_COUNTS = union_all(
    _counts(tables.subject_usage.c.day == TOTAL),
    _counts(tables.subject_usage.c.day.between(bindparam("first"), bindparam("last"))),
)
_USED = select(tables.event_key.c.key).where(
    tables.event_key.c.day.in_(bindparam("days", expanding=True)),
    tables.event_key.c.scope == _SCOPE,
    tables.event_key.c.actor == bindparam("actor"),
    tables.event_key.c.key.in_(bindparam("keys", expanding=True)),
)

_LOSE = delete(tables.subject_key).where(
    tables.subject_key.c.scope == bindparam("at_scope"),
    tables.subject_key.c.kind == bindparam("at_kind"),
    tables.subject_key.c.name == bindparam("at_name"),
    tables.subject_key.c.folded == bindparam("at_folded"),
)
_CHANGE = update(tables.subject).where(
    tables.subject.c.scope == bindparam("at_scope"), tables.subject.c.id == bindparam("at_id")
)
_RAISE = update(tables.subject).where(
    tables.subject.c.scope == bindparam("at_scope"),
    tables.subject.c.id.in_(
        select(tables.subject_member.c.id).where(
            tables.subject_member.c.scope == bindparam("at_scope"),
            tables.subject_member.c.target.in_(bindparam("targets", expanding=True)),
        )
    ),
)
_MEMBERS = (
    select(tables.subject_member.c.id)
    .where(
        tables.subject_member.c.scope == bindparam("at_scope"),
        tables.subject_member.c.target.in_(bindparam("targets", expanding=True)),
    )
    .distinct()
    .limit(MAX_FEED_MEMBERS + 1)
)
_REMOVALS: Final = tuple(
    delete(table).where(table.c.scope == bindparam("at_scope"), column == bindparam("at_id"))
    for table, column in (
        (tables.subject_member, tables.subject_member.c.id),
        (tables.subject_member, tables.subject_member.c.target),
        (tables.subject_usage, tables.subject_usage.c.id),
        (tables.subject, tables.subject.c.id),
    )
)


def _saturated(stored: ColumnElement[Any], added: ColumnElement[Any]) -> ColumnElement[Any]:
    """Add without leaving 64 bits: SQLite would go on in floating point, PostgreSQL would fail."""
    return case(
        (and_(added > 0, stored > INT64_MAX - added), INT64_MAX),
        (and_(added < 0, stored < INT64_MIN - added), INT64_MIN),
        else_=stored + added,
    )


def _upserts(new: sqlite.Insert | postgresql.Insert, table: Table) -> sqlite.Insert | postgresql.Insert:
    changed: dict[str, ColumnElement[Any]] = {}
    for column in table.columns:
        if column.primary_key:
            continue
        excluded = new.excluded[column.name]
        if column.name == "last_at":
            changed[column.name] = case((column > excluded, column), else_=excluded)
        elif column.name == "first_at":
            changed[column.name] = case((column < excluded, column), else_=excluded)
        elif table is tables.subject_usage:
            changed[column.name] = excluded
        else:
            changed[column.name] = _saturated(column, excluded)
    return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)


_PUTS = {
    (name, table): _upserts(make(table), table)
    for name, make in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
    for table in (tables.subject_usage, tables.event_day, tables.exposure_day)
}


class SqlShelf:
    """The subjects of an environment; see `rheostat.store.subject.Shelf`."""

    def __init__(self, connection: Connection, project: str, environment: str) -> None:
        """Look at nothing yet."""
        self._connection = connection
        self._place = {"project": project, "environment": environment}

    def find(self, addresses: Collection[Address]) -> Mapping[Address, bytes]:
        """See `Shelf`."""
        grouped: dict[tuple[str, str], list[str]] = {}
        for kind, name, folded in addresses:
            grouped.setdefault((kind, name), []).append(folded)
        found: dict[Address, bytes] = {}
        for (kind, name), values in grouped.items():
            for chunk in _chunks(values):
                rows = self._rows(_FIND, kind=kind, name=name, folded=chunk)
                found.update(((kind, name, row.folded), bytes(row.id)) for row in rows)
        return found

    def load(self, ids: Collection[bytes]) -> Mapping[bytes, Stored]:
        """See `Shelf`."""
        return {stored.id: stored for stored in self.whole(self._by_id(_LOAD, ids))}

    def whole(self, rows: Iterable[Row[Any]]) -> Sequence[Stored]:
        """Return the subjects that rows of the table hold."""
        rows = list(rows)
        targets: dict[bytes, list[bytes]] = {}
        for row in self._by_id(_MEMBERSHIPS, [bytes(row.id) for row in rows]):
            targets.setdefault(bytes(row.id), []).append(bytes(row.target))
        return [_decode(row, targets.get(bytes(row.id), ())) for row in rows]

    def names(self, ids: Collection[bytes]) -> Mapping[bytes, tuple[str, Mapping[str, str]]]:
        """See `Shelf`."""
        return {bytes(who): (kind, json.loads(keys)) for who, kind, keys in self._by_id(_NAMES, ids)}

    def count(self) -> int:
        """See `Shelf`."""
        return self._connection.execute(_COUNT, self._place).scalar_one_or_none() or 0

    def counts(self, ids: Collection[bytes], first: int, last: int) -> Mapping[bytes, Mapping[Cell, int]]:
        """See `Shelf`."""
        found: dict[bytes, dict[Cell, int]] = {}
        for who, day, event, count in self._by_id(_COUNTS, ids, first=first, last=last):
            found.setdefault(bytes(who), {})[day, event] = count
        return found

    def used_keys(self, actor: str, keys: Collection[str], now: datetime.datetime) -> Collection[str]:
        """See `Shelf`."""
        # The clock of another node may be past midnight.
        days = range(_key_day(now - KEY_LIFE), _key_day(now) + 2)
        return {
            key
            for chunk in _chunks(keys)
            for (key,) in self._rows(_USED, days=list(days), actor=actor, keys=chunk)
        }

    def write(self, writes: Writes) -> int:
        """Write what has changed, and return how many rows those were, about."""
        scope = self._scope(len(writes.new) - len(writes.removed))
        rows = 1
        rows += self._execute(_LOSE, _at_addresses(scope, writes.lost))
        rows += self._execute(
            insert(tables.subject),
            [{"scope": scope, "id": new.id, **_encode(new)} for new in writes.put if new.id in writes.new],
        )
        rows += self._execute(
            _CHANGE,
            [
                {"at_scope": scope, "at_id": stored.id, **_encode(stored)}
                for stored in writes.put
                if stored.id not in writes.new
            ],
        )
        rows += self._execute(
            insert(tables.subject_key),
            [
                {"scope": scope, "kind": kind, "name": name, "folded": folded, "id": who}
                for (kind, name, folded), who in writes.won.items()
            ],
        )
        rows += self._move(scope, writes)
        ids = fed(writes.touched, self._raise(scope, writes.renamed))
        for statement in _REMOVALS:
            rows += self._execute(statement, [{"at_scope": scope, "at_id": who} for who in writes.removed])
        rows += self._put(
            tables.subject_usage,
            [
                {"scope": scope, "id": who, "day": day, "event": event, "count": count}
                for (who, (day, event)), count in sorted(writes.counts.items())
            ],
        )
        rows += self._execute(
            insert(tables.event_key),
            [
                {"day": _key_day(writes.now), "scope": scope, "actor": writes.actor, "key": key}
                for key in writes.event_keys
            ],
        )
        rows += self._put(
            tables.event_day,
            [
                {
                    "scope": scope,
                    "event": event,
                    "day": day,
                    "events": added.events,
                    "quantity": added.quantity,
                    "last_at": instant_text(added.last_at),
                }
                for (event, day), added in writes.event_days.items()
            ],
        )
        rows += self._put(
            tables.exposure_day,
            [
                {
                    "scope": scope,
                    **dict(
                        zip(
                            ("setting", "revision", "rule_id", "variant", "value_json", "day"),
                            key,
                            strict=True,
                        )
                    ),
                    "count": shown.count,
                    "first_at": instant_text(shown.first_at),
                    "last_at": instant_text(shown.last_at),
                }
                for key, shown in writes.exposure_days.items()
            ],
        )
        return rows + self._number(scope, ids, writes)

    def _scope(self, added: int) -> int:
        """Return the number of the environment, which gets one if need be, and count its subjects."""
        number: int | None = self._connection.execute(select(_SCOPE), self._place).scalar_one_or_none()
        table = tables.subject_scope
        if number is None:
            highest = self._connection.execute(select(func.max(table.c.number))).scalar_one()
            number = (highest or 0) + 1
            self._connection.execute(insert(table), {"number": number, "subjects": added, **self._place})
        elif added:
            self._connection.execute(
                update(table).where(table.c.number == number).values(subjects=table.c.subjects + added)
            )
        return number

    def _move(self, scope: int, writes: Writes) -> int:
        moved = set(writes.moved)
        rows = self._execute(
            _REMOVALS[0],
            [{"at_scope": scope, "at_id": who} for who in writes.moved if who not in writes.new],
        )
        return rows + self._execute(
            insert(tables.subject_member),
            [
                {"scope": scope, "id": stored.id, "position": position, "target": target}
                for stored in writes.put
                if stored.id in moved
                for position, target in enumerate(stored.member_of)
            ],
        )

    def _raise(self, scope: int, renamed: Sequence[bytes]) -> Collection[bytes]:
        """Give the members of others new versions, and return who they are, or more than the feed tells of."""
        members: dict[bytes, None] = {}
        for chunk in _chunks(renamed):
            found = self._connection.execute(_MEMBERS, {"at_scope": scope, "targets": chunk})
            mine = [bytes(who) for (who,) in found]
            if mine:
                self._connection.execute(
                    _RAISE.values(version=tables.subject.c.version + 1), {"at_scope": scope, "targets": chunk}
                )
                members.update(dict.fromkeys(mine))
        return members

    def _number(self, scope: int, ids: Sequence[bytes], writes: Writes) -> int:
        """Write what has a number: the feed and the changes."""
        if not ids and not writes.changes:
            return 0
        table = tables.subject_counter
        row = self._connection.execute(select(table)).one_or_none()
        fed_before, changed_before = (0, 0) if row is None else (row.feed, row.change)
        after = {"feed": fed_before + len(ids), "change": changed_before + len(writes.changes)}
        self._connection.execute(
            insert(table).values(id=1, **after) if row is None else update(table).values(**after)
        )
        at = instant_text(writes.now)
        rows = self._execute(
            insert(tables.subject_feed),
            [
                {"number": number, "scope": scope, "id": who, "at": at}
                for number, who in enumerate(ids, fed_before + 1)
            ],
        )
        return rows + self._execute(
            insert(tables.subject_change),
            [
                {
                    "number": number,
                    "scope": scope,
                    "id": change.id,
                    "kind": change.kind,
                    "version": change.version,
                    "time": at,
                    "actor": change.actor,
                    "fields": canonical_text(list(change.fields)),
                }
                for number, change in enumerate(writes.changes, changed_before + 1)
            ],
        )

    def _rows(self, statement: Any, **parameters: object) -> Sequence[Row[Any]]:
        return self._connection.execute(statement, {**self._place, **parameters}).all()

    def _by_id(self, statement: Any, ids: Collection[bytes], **parameters: object) -> Iterator[Any]:
        # In order: those that stand together are read together.
        for chunk in _chunks(sorted(ids)):
            yield from self._rows(statement, ids=chunk, **parameters)

    def _execute(self, statement: Any, rows: Sequence[Mapping[str, object]]) -> int:
        if rows:
            self._connection.execute(statement, rows)
        return len(rows)

    def _put(self, table: Table, rows: Sequence[Mapping[str, object]]) -> int:
        return self._execute(_PUTS[self._connection.dialect.name, table], rows)


def page(
    connection: Connection, project: str, environment: str, *, kind: str, after: bytes, limit: int
) -> Sequence[Stored]:
    """Return subjects by id; see `rheostat.store.subject_base.SubjectStore.list_subjects`."""
    table = tables.subject
    query = select(table).where(table.c.scope == _SCOPE, table.c.id > after)
    if kind:
        query = query.where(table.c.kind == bindparam("kind"))
    rows = connection.execute(
        query.order_by(table.c.id).limit(limit),
        {"project": project, "environment": environment, **({"kind": kind} if kind else {})},
    )
    return SqlShelf(connection, project, environment).whole(rows)


def changes(
    connection: Connection, project: str, environment: str, *, who: bytes, before: int | None, limit: int
) -> Sequence[SubjectChange]:
    """Return who changed subjects; see `rheostat.store.subject_base.SubjectStore.subject_changes`."""
    table = tables.subject_change
    query = select(table).where(table.c.scope == _SCOPE)
    if who:
        query = query.where(table.c.id == who)
    if before is not None:
        query = query.where(table.c.number < before)
    rows = connection.execute(
        query.order_by(table.c.number.desc()).limit(limit),
        {"project": project, "environment": environment},
    )
    return tuple(
        SubjectChange(
            bytes(row.id),
            row.kind,
            row.version,
            datetime.datetime.fromisoformat(row.time),
            row.actor,
            tuple(json.loads(row.fields)),
            row.number,
        )
        for row in rows
    )


def exposures(
    connection: Connection,
    project: str,
    environment: str,
    *,
    setting: str,
    since: datetime.date | None,
    until: datetime.date | None,
    offset: int,
    limit: int,
) -> Sequence[ExposureCount]:
    """Return how often values were given; see `rheostat.store.subject_base.SubjectStore.exposures`."""
    table = tables.exposure_day
    by = [table.c[name] for name in ("setting", "revision", "rule_id", "variant", "value_json")]
    query = select(
        *by,
        *_sum(table.c["count"]),
        func.min(table.c.first_at).label("first_at"),
        func.max(table.c.last_at).label("last_at"),
    ).where(table.c.scope == _SCOPE, *_between(table.c.day, since, until))
    if setting:
        query = query.where(table.c.setting == setting)
    rows = connection.execute(
        query.group_by(*by).order_by(*by).offset(offset).limit(limit),
        {"project": project, "environment": environment},
    )
    return tuple(
        ExposureCount(
            row.setting,
            row.revision,
            row.rule_id,
            row.variant,
            row.value_json,
            _whole(row.count_high, row.count_low),
            datetime.datetime.fromisoformat(row.first_at),
            datetime.datetime.fromisoformat(row.last_at),
        )
        for row in rows
    )


def event_counts(
    connection: Connection,
    project: str,
    environment: str,
    *,
    since: datetime.date | None,
    until: datetime.date | None,
    after: str,
    limit: int,
) -> Sequence[EventCount]:
    """Return how often events happened; see `rheostat.store.subject_base.SubjectStore.event_counts`."""
    table = tables.event_day
    query = select(
        table.c.event,
        func.sum(table.c.events).label("events"),
        *_sum(table.c.quantity),
        func.max(table.c.last_at).label("last_at"),
    ).where(table.c.scope == _SCOPE, table.c.event > after, *_between(table.c.day, since, until))
    rows = connection.execute(
        query.group_by(table.c.event).order_by(table.c.event).limit(limit),
        {"project": project, "environment": environment},
    )
    return tuple(
        EventCount(
            row.event,
            int(row.events),
            _whole(row.quantity_high, row.quantity_low),
            datetime.datetime.fromisoformat(row.last_at),
        )
        for row in rows
    )


def feed_number(connection: Connection) -> int:
    """Return the number of the newest entry of the feed."""
    return connection.execute(select(tables.subject_counter.c.feed)).scalar_one_or_none() or 0


def feed(connection: Connection, after: int, limit: int) -> Sequence[FeedEntry]:
    """Return entries of the feed; see `rheostat.store.subject_base.SubjectStore.subject_feed`."""
    table, scope = tables.subject_feed, tables.subject_scope
    newest = feed_number(connection)
    oldest = connection.execute(select(func.min(table.c.number))).scalar_one()
    floor = newest if oldest is None else oldest - 1
    if not floor <= after <= newest:
        raise RevisionCompactedError(after, floor)
    rows = connection.execute(
        select(table.c.number, scope.c.project, scope.c.environment, table.c.id)
        .join_from(table, scope, table.c.scope == scope.c.number)
        .where(table.c.number > after)
        .order_by(table.c.number)
        .limit(limit)
    )
    return tuple(FeedEntry(number, project, env, bytes(who)) for number, project, env, who in rows)


def _sum(column: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Add up in two halves, since a sum that leaves 64 bits is an error in SQLite."""
    name = str(column.key)
    return (
        # PostgreSQL shifts by an integer of 32 bits only, as which a parameter is not sent.
        func.sum(column.bitwise_rshift(literal_column("32"))).label(f"{name}_high"),
        func.sum(column.bitwise_and(0xFFFFFFFF)).label(f"{name}_low"),
    )


def _whole(high: Any, low: Any) -> int:
    return clamped((int(high) << 32) + int(low))


def _between(
    column: ColumnElement[Any], since: datetime.date | None, until: datetime.date | None
) -> Iterator[ColumnElement[bool]]:
    if since is not None:
        yield column >= since.toordinal()
    if until is not None:
        yield column < until.toordinal()


def _key_day(instant: datetime.datetime) -> int:
    return instant.date().toordinal()


def _at_addresses(scope: int, addresses: Iterable[Address]) -> Sequence[Mapping[str, object]]:
    return [
        {"at_scope": scope, "at_kind": kind, "at_name": name, "at_folded": folded}
        for kind, name, folded in addresses
    ]


def _chunks(values: Collection[T]) -> Iterator[list[T]]:
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]


def _encode(stored: Stored) -> dict[str, object]:
    return {
        "kind": stored.kind,
        "version": stored.version,
        "month_day": stored.month_day,
        "created_at": instant_text(stored.created_at),
        "updated_at": instant_text(stored.updated_at),
        "keys": canonical_text(dict(stored.keys)),
        "traits": canonical_text({name: thaw(value) for name, value in stored.traits.items()}),
        "overrides": canonical_text(
            {
                setting: [
                    thaw(override.value),
                    None if override.expires_at is None else instant_text(override.expires_at),
                ]
                for setting, override in stored.overrides.items()
            }
        )
        if stored.overrides
        else "{}",
    }


def _decode(row: Row[Any], member_of: Sequence[bytes]) -> Stored:
    return Stored(
        bytes(row.id),
        row.kind,
        utc(datetime.datetime.fromisoformat(row.created_at)),
        utc(datetime.datetime.fromisoformat(row.updated_at)),
        json.loads(row.keys),
        _mapping(row.traits),
        {setting: _override(setting, raw) for setting, raw in _mapping(row.overrides).items()},
        tuple(member_of),
        row.month_day,
        row.version,
    )


def _mapping(text: str) -> Mapping[str, Value]:
    value = parse_json(text)
    assert isinstance(value, FrozenMapping)
    return value


def _override(setting: str, raw: Value) -> SubjectOverride:
    assert isinstance(raw, tuple)
    value, expires_at = raw
    return SubjectOverride(
        setting, value, None if expires_at is None else datetime.datetime.fromisoformat(str(expires_at))
    )
