"""A store in memory: for tests, demonstrations and ``rheostat serve --store memory:``."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from rheostat.errors import AlreadyExistsError, RevisionCompactedError, StoreError, UnavailableError
from rheostat.model.change import Change, ChangeSet, Item
from rheostat.store.base import (
    ClientCount,
    ClientRow,
    Contents,
    Group,
    Identity,
    Record,
    StoredItem,
    Tombstone,
    Write,
)
from rheostat.store.generation import LOST, beginning_of
from rheostat.store.lag import percentiles
from rheostat.store.stamp import NONCE_BYTES, new_identity, stamped, utc, utc_now
from rheostat.store.subject_memory import MemorySubjects

__all__ = ["MemoryStore"]

_Address = tuple[str, str, str, str]

WRITE_TIMEOUT: Final = 5.0
"""Seconds that a commit waits for the others, as on SQLite."""


class MemoryStore(MemorySubjects):
    """A store that lives as long as its process; see `rheostat.store.base.Store` for its methods.

    Safe from any thread. A forked child goes on with a copy of its own, so several worker processes need
    another store.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime.datetime] = utc_now,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Make an empty store.

        Args:
            clock: Gives the aware time of each commit.
            randomness: Gives so many random bytes.
        """
        super().__init__()
        self._clock = clock
        self._randomness = randomness
        # Writers hold the first for the whole of a commit, the second only to put its outcome in place, so
        # that a write may read the store.
        self._writing = threading.Lock()
        self._state = threading.Condition()
        self._identity = new_identity(randomness)
        self._floor = 0
        self._rule_number = 0
        self._change_sets: list[ChangeSet] = []
        self._items: dict[_Address, tuple[int, Item | None]] = {}
        self._requests: dict[tuple[str, str], ChangeSet] = {}
        self._records: dict[tuple[str, str], Record] = {}
        # By project and environment, then by id.
        self._clients: dict[tuple[str, str], dict[str, ClientRow]] = {}
        self._hints = 0
        self._seen = threading.local()
        self._closed = False

    def load(self) -> Contents:
        """See `Store.load`."""
        with self._state:
            self._check_open()
            return Contents(
                identity=self._identity,
                revision=len(self._change_sets),
                floor=self._floor,
                rule_number=self._rule_number,
                items=tuple(
                    StoredItem(*address, item)
                    for address, (_, item) in self._items.items()
                    if item is not None
                ),
                tombstones=tuple(
                    Tombstone(*address, revision)
                    for address, (revision, item) in self._items.items()
                    if item is None
                ),
                touched=tuple(
                    (change_set.revision, tuple(_address(change) for change in change_set.changes))
                    for change_set in self._change_sets[self._floor :]
                ),
            )

    def identity(self) -> Identity:
        """See `Store.identity`."""
        with self._state:
            self._check_open()
            return self._identity

    def revision(self) -> int:
        """See `Store.revision`."""
        with self._state:
            self._check_open()
            return len(self._change_sets)

    def newest(self) -> tuple[Identity, int]:
        """See `Store.newest`."""
        with self._state:
            self._check_open()
            return self._identity, len(self._change_sets)

    def commit(self, write: Write) -> ChangeSet | None:
        """See `Store.commit`."""
        self._acquire_writing()
        try:
            with self._state:
                self._check_open()
            transaction = _MemoryTransaction(self)
            try:
                change_set = write(transaction)
            finally:
                transaction.end()
            if change_set is None:
                return None
            written = self._append(change_set, transaction.records)
            transaction.group.written.append(written)
            return written
        finally:
            self._writing.release()

    def read_since(self, revision: int, limit: int = 1000) -> Sequence[ChangeSet]:
        """See `Store.read_since`."""
        return self._since(revision, limit)

    def change_set(self, revision: int) -> ChangeSet | None:
        """See `Store.change_set`."""
        with self._state:
            self._check_open()
            return self._change_sets[revision - 1] if 0 < revision <= len(self._change_sets) else None

    def history(
        self,
        *,
        project: str,
        environment: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        actor: str | None = None,
        author: str | None = None,
        since: datetime.datetime | None = None,
        until: datetime.datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[ChangeSet]:
        """See `Store.history`."""
        first, end = (None if instant is None else utc(instant) for instant in (since, until))

        def fits(change: Change) -> bool:
            return (
                (environment is None or change.environment in (environment, ""))
                and (kind is None or change.kind == kind)
                and (key is None or change.key == key)
            )

        def within(change_set: ChangeSet) -> bool:
            assert change_set.created_at is not None
            return (first is None or change_set.created_at >= first) and (
                end is None or change_set.created_at < end
            )

        def found() -> Iterator[ChangeSet]:
            for change_set in reversed(self._change_sets):
                if (
                    change_set.project == project
                    and (before is None or change_set.revision < before)
                    and (actor is None or change_set.actor == actor)
                    and (author is None or change_set.author == author)
                    and within(change_set)
                    and ((environment, kind, key) == (None, None, None) or any(map(fits, change_set.changes)))
                ):
                    yield change_set

        with self._state:
            self._check_open()
            return tuple(change_set for change_set, _ in zip(found(), range(limit), strict=False))

    def raise_generation(self, above: int, cause: str = "") -> Identity:
        """See `Store.raise_generation`."""
        with self._state:
            self._check_open()
            self._identity = dataclasses.replace(
                self._identity,
                generation=max(self._identity.generation, above) + 1,
                nonce=self._randomness(NONCE_BYTES),
            )
            beginning = beginning_of(self._identity, len(self._change_sets), cause or LOST, self._clock())
            self._records[beginning.kind, beginning.key] = _next_version(beginning, None)
            self._skip_feed()
            self._hint()
            return self._identity

    def compact(self, floor: int) -> int:
        """See `Store.compact`."""
        with self._state:
            self._check_open()
            self._floor = max(self._floor, min(floor, len(self._change_sets)))
            self._items = {
                address: (revision, item)
                for address, (revision, item) in self._items.items()
                if item is not None or revision > self._floor
            }
            return self._floor

    def record(self, kind: str, key: str) -> Record | None:
        """See `Store.record`."""
        with self._state:
            self._check_open()
            return self._records.get((kind, key))

    def records(self, kind: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Sequence[Record]:
        """See `Store.records`."""
        found = (r for r in self._of_kind(kind) if r.key.startswith(prefix) and r.key > after)
        return tuple(sorted(found, key=lambda record: record.key)[:limit])

    def due_records(self, kind: str, now: datetime.datetime, limit: int = 100) -> Sequence[Record]:
        """See `Store.due_records`."""
        at = utc(now)
        found = [(record.due, record.key, record) for record in self._of_kind(kind) if _is_due(record, at)]
        return tuple(record for *_, record in sorted(found)[:limit])

    def put_record(self, record: Record, *, expected_version: int | None = None) -> Record | None:
        """See `Store.put_record`."""
        with self._writing_beside():
            stored = self._records.get((record.kind, record.key))
            if expected_version not in (None, 0 if stored is None else stored.version):
                return None
            written = self._records[record.kind, record.key] = _next_version(record, stored)
            self._hint()
            return written

    def delete_record(self, kind: str, key: str, *, expected_version: int | None = None) -> bool:
        """See `Store.delete_record`."""
        with self._writing_beside():
            stored = self._records.get((kind, key))
            if stored is None or expected_version not in (None, stored.version):
                return False
            del self._records[kind, key]
            return True

    def delete_due_records(self, kind: str, now: datetime.datetime) -> int:
        """See `Store.delete_due_records`."""
        at = utc(now)
        with self._writing_beside():
            due = [address for address, r in self._records.items() if r.kind == kind and _is_due(r, at)]
            for address in due:
                del self._records[address]
            return len(due)

    def put_clients(self, rows: Sequence[ClientRow]) -> None:
        """See `Store.put_clients`."""
        rows = [_in_utc(row) for row in rows]
        with self._state:
            self._check_open()
            for row in rows:
                clients = self._clients.setdefault((row.project, row.environment), {})
                clients[row.id] = _merged(clients.get(row.id), row)

    def end_clients(
        self, clients: Sequence[tuple[str, str, str]], node: str, expires_at: datetime.datetime
    ) -> None:
        """See `Store.end_clients`."""
        at = utc(expires_at)
        with self._state:
            self._check_open()
            for project, environment, key in clients:
                held = self._clients.get((project, environment), {})
                if key in held and held[key].node == node and held[key].expires_at > at:
                    held[key] = dataclasses.replace(held[key], expires_at=at)

    def clients(
        self,
        project: str,
        environment: str,
        *,
        now: datetime.datetime,
        behind: tuple[int, int] | None = None,
        types: bytes | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> Sequence[ClientRow]:
        """See `Store.clients`."""

        def fits(row: ClientRow) -> bool:
            return (
                row.id > after
                and (behind is None or (row.reported_at is not None and _position(row) < behind))
                and (types is None or row.types == types)
            )

        found = filter(fits, self._alive(project, environment, now))
        return tuple(sorted(found, key=lambda row: row.id)[:limit])

    def count_clients(
        self, project: str, environment: str, *, now: datetime.datetime, generation: int, revision: int
    ) -> ClientCount:
        """See `Store.count_clients`."""
        alive = self._alive(project, environment, now)
        reporting = [row for row in alive if row.reported_at is not None]
        reached = [row for row in reporting if _position(row) >= (generation, revision)]
        return ClientCount(
            reporting=len(reporting),
            reached=len(reached),
            diverged=sum(row.diverged for row in reporting),
            silent=len(alive) - len(reporting),
            lags=percentiles([row.lag for row in reached]),
        )

    def client_types(self, project: str, *, now: datetime.datetime) -> Sequence[tuple[str, bytes]]:
        """See `Store.client_types`."""
        at = utc(now)
        with self._state:
            self._check_open()
            declared = {
                (environment, row.types)
                for (of, environment), clients in self._clients.items()
                if of == project
                for row in clients.values()
                if row.types and row.expires_at > at
            }
        return tuple(sorted(declared))

    def expire_clients(self, now: datetime.datetime) -> int:
        """See `Store.expire_clients`."""
        at = utc(now)
        with self._state:
            self._check_open()
            before = sum(map(len, self._clients.values()))
            kept = {
                address: {row.id: row for row in clients.values() if row.expires_at > at}
                for address, clients in self._clients.items()
            }
            self._clients = {address: clients for address, clients in kept.items() if clients}
            return before - sum(map(len, self._clients.values()))

    def wait_hint(self, timeout: float) -> bool:
        """See `Store.wait_hint`. Tells of every commit, whoever wrote it."""
        deadline = time.monotonic() + timeout
        with self._state:
            self._check_open()
            while not self._closed:
                if getattr(self._seen, "hints", -1) != self._hints:
                    self._seen.hints = self._hints
                    return True
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._state.wait(remaining)
            return False

    def close(self) -> None:
        """See `Store.close`. Its contents are gone."""
        with self._state:
            self._closed = True
            self._state.notify_all()

    @contextlib.contextmanager
    def _writing_beside(self) -> Iterator[None]:
        """Keep off the writers of the history too: a write sees records that do not change under it."""
        self._acquire_writing()
        try:
            with self._state:
                self._check_open()
                yield
        finally:
            self._writing.release()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._state:
            self._check_open()
            yield

    def _of_kind(self, kind: str) -> Sequence[Record]:
        with self._state:
            self._check_open()
            return [record for record in self._records.values() if record.kind == kind]

    def _alive(self, project: str, environment: str, now: datetime.datetime) -> Sequence[ClientRow]:
        at = utc(now)
        with self._state:
            self._check_open()
            rows = self._clients.get((project, environment), {}).values()
            return [row for row in rows if row.expires_at > at]

    def _acquire_writing(self) -> None:
        if not self._writing.acquire(timeout=WRITE_TIMEOUT):
            raise UnavailableError("the store is busy with other writes", retry_after=1.0)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store was closed")

    def _hint(self) -> None:
        self._hints += 1
        self._state.notify_all()

    def _append(self, change_set: ChangeSet, records: Mapping[tuple[str, str], Record | None]) -> ChangeSet:
        with self._state:
            self._check_open()
            written = stamped(change_set, self._identity, len(self._change_sets) + 1, self._clock())
            request = (written.actor, written.request_id)
            if written.request_id:
                if request in self._requests:
                    raise AlreadyExistsError(f"the request id {written.request_id!r} was used before")
                self._requests[request] = written
            self._change_sets.append(written)
            self._rule_number += written.rule_numbers
            for change in written.changes:
                self._items[_address(change)] = (written.revision, change.after)
            for address, record in records.items():
                if record is None:
                    self._records.pop(address, None)
                else:
                    self._records[address] = record
            self._hint()
            return written

    def _since(self, revision: int, limit: int | None) -> Sequence[ChangeSet]:
        with self._state:
            self._check_open()
            if revision < self._floor:
                raise RevisionCompactedError(revision, self._floor)
            return tuple(self._change_sets[revision : None if limit is None else revision + limit])

    def _find_request(self, actor: str, request_id: str) -> ChangeSet | None:
        with self._state:
            return self._requests.get((actor, request_id))


class _MemoryTransaction:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._ended = False
        # There is no disk to wait for, so that nothing is gained by waiting for others.
        self.group = Group()
        self.records: dict[tuple[str, str], Record | None] = {}

    @property
    def identity(self) -> Identity:
        return self._live().identity()

    @property
    def revision(self) -> int:
        return self._live().revision()

    @property
    def rule_number(self) -> int:
        return self._live()._rule_number

    def since(self, revision: int) -> Sequence[ChangeSet]:
        return self._live()._since(revision, None)

    def find_request(self, actor: str, request_id: str) -> ChangeSet | None:
        return self._live()._find_request(actor, request_id)

    def record(self, kind: str, key: str) -> Record | None:
        stored = self._live().record(kind, key)
        return self.records.get((kind, key), stored)

    def put_record(self, record: Record) -> Record:
        written = _next_version(record, self.record(record.kind, record.key))
        self.records[record.kind, record.key] = written
        return written

    def delete_record(self, kind: str, key: str) -> None:
        self._live()
        self.records[kind, key] = None

    def end(self) -> None:
        self._ended = True

    def _live(self) -> MemoryStore:
        if self._ended:
            raise StoreError("the transaction has ended")
        return self._store


def _address(change: Change) -> _Address:
    return (change.project, change.environment, change.kind, change.key)


def _next_version(record: Record, stored: Record | None) -> Record:
    return dataclasses.replace(
        record,
        due=None if record.due is None else utc(record.due),
        version=1 if stored is None else stored.version + 1,
    )


def _is_due(record: Record, now: datetime.datetime) -> bool:
    return record.due is not None and record.due <= now


def _in_utc(row: ClientRow) -> ClientRow:
    return dataclasses.replace(
        row,
        expires_at=utc(row.expires_at),
        reported_at=None if row.reported_at is None else utc(row.reported_at),
    )


def _merged(stored: ClientRow | None, row: ClientRow) -> ClientRow:
    if stored is None or row.reported_at is not None:
        return row
    types = row.types or stored.types
    if stored.reported_at is None:
        return dataclasses.replace(row, types=types)
    return dataclasses.replace(
        stored,
        types=types,
        node=row.node,
        name=row.name,
        sdk=row.sdk,
        actor=row.actor,
        expires_at=max(stored.expires_at, row.expires_at),
    )


def _position(row: ClientRow) -> tuple[int, int]:
    return (row.generation, row.revision)
