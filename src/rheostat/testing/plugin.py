"""The pytest plugin: fixtures for tests of what reads settings.

Loaded by pytest wherever Rheostat is installed, so nothing but pytest is imported before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rheostat.testing.local_server import LocalServer
    from rheostat.testing.stub import StubClient

__all__ = ["rheostat_server", "rheostat_stub"]


@pytest.fixture
def rheostat_stub() -> Iterator[StubClient[Any]]:
    """Return an active `rheostat.testing.StubClient`: declared settings are read through it during the test."""
    from rheostat.testing.stub import StubClient

    stub: StubClient[Any] = StubClient()
    with stub, stub.activate():
        yield stub


@pytest.fixture
def rheostat_server() -> Iterator[LocalServer]:
    """Return a running `rheostat.testing.LocalServer` with an empty store; it ends with the test."""
    from rheostat.testing.local_server import LocalServer

    with LocalServer() as server:
        yield server
