"""The contracts of records, clients and subjects on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rheostat.store.postgres import PostgresStore
from tests.postgres import Template
from tests.store.client_contract import ClientContract
from tests.store.record_contract import RecordContract
from tests.store.subject_contract import SubjectContract


class TestPostgresStore(RecordContract, ClientContract, SubjectContract):
    @pytest.fixture
    def store(self, postgres: Template) -> Iterator[PostgresStore]:
        store = PostgresStore(postgres.store())
        yield store
        store.close()
