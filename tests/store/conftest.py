"""What the tests of stores share: a PostgreSQL server for each process that runs tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import Template, running_template


@pytest.fixture(scope="session")
def postgres() -> Iterator[Template]:
    with running_template() as template:
        yield template
