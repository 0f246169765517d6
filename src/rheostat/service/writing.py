"""Who writes a change-set, what became of it, and what is written along with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from rheostat.model.change import ChangeSet
from rheostat.service.access import Principal
from rheostat.service.publish import Head, next_head
from rheostat.store.base import Group, Transaction

__all__ = ["Ahead", "Companion", "Outcome", "Writer"]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes a change-set, and why.

    Attributes:
        principal: The caller.
        author: For display.
        message: Why.
        request_id: Scoped to the key; a repeat with the same payload returns the first answer.
        payload: SHA-256 of the request without its request id.
    """

    principal: Principal
    author: str = ""
    message: str = ""
    request_id: str = ""
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write.

    Attributes:
        change_set: What was committed, or would be; with revision 0 when nothing was.
        revision: The revision it made, or the newest one when it changed nothing.
        generation: The store's.
        replayed: The same request had been committed before.
    """

    change_set: ChangeSet
    revision: int
    generation: int
    replayed: bool = False


class Companion(Protocol):
    """What is read and written in the transaction of a change-set. Its calls may be repeated, in order."""

    def begin(self, transaction: Transaction) -> None:
        """Read, before the change-set is planned; what this raises refuses it."""

    def complete(self, transaction: Transaction, change_set: ChangeSet) -> ChangeSet:
        """Write records, and return the change-set as it is to be written."""


class Ahead:
    """A head made of change-sets that are not durable yet: those of one group of commits, so far.

    Nobody is shown it before they are. Not safe for several threads at once.

    Attributes:
        group: The commits.
        base: The head that everybody sees.
        head: The newest one; `base` to begin with.
        change_sets: What lies between the two.
    """

    __slots__ = ("base", "change_sets", "group", "head")

    def __init__(self, group: Group, base: Head) -> None:
        self.group = group
        self.base = base
        self.head = base
        self.change_sets: list[ChangeSet] = []

    def follow(self, change_sets: Iterable[ChangeSet]) -> None:
        """Take in those that follow the head, up to one of another generation."""
        for change_set in change_sets:
            if change_set.revision != self.head.revision + 1:
                continue
            if change_set.generation != self.head.identity.generation:
                break
            self.head = next_head(self.head, change_set)
            self.change_sets.append(change_set)
