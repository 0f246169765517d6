"""Stores whose writers share transactions, and a way to let them meet in one."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from rheostat.store import batch, postgres, sqlite
from rheostat.store.lock import WriterLock
from rheostat.store.postgres import WRITER_LOCK, PostgresStore
from rheostat.store.session import SqlSession
from rheostat.store.sqlite import SqliteStore
from tests.postgres import Template

__all__ = ["PATIENCE", "Shared", "eventually", "outcome"]

PATIENCE = 60.0


class Shared:
    """A store on one of the engines; `open` opens it once more, as another process does.

    Attributes:
        store: It, opened once.
    """

    def __init__(self, engine: str, path: Path, template: Template, patch: pytest.MonkeyPatch) -> None:
        # However slow the machine is, nobody is sent away, and nobody is left out for having come too late.
        patch.setattr(batch, "_LONGEST", PATIENCE)
        patch.setattr(postgres, "_TURN_TIMEOUT", PATIENCE)
        self._engine = engine
        self._place = template.store() if engine == "postgresql" else str(path / "store.db")
        self._opened: list[SqliteStore | PostgresStore] = []
        self.store = self.open()

    def open(self) -> SqliteStore | PostgresStore:
        opened: SqliteStore | PostgresStore
        if self._engine == "postgresql":
            opened = PostgresStore(self._place, timeout=PATIENCE)
        else:
            opened = SqliteStore(self._place, timeout=PATIENCE)
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """Keep all writers waiting, as one of another process does."""
        if self._engine == "postgresql":
            with psycopg.connect(self._place) as connection:
                connection.execute(WRITER_LOCK.encode())
                yield
        else:
            with WriterLock(Path(self._place)).hold(PATIENCE):
                yield

    def start_together(
        self, works: Sequence[Callable[[], object]], pool: ThreadPoolExecutor
    ) -> list[Future[object]]:
        """Start works of the store in this order, so that all of them meet in one transaction."""
        batches = self.store._batches
        futures: list[Future[object]] = []
        with self.held_off():
            for number, work in enumerate(works):
                futures.append(pool.submit(work))
                eventually(lambda number=number: batches._busy and len(batches._queue) == number)
        return futures

    @contextlib.contextmanager
    def committing(self, commit: Callable[[Callable[[], None]], None]) -> Iterator[None]:
        """Let *commit* be called in the place of what makes a transaction durable; it is given that."""
        session: type[SqlSession] = postgres._Session if self._engine == "postgresql" else sqlite._Session
        original = session._commit

        def changed(self: SqlSession, *arguments: object) -> None:
            commit(lambda: original(self, *arguments))  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "_commit", changed)
            yield

    @contextlib.contextmanager
    def executing(self, statement: str) -> Iterator[None]:
        """Let those that begin with *statement* fail."""
        session: type[SqlSession] = postgres._Session if self._engine == "postgresql" else sqlite._Session
        original = session._execute

        def changed(self: SqlSession, text: str) -> None:
            if text.startswith(statement):
                raise failure
            original(self, text)

        failure = self.failure()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "_execute", changed)
            yield

    def failure(self) -> Exception:
        """What the driver raises when a sync has failed."""
        if self._engine == "postgresql":
            return psycopg.OperationalError("could not fsync")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        return error


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


def outcome(future: Future[object]) -> object:
    """What came out: what was returned, or the type of what was raised."""
    try:
        return future.result(PATIENCE)
    except Exception as exc:  # noqa: BLE001 - which one it is is what the tests are about
        return type(exc)
