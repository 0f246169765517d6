"""Who writes a change-set, what became of it, and what is written along with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rheostat.model.change import ChangeSet
from rheostat.service.access import Principal
from rheostat.store.base import Transaction

__all__ = ["Companion", "Outcome", "Writer"]


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
