"""The store protocol: one gapless history of change-sets, and the items it has led to."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rheostat.model.change import ChangeSet, Item
from rheostat.store.subject_base import SubjectStore

__all__ = [
    "ClientCount",
    "ClientRow",
    "Contents",
    "Group",
    "Identity",
    "Record",
    "RequestWrite",
    "Store",
    "StoredItem",
    "Tombstone",
    "Transaction",
    "Write",
]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which history this is.

    Attributes:
        store_id: 16 random bytes, drawn when the store was made.
        generation: At least 1; rises when history was lost.
        nonce: 8 random bytes, drawn whenever a generation begins.
        token_key: 32 random bytes under which resume tokens are authenticated; never leaves the servers.
    """

    store_id: bytes
    generation: int
    nonce: bytes
    token_key: bytes


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it is now; its own ``revision`` is the one that wrote it.

    Attributes:
        project: Its project; empty for a store-wide key.
        environment: Empty for project-wide items.
        kind: See `rheostat.model.change.ChangeKind`.
        key: Its key.
        item: The item.
    """

    project: str
    environment: str
    kind: str
    key: str
    item: Item


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An item that was removed at a revision above the compaction floor."""

    project: str
    environment: str
    kind: str
    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything a node needs to start, read at one revision.

    Attributes:
        identity: The history it belongs to.
        revision: The newest revision; 0 for an empty store.
        floor: Changes after this revision are complete; a watcher below it needs a snapshot.
        rule_number: The highest rule number given so far.
        items: All items that exist.
        tombstones: Items removed above the floor.
        touched: For each revision above the floor, oldest first, the (project, environment, kind, key) of its
            changes.
    """

    identity: Identity
    revision: int
    floor: int
    rule_number: int
    items: Sequence[StoredItem]
    tombstones: Sequence[Tombstone]
    touched: Sequence[tuple[int, Sequence[tuple[str, str, str, str]]]]


@dataclass(frozen=True, slots=True)
class Record:
    """Something kept beside the history, which takes no revision: a draft, how far a webhook has got.

    Attributes:
        kind: What it is, such as ``draft``.
        key: Unique in its kind. Begins with the project, and the environment, that it belongs to, so that a
            prefix finds those of one of them.
        body: JSON text.
        due: When something is to be done about it, aware, UTC; None when nothing is.
        version: 1 when it is new, and one more after each write; 0 before it is stored. A record that is made
            again after its removal begins at 1 again.
    """

    kind: str
    key: str
    body: str
    due: datetime.datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A connected client, as it was last heard of. Its life ends unless it is heard of again.

    Attributes:
        project: Of its environment.
        environment: The one it follows; a client of several has a row in each.
        id: As the client calls itself; unique in the environment.
        name: Of the program; may be empty.
        sdk: Such as ``rheostat-python/0.1.0``; may be empty.
        node: The node that it is connected to.
        actor: The selector of its key; empty in open mode.
        generation: Of the state that it has applied.
        revision: Of the state that it has applied.
        types: Names the set of types that it has declared; empty when it has declared none.
        diverged: Its digest differed after two snapshots.
        error: What went wrong last, in its own words; empty when nothing did.
        reported_at: When its newest report came, aware, UTC; None when it is connected and has not reported.
        lag: Seconds from the commit of its newest change until it had applied it; None when that is not known.
        expires_at: When its life ends, aware, UTC.
    """

    project: str
    environment: str
    id: str
    expires_at: datetime.datetime
    name: str = ""
    sdk: str = ""
    node: str = ""
    actor: str = ""
    generation: int = 0
    revision: int = 0
    types: bytes = b""
    diverged: bool = False
    error: str = ""
    reported_at: datetime.datetime | None = None
    lag: float | None = None


@dataclass(frozen=True, slots=True)
class ClientCount:
    """How far the clients of an environment have got. Only those that report count, but for `silent`.

    Attributes:
        reporting: How many report.
        reached: How many of them have reached the revision that was asked for.
        diverged: How many of them hold a state that is not the server's.
        silent: How many are connected and have not reported.
        lags: Seconds: the median, the 99th percentile and the greatest lag of those that have reached it, by
            nearest rank; None when no lag is known.
    """

    reporting: int
    reached: int
    diverged: int
    silent: int
    lags: tuple[float, float, float] | None = None


@dataclass(eq=False, slots=True)
class Group:
    """Commits that become durable together, or are lost together. Changes until it has ended, and only then.

    Attributes:
        written: The change-sets as they are kept, by revision.
        lost: It has ended, and nothing of it is known to be durable.
    """

    written: list[ChangeSet] = field(default_factory=list)
    lost: bool = False


class Transaction(Protocol):
    """The writing transaction, as `Write` sees it. Valid only inside the call.

    What it shows may have been written by calls of `Store.commit` in other threads that are committed together
    with this one, and may be lost together with it: nobody else is told of it before `Store.commit` has returned.
    """

    @property
    def group(self) -> Group:
        """Those that are committed together with this one.

        Before a `Write` sees another group of the same `Store` object, the one before has ended.
        """

    @property
    def identity(self) -> Identity:
        """The history, read in this transaction."""

    @property
    def revision(self) -> int:
        """The newest committed revision; the change-set will get the next one."""

    @property
    def rule_number(self) -> int:
        """The highest rule number given so far."""

    def since(self, revision: int) -> Sequence[ChangeSet]:
        """Return the change-sets after *revision*, oldest first.

        Raises:
            RevisionCompactedError: The history no longer reaches back so far.
        """

    def find_request(self, actor: str, request_id: str) -> ChangeSet | None:
        """Return the change-set that *actor* wrote under *request_id*, or None.

        Request ids are kept for 24 hours at least.
        """

    def record(self, kind: str, key: str) -> Record | None:
        """Return a record as this transaction sees it, or None."""

    def put_record(self, record: Record) -> Record:
        """Write a record together with the change-set, whatever was stored; its ``version`` is not read.

        Nothing is kept of it when the transaction writes no change-set.
        """

    def delete_record(self, kind: str, key: str) -> None:
        """Remove a record together with the change-set, under the same condition."""


Write = Callable[[Transaction], ChangeSet | None]
"""Called once inside the writing transaction; returns what to write, or None to write nothing.

The change-set's items already carry ``transaction.revision + 1``. An exception ends the transaction with
nothing written and reaches the caller of `Store.commit`.
"""


@dataclass(frozen=True, slots=True)
class RequestWrite:
    """A `Write` that looks for a request. A store that knows so can look for those of all who wait at once.

    Attributes:
        actor: Who makes it.
        request_id: Its id.
        write: What to call.
    """

    actor: str
    request_id: str
    write: Write

    def __call__(self, transaction: Transaction) -> ChangeSet | None:
        """See `Write`."""
        return self.write(transaction)


class Store(SubjectStore, Protocol):
    """A durable, gapless history. All methods are safe from any thread and may block.

    Raises:
        UnavailableError: From any method, when the store is away or busy for too long.
        StoreError: From any method, when it is damaged or was closed.
    """

    def load(self) -> Contents:
        """Return everything, read at one revision."""

    def identity(self) -> Identity:
        """Return the identity, read afresh."""

    def revision(self) -> int:
        """Return the newest revision, read afresh."""

    def newest(self) -> tuple[Identity, int]:
        """Return the identity and the newest revision, read afresh at one moment."""

    def commit(self, write: Write) -> ChangeSet | None:
        """Run *write* alone among all writers, in all processes, and make its change-set durable.

        Returns:
            The change-set with its revision, generation and time, once an acknowledged loss of power cannot
            undo it; None when *write* returned None.
        """

    def read_since(self, revision: int, limit: int = 1000) -> Sequence[ChangeSet]:
        """Return up to *limit* change-sets after *revision*, oldest first.

        Raises:
            RevisionCompactedError: The history no longer reaches back so far.
        """

    def change_set(self, revision: int) -> ChangeSet | None:
        """Return one change-set of the audit history, which compaction leaves alone, or None."""

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
        """Return change-sets, newest first.

        Args:
            project: Only those of this project.
            environment: Only those that changed something in it, or something project-wide.
            kind: Only those that changed something of this kind; with *key*: this item.
            key: See *kind*.
            actor: Only those that were written with this key, by its selector.
            author: Only those of this author.
            since: Only those of this instant, aware, or later.
            until: Only those from before this instant, aware.
            before: Only revisions below it.
            limit: At most so many.
        """

    def raise_generation(self, above: int, cause: str = "") -> Identity:
        """Begin a generation higher than both the stored one and *above*, with a new nonce.

        Args:
            above: A generation that somebody has seen.
            cause: Why, for people: recorded with it (`rheostat.store.generation`).
        """

    def compact(self, floor: int) -> int:
        """Raise the compaction floor to at most *floor*, drop tombstones at or below it, return the floor.

        The audit history stays.
        """

    # Records: beside the history, without revisions. Keys are ordered by code points. An instant without a time
    # zone is a ValueError. To write one inside a `Write`, use its transaction: these wait for it to end.

    def record(self, kind: str, key: str) -> Record | None:
        """Return a record, or None."""

    def records(self, kind: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Sequence[Record]:
        """Return up to *limit* records of a kind whose keys begin with *prefix* and follow *after*, by key."""

    def due_records(self, kind: str, now: datetime.datetime, limit: int = 100) -> Sequence[Record]:
        """Return up to *limit* records of a kind that are due at *now* or were before, soonest first."""

    def put_record(self, record: Record, *, expected_version: int | None = None) -> Record | None:
        """Write a record durably, and give other processes a hint.

        Args:
            record: Its ``version`` is not read.
            expected_version: Write only when the stored one has this version; 0 for when there is none.

        Returns:
            The record with its new version; None when the stored one has another version than expected.
        """

    def delete_record(self, kind: str, key: str, *, expected_version: int | None = None) -> bool:
        """Remove a record durably; return whether it was there, and had the expected version. Gives no hint."""

    def delete_due_records(self, kind: str, now: datetime.datetime) -> int:
        """Remove the records of a kind that are due at *now* or were before; return how many those were.

        Durable; gives no hint.
        """

    # Clients: who is connected, and how far they have got. Not durable: a loss of power may undo the last writes.
    # Ids are ordered by code points. An instant without a time zone is a ValueError.

    def put_clients(self, rows: Sequence[ClientRow]) -> None:
        """Write rows in one go, all or none. Gives no hint.

        The last one written of a client stays, whatever the time of its report. But a row that has not reported takes nothing away from a stored one that has: it brings that up to date in
        ``node``, ``name``, ``sdk`` and ``actor``, and only lengthens its life. A row whose life has ended counts as
        stored until `expire_clients` removes it.
        """

    def end_clients(
        self, clients: Sequence[tuple[str, str, str]], node: str, expires_at: datetime.datetime
    ) -> None:
        """Shorten the lives of clients that have left *node* to *expires_at*, unless they end sooner.

        Args:
            clients: Each by project, environment and id. Those that are connected to another node by now, as
                their rows say, live on.
            node: The node that they have left.
            expires_at: Aware.
        """

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
        """Return up to *limit* clients whose life has not ended at *now*, by id.

        Args:
            project: Slug.
            environment: Slug.
            now: Aware.
            behind: Only those that report, and have not reached this (generation, revision).
            types: Only those that declared this set of types.
            after: Only ids that follow it.
            limit: At most so many.
        """

    def count_clients(
        self, project: str, environment: str, *, now: datetime.datetime, generation: int, revision: int
    ) -> ClientCount:
        """Count the clients whose life has not ended at *now*, in time that ten thousand do not make long."""

    def client_types(self, project: str, *, now: datetime.datetime) -> Sequence[tuple[str, bytes]]:
        """Return the distinct (environment, types) of clients whose life has not ended and that declared any."""

    def expire_clients(self, now: datetime.datetime) -> int:
        """Remove the clients whose life has ended at *now*; return how many those were. Gives no hint."""

    def wait_hint(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for a sign that another process may have committed.

        Returns:
            True when it is worth calling `read_since`; spurious signs are allowed, and lost ones are made up
            for: after 100 ms in SQLite, after a second in PostgreSQL.
        """

    def close(self) -> None:
        """Release everything. Idempotent; wakes `wait_hint`."""
