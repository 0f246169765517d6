"""Callers who wait, who stop reading, or who read in pages must not hold up the others, or see what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheo.v1.admin_service_pb2 import ListProjectsRequest
from rheo.v1.config_service_pb2 import EvaluateRequest, GetSnapshotRequest, GetSnapshotResponse
from rheo.v1.watch_pb2 import Filter, WatchRequest
from rheostat.model.change import PutSetting, RenameSetting, SetValue
from rheostat.model.key import KeyKind, Role
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.stall import Guards, Stalled
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.server.exchange import Asgi, Wsgi, asked

WRITER = Writer(OPEN)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as started:
        settings = [PutSetting(f"s.{number:03}", {"type": "int", "default": 0}) for number in range(250)]
        started.commit(WRITER, "default", "production", settings)
        yield started


def test_many_who_wait_for_a_revision_do_not_hold_up_a_read(service: Service):
    app = Asgi(asgi_app(service, open=True))
    waiting = EvaluateRequest(name="s.000", min_revision=service.head.revision + 1)

    async def scenario() -> None:
        waiters = [
            asyncio.create_task(app(asked("rheo.v1.ConfigService/Evaluate", waiting))) for _ in range(60)
        ]
        await asyncio.sleep(0)
        read = await app(asked("rheo.v1.AdminService/ListProjects", ListProjectsRequest()))
        assert read.code == "ok"
        assert not any(waiter.done() for waiter in waiters), "the read had to wait for the waiters"
        service.commit(WRITER, "default", "production", [SetValue("s.000", 1)])
        assert {answer.code for answer in await asyncio.gather(*waiters)} == {"ok"}

    asyncio.run(asyncio.wait_for(scenario(), 30))


def pages(apps: list[Any], request: GetSnapshotRequest) -> list[str]:
    """Read all pages, each from the next of *apps*, and return the keys."""
    keys: list[str] = []
    for number in range(100):
        answer = apps[number % len(apps)](asked("rheo.v1.ConfigService/GetSnapshot", request))
        assert answer.code == "ok", answer.message
        page = GetSnapshotResponse.FromString(answer.body)
        keys += [item.key for item in page.items]
        if not page.next_page_token:
            assert len(keys) == page.item_count
            return keys
        request.page_token = page.next_page_token
    raise AssertionError("the pages have no end")


def test_pages_of_a_snapshot_may_be_read_from_several_processes(tmp_path: Path):
    store = f"sqlite:{tmp_path / 'shared.db'}"
    with Service(open_store(store)) as one, Service(open_store(store)) as two:
        settings = [PutSetting(f"s.{number:03}", {"type": "int", "default": 0}) for number in range(250)]
        revision = one.commit(WRITER, "default", "production", settings).revision
        two.wait_for(revision)
        apps = [Wsgi(wsgi_app(service, open=True)) for service in (one, two)]
        keys = pages(apps, GetSnapshotRequest(page_size=100))
        assert keys == [f"s.{number:03}" for number in range(250)]


def test_the_pages_of_a_state_that_has_changed_are_refused_with_what_to_do(tmp_path: Path):
    store = f"sqlite:{tmp_path / 'shared.db'}"
    with Service(open_store(store)) as one, Service(open_store(store)) as two:
        settings = [PutSetting(f"s.{number:03}", {"type": "int", "default": 0}) for number in range(5)]
        one.commit(WRITER, "default", "production", settings)
        first = Wsgi(wsgi_app(one, open=True))(
            asked("rheo.v1.ConfigService/GetSnapshot", GetSnapshotRequest(page_size=2))
        )
        token = GetSnapshotResponse.FromString(first.body).next_page_token
        two.wait_for(two.commit(WRITER, "default", "production", [SetValue("s.001", 1)]).revision)
        second = Wsgi(wsgi_app(two, open=True))(
            asked("rheo.v1.ConfigService/GetSnapshot", GetSnapshotRequest(page_size=2, page_token=token))
        )
        assert (second.code, second.reason) == ("failed_precondition", "PAGE_EXPIRED")


def test_a_poll_is_not_up_to_date_when_an_alias_that_it_names_has_moved_away(service: Service):
    app = Wsgi(wsgi_app(service, open=True))
    service.commit(WRITER, "default", "production", [RenameSetting("s.000", "renamed")])
    request = GetSnapshotRequest(filter=Filter(names=["s.000"]))
    held = GetSnapshotResponse.FromString(app(asked("rheo.v1.ConfigService/GetSnapshot", request)).body)
    assert [item.key for item in held.items] == ["renamed"]
    service.commit(WRITER, "default", "production", [PutSetting("renamed", {"aliases": ()})])
    request.resume = held.position.token
    answer = GetSnapshotResponse.FromString(app(asked("rheo.v1.ConfigService/GetSnapshot", request)).body)
    assert not answer.up_to_date
    assert not answer.items


def test_a_reader_that_has_stopped_reading_loses_its_stream_when_its_key_is_revoked(service: Service):
    key, text, _ = service.create_key(WRITER, kind=KeyKind.USER, project="default", role=Role.VIEWER)
    app = asgi_app(service)
    request = asked(
        "rheo.v1.ConfigService/Watch", WatchRequest(), "proto", ("authorization", f"Bearer {text}")
    )
    sent: list[bytes] = []

    async def scenario() -> None:
        reading, stalled = asyncio.Event(), asyncio.Event()
        bodies = iter([request.body])

        async def receive() -> dict[str, Any]:
            for body in bodies:
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                sent.append(message["body"])
                stalled.set()
                await reading.wait()

        scope = {
            "type": "http",
            "method": "POST",
            "path": request.path,
            "root_path": "",
            "query_string": b"",
            "headers": list(request.headers),
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        task = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type, func-returns-value]
        await stalled.wait()
        await asyncio.to_thread(service.revoke_key, WRITER, key.selector)
        await asyncio.wait_for(task, 5)

    asyncio.run(scenario())
    assert len(sent) == 1, "more was sent after the key was revoked"
    assert service.watchers == 0


def test_a_send_that_makes_no_progress_is_given_up_and_others_are_not():
    guards = Guards(stalled_seconds=0.0)

    async def scenario() -> None:
        async def never(message: Any) -> None:
            await asyncio.Event().wait()

        async def at_once(message: Any) -> None:
            pass

        stuck = guards.guard(never)  # type: ignore[arg-type]
        with pytest.raises(Stalled):
            await stuck({"type": "http.response.body", "body": b"", "more_body": True})
        with pytest.raises(Stalled):
            await stuck({"type": "http.response.body", "body": b"", "more_body": False})
        await guards.guard(at_once)({"type": "http.response.body", "body": b"", "more_body": False})  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_cancelling_a_call_from_outside_is_not_taken_for_a_stall():
    guards = Guards()

    async def scenario() -> None:
        async def never(message: Any) -> None:
            await asyncio.Event().wait()

        guard = guards.guard(never)  # type: ignore[arg-type]
        task = asyncio.create_task(guard({"type": "http.response.body", "body": b"", "more_body": True}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
