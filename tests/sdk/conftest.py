"""Real servers, shared by the tests, and clients of both kinds, which always end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.process import ServerProgram
from tests.sdk.driving import DRIVERS, Driven, Home
from tests.sdk.editor import Editor

HEARTBEAT = 0.5
"""Seconds; a WSGI server notices by it that a client has left."""


@pytest.fixture(autouse=True, scope="session")
def no_proxy() -> None:
    """Keep the tests' own requests away from a proxy of the surroundings."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ServerProgram]]:
    """Servers that the session's tests share, by kind."""
    found: dict[str, ServerProgram] = {}

    def get(kind: str) -> ServerProgram:
        if kind not in found:
            store = tmp_path_factory.mktemp(kind) / "store.db"
            found[kind] = ServerProgram(kind, f"sqlite:{store}", heartbeat=str(HEARTBEAT))
        return found[kind]

    yield get
    for server in found.values():
        server.kill()


@pytest.fixture(params=["serve", "gunicorn-gthread"])
def server(request: pytest.FixtureRequest, servers: Callable[[str], ServerProgram]) -> ServerProgram:
    """An ASGI server and a WSGI server."""
    return servers(request.param)


@pytest.fixture
def editor(server: ServerProgram) -> Editor:
    """Writes to an environment of the test's own."""
    return Editor(server.url)


@pytest.fixture(scope="session", params=DRIVERS)
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """Where the client lives: makes a test run with both."""
    found = Home(request.param)
    yield found
    found.close()


@pytest.fixture
def make(home: Home) -> Iterator[Callable[..., Driven]]:
    """Make a client that is closed after the test."""
    with contextlib.ExitStack() as stack:

        def make_one(*args: Any, **options: Any) -> Driven:
            found = Driven(home, *args, **options)
            stack.callback(found.close)
            return found

        yield make_one


@pytest.fixture
def connect(make: Callable[..., Driven], editor: Editor) -> Callable[..., Driven]:
    """Make a client of the test's environment and start it."""

    def connect_one(**options: Any) -> Driven:
        return make(editor.url, environment=editor.environment, **options).start()

    return connect_one
