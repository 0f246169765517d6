"""The connected clients of a SQL store, on a connection whose transaction the caller has begun."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from rheostat.store import tables
from rheostat.store.base import ClientCount, ClientRow
from rheostat.store.lag import percentiles
from rheostat.store.stamp import instant_text

__all__ = ["count", "declared_types", "end", "expire", "put", "select_clients"]

_KEY = ("project", "environment", "id")

_OF_CONNECTION = ("node", "name", "sdk", "actor")
"""What a client that has not reported is known by all the same."""


def _put(new: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    unreported = new.excluded.reported_at.is_(None)
    is_silent = and_(unreported, tables.client.c.reported_at.is_not(None))

    def value(column: str) -> ColumnElement[Any]:
        stored, excluded = tables.client.c[column], new.excluded[column]
        if column in _OF_CONNECTION:
            return excluded
        if column == "types":
            return case((and_(unreported, excluded == b""), stored), else_=excluded)
        keeps = and_(is_silent, stored > excluded) if column == "expires_at" else is_silent
        return case((keeps, stored), else_=excluded)

    return new.on_conflict_do_update(
        index_elements=_KEY,
        set_={column.name: value(column.name) for column in tables.client.c if column.name not in _KEY},
    )


_PUT = {
    "sqlite": _put(sqlite.insert(tables.client)),
    "postgresql": _put(postgresql.insert(tables.client)),
}
_END = (
    update(tables.client)
    .where(
        tables.client.c.project == bindparam("at_project"),
        tables.client.c.environment == bindparam("at_environment"),
        tables.client.c.id == bindparam("at_id"),
        tables.client.c.node == bindparam("at_node"),
        tables.client.c.expires_at > bindparam("end"),
    )
    .values(expires_at=bindparam("end"))
)


def put(connection: Connection, rows: Sequence[ClientRow]) -> None:
    """Write rows; see `rheostat.store.base.Store.put_clients`."""
    if rows:
        connection.execute(_PUT[connection.dialect.name], [_encode(row) for row in rows])


def end(
    connection: Connection,
    clients: Sequence[tuple[str, str, str]],
    node: str,
    expires_at: datetime.datetime,
) -> None:
    """Shorten lives to *expires_at*; see `rheostat.store.base.Store.end_clients`."""
    if clients:
        common = {"at_node": node, "end": instant_text(expires_at)}
        connection.execute(
            _END,
            [
                {"at_project": project, "at_environment": environment, "at_id": key, **common}
                for project, environment, key in clients
            ],
        )


def select_clients(
    connection: Connection,
    project: str,
    environment: str,
    *,
    now: datetime.datetime,
    behind: tuple[int, int] | None,
    types: bytes | None,
    after: str,
    limit: int,
) -> Sequence[ClientRow]:
    """Return clients by id; see `rheostat.store.base.Store.clients`."""
    client = tables.client.c
    query = select(tables.client).where(*_alive(project, environment, now), client.id > after)
    if behind is not None:
        query = query.where(client.reported_at.is_not(None), ~_has_reached(*behind))
    if types is not None:
        query = query.where(client.types == types)
    return tuple(map(_decode, connection.execute(query.order_by(client.id).limit(limit))))


def count(
    connection: Connection,
    project: str,
    environment: str,
    *,
    now: datetime.datetime,
    generation: int,
    revision: int,
) -> ClientCount:
    """Count the clients; see `rheostat.store.base.Store.count_clients`."""
    client = tables.client.c
    alive = _alive(project, environment, now)
    row = connection.execute(
        select(
            func.count().label("all"),
            func.count(client.reported_at).label("reporting"),
            func.count(case((and_(client.reported_at.is_not(None), client.diverged), 1))).label("diverged"),
        ).where(*alive)
    ).one()
    # Sorted here: a database takes longer to find the ranks of ten thousand than to hand them out.
    lags = (
        connection.execute(
            select(client.lag).where(
                *alive, client.reported_at.is_not(None), _has_reached(generation, revision)
            )
        )
        .scalars()
        .all()
    )
    return ClientCount(
        reporting=row.reporting,
        reached=len(lags),
        diverged=row.diverged,
        silent=row.all - row.reporting,
        lags=percentiles(lags),
    )


def declared_types(
    connection: Connection, project: str, now: datetime.datetime
) -> Sequence[tuple[str, bytes]]:
    """Return the sets of types in use; see `rheostat.store.base.Store.client_types`."""
    client = tables.client.c
    rows = connection.execute(
        select(client.environment, client.types)
        .where(client.project == project, client.expires_at > instant_text(now), client.types != b"")
        .distinct()
        .order_by(client.environment, client.types)
    )
    return tuple((environment, bytes(declared)) for environment, declared in rows)


def expire(connection: Connection, now: datetime.datetime) -> int:
    """Remove the clients whose life has ended; return how many those were."""
    return connection.execute(
        delete(tables.client).where(tables.client.c.expires_at <= instant_text(now))
    ).rowcount


def _alive(project: str, environment: str, now: datetime.datetime) -> tuple[ColumnElement[bool], ...]:
    client = tables.client.c
    return (
        client.project == project,
        client.environment == environment,
        client.expires_at > instant_text(now),
    )


def _has_reached(generation: int, revision: int) -> ColumnElement[bool]:
    client = tables.client.c
    return or_(
        client.generation > generation,
        and_(client.generation == generation, client.revision >= revision),
    )


def _encode(row: ClientRow) -> dict[str, object]:
    return {
        "project": row.project,
        "environment": row.environment,
        "id": row.id,
        "expires_at": instant_text(row.expires_at),
        "reported_at": None if row.reported_at is None else instant_text(row.reported_at),
        "generation": row.generation,
        "revision": row.revision,
        "lag": row.lag,
        "diverged": row.diverged,
        "types": row.types,
        "node": row.node,
        "actor": row.actor,
        "name": row.name,
        "sdk": row.sdk,
        "error": row.error,
    }


def _decode(row: Row[Any]) -> ClientRow:
    return ClientRow(
        project=row.project,
        environment=row.environment,
        id=row.id,
        expires_at=datetime.datetime.fromisoformat(row.expires_at),
        name=row.name,
        sdk=row.sdk,
        node=row.node,
        actor=row.actor,
        generation=row.generation,
        revision=row.revision,
        types=bytes(row.types),
        diverged=row.diverged,
        error=row.error,
        reported_at=None if row.reported_at is None else datetime.datetime.fromisoformat(row.reported_at),
        lag=row.lag,
    )
