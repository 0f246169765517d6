"""Clients behind a network that fails: values stay readable, and afterwards nothing was missed or told twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest

from rheo.v1.watch_pb2 import WATCH_MODE_SNAPSHOT
from rheostat import SettingChange, Status
from tests.e2e.process import ServerProgram, wait_until
from tests.sdk.driving import Driven
from tests.sdk.editor import Editor
from tests.sdk.proxy import FAULTS, Proxy

HEARTBEAT = 0.4
"""Seconds; a stream without a byte for three of them is dead."""

BACKOFF = (0.2, 2.0)

SECONDS = 5.0
"""From the end of a fault until every client has what it missed, by storage-and-scale.md; half-open: three
heartbeats more."""

SLACK = 1.5
"""For a machine that is busy with other tests."""


@pytest.fixture(scope="module", params=["serve", "gunicorn-gthread"])
def beating(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProgram]:
    """A server with short heartbeats."""
    store = tmp_path_factory.mktemp("store") / "store.db"
    with ServerProgram(request.param, f"sqlite:{store}", heartbeat=str(HEARTBEAT)) as server:
        yield server


@pytest.fixture
def proxy(beating: ServerProgram) -> Iterator[Proxy]:
    with Proxy(beating.port) as found:
        yield found


class Reading:
    """A thread that reads all the time, and notes what it saw and what was raised."""

    def __init__(self, client: Driven, name: str) -> None:
        self.seen: list[object] = []
        self.errors: list[Exception] = []
        self._client = client
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(0.001):
            try:
                value = self._client[self._name]
            except Exception as error:  # noqa: BLE001 - none may be raised
                self.errors.append(error)
                return
            if not self.seen or self.seen[-1] != value:
                self.seen.append(value)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_client_catches_up_by_delta_after_a_fault(
    fault: str,
    beating: ServerProgram,
    proxy: Proxy,
    make: Callable[..., Driven],
    record_property: Callable[[str, object], None],
):
    editor = Editor(beating.url)
    editor.put("a", 0)
    editor.put("gone", 1)
    # So that a snapshot would be seen: at 1 kB/s it takes longer than the fault.
    for number in range(3):
        editor.put(f"large-{number}", "x" * 4000)
    client = make(proxy.url, environment=editor.environment, backoff=BACKOFF, timeout=2.0).start()
    told: list[SettingChange[Any]] = []
    client.subscribe(told.append)
    assert client["a"] == 0
    with Reading(client, "a") as reading:
        proxy.fail(fault)
        editor.set(a=1)
        editor.set(a=2)
        editor.delete("gone")
        editor.put("new", 5)
        # As long as it takes to notice.
        if fault in {"half-open", "garbage", "cut"}:
            client.until(lambda c: bool(client.errors) or c.stale)
        else:
            client.until_value("a", 2)
        proxy.heal()
        healed = time.monotonic()
        last = editor.set(a=3)
        client.until(lambda c: c.position.revision >= last and c.status is Status.LIVE)
        took = time.monotonic() - healed
        wait_until(lambda: bool(reading.errors) or reading.seen[-1] == 3)
    assert took < (SECONDS + (3 * HEARTBEAT if fault == "half-open" else 0.0)) * SLACK
    assert not reading.errors
    assert reading.seen == sorted(reading.seen, key=int)  # type: ignore[call-overload]
    assert reading.seen[-1] == 3
    # Told of each setting exactly once for each step that was seen, in order, and of the deletion.
    wait_until(lambda: any((change.name, change.after) == ("a", 3) for change in told))
    steps = [(change.before, change.after) for change in told if change.name == "a"]
    assert steps[0][0] == 0
    assert all(after == before for (_, after), (before, _) in pairwise(steps))
    assert [change.name for change in told if change.deleted] == ["gone"]
    assert [change.name for change in told if change.created] == ["new"]
    revisions = [change.revision for change in told]
    assert revisions == sorted(revisions)
    # Never a snapshot again.
    assert [hello.mode for hello in client.hellos].count(WATCH_MODE_SNAPSHOT) == 1
    assert client.hellos[0].mode == WATCH_MODE_SNAPSHOT
    record_property("converged_after", took)


def test_many_clients_converge_after_a_cut(beating: ServerProgram, proxy: Proxy, make: Callable[..., Driven]):
    # A WSGI server has a thread for each.
    count = 20 if beating.kind == "serve" else 8
    editor = Editor(beating.url)
    editor.put("a", 0)
    clients = [make(proxy.url, environment=editor.environment, backoff=BACKOFF).start() for _ in range(count)]
    told: list[list[SettingChange[Any]]] = [[] for _ in clients]
    for client, changes in zip(clients, told, strict=True):
        client.subscribe("a", changes.append)
    proxy.fail("cut")
    editor.set(a=1)
    for client in clients:
        client.until(lambda _, client=client: bool(client.errors))
    proxy.heal()
    started = time.monotonic()
    for client in clients:
        client.until_value("a", 1)
    assert time.monotonic() - started < SECONDS * SLACK
    wait_until(lambda: all(len(changes) == 1 for changes in told))
    for client in clients:
        assert [hello.mode for hello in client.hellos].count(WATCH_MODE_SNAPSHOT) == 1


def test_a_server_that_was_killed_and_comes_back_is_resumed_from(tmp_path: Path, make: Callable[..., Driven]):
    with ServerProgram("serve", f"sqlite:{tmp_path}/store.db", heartbeat=str(HEARTBEAT)) as server:
        editor = Editor(server.url, "production")
        editor.put("a", 0)
        client = make(server.url, backoff=BACKOFF).start()
        told: list[SettingChange[Any]] = []
        client.subscribe(told.append)
        server.kill()
        client.until(lambda c: bool(client.errors))
        assert client["a"] == 0
        with server.again() as other:
            Editor(other.url, "production").set(a=1)
            assert client.until_value("a", 1) < SECONDS * SLACK
            wait_until(lambda: len(told) == 1)
            client.until(lambda c: c.status is Status.LIVE)
            assert all(hello.mode != WATCH_MODE_SNAPSHOT for hello in client.hellos[1:])


def test_polling_goes_on_after_a_fault(beating: ServerProgram, proxy: Proxy, make: Callable[..., Driven]):
    editor = Editor(beating.url)
    editor.put("a", 0)
    client = make(
        proxy.url,
        environment=editor.environment,
        backoff=BACKOFF,
        mode="poll",
        poll_interval=0.1,
        timeout=1.0,
    ).start()
    proxy.fail("cut")
    client.until(lambda c: bool(client.errors))
    editor.set(a=1)
    assert client["a"] == 0
    proxy.heal()
    assert client.until_value("a", 1) < SECONDS * SLACK


def test_silence_makes_a_state_stale_until_the_server_is_heard_of_again(
    beating: ServerProgram, proxy: Proxy, make: Callable[..., Driven]
):
    editor = Editor(beating.url)
    editor.put("a", 0)
    client = make(proxy.url, environment=editor.environment, backoff=BACKOFF, timeout=1.0).start()
    proxy.fail("half-open")
    client.until(lambda c: c.stale)
    assert client.status is Status.STALE
    assert client.evaluate("a").stale
    assert client["a"] == 0
    proxy.heal()
    client.until(lambda c: not c.stale)
    assert client.status is Status.LIVE
    assert not client.evaluate("a").stale
    # Callbacks are called off the receiving path.
    wait_until(lambda: len(client.statuses) >= 3)
    assert client.statuses == [Status.LIVE, Status.STALE, Status.LIVE]
