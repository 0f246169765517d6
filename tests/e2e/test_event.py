"""Events reach the counters once: over killed servers, retries, and processes that fork and spawn."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rheo.v1.event_service_pb2 import GetSubjectsRequest, ListEventCountsRequest
from rheo.v1.subject_pb2 import USAGE_PERIOD_ALL
from rheostat import Client
from tests.e2e.process import PATIENCE, Program, ServerProgram, wait_until
from tests.e2e.tracking import track

BACKOFF = (0.01, 0.05)

Shared = Callable[[str], ServerProgram]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests make more environments on the servers that are shared, and processes inherit this one.
    monkeypatch.setenv("RHEOSTAT_ENVIRONMENT", "production")


def counted(url: str, event: str, company: str) -> int:
    """Return how often *event* was counted for *company*."""
    request = GetSubjectsRequest(environment="production")
    lookup = request.lookups.add()
    lookup.reference.kind = "company"
    lookup.reference.keys["id"] = company
    with Client(url) as client:
        (result,) = client.call("GetSubjects", request).unwrap().results
    counts = [c.count for c in result.subject.counters if c.event == event and c.period == USAGE_PERIOD_ALL]
    return sum(counts)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_four_processes_count_every_event(shared_server: Shared, method: str):
    server = shared_server("serve")
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=track, args=(server.url, method, 1000)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert counted(server.url, "call", method) == 4000


def test_a_program_that_just_ends_sends_what_it_has(shared_server: Shared):
    program = (
        "import asyncio, sys; from rheostat import AsyncClient, Client; url = sys.argv[1]\n"
        "Client(url).track('call', company={'id': 'sync'})\n"
        "async def main():\n"
        "    client = await AsyncClient(url).start()\n"
        "    client.track('call', company={'id': 'async'})\n"
        "asyncio.run(main())\n"
    )
    server = shared_server("serve")
    with Program([sys.executable, "-c", program, server.url]) as ended:
        assert ended.process.wait(PATIENCE) == 0, ended.output
    assert counted(server.url, "call", "sync") == 1
    assert counted(server.url, "call", "async") == 1


def test_a_child_process_sends_none_of_its_parents_events(shared_server: Shared):
    server = shared_server("serve")
    client = Client(server.url, event_interval=3600.0)
    client.start()
    for _ in range(10):
        client.track("call", company={"id": "parent"})
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(client,))
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert counted(server.url, "call", "parent") == 3
    client.close()
    assert counted(server.url, "call", "parent") == 13


def _in_child(client: Client) -> None:
    for _ in range(3):
        client.track("call", company={"id": "parent"})
    client.close()


def test_nothing_is_lost_or_counted_twice_while_the_server_is_killed(tmp_path: Path):
    server = ServerProgram("serve", f"sqlite:{tmp_path / 'store.db'}")
    client = Client(server.url, event_interval=0.02, backoff=BACKOFF)
    ended = threading.Event()
    tracked = 0

    def work() -> None:
        nonlocal tracked
        pause = threading.Event()
        while not ended.is_set():
            client.track("call", company={"id": "acme"})
            tracked += 1
            pause.wait(0.001)

    thread = threading.Thread(target=work)
    try:
        client.start()
        thread.start()
        wait_until(lambda: tracked > 150)
        server.kill()
        before = tracked
        wait_until(lambda: tracked > before + 20)
        server = server.again()
        before = tracked
        wait_until(lambda: tracked > before + 50)
        ended.set()
        thread.join(PATIENCE)
        assert client.flush(PATIENCE)
        assert client.events_dropped == 0
        assert counted(server.url, "call", "acme") == tracked
    finally:
        ended.set()
        client.close()
        server.kill()


def test_what_is_tracked_while_the_server_is_away_is_sent_when_it_is_back(tmp_path: Path):
    server = ServerProgram("serve", f"sqlite:{tmp_path / 'store.db'}")
    try:
        with Client(server.url, event_interval=0.05, backoff=BACKOFF) as client:
            server.kill()
            client.identify("company", {"id": "acme"}, {"plan": "pro"})
            for _ in range(500):
                client.track("call", company={"id": "acme"})
            assert client.flush(0.2) is False
            server = server.again()
            assert client.flush(PATIENCE) is True
            assert counted(server.url, "call", "acme") == 500
            names = (
                client.call("ListEventCounts", ListEventCountsRequest(environment="production"))
                .unwrap()
                .events
            )
            assert [(each.event, each.events) for each in names] == [("call", 500)]
    finally:
        server.kill()
