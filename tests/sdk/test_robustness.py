"""What a client survives of its own program: callbacks that end, settings declared twice, freezing, hurrying."""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheo.v1.config_service_pb2 import DeclareSettingsResponse
from rheostat import AsyncClient, AuthenticationError, Client, PermissionDeniedError, Setting
from rheostat.model.condition import SegmentReference
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.sdk.call import Answer
from rheostat.sdk.core import Options
from rheostat.sdk.effect import Fetch
from rheostat.sdk.failure import translated
from rheostat.testing import LocalServer
from tests.e2e.process import wait_until
from tests.sdk.state import State, setting


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.set("x", 1)
        yield server


def test_a_callback_that_ends_the_program_ends_no_delivery(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(server.url) as client:
        told: queue.SimpleQueue[int] = queue.SimpleQueue()

        def exiting(change: Any) -> None:
            told.put(change.after)
            sys.exit("no")

        client.subscribe("x", exiting)
        for value in (2, 3):
            server.set("x", value)
            assert told.get(timeout=20) == value
    assert "SystemExit" in caplog.text


def test_a_callback_that_awaits_a_cancelled_task_ends_no_delivery(server: LocalServer) -> None:
    async def scenario() -> None:
        async with AsyncClient(server.url) as client:
            told: asyncio.Queue[int] = asyncio.Queue()

            async def waiting(change: Any) -> None:
                await told.put(change.after)
                task = asyncio.create_task(asyncio.sleep(30))
                task.cancel()
                await task

            client.subscribe("x", waiting)
            for value in (2, 3):
                await asyncio.to_thread(server.set, "x", value)
                assert await asyncio.wait_for(told.get(), 20) == value

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_poll_that_was_hurried_goes_back_to_its_interval(server: LocalServer, kind: Any) -> None:
    polls: list[float] = []

    def note(_: object) -> None:
        polls.append(time.monotonic())

    async def scenario() -> None:
        client = AsyncClient(server.url, mode="poll", poll_interval=0.3)
        async with client:
            client._core.heard = lambda: note(None)  # type: ignore[method-assign]
            client.narrow(region=["eu"])
            while len(polls) < 4:  # noqa: ASYNC110 - the client has no event for this
                await asyncio.sleep(0.01)

    if kind is AsyncClient:
        asyncio.run(asyncio.wait_for(scenario(), 30))
    else:
        with Client(server.url, mode="poll", poll_interval=0.3) as client:
            client._core.heard = lambda: note(None)  # type: ignore[method-assign]
            client.narrow(region=["eu"])
            wait_until(lambda: len(polls) >= 4)
    # One at once, and then again one in each interval.
    assert polls[3] - polls[0] > 0.5


def test_two_declarations_of_one_name_do_not_take_turns(caplog: pytest.LogCaptureFixture) -> None:
    state = State(setting("limit", 3))
    first, same = Setting("limit", int, default=1), Setting("limit", int, default=1)
    other = Setting("limit", float, default=2.0)
    published = len(state.publications)
    for _ in range(3):
        for each in (first, same, other):
            assert state.reader.read_setting(each, each.default, None, {}) == 3
    assert len(state.publications) == published + 1, "declared once"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "'limit'" in warnings[0].getMessage()


def test_a_declaration_that_is_refused_is_not_repeated_with_every_change() -> None:
    now = [0.0]
    state = State(setting("limit", 3))
    core = state.core
    core._clock = lambda: now[0]
    core._live = True
    core.declare([Setting("limit", int, default=1)])

    def refuse() -> int:
        count = 0
        while core.jobs:
            job = core.jobs.popleft()
            effect = next(job)
            assert isinstance(effect, Fetch)
            count += effect.method == "DeclareSettings"
            with pytest.raises(StopIteration):
                job.throw(PermissionDeniedError("no"))
        return count

    assert refuse() == 1
    for value in range(20):
        state.write(setting("limit", value))
        core._now_live()
        core.tick()
    assert refuse() == 0
    # Later, and with growing delays, once more.
    now[0] += 5.0
    core.heard()
    core.tick()
    assert refuse() == 1
    now[0] += 301.0
    core.heard()
    core.tick()
    job = core.jobs.popleft()
    next(job)
    with pytest.raises(StopIteration):
        job.send(Answer(DeclareSettingsResponse()))
    now[0] += 1000.0
    core.heard()
    core.tick()
    assert not core.jobs


def test_many_declarations_are_sent_in_requests_that_a_server_takes() -> None:
    state = State()
    core = state.core
    core._live = True
    text = "x" * 60_000
    core.declare([Setting(f"text-{i}", str, default=text) for i in range(20)])
    (job,) = core.jobs
    names: list[str] = []
    effect = next(job)
    with pytest.raises(StopIteration):
        while True:
            assert isinstance(effect, Fetch)
            assert effect.request.ByteSize() < 1024 * 1024
            names += [declaration.name for declaration in effect.request.declarations]  # type: ignore[attr-defined]
            effect = job.send(Answer(DeclareSettingsResponse()))
    assert names == [f"text-{i}" for i in range(20)]


def test_a_frozen_view_stays_at_its_revision_whatever_is_declared_or_overridden() -> None:
    state = State(setting("x", 1), setting("y", 1))
    reader, replica = state.reader, state.replica
    with replica.frozen():
        state.write(setting("x", 2), setting("y", 2))
        declared = Setting("x", int, default=0)
        assert reader.read_setting(declared, 0, None, {}) == 1
        replica.override({"z": 9})
        assert (reader["x"], reader["y"], reader["z"], reader.revision) == (1, 1, 9, 1)
        replica.clear_overrides()
        assert (reader["x"], reader["y"], "z" in reader) == (1, 1, False)
    assert (reader["x"], reader["y"], reader.revision) == (2, 2, 2)


def test_a_bookmark_keeps_the_index_of_what_refers_to_what() -> None:
    state = State(
        setting("user", 0, rules=(Rule("r", ValueOutcome(1), SegmentReference("s")),)), setting("other")
    )
    state.write(setting("other", 1))
    index = state.replica._references
    assert index is not None
    held = state.replica.held
    moved = type(held.position)()  # type: ignore[misc]
    moved.CopyFrom(held.position)
    moved.revision += 5
    state.replica.confirm(type(held)(moved, held.items, held.digest))
    assert state.reader.revision == moved.revision
    assert state.replica._references is index


def test_deleting_thousands_of_settings_takes_no_longer_than_making_them() -> None:
    state = State()
    names = [f"setting-{i}" for i in range(4000)]
    started = time.process_time()
    state.write(*map(setting, names))
    made = time.process_time() - started
    started = time.process_time()
    assert state.write(gone=names) == frozenset(names)
    assert time.process_time() - started < max(1.0, 5 * made)


def test_a_refused_key_is_said_although_there_is_a_state_to_begin_with() -> None:
    core = State(bootstrap={"x": 5}).core
    assert core.readiness()
    core.refused(AuthenticationError("the key is unknown"), 300.0)
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            core.readiness()
    core._now_live()
    assert core.readiness()


def test_neither_errors_nor_representations_show_the_key() -> None:
    key = "rst_server_SECRET"
    error = translated(ValueError(f"Invalid header value b'Bearer {key}'"), "http://127.0.0.1:1")
    assert key not in str(error)
    assert "key" in str(error)
    options = Options("http://127.0.0.1:1", key=key, headers={"authorization": key})
    assert key not in repr(options)
    assert key not in repr(Fetch("Ping", DeclareSettingsResponse(), 1.0, {"authorization": key}))


def test_a_cache_is_of_one_environment_and_filter(server: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with Client(server.url, key="rst_server_one", cache_path=path) as client:
        assert client["x"] == 1
    assert b"rst_server_one" not in path.read_bytes()

    def cached(**options: Any) -> Any:
        core = Client(server.url, cache_path=path, **options)._core
        core.load_cache()
        return core.replica.view.snapshot.setting("x") is not None

    assert cached(key="rst_server_one")
    # Another key may be one of another environment.
    assert not cached(key="rst_server_two")
    assert not cached(key="rst_server_one", names=["y"])
    assert not cached(key="rst_server_one", environment="production")
    with Client(server.url, key="rst_server_one", environment="production", cache_path=path) as client:
        assert client["x"] == 1
    # Here the key may have been rotated.
    assert cached(key="rst_server_two", environment="production")
