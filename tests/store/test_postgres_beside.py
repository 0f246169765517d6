"""The contracts of records and clients on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rheostat.store.postgres import PostgresStore
from tests.postgres import Template
from tests.store.client_contract import ClientContract
from tests.store.record_contract import RecordContract


class TestPostgresStore(RecordContract, ClientContract):
    @pytest.fixture
    def store(self, postgres: Template) -> Iterator[PostgresStore]:
        store = PostgresStore(postgres.store())
        yield store
        store.close()
