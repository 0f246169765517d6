"""Testing what reads settings: a client without a server, and a server inside the test.

::

    from rheostat.testing import LocalServer, StubClient

    stub = StubClient({"checkout.timeout": 2.5})
    with LocalServer() as server, Client(server.url) as client:
        server.set("checkout.timeout", 4.0)

The names are imported when they are first used: pytest loads this package in every project that has it installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rheostat.testing.local_server import LocalServer
    from rheostat.testing.recording import RecordedEvaluation, RecordedEvent, RecordedIdentity
    from rheostat.testing.stub import AsyncStubClient, StubClient

__all__ = [
    "AsyncStubClient",
    "LocalServer",
    "RecordedEvaluation",
    "RecordedEvent",
    "RecordedIdentity",
    "StubClient",
]

_HOMES: Final = {
    "AsyncStubClient": "rheostat.testing.stub",
    "LocalServer": "rheostat.testing.local_server",
    "RecordedEvaluation": "rheostat.testing.recording",
    "RecordedEvent": "rheostat.testing.recording",
    "RecordedIdentity": "rheostat.testing.recording",
    "StubClient": "rheostat.testing.stub",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
