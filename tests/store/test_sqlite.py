"""The contract on SQLite, and what only SQLite has: a file, other processes, a disk."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rheostat.store.sqlite import SqliteStore
from tests.store.contract import Clock, Randomness, StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._paths = (tmp_path / f"{number}.db" for number in itertools.count())

    def open(self, clock: Clock, randomness: Randomness) -> SqliteStore:
        return SqliteStore(next(self._paths), clock=clock, randomness=randomness, checkpoint_interval=8)
