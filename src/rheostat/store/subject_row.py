"""The subjects of a SQL store, on a connection whose transaction the caller has begun.

Those who write hold the writer lock, so that nothing comes between their reading and their writing.
"""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
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
    Address,
    Cell,
    Stored,
    Writes,
    clamped,
)
from rheostat.store.subject_driver import driver_of
from rheostat.store.subject_life import FEED_JUMP, KEY_LIFE, VERSION_JUMP

__all__ = [
    "SqlShelf",
    "changes",
    "event_counts",
    "exposures",
    "feed",
    "feed_number",
    "page",
    "skip_feed",
]

_CHUNK: Final = 500
"""How many others one statement names; SQLite builds may allow as few as 999 parameters."""

_EXPOSURE: Final = ("setting", "revision", "rule_id", "variant", "value_json", "day")

_SCOPE = (
    select(tables.subject_scope.c.number)
    .where(
        tables.subject_scope.c.project == bindparam("project"),
        tables.subject_scope.c.environment == bindparam("environment"),
    )
    .scalar_subquery()
)
_COUNT = select(tables.subject_scope.c.subjects).where(tables.subject_scope.c.number == _SCOPE)

# What is read and written of each of many subjects; see `rheostat.store.subject_driver`.

_BASE: Final = "SELECT base FROM subject_scope WHERE project = ? AND environment {in}"
_FIND: Final = "SELECT folded, id FROM subject_key WHERE {here} AND kind = ? AND name = ? AND folded {in}"
_LOAD: Final = (
    "SELECT id, kind, created_at, updated_at, keys, traits, overrides, month_day, version"
    " FROM subject WHERE {here} AND id {in}"
)
_MEMBERSHIPS: Final = "SELECT id, target FROM subject_member WHERE {here} AND id {in} ORDER BY id, position"
_NAMES: Final = "SELECT id, kind, keys FROM subject WHERE {here} AND id {in}"
_COUNTS: Final = "SELECT id, day, event, count FROM subject_usage WHERE {here} AND day = 0 AND id {in}"
_DAYS: Final = (
    "SELECT id, day, event, count FROM subject_usage WHERE {here} AND day BETWEEN ? AND ? AND id {in}"
)
# A sum of days that leaves 64 bits is an error in SQLite: they are added up in two halves.
_SUMS: Final = (
    "SELECT id, MIN(day), event, SUM(count >> 32), SUM(count & 4294967295) FROM (SELECT id, day, event, count,"
    " CASE WHEN day >= ? AND day < ? THEN 1 ELSE 0 END + CASE WHEN day >= ? AND day < ? THEN 2 ELSE 0 END"
    " + CASE WHEN day >= ? AND day < ? THEN 4 ELSE 0 END AS spans"
    " FROM subject_usage WHERE {here} AND day BETWEEN ? AND ? AND id {in}) AS counted"
    " WHERE spans > 0 GROUP BY id, event, spans"
)
_USED: Final = "SELECT key FROM event_key WHERE {here} AND day = ? AND actor = ? AND key {in}"

_LOSE: Final = "DELETE FROM subject_key WHERE scope = ? AND kind = ? AND name = ? AND folded = ?"
_ADD: Final = (
    "INSERT INTO subject (kind, version, month_day, created_at, updated_at, keys, traits, overrides, scope, id)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_CHANGE: Final = (
    "UPDATE subject SET kind = ?, version = ?, month_day = ?, created_at = ?, updated_at = ?, keys = ?,"
    " traits = ?, overrides = ? WHERE scope = ? AND id = ?"
)
_WIN: Final = "INSERT INTO subject_key (scope, kind, name, folded, id) VALUES (?, ?, ?, ?, ?)"
_RAISE: Final = "UPDATE subject SET version = version + 1 WHERE scope = ? AND id = ?"
_LEAVE: Final = "DELETE FROM subject_member WHERE scope = ? AND id = ?"
_JOIN: Final = "INSERT INTO subject_member (scope, id, position, target) VALUES (?, ?, ?, ?)"
_REMOVALS: Final = (
    _LEAVE,
    "DELETE FROM subject_member WHERE scope = ? AND target = ?",
    "DELETE FROM subject_usage WHERE scope = ? AND id = ?",
    "DELETE FROM subject WHERE scope = ? AND id = ?",
)
_USE: Final = (
    "INSERT INTO subject_usage (scope, id, day, event, count) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (scope, id, day, event) DO UPDATE SET count = excluded.count"
)
_USE_KEY: Final = "INSERT INTO event_key (day, scope, actor, key) VALUES (?, ?, ?, ?)"
_FEED: Final = "INSERT INTO subject_feed (number, scope, id, at) VALUES (?, ?, ?, ?)"
_TELL: Final = (
    "INSERT INTO subject_change (number, scope, id, kind, version, time, actor, fields)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

_MEMBERS = (
    select(tables.subject_member.c.id)
    .where(
        tables.subject_member.c.scope == _SCOPE,
        tables.subject_member.c.target.in_(bindparam("targets", expanding=True)),
    )
    .distinct()
    .limit(MAX_FEED_MEMBERS + 1)
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
        else:
            changed[column.name] = _saturated(column, excluded)
    return new.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed)


_PUTS = {
    (name, table): _upserts(make(table), table)
    for name, make in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
    for table in (tables.event_day, tables.exposure_day)
}


class SqlShelf:
    """The subjects of an environment; see `rheostat.store.subject.Shelf`."""

    def __init__(self, connection: Connection, project: str, environment: str) -> None:
        """Look at nothing yet; `characters` is how large the subjects are that were read since."""
        self.characters = 0
        self._connection = connection
        self._driver = driver_of(connection)
        self._place = {"project": project, "environment": environment}
        self._at = (project, environment)

    def find(self, addresses: Collection[Address]) -> Mapping[Address, bytes]:
        """See `Shelf`."""
        grouped: dict[tuple[str, str], list[str]] = {}
        for kind, name, folded in addresses:
            grouped.setdefault((kind, name), []).append(self._driver.text(folded))
        found: dict[Address, bytes] = {}
        for (kind, name), values in grouped.items():
            for folded, who in self._driver.select(_FIND, (*self._at, kind, name), sorted(values)):
                found[kind, name, self._driver.plain(folded)] = who
        return found

    def load(self, ids: Collection[bytes]) -> Mapping[bytes, Stored]:
        """See `Shelf`."""
        rows = list(self._by_id(_LOAD, ids))
        self.characters += sum(len(keys) + len(traits) + len(over) for *_, keys, traits, over, _, _ in rows)
        targets: dict[bytes, list[bytes]] = {}
        for who, target in self._by_id(_MEMBERSHIPS, [row[0] for row in rows]):
            targets.setdefault(who, []).append(target)
        return {row[0]: _decode(row, targets.get(row[0], ())) for row in rows}

    def names(self, ids: Collection[bytes]) -> Mapping[bytes, tuple[str, Mapping[str, str]]]:
        """See `Shelf`."""
        return {who: (kind, json.loads(keys)) for who, kind, keys in self._by_id(_NAMES, ids)}

    def members_of(self, targets: Collection[bytes]) -> Collection[bytes]:
        """See `Shelf`."""
        members: dict[bytes, None] = {}
        asked = list(targets)
        for start in range(0, len(asked), _CHUNK):
            among = {**self._place, "targets": asked[start : start + _CHUNK]}
            members.update((bytes(who), None) for (who,) in self._connection.execute(_MEMBERS, among))
        return members

    def count(self) -> int:
        """See `Shelf`."""
        return self._connection.execute(_COUNT, self._place).scalar_one_or_none() or 0

    def base(self) -> int:
        """See `Shelf`."""
        project, environment = self._at
        return sum(base for (base,) in self._driver.select(_BASE, (project,), [environment]))

    def counts(self, ids: Collection[bytes], first: int, last: int) -> Mapping[bytes, Mapping[Cell, int]]:
        """See `Shelf`."""
        found: dict[bytes, dict[Cell, int]] = {}
        for who, day, event, count in self._by_id(_COUNTS, ids):
            found.setdefault(who, {})[day, event] = count
        # Who has no total has no days. Asked for as a range of the primary key, whatever other days there are.
        for who, day, event, count in self._by_id(_DAYS, found.keys(), first, last):
            found[who][day, event] = count
        return found

    def sums(
        self, ids: Collection[bytes], spans: Sequence[tuple[int, int]]
    ) -> Mapping[bytes, Mapping[Cell, int]]:
        """See `Shelf`; of three spans."""
        found: dict[bytes, dict[Cell, int]] = {}
        for who, day, event, count in self._by_id(_COUNTS, ids):
            found.setdefault(who, {})[day, event] = count
        first, last = min(first for first, _ in spans), max(after for _, after in spans) - 1
        before = (*itertools.chain.from_iterable(spans), *self._at, first, last)
        # A subject may be counted for hundreds of events on each day.
        for who, day, event, high, low in self._driver.select(_SUMS, before, sorted(found)):
            found[who][day, event] = (int(high) << 32) + int(low)
        return found

    def used_keys(self, actor: str, keys: Collection[str], now: datetime.datetime) -> Collection[str]:
        """See `Shelf`."""
        asked = sorted(map(self._driver.text, keys))
        at = (*self._at, 0, self._driver.text(actor))
        return {
            self._driver.plain(key)
            for day in self._key_days(now)
            for (key,) in self._driver.select(_USED, (*at[:2], day, at[3]), asked)
        }

    def _key_days(self, now: datetime.datetime) -> Iterator[int]:
        today = _key_day(now)
        yield from range(_key_day(now - KEY_LIFE), today + 1)
        # The clock of another node may be past midnight, and a clock may have been ahead: one look for each such day.
        later = select(func.min(tables.event_key.c.day))
        while True:
            found = self._connection.execute(later.where(tables.event_key.c.day > today)).scalar_one()
            if found is None:
                return
            today = found
            yield today

    def write(self, writes: Writes) -> int:
        """Write what has changed, and return how many rows those were, about."""
        text = self._driver.text
        scope = self._scope(len(writes.new) - len(writes.removed), int(writes.raises_all))
        rows = self._many(_LOSE, [(scope, *address[:2], text(address[2])) for address in writes.lost])
        rows += self._many(
            _ADD, [(*_encode(new), scope, new.id) for new in writes.put if new.id in writes.new]
        )
        rows += self._many(
            _CHANGE, [(*_encode(old), scope, old.id) for old in writes.put if old.id not in writes.new]
        )
        rows += self._many(
            _WIN,
            [(scope, kind, name, text(folded), who) for (kind, name, folded), who in writes.won.items()],
        )
        rows += self._move(scope, writes)
        rows += self._many(_RAISE, [(scope, who) for who in sorted(writes.raised)])
        for statement in _REMOVALS:
            rows += self._many(statement, [(scope, who) for who in writes.removed])
        rows += self._many(
            _USE,
            # In order: those that stand together are written together.
            [
                (scope, who, day, event, count)
                for who in sorted(writes.counts)
                for (day, event), count in writes.counts[who].items()
            ],
        )
        day, actor = _key_day(writes.now), text(writes.actor)
        rows += self._many(_USE_KEY, [(day, scope, actor, text(key)) for key in writes.event_keys])
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
                    **dict(zip(_EXPOSURE, key, strict=True)),
                    "count": shown.count,
                    "first_at": instant_text(shown.first_at),
                    "last_at": instant_text(shown.last_at),
                }
                for key, shown in writes.exposure_days.items()
            ],
        )
        return rows + self._number(scope, writes.fed, writes)

    def _scope(self, added: int, raised: int) -> int:
        """Return the number of the environment, which gets one if need be; count its subjects, and raise them all."""
        number: int | None = self._connection.execute(select(_SCOPE), self._place).scalar_one_or_none()
        table = tables.subject_scope
        if number is None:
            highest = self._connection.execute(select(func.max(table.c.number))).scalar_one()
            number = (highest or 0) + 1
            self._connection.execute(
                insert(table), {"number": number, "subjects": added, "base": 0, **self._place}
            )
        elif added or raised:
            self._connection.execute(
                update(table)
                .where(table.c.number == number)
                .values(subjects=table.c.subjects + added, base=table.c.base + raised)
            )
        return number

    def _move(self, scope: int, writes: Writes) -> int:
        moved = set(writes.moved)
        rows = self._many(_LEAVE, [(scope, who) for who in writes.moved if who not in writes.new])
        return rows + self._many(
            _JOIN,
            [
                (scope, stored.id, position, target)
                for stored in writes.put
                if stored.id in moved
                for position, target in enumerate(stored.member_of)
            ],
        )

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
        at, actor = instant_text(writes.now), self._driver.text(writes.actor)
        rows = self._many(_FEED, [(number, scope, who, at) for number, who in enumerate(ids, fed_before + 1)])
        return rows + self._many(
            _TELL,
            [
                (
                    number,
                    scope,
                    made.id,
                    made.kind,
                    made.version,
                    at,
                    actor,
                    canonical_text(list(made.fields)),
                )
                for number, made in enumerate(writes.changes, changed_before + 1)
            ],
        )

    def _by_id(self, statement: str, ids: Collection[bytes], *parameters: object) -> Iterator[Any]:
        # In order: those that stand together are read together.
        return self._driver.select(statement, (*self._at, *parameters), sorted(ids))

    def _many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        if rows:
            self._driver.execute_many(statement, rows)
        return len(rows)

    def _put(self, table: Table, rows: Sequence[Mapping[str, object]]) -> int:
        if rows:
            self._connection.execute(_PUTS[self._connection.dialect.name, table], rows)
        return len(rows)


def page(
    connection: Connection, project: str, environment: str, *, kind: str, after: bytes, limit: int
) -> Sequence[Stored]:
    """Return subjects by id; see `rheostat.store.subject_base.SubjectStore.list_subjects`."""
    table = tables.subject
    query = select(table.c.id).where(table.c.scope == _SCOPE, table.c.id > after)
    if kind:
        query = query.where(table.c.kind == kind)
    rows = connection.execute(
        query.order_by(table.c.id).limit(limit), {"project": project, "environment": environment}
    )
    ids = [bytes(who) for (who,) in rows]
    loaded = SqlShelf(connection, project, environment).load(ids)
    return [loaded[who] for who in ids]


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


def skip_feed(connection: Connection) -> None:
    """Let everybody find out who follows the feed or has seen subjects, as history was lost or may be."""
    table, scope = tables.subject_counter, tables.subject_scope
    connection.execute(delete(tables.subject_feed))
    # Else a version of what was lost would be that of another state, which who has seen it takes for the same.
    connection.execute(update(scope).values(base=scope.c.base + VERSION_JUMP))
    if connection.execute(update(table).values(feed=table.c.feed + FEED_JUMP)).rowcount == 0:
        connection.execute(insert(table).values(id=1, feed=FEED_JUMP, change=0))


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


def _encode(stored: Stored) -> tuple[object, ...]:
    overrides = {
        setting: [
            thaw(override.value),
            None if override.expires_at is None else instant_text(override.expires_at),
        ]
        for setting, override in stored.overrides.items()
    }
    return (
        stored.kind,
        stored.version,
        stored.month_day,
        instant_text(stored.created_at),
        instant_text(stored.updated_at),
        canonical_text(dict(stored.keys)),
        canonical_text({name: thaw(value) for name, value in stored.traits.items()}),
        canonical_text(overrides),
    )


def _decode(row: Sequence[Any], member_of: Sequence[bytes]) -> Stored:
    who, kind, created_at, updated_at, keys, traits, overrides, month_day, version = row
    return Stored(
        bytes(who),
        kind,
        utc(datetime.datetime.fromisoformat(created_at)),
        utc(datetime.datetime.fromisoformat(updated_at)),
        json.loads(keys),
        _mapping(traits),
        {setting: _override(setting, raw) for setting, raw in _mapping(overrides).items()},
        tuple(member_of),
        month_day,
        version,
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
