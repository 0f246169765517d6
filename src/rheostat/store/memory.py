"""A store in memory: for tests, demonstrations and ``rheostat serve --store memory:``."""

from __future__ import annotations

import dataclasses
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rheostat.errors import AlreadyExistsError, RevisionCompactedError, StoreError, UnavailableError
from rheostat.model.change import Change, ChangeSet, Item
from rheostat.store.base import Contents, Identity, StoredItem, Tombstone, Write
from rheostat.store.stamp import NONCE_BYTES, new_identity, stamped, utc_now

__all__ = ["MemoryStore"]

_Address = tuple[str, str, str, str]

WRITE_TIMEOUT: Final = 5.0
"""Seconds that a commit waits for the others, as on SQLite."""


class MemoryStore:
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
            return None if change_set is None else self._append(change_set)
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
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[ChangeSet]:
        """See `Store.history`."""

        def fits(change: Change) -> bool:
            return (
                (environment is None or change.environment in (environment, ""))
                and (kind is None or change.kind == kind)
                and (key is None or change.key == key)
            )

        def found() -> Iterator[ChangeSet]:
            for change_set in reversed(self._change_sets):
                if (
                    change_set.project == project
                    and (before is None or change_set.revision < before)
                    and ((environment, kind, key) == (None, None, None) or any(map(fits, change_set.changes)))
                ):
                    yield change_set

        with self._state:
            self._check_open()
            return tuple(change_set for change_set, _ in zip(found(), range(limit), strict=False))

    def raise_generation(self, above: int) -> Identity:
        """See `Store.raise_generation`."""
        with self._state:
            self._check_open()
            self._identity = dataclasses.replace(
                self._identity,
                generation=max(self._identity.generation, above) + 1,
                nonce=self._randomness(NONCE_BYTES),
            )
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

    def _acquire_writing(self) -> None:
        if not self._writing.acquire(timeout=WRITE_TIMEOUT):
            raise UnavailableError("the store is busy with other writes", retry_after=1.0)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store was closed")

    def _hint(self) -> None:
        self._hints += 1
        self._state.notify_all()

    def _append(self, change_set: ChangeSet) -> ChangeSet:
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

    def end(self) -> None:
        self._ended = True

    def _live(self) -> MemoryStore:
        if self._ended:
            raise StoreError("the transaction has ended")
        return self._store


def _address(change: Change) -> _Address:
    return (change.project, change.environment, change.kind, change.key)
