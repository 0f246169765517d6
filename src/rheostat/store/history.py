"""The history and the items of a SQL store, on a connection whose transaction the caller has begun."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, insert, select, update

from rheostat.errors import RevisionCompactedError, StoreError
from rheostat.model.change import Change, ChangeSet, PlanWarning
from rheostat.model.encoding import decode_item
from rheostat.model.value import FrozenMapping, freeze, parse_json
from rheostat.store import record as beside
from rheostat.store import tables
from rheostat.store.base import Contents, Identity, StoredItem, Tombstone
from rheostat.store.generation import LOST, beginning_of
from rheostat.store.stamp import instant_text
from rheostat.store.subject_row import skip_feed

__all__ = [
    "EVERY",
    "HEAD",
    "Execute",
    "Head",
    "compact",
    "executing",
    "find_request",
    "head_of",
    "history",
    "load",
    "one",
    "put_head",
    "put_identity",
    "raise_generation",
    "read_head",
    "since",
]

EVERY: Final = 2**62
"""More than there are revisions."""

_CHUNK: Final = 500
"""How many revisions one statement names; SQLite builds may allow as few as 999 parameters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """The single row of the table ``store``."""

    identity: Identity
    revision: int
    floor: int
    rule_number: int
    schema: str


Execute: TypeAlias = Callable[[Select[Any], Mapping[str, object]], Sequence[Any]]
"""Runs a statement of this module with its parameters, and returns rows that have its columns as attributes."""

HEAD: Final = select(tables.store)
"""What `head_of` reads."""

_CHANGES = select(tables.change).order_by(tables.change.c.revision, tables.change.c.sequence)
# Made once: whoever follows the store reads these after each commit, and to put a statement together takes longer
# than to run it.
_FLOOR = select(tables.store.c.floor)
_SINCE = (
    select(tables.change_set)
    .where(tables.change_set.c.revision > bindparam("revision"))
    .order_by(tables.change_set.c.revision)
    .limit(bindparam("most"))
)
_BETWEEN = _CHANGES.where(
    tables.change.c.revision >= bindparam("first"), tables.change.c.revision <= bindparam("last")
)
_REQUEST = select(tables.change_set).where(
    tables.change_set.c.actor == bindparam("actor"),
    tables.change_set.c.request_id == bindparam("request_id"),
    # Repeats the condition of the partial index, without which it would not be used.
    tables.change_set.c.request_id != "",
)


def put_identity(connection: Connection, identity: Identity) -> None:
    """Give the new, empty store its *identity*."""
    put_head(connection, Head(identity, 0, 0, 0, tables.SCHEMA))


def put_head(connection: Connection, head: Head) -> None:
    """Write the row without which the tables are no store, and of which there may be one only."""
    connection.execute(
        insert(tables.store).values(
            id=1,
            store_id=head.identity.store_id,
            generation=head.identity.generation,
            nonce=head.identity.nonce,
            token_key=head.identity.token_key,
            revision=head.revision,
            floor=head.floor,
            rule_number=head.rule_number,
            schema=head.schema,
        )
    )


def executing(connection: Connection) -> Execute:
    """Return what runs statements through SQLAlchemy."""
    return lambda statement, parameters: connection.execute(statement, parameters).all()


def read_head(connection: Connection) -> Head:
    """Return the identity and the counters.

    Raises:
        StoreError: They are missing.
    """
    return head_of(connection.execute(HEAD).one_or_none())


def head_of(row: Any | None) -> Head:
    """Return the head that is in the row of `HEAD`, by whatever way it was read.

    Raises:
        StoreError: There is no row.
    """
    if row is None:
        raise _without_identity()
    return Head(
        Identity(bytes(row.store_id), row.generation, bytes(row.nonce), bytes(row.token_key)),
        row.revision,
        row.floor,
        row.rule_number,
        row.schema,
    )


def _without_identity() -> StoreError:
    return StoreError("the store is damaged: its identity is missing")


def load(connection: Connection) -> Callable[[], Contents]:
    """Read everything.

    Returns:
        A function that decodes what was read, for after the transaction: a large store takes a while.
    """
    head = read_head(connection)
    rows = connection.execute(select(tables.item)).all()
    revisions = connection.execute(
        select(tables.change_set.c.revision)
        .where(tables.change_set.c.revision > head.floor)
        .order_by(tables.change_set.c.revision)
    ).scalars()
    touched: dict[int, list[tuple[str, str, str, str]]] = {revision: [] for revision in revisions}
    change = tables.change.c
    for revision, *address in connection.execute(
        select(change.revision, change.project, change.environment, change.kind, change.key)
        .where(change.revision > head.floor)
        .order_by(change.revision, change.sequence)
    ):
        project, environment, kind, key = address
        touched[revision].append((project, environment, kind, key))

    def decode() -> Contents:
        return Contents(
            identity=head.identity,
            revision=head.revision,
            floor=head.floor,
            rule_number=head.rule_number,
            items=tuple(
                StoredItem(row.project, row.environment, row.kind, row.key, decode_item(row.kind, row.body))
                for row in rows
                if not row.deleted
            ),
            tombstones=tuple(
                Tombstone(row.project, row.environment, row.kind, row.key, row.revision)
                for row in rows
                if row.deleted and row.revision > head.floor
            ),
            touched=tuple((revision, tuple(addresses)) for revision, addresses in touched.items()),
        )

    return decode


def since(execute: Execute, revision: int, limit: int = EVERY) -> Sequence[ChangeSet]:
    """Return up to *limit* change-sets after *revision*, oldest first; all that is executed sees one moment.

    Raises:
        RevisionCompactedError: *revision* is below the floor.
        StoreError: The floor is missing.
    """
    counters = execute(_FLOOR, {})
    if not counters:
        raise _without_identity()
    floor = counters[0].floor
    if revision < floor:
        raise RevisionCompactedError(revision, floor)
    rows = execute(_SINCE, {"revision": revision, "most": limit})
    if not rows:
        return ()
    changes = execute(_BETWEEN, {"first": rows[0].revision, "last": rows[-1].revision})
    return _decode_change_sets(rows, changes)


def one(connection: Connection, revision: int) -> ChangeSet | None:
    """Return one change-set, or None."""
    rows = connection.execute(select(tables.change_set).where(tables.change_set.c.revision == revision)).all()
    return next(iter(_with_changes(connection, rows)), None)


def find_request(connection: Connection, actor: str, request_id: str) -> ChangeSet | None:
    """Return the change-set that *actor* wrote under *request_id*, or None."""
    rows = connection.execute(_REQUEST, {"actor": actor, "request_id": request_id}).all()
    return next(iter(_with_changes(connection, rows)), None)


def history(
    connection: Connection,
    *,
    project: str,
    environment: str | None,
    kind: str | None,
    key: str | None,
    before: int | None,
    limit: int,
    actor: str | None = None,
    author: str | None = None,
    since: datetime.datetime | None = None,
    until: datetime.datetime | None = None,
) -> Sequence[ChangeSet]:
    """Return change-sets, newest first; see `rheostat.store.base.Store.history`."""
    change_set, change = tables.change_set.c, tables.change.c
    query = select(tables.change_set).where(change_set.project == project)
    if before is not None:
        query = query.where(change_set.revision < before)
    if actor is not None:
        query = query.where(change_set.actor == actor)
    if author is not None:
        query = query.where(change_set.author == author)
    if since is not None:
        query = query.where(change_set.created_at >= instant_text(since))
    if until is not None:
        query = query.where(change_set.created_at < instant_text(until))
    wanted: list[ColumnElement[bool]] = []
    if environment is not None:
        wanted.append(change.environment.in_((environment, "")))
    if kind is not None:
        wanted.append(change.kind == kind)
    if key is not None:
        wanted.append(change.key == key)
    if kind is not None and key is not None:
        # Found through the index over items: one item's history is short however long the whole one is.
        query = query.where(change_set.revision.in_(select(change.revision).where(*wanted)))
    elif wanted:
        # Found by walking back from the newest: most change-sets fit.
        query = query.where(
            select(change.revision).where(change.revision == change_set.revision, *wanted).exists()
        )
    rows = connection.execute(query.order_by(change_set.revision.desc()).limit(limit)).all()
    return _with_changes(connection, rows)


def raise_generation(
    connection: Connection, above: int, nonce: bytes, cause: str, now: datetime.datetime
) -> Identity:
    """Begin a generation above both the stored one and *above*, and record why."""
    head = read_head(connection)
    raised = dataclasses.replace(
        head.identity, generation=max(head.identity.generation, above) + 1, nonce=nonce
    )
    connection.execute(update(tables.store).values(generation=raised.generation, nonce=nonce))
    beside.put(connection, beginning_of(raised, head.revision, cause or LOST, now))
    skip_feed(connection)
    return raised


def compact(connection: Connection, floor: int) -> int:
    """Raise the floor to at most *floor* and drop tombstones at or below it; return the floor."""
    head = read_head(connection)
    raised = max(head.floor, min(floor, head.revision))
    if raised > head.floor:
        connection.execute(update(tables.store).values(floor=raised))
        connection.execute(delete(tables.item).where(tables.item.c.deleted, tables.item.c.revision <= raised))
    return raised


def _with_changes(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[ChangeSet]:
    changes: list[Row[Any]] = []
    for start in range(0, len(rows), _CHUNK):
        revisions = sorted(row.revision for row in rows[start : start + _CHUNK])
        changes.extend(connection.execute(_CHANGES.where(tables.change.c.revision.in_(revisions))))
    return _decode_change_sets(rows, changes)


def _decode_change_sets(rows: Sequence[Any], changes: Iterable[Any]) -> Sequence[ChangeSet]:
    grouped: Mapping[int, tuple[Change, ...]] = {
        revision: tuple(_decode_changes(group))
        for revision, group in itertools.groupby(changes, key=lambda row: row.revision)
    }
    return tuple(
        ChangeSet(
            project=row.project,
            changes=grouped.get(row.revision, ()),
            author=row.author,
            message=row.message,
            actor=row.actor,
            request_id=row.request_id,
            payload_digest=bytes(row.payload_digest),
            rule_numbers=row.rule_numbers,
            reverts=row.reverts,
            revision=row.revision,
            generation=row.generation,
            created_at=datetime.datetime.fromisoformat(row.created_at),
            warnings=_decode_warnings(row.warnings),
            draft=row.draft,
            approved_by=_decode_names(row.approved_by),
            forced_clients=_decode_names(row.forced_clients),
        )
        for row in rows
    )


def _decode_changes(rows: Iterable[Any]) -> Iterator[Change]:
    for row in rows:
        yield Change(
            row.project,
            row.environment,
            row.kind,
            row.key,
            None if row.before is None else decode_item(row.kind, row.before),
            None if row.after is None else decode_item(row.kind, row.after),
        )


def _decode_warnings(text: str) -> tuple[PlanWarning, ...]:
    decoded = freeze(parse_json(text))
    if not isinstance(decoded, tuple):
        raise StoreError("the store holds warnings that are not a list")
    warnings = []
    for raw in decoded:
        match raw:
            case FrozenMapping():
                context = raw["context"]
                warnings.append(
                    PlanWarning(
                        str(raw["code"]),
                        str(raw["message"]),
                        mutation if isinstance(mutation := raw["mutation"], int) else -1,
                        context if isinstance(context, FrozenMapping) else None,
                    )
                )
            case _:
                raise StoreError("the store holds a warning that is not a mapping")
    return tuple(warnings)


def _decode_names(text: str) -> tuple[str, ...]:
    decoded = freeze(parse_json(text))
    if not isinstance(decoded, tuple):
        raise StoreError("the store holds names that are not a list")
    return tuple(map(str, decoded))
