"""How streams end: the client leaves, the server drains, the server's process is asked to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.config_service_pb2 import PingRequest
from rheo.v1.watch_pb2 import GO_AWAY_REASON_DRAIN, WatchRequest
from rheostat.errors import UnavailableError
from rheostat.service import Service
from rheostat.store import open_store
from rheostat.wire.error import from_connect
from tests.e2e.process import HEARTBEAT, ClientProgram, ServerProgram, wait_until
from tests.e2e.writing import commit_by, make_setting, set_value

CLIENTS = ("sync", "async", "typescript")

Start = Callable[..., ServerProgram]
Watch = Callable[..., ClientProgram]


def leave(client: ClientProgram) -> None:
    """End the client's stream: by its own means where the program goes on, else with the program."""
    if client.kind == "sync":
        client.kill()
    else:
        client.tell("stop")


@pytest.fixture(scope="module")
def asgi_server(start: Start) -> ServerProgram:
    # Its heartbeat is 15 s, so that only the client's leaving can end a stream here.
    return start("uvicorn")


@pytest.mark.parametrize("client_kind", CLIENTS)
def test_the_servers_stream_ends_within_a_second_of_the_client_on_asgi(
    asgi_server: ServerProgram, watch: Watch, client_kind: str
):
    client = watch(client_kind, asgi_server.url)
    client.snapshot()
    assert asgi_server.watchers == 1
    leave(client)
    wait_until(lambda: asgi_server.watchers == 0, patience=1.0)


@pytest.mark.parametrize("server_kind", ["gunicorn-gthread", "gunicorn-gevent", "waitress"])
def test_the_servers_streams_end_with_the_next_bookmark_on_wsgi(
    shared_server: Callable[[str], ServerProgram], watch: Watch, server_kind: str
):
    server = shared_server(server_kind)
    # Those of earlier tests.
    wait_until(lambda: server.watchers == 0)
    clients = [watch(kind, server.url) for kind in CLIENTS]
    for client in clients:
        client.snapshot()
    assert server.watchers == len(clients)
    for client in clients:
        client.next("bookmark")
        leave(client)
    wait_until(lambda: server.watchers == 0, patience=HEARTBEAT + 0.7)


@pytest.fixture
def other_process() -> Iterator[Callable[[str], Service]]:
    """Open the store of a server beside it."""
    with contextlib.ExitStack() as stack:
        yield lambda store: stack.enter_context(Service(open_store(store)))


def test_a_server_that_is_asked_to_end_drains_its_streams_first(
    start: Start, watch: Watch, other_process: Callable[[str], Service]
):
    server = start("serve")
    make_setting(server.url)
    other = other_process(server.store)
    clients = [watch(kind, server.url) for kind in CLIENTS]
    for client in clients:
        client.snapshot()

    asked = time.monotonic()
    server.terminate()
    for client in clients:
        go_away = client.next("go_away").go_away
        assert go_away.reason == GO_AWAY_REASON_DRAIN
        assert go_away.spread.ToTimedelta().total_seconds() >= 5.0
        assert go_away.grace.ToTimedelta().total_seconds() == 3.0

    # Who has been asked to leave still misses nothing.
    revision = commit_by(other, 5)
    for client in clients:
        assert client.next("delta").delta.position.revision == revision

    # Until the streams have ended the server goes on answering, but takes neither writes nor watches.
    assert server.status("/healthz") == 200
    assert server.status("/readyz") == 503
    plain = ConfigServiceClientSync(server.url)
    assert plain.ping(PingRequest()).revision > 0
    for refused in (lambda: set_value(server.url, 1), lambda: list(plain.watch(WatchRequest()))):
        with pytest.raises(ConnectError) as caught:
            refused()
        assert caught.value.code is Code.UNAVAILABLE
        error = from_connect(caught.value)
        assert isinstance(error, UnavailableError)
        assert error.reason == "DRAINING"
        assert error.retry_after

    for client in clients:
        assert client.line()[1] == "end"
    assert server.wait() == 0
    assert 2.9 < time.monotonic() - asked < 5.0
    assert server.status("/healthz") == 0


def test_a_draining_server_ends_as_soon_as_its_last_watcher_has_left(start: Start, watch: Watch):
    server = start("serve")
    client = watch("async", server.url)
    client.snapshot()
    asked = time.monotonic()
    server.terminate()
    client.next("go_away")
    leave(client)
    assert server.wait() == 0
    assert time.monotonic() - asked < 2.0


def test_an_open_watch_does_not_keep_gunicorn_from_ending(start: Start, watch: Watch):
    server = start("gunicorn-gthread")
    client = watch("async", server.url)
    client.snapshot()
    asked = time.monotonic()
    server.terminate()
    # gunicorn's own limit, --graceful-timeout, which is 2 s here.
    assert server.wait() == 0
    assert time.monotonic() - asked < 5.0
    assert client.line()[1] in ("end", "error unavailable", "error internal", "error unknown")
