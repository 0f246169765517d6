"""The contract of the history on PostgreSQL."""

from __future__ import annotations

import pytest

from rheostat.store.postgres import PostgresStore
from tests.postgres import Template
from tests.store.contract import Clock, Randomness, StoreContract


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _databases(self, postgres: Template) -> None:
        self._postgres = postgres

    def open(self, clock: Clock, randomness: Randomness) -> PostgresStore:
        return PostgresStore(self._postgres.store(), clock=clock, randomness=randomness)
