from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheostat import (
    Client,
    FailedPreconditionError,
    SettingNotFoundError,
    Status,
    TypeMismatchError,
    UnavailableError,
)
from rheostat.errors import InvalidDocumentError, StoreError
from rheostat.example import PROJECT, document_text
from rheostat.testing import LocalServer

QUICK = (0.01, 0.05)
"""Delays of a client that comes back, in seconds."""


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


class Told:
    """What subscribers were told, and waiting for more of it."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._more = threading.Condition()

    def note(self, value: object) -> None:
        with self._more:
            self.values.append(value)
            self._more.notify_all()

    def await_(self, *values: object) -> None:
        with self._more:
            assert self._more.wait_for(lambda: self.values[-len(values) :] == list(values), 20), self.values


def test_a_client_follows_what_is_set_and_deleted(server: LocalServer) -> None:
    told = Told()
    server.set("x", 1)
    with Client(server.url) as client:
        client.subscribe("x", lambda change: told.note(change.after))
        assert client["x"] == 1
        assert server.set("x", 2) == server.revision == 3
        told.await_(2)
        server.delete("x")
        with pytest.raises(SettingNotFoundError):
            server.delete("x")
        with pytest.raises(TypeMismatchError):
            server.set("x", object())


def test_a_new_setting_has_the_type_of_its_value(server: LocalServer) -> None:
    for name, value in {"a": True, "b": 1, "c": 1.0, "d": "x", "e": [1], "f": None}.items():
        server.set(name, value)
    with pytest.raises(TypeMismatchError):
        server.set("b", "x")
    server.set("c", 2)
    with Client(server.url) as client:
        types = {name: found.type for name, found in client.get_settings().items()}
        assert types == {"a": "bool", "b": "int", "c": "float", "d": "str", "e": "Json", "f": "Json"}
        assert client["c"] == 2.0


def test_documents_are_applied_as_text_file_and_mapping(server: LocalServer, tmp_path: Path) -> None:
    server.apply("settings: {a: {type: int, default: 1}}")
    file = tmp_path / "settings.yaml"
    file.write_text("settings: {b: {type: int, default: 2}}\n")
    server.apply(file)
    server.apply({"settings": {"c": {"type": "Sequence<int>", "default": (3,)}}})
    stands = server.revision
    assert server.apply(str(file)) == stands
    with Client(server.url) as client:
        assert dict(client.settings) == {"a": 1, "b": 2, "c": (3,)}
    with pytest.raises(InvalidDocumentError, match=r"settings\.a\.type"):
        server.apply({"settings": {"a": {"type": "integer"}}})


def test_a_document_may_bring_a_project_with_environments() -> None:
    with LocalServer(environment="production") as server:
        server.apply(document_text())
        server.set("checkout.timeout", 7.0)
        with Client(server.url, project=PROJECT, environment="production") as client:
            assert client["checkout.timeout"] == 7.0
        with Client(server.url, project=PROJECT, environment="staging") as client:
            assert client["checkout.timeout"] != 7.0
    with LocalServer() as server:
        server.apply(document_text())
        with pytest.raises(FailedPreconditionError, match=r"LocalServer\(environment="):
            server.set("checkout.timeout", 7.0)
    with (
        LocalServer(environment="nowhere") as server,
        pytest.raises(FailedPreconditionError, match="'nowhere'"),
    ):
        server.set("x", 1)


def test_a_client_comes_back_to_a_server_that_was_away(server: LocalServer) -> None:
    told, errors = Told(), threading.Event()
    server.set("x", 1)
    url = server.url
    with Client(url, backoff=QUICK, on_update_error=lambda error: errors.set()) as client:
        client.subscribe("x", lambda change: told.note(change.after))
        server.stop()
        server.stop()
        assert errors.wait(20)
        assert client["x"] == 1
        server.set("x", 2)
        server.start()
        server.start()
        told.await_(2)
        assert (server.url, client["x"]) == (url, 2)


def test_while_it_is_stopped_clients_are_refused(server: LocalServer) -> None:
    server.stop()
    with Client(server.url, retries=0, start_timeout=0.05) as client:
        with pytest.raises(UnavailableError):
            client.ping()
        assert client.status is Status.CONNECTING
    server.start()
    with Client(server.url) as client:
        assert client.ping().revision == 1


def test_a_closed_server_stays_closed() -> None:
    before = set(threading.enumerate())
    with LocalServer() as server:
        server.close()
    with pytest.raises(FailedPreconditionError):
        server.start()
    assert not set(threading.enumerate()) - before


def test_a_store_of_a_file_outlives_its_server(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'test.db'}"
    with LocalServer(store) as server:
        server.set("x", 1)
    with LocalServer(store) as server, Client(server.url) as client:
        assert client["x"] == 1
    with pytest.raises(StoreError):
        LocalServer("nonsense:")


def test_several_servers_are_apart(server: LocalServer) -> None:
    with LocalServer() as other:
        server.set("x", 1)
        other.set("x", 2)
        with Client(server.url) as one, Client(other.url) as two:
            assert (one["x"], two["x"]) == (1, 2)


@pytest.mark.parametrize("missing", ["uvicorn", "protovalidate"])
def test_a_server_that_is_not_installed_is_named_with_its_extra(missing: str) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from rheostat import MissingDependencyError
from rheostat.testing import StubClient
assert StubClient({{"x": 1}})["x"] == 1
try:
    from rheostat.testing import LocalServer
    LocalServer()
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == (
        f"the server needs {missing}, which is not installed: pip install 'rheostat[server]'\n"
    )
