"""What the SQL stores read, the same on each engine."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy

from rheostat.model.change import ChangeSet
from rheostat.store import client, history
from rheostat.store import record as beside
from rheostat.store.base import ClientCount, ClientRow, Contents, Identity, Record

__all__ = ["SqlReads"]

T = TypeVar("T")


class SqlReads(ABC):
    """The reading half of `rheostat.store.base.Store`, over whatever hands out connections."""

    @abstractmethod
    def _read(self, read: Callable[[sqlalchemy.Connection], T]) -> T:
        """Return what *read* finds on a connection that sees one revision."""

    def load(self) -> Contents:
        """See `Store.load`."""
        return self._read(history.load)()

    def identity(self) -> Identity:
        """See `Store.identity`."""
        return self._read(history.read_head).identity

    def revision(self) -> int:
        """See `Store.revision`."""
        return self._read(history.read_head).revision

    def read_since(self, revision: int, limit: int = 1000) -> Sequence[ChangeSet]:
        """See `Store.read_since`."""
        return self._read(lambda connection: history.since(history.executing(connection), revision, limit))

    def change_set(self, revision: int) -> ChangeSet | None:
        """See `Store.change_set`."""
        return self._read(lambda connection: history.one(connection, revision))

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
        return self._read(
            lambda connection: history.history(
                connection,
                project=project,
                environment=environment,
                kind=kind,
                key=key,
                actor=actor,
                author=author,
                since=since,
                until=until,
                before=before,
                limit=limit,
            )
        )

    def record(self, kind: str, key: str) -> Record | None:
        """See `Store.record`."""
        return self._read(lambda connection: beside.find(connection, kind, key))

    def records(self, kind: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Sequence[Record]:
        """See `Store.records`."""
        return self._read(
            lambda connection: beside.select_prefix(connection, kind, prefix=prefix, after=after, limit=limit)
        )

    def due_records(self, kind: str, now: datetime.datetime, limit: int = 100) -> Sequence[Record]:
        """See `Store.due_records`."""
        return self._read(lambda connection: beside.due(connection, kind, now, limit))

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
        return self._read(
            lambda connection: client.select_clients(
                connection,
                project,
                environment,
                now=now,
                behind=behind,
                types=types,
                after=after,
                limit=limit,
            )
        )

    def count_clients(
        self, project: str, environment: str, *, now: datetime.datetime, generation: int, revision: int
    ) -> ClientCount:
        """See `Store.count_clients`."""
        return self._read(
            lambda connection: client.count(
                connection, project, environment, now=now, generation=generation, revision=revision
            )
        )

    def client_types(self, project: str, *, now: datetime.datetime) -> Sequence[tuple[str, bytes]]:
        """See `Store.client_types`."""
        return self._read(lambda connection: client.declared_types(connection, project, now))
