"""The store protocol: one gapless history of change-sets, and the items it has led to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rheostat.model.change import ChangeSet, Item

__all__ = ["Contents", "Identity", "Store", "StoredItem", "Tombstone", "Transaction", "Write"]


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


class Transaction(Protocol):
    """The writing transaction, as `Write` sees it. Valid only inside the call."""

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


Write = Callable[[Transaction], ChangeSet | None]
"""Called once inside the writing transaction; returns what to write, or None to write nothing.

The change-set's items already carry ``transaction.revision + 1``. An exception ends the transaction with
nothing written and reaches the caller of `Store.commit`.
"""


class Store(Protocol):
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
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[ChangeSet]:
        """Return change-sets, newest first.

        Args:
            project: Only those of this project.
            environment: Only those that changed something in it, or something project-wide.
            kind: With *key*: only those that changed this item.
            key: See *kind*.
            before: Only revisions below it.
            limit: At most so many.
        """

    def raise_generation(self, above: int) -> Identity:
        """Begin a generation higher than both the stored one and *above*, with a new nonce."""

    def compact(self, floor: int) -> int:
        """Raise the compaction floor to at most *floor*, drop tombstones at or below it, return the floor.

        The audit history stays.
        """

    def wait_hint(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for a sign that another process may have committed.

        Returns:
            True when it is worth calling `read_since`; spurious signs are allowed, lost ones are found by a
            safety poll of 100 ms at most.
        """

    def close(self) -> None:
        """Release everything. Idempotent; wakes `wait_hint`."""
