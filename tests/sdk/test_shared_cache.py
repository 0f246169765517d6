"""The cache of subjects in Redis: it holds nothing up, takes the right client only, and lends nothing for good."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import redis as library
import redis.asyncio

from rheo.v1 import event_service_pb2 as event
from rheostat import AsyncClient, Client, InvalidArgumentError, RedisCache
from rheostat.model.subject import Subject
from rheostat.sdk.call import Answer
from rheostat.sdk.effect import Fetch, Own
from rheostat.sdk.subject import UNWATCHED_SECONDS, SubjectCache
from rheostat.testing import LocalServer
from rheostat.wire.subject import subject_to_proto
from tests.each import each
from tests.redis import Server, running_server

URL = "http://127.0.0.1:1"
ID = b"a" * 16


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with running_server() as made:
        yield made


@pytest.fixture
def client(redis_server: Server) -> Iterator[library.Redis]:
    redis_server.flush()
    with redis_server.client() as made:
        yield made


class Process:
    """What one process holds, with a server that answers from *stored*."""

    def __init__(self, stored: dict[str, Any], client: library.Redis) -> None:
        self.stored = stored
        self.asked: list[str] = []
        self.now = 1_000_000.0
        self.copies = SubjectCache(
            max_subjects=10,
            shared=RedisCache(client).bind("scope"),
            later=lambda work: work.close(),
            wall_clock=lambda: self.now,
        )
        self.copies.watched()

    def plan(self, user: str = "u1", between: Any = None) -> object:
        joined: Any = self._run(self.copies.resolving({"user": {"id": user}}, 60.0), between)
        return joined.layer["user"]["plan"]

    def _run(self, work: Generator[Any, Any, Any], between: Any) -> object:
        try:
            effect = next(work)
            while True:
                if isinstance(effect, Fetch):
                    results = [self._answer(lookup) for lookup in effect.request.lookups]  # type: ignore[attr-defined]
                    if between is not None:
                        between()
                    effect = work.send(Answer(event.GetSubjectsResponse(results=results)))
                else:
                    assert isinstance(effect, Own)
                    effect = work.send(effect.blocking())
        except StopIteration as stop:
            return stop.value

    def _answer(self, lookup: event.SubjectLookup) -> event.SubjectResult:
        self.asked.append(str(lookup.WhichOneof("by")))
        subject = self.stored["subject"]
        if lookup.HasField("id") and lookup.if_version == subject.version:
            return event.SubjectResult(outcome=event.SUBJECT_OUTCOME_UNCHANGED)
        return event.SubjectResult(outcome=event.SUBJECT_OUTCOME_FOUND, subject=subject)


def _stored(plan: str, version: int) -> Any:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return subject_to_proto(Subject(ID, "user", {"id": "u1"}, {"plan": plan}, now, now, version=version))


def test_what_another_process_has_left_is_confirmed_soon(client: library.Redis):
    stored = {"subject": _stored("pro", 1)}
    assert Process(stored, client).plan() == "pro"
    # Nobody listens while it changes.
    stored["subject"] = _stored("free", 2)
    second = Process(stored, client)
    assert (second.plan(), second.plan(), second.asked) == ("pro", "pro", [])
    second.now += UNWATCHED_SECONDS
    assert (second.plan(), second.asked) == ("free", ["id"])
    # From the server, and told of changes: for good.
    second.now += 3600
    assert (second.plan(), second.asked) == ("free", ["id"])


def test_what_was_read_before_all_was_dropped_stays_dropped(client: library.Redis):
    stored = {"subject": _stored("pro", 1)}
    first = Process(stored, client)
    shared: Any = first.copies._shared

    def drop() -> None:
        stored["subject"] = _stored("free", 2)
        shared.drop(None).blocking()
        # Another thread of the same process.
        shared.look_up([[("user", "id", "other")]]).blocking()

    assert first.plan(between=drop) == "pro"
    second = Process(stored, client)
    assert (second.plan(), second.asked) == ("free", ["reference"])


def test_a_drop_that_redis_has_not_heard_of_is_made_up_for(
    client: library.Redis, monkeypatch: pytest.MonkeyPatch
):
    shared = RedisCache(client).bind("scope")
    names = [[("user", "id", "u1")]]
    shared.put([(_stored("pro", 1), names[0])], "0").blocking()
    execute = client.execute_command

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(client, "execute_command", fail)
    shared.drop([ID]).blocking()
    monkeypatch.setattr(client, "execute_command", execute)
    # It is left alone for a while after that.
    assert shared.look_up(names).blocking() is None
    shared._paused_until = 0.0
    assert shared.look_up(names).blocking() == ("1", [None])


def test_a_redis_that_says_nothing_holds_up_neither_checks_nor_the_end():
    async def run(url: str, port: int) -> None:
        silent: Any = redis.asyncio.Redis(port=port, socket_timeout=None, socket_connect_timeout=None)
        async with asyncio.timeout(60), AsyncClient(url, cache=RedisCache(silent, timeout=0.05)) as client:
            found = await client.check_details("f", user={"id": "u1"}, timeout=30.0)
            assert "not stored" in found.note
        await silent.aclose()

    with LocalServer() as server, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        asyncio.run(run(server.url, listener.getsockname()[1]))


@each(
    ("client_class", "cache", "message"),
    [
        (Client, lambda: RedisCache(redis.asyncio.Redis()), "one for asyncio"),
        (AsyncClient, lambda: RedisCache(library.Redis(socket_timeout=1)), "redis.asyncio.Redis"),
        (Client, lambda: RedisCache(library.Redis(socket_timeout=None)), "socket_timeout"),
        (Client, lambda: RedisCache(library.Redis(decode_responses=True)), "decode_responses"),
        (Client, lambda: RedisCache(library.Redis(), timeout=0), "timeout"),
    ],
)
def test_a_client_of_redis_that_does_not_fit_is_refused(client_class: Any, cache: Any, message: str):
    with pytest.raises(InvalidArgumentError, match=message):
        client_class(URL, cache=cache())
