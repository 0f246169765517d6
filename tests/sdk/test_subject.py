"""Stored subjects join what clients evaluate, and a verdict without them says so: both clients, on a real server."""

from __future__ import annotations

import asyncio
import datetime
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import redis as library
import redis.asyncio

from rheo.v1 import event_service_pb2 as event
from rheo.v1.subject_pb2 import Subject
from rheostat import AsyncClient, Client, ErrorCode, Reason, RedisCache, RedisSource, ambient
from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.model.exposure import ExposureRecord
from rheostat.model.subject import SubjectOverride, SubjectPatch, SubjectReference
from rheostat.relay.replicator import Copy
from rheostat.sdk.subject import UNWATCHED_SECONDS
from rheostat.service import Writer
from rheostat.service.access import OPEN
from rheostat.testing import LocalServer
from tests.e2e.process import wait_until
from tests.redis import Server, running_server
from tests.relay.node import RelayNode, relay_key
from tests.sdk.driving import Driven, Home
from tests.sdk.proxy import Proxy
from tests.service.node import World


def _flag(where: str) -> dict[str, Any]:
    rules = [{"id": "yes", "where": where, "value": True}]
    return {"type": "bool", "default": False, "environments": {"production": {"rules": rules}}}


DOCUMENT = {
    "project": "default",
    "environments": ["production"],
    "settings": {
        "beta": _flag('user.plan == "pro"'),
        "owned": _flag('company.plan == "pro"'),
        "room": _flag("company.usage.api-call.month <= attr(company.limit)"),
        "number": {"type": "int", "default": 1},
        "on": {"type": "bool", "default": True},
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(heartbeat=0.5) as made:
        made.service.commit(
            Writer(OPEN), "default", "", plan_apply(parse_document(json.dumps(DOCUMENT)), None)
        )
        yield made


@pytest.fixture
def connect(home: Home, server: LocalServer) -> Iterator[Callable[..., Driven]]:
    made: list[Driven] = []

    def connect_one(url: str = "", *, start: bool = True, **options: Any) -> Driven:
        # No verdict may depend on how fast the machine is.
        options = {"backoff": (0.01, 0.05), "event_interval": 3600.0, "subject_timeout": 60.0, **options}
        client = Driven(home, url or server.url, **options)
        made.append(client)
        if start:
            client.start(timeout=60)
        return client

    yield connect_one
    for client in made:
        client.run(lambda c: c.close())


def store(server: LocalServer, kind: str, which: str, traits: Any = None, **more: Any) -> None:
    patch = SubjectPatch(SubjectReference(kind, {"id": which}), traits or {}, **more)
    answer = server.service.subjects.upsert(OPEN, "default", "production", [patch])
    assert hasattr(answer[0], "version"), answer
    # Watchers are told a little later: copies of a stream that begins in between would be doubted again.
    board = server.service.notices.board(("default", "production"))
    wait_until(lambda: not board.waits)


def requests_of(client: Driven) -> list[list[Any]]:
    """Return a list that the lookups of each further request are appended to."""
    subjects = client._core.subjects
    fetched, seen = subjects._fetched, []

    def noted(lookups: Any, deadline: float) -> Any:
        seen.append(list(lookups))
        return fetched(lookups, deadline)

    subjects._fetched = noted
    return seen


def details(client: Driven, flag: str, **arguments: Any) -> Any:
    return client.run(lambda c: c.check_details(flag, **arguments))


def watching(client: Driven) -> None:
    """Wait until the stream that tells of changed subjects is open."""
    wait_until(lambda: client._core.subjects._watching)


def test_a_check_joins_stored_traits_and_then_needs_no_server(
    server: LocalServer, connect: Callable[..., Driven]
):
    store(server, "user", "joined", {"plan": "pro"})
    client = connect()
    asked = requests_of(client)
    found = details(client, "beta", user={"id": "joined"})
    assert (found.value, found.reason, found.rule_id, found.note) == (True, Reason.TARGETING_MATCH, "yes", "")
    watching(client)
    wait_until(lambda: all(copy.fresh for copy in client._core.subjects._copies.values()))
    before = len(asked)
    assert client.run(lambda c: c.check("beta", user={"id": "JOINED"})) is True
    assert client.run(lambda c: c.check("beta", user={"id": "joined", "age": 7})) is True
    assert len(asked) == before


def test_what_the_call_says_wins_over_traits(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "user", "said", {"plan": "free"})
    client = connect()
    assert client.run(lambda c: c.check("beta", user={"id": "said"})) is False
    assert client.run(lambda c: c.check("beta", user={"id": "said", "plan": "pro"})) is True
    assert (
        client.run(lambda c: c.check("beta", user={"id": "said"}, context={"user": {"plan": "pro"}})) is True
    )


def test_a_changed_subject_is_seen_once_the_stream_has_told(
    server: LocalServer, connect: Callable[..., Driven]
):
    store(server, "user", "changing", {"plan": "free"})
    client = connect()
    assert client.run(lambda c: c.check("beta", user={"id": "changing"})) is False
    watching(client)
    wait_until(lambda: all(copy.fresh for copy in client._core.subjects._copies.values()))
    store(server, "user", "changing", {"plan": "pro"})
    wait_until(lambda: client.run(lambda c: c.check("beta", user={"id": "changing"})))
    assert details(client, "beta", user={"id": "changing"}).note == ""


def test_after_a_reconnect_the_next_check_sees_what_has_changed_meanwhile(
    server: LocalServer, connect: Callable[..., Driven]
):
    store(server, "user", "outage", {"plan": "free"})
    proxy = Proxy(int(server.url.rpartition(":")[2]))
    client = connect(proxy.url)
    try:
        assert client.run(lambda c: c.check("beta", user={"id": "outage"})) is False
        watching(client)
        proxy.fail("cut")
        wait_until(lambda: not client._core.subjects._watching)
        store(server, "user", "outage", {"plan": "pro"})
        assert client.run(lambda c: c.check("beta", user={"id": "outage"})) is False
        proxy.heal()
        watching(client)
        found = details(client, "beta", user={"id": "outage"})
        assert (found.value, found.note) == (True, "")
    finally:
        client.run(lambda c: c.close())
        proxy.close()


def test_a_restarted_server_is_asked_again(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "user", "restart", {"plan": "free"})
    client = connect()
    assert client.run(lambda c: c.check("beta", user={"id": "restart"})) is False
    watching(client)
    server.stop()
    try:
        wait_until(lambda: not client._core.subjects._watching)
        store(server, "user", "restart", {"plan": "pro"})
    finally:
        server.start()
    watching(client)
    assert details(client, "beta", user={"id": "restart"}).value is True


def test_without_a_server_the_note_says_that_traits_were_unavailable(connect: Callable[..., Driven]):
    client = connect("http://127.0.0.1:9", start=False, bootstrap={"beta": True})
    found = details(client, "beta", user={"id": "u1"}, company={"id": "c1"})
    assert (found.value, found.reason) == (True, Reason.STATIC)
    assert "traits unavailable" in found.note
    assert "user (id)" in found.note
    assert "company (id)" in found.note
    assert client.run(lambda c: c.check("beta", user={"id": "u1"})) is True
    assert client.run(lambda c: c.check_all(user={"id": "u1"})) == {"beta": True}


def test_offline_and_closed_clients_say_so(server: LocalServer, connect: Callable[..., Driven]):
    client = connect(start=False, offline=True, bootstrap={"beta": True})
    found = details(client, "beta", user={"id": "u1"})
    assert found.value is True
    assert "offline" in found.note
    client.run(lambda c: c.close())
    assert "traits unavailable" in details(client, "beta", user={"id": "u1"}).note


def test_a_subject_that_is_not_stored_is_noted_and_remembered_until_something_changes(
    server: LocalServer, connect: Callable[..., Driven], home: Home
):
    who = f"{home.kind} hing_changes"
    store(server, "user", "anybody")
    client = connect()
    client.run(lambda c: c.check("beta", user={"id": "anybody"}))
    watching(client)
    wait_until(lambda: all(copy.fresh for copy in client._core.subjects._copies.values()))
    assert "not stored" in details(client, "beta", user={"id": who}).note
    asked = requests_of(client)
    assert "not stored" in details(client, "beta", user={"id": who}).note
    assert asked == []
    store(server, "user", who, {"plan": "pro"})
    wait_until(lambda: client.run(lambda c: c.check("beta", user={"id": who})))


def test_a_member_brings_its_only_company(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "company", "acme", {"plan": "pro"})
    store(server, "company", "globex", {"plan": "free"})
    store(server, "user", "member", member_of=[SubjectReference("company", {"id": "acme"})])
    client = connect()
    assert client.run(lambda c: c.check("owned", user={"id": "member"})) is True
    assert client.run(lambda c: c.check("owned", user={"id": "member"}, company={"id": "globex"})) is False
    watching(client)
    store(server, "company", "acme", {"plan": "free"})
    wait_until(lambda: not client.run(lambda c: c.check("owned", user={"id": "member"})))


def test_keys_of_two_subjects_give_the_default(server: LocalServer, connect: Callable[..., Driven]):
    for which in ("one", "two"):
        patch = SubjectPatch(SubjectReference("user", {"id": which, "email": f"{which}@example.com"}))
        server.service.subjects.upsert(OPEN, "default", "production", [patch])
    client = connect()
    for _ in range(2):
        found = details(client, "on", default=False, user={"id": "one", "email": "two@example.com"})
        assert (found.value, found.reason, found.error_code) == (
            False,
            Reason.ERROR,
            ErrorCode.INVALID_CONTEXT,
        )
        assert found.error_message.startswith("key conflict: ")
        client.run(lambda c: c.check("on", user={"id": "one"}, company={"id": "x"}))


def test_an_override_of_a_subject_comes_before_the_rules_until_it_expires(
    server: LocalServer, connect: Callable[..., Driven]
):
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    store(
        server,
        "user",
        "special",
        overrides=[SubjectOverride("beta", True, end), SubjectOverride("number", 7)],
    )
    client = connect()
    found = details(client, "beta", user={"id": "special"})
    assert (found.value, found.variant) == (True, "override")
    assert client.get("number", user={"id": "special"}) == 7
    client.client.set_override("number", 9)
    assert client.get("number", user={"id": "special"}) == 9
    client._core.subjects._wall_clock = end.timestamp
    assert client.run(lambda c: c.check("beta", user={"id": "special"})) is False


def test_defaults_are_used_in_their_order(server: LocalServer, connect: Callable[..., Driven]):
    client = connect(defaults={"absent": True})
    scoped = client.client.with_defaults({"absent": False})
    assert client.run(lambda c: c.check("absent")) is True
    assert client.run(lambda c: scoped.check("absent")) is False
    assert client.run(lambda c: scoped.check("absent", default=True)) is True
    assert client.run(lambda c: c.check("unheard")) is False
    assert details(client, "unheard").error_code is ErrorCode.FLAG_NOT_FOUND


def test_what_is_no_bool_gives_the_default(server: LocalServer, connect: Callable[..., Driven]):
    client = connect()
    assert client.run(lambda c: c.check("number", default=True)) is True
    found = details(client, "number")
    assert (found.value, found.reason, found.error_code) == (False, Reason.ERROR, ErrorCode.TYPE_MISMATCH)


def test_all_flags_are_checked_with_one_request(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "user", "all", {"plan": "pro"})
    store(server, "company", "all", {"plan": "pro", "limit": 3})
    client = connect()
    asked = requests_of(client)
    found = client.run(lambda c: c.check_all(user={"id": "all"}, company={"id": "all"}))
    assert found == {"beta": True, "owned": True, "room": True, "on": True}
    assert [len(lookups) for lookups in asked[:1]] == [2]
    assert client.run(lambda c: c.check_all(["on", "number"], default=True)) == {"on": True, "number": True}


def test_a_pre_flight_check_raises_counters_for_itself_alone(
    server: LocalServer, connect: Callable[..., Driven], home: Home
):
    who = f"{home.kind} itself_alone"
    store(server, "company", who, {"limit": 2})
    client = connect()
    client.run(lambda c: c.check("room", company={"id": who}))
    client.track("api-call", company={"id": who})
    assert client.run(lambda c: c.check("room", company={"id": who}, plus={"api-call": 1})) is True
    assert client.run(lambda c: c.check("room", company={"id": who}, plus={"api-call": 2})) is False
    assert client.run(lambda c: c.check("room", company={"id": who})) is True


def test_what_is_tracked_counts_at_once_and_never_twice(
    server: LocalServer, connect: Callable[..., Driven], home: Home
):
    who = f"{home.kind} _never_twice"
    store(server, "company", who, {"limit": 100})
    client = connect()
    client.run(lambda c: c.check("room", company={"id": who}))
    watching(client)

    def count() -> Any:
        joined = client._core.subjects.at_hand([{"company": {"id": who}}])
        return joined.layer.get("company.usage.api-call.all")

    client.track("api-call", company={"id": who}, quantity=3)
    client.track("api-call", company={"id": who})
    assert count() == 4
    assert client.run(lambda c: c.flush(60)) is True
    assert count() == 4

    def settled() -> bool:
        client.run(lambda c: c.check("room", company={"id": who}))
        copy = next(iter(client._core.subjects._copies.values()))
        assert count() == 4
        return any(counter.count == 4 for counter in copy.subject.counters)

    wait_until(settled)
    client.track("api-call", company={"id": who})
    assert count() == 5


def test_reads_join_subjects_that_are_at_hand_and_never_wait(
    server: LocalServer, connect: Callable[..., Driven]
):
    store(server, "user", "at hand", {"plan": "pro"})
    client = connect()
    asked = requests_of(client)
    assert client.get("beta", user={"id": "at hand"}) is False
    assert client.evaluate("beta", user={"id": "at hand"}).value is False
    assert asked == []
    pinned = client.client.pin()
    client.run(lambda c: c.check("beta", user={"id": "at hand"}))
    for reader in (client.client, pinned):
        assert reader.get("beta", user={"id": "at hand"}) is True
        assert reader.evaluate("beta", user={"id": "at hand"}).rule_id == "yes"
        assert reader.explain("beta", user={"id": "at hand"}).evaluation.value is True
    assert client["beta"] is False
    with ambient(user={"id": "at hand"}):
        assert client["beta"] is True
        assert client.get("beta", user={"plan": "free"}) is False
    assert client.client.with_context(user={"id": "at hand"})["beta"] is True
    scoped = client.client.with_context(user={"id": "at hand"})
    assert client.run(lambda c: scoped.check("beta")) is True
    assert client.run(lambda c: scoped.check("beta", company={"id": "unheard"})) is True


def test_many_checks_at_once_make_one_request(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "user", "crowd", {"plan": "pro"})
    client = connect()
    asked = requests_of(client)
    if client.home.kind == "async":

        async def together(c: Any) -> Any:
            return await asyncio.gather(*(c.check("beta", user={"id": "crowd"}) for _ in range(20)))

        assert client.run(together) == [True] * 20
    else:
        found: list[bool] = []
        start = threading.Barrier(6)

        def check() -> None:
            start.wait()
            found.append(client.client.check("beta", user={"id": "crowd"}))

        threads = [threading.Thread(target=check) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [True] * 6
    by_reference = [lookups for lookups in asked if lookups[0].WhichOneof("by") == "reference"]
    assert len(by_reference) == 1


def test_no_more_subjects_are_held_than_the_option_says(server: LocalServer, connect: Callable[..., Driven]):
    for i in range(8):
        store(server, "user", f"bounded {i}", {"plan": "pro"})
    client = connect(max_subjects=5)
    for i in (0, 1, 2, 3, 0, 4, 0, 5, 0, 6, 7):
        assert client.run(lambda c, i=i: c.check("beta", user={"id": f"bounded {i}"})) is True
    subjects = client._core.subjects
    assert len(subjects) == 5
    assert subjects.found("user", {"id": "bounded 0"}) is not None
    assert subjects.found("user", {"id": "bounded 1"}) is None


def test_checks_are_counted_as_exposures(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "user", "exposed", {"plan": "pro"})
    told: list[ExposureRecord] = []

    def tell(record: ExposureRecord) -> None:
        told.append(record)
        raise RuntimeError("a callback must not break a check")

    client = connect(on_exposure=tell)
    for _ in range(5):
        client.run(lambda c: c.check("beta", user={"id": "exposed"}))
    client.run(lambda c: c.check("number"))
    assert [(r.setting, r.value, r.reason, r.rule_id) for r in told[:1]] == [
        ("beta", True, "TARGETING_MATCH", "yes")
    ]
    assert told[0].subjects == {"user": {"id": "exposed"}}
    assert (len(told), told[-1].error_code) == (6, "TYPE_MISMATCH")
    before = _exposures(client)
    assert client.run(lambda c: c.flush(60)) is True
    assert _exposures(client) - before == 5
    quiet = connect(exposures=0.0, on_exposure=tell)
    quiet.run(lambda c: c.check("beta", user={"id": "exposed"}))
    assert len(told) == 6


def _exposures(client: Driven) -> int:
    answer = client.call("ListExposures", event.ListExposuresRequest(setting="beta")).unwrap()
    return sum(each.count for each in answer.exposures)


def test_identify_reaches_the_copy_that_is_held(server: LocalServer, connect: Callable[..., Driven]):
    store(server, "user", "identified", {"plan": "free"})
    client = connect()
    assert client.run(lambda c: c.check("beta", user={"id": "identified"})) is False
    client.identify("user", {"id": "identified"}, {"plan": "pro"})
    assert client.run(lambda c: c.flush(60)) is True
    wait_until(lambda: client.run(lambda c: c.check("beta", user={"id": "identified"})))


# Sharing.


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    with running_server() as made:
        yield made


@pytest.fixture
def redis(redis_server: Server, home: Home) -> Iterator[Any]:
    redis_server.flush()
    if home.kind == "sync":
        client = redis_server.client()
        yield client
        client.close()
    else:
        found = library.asyncio.Redis.from_url(redis_server.url)
        yield found
        home.run(found.aclose)


def test_processes_share_subjects_through_redis(
    server: LocalServer, redis: Any, connect: Callable[..., Driven]
):
    store(server, "user", "shared", {"plan": "pro"})
    first = connect(cache=RedisCache(redis, timeout=60.0))
    assert first.run(lambda c: c.check("beta", user={"id": "shared"})) is True
    second = connect(cache=RedisCache(redis, timeout=60.0))
    asked = requests_of(second)
    assert second.run(lambda c: c.check("beta", user={"id": "SHARED"})) is True
    assert all(lookup.WhichOneof("by") == "id" for lookups in asked for lookup in lookups)
    watching(second)
    store(server, "user", "shared", {"plan": "free"})
    wait_until(lambda: not second.run(lambda c: c.check("beta", user={"id": "shared"})))
    third = connect(cache=RedisCache(redis, timeout=60.0))
    wait_until(lambda: not third.run(lambda c: c.check("beta", user={"id": "shared"})))


@pytest.fixture
def source(redis_server: Server, home: Home) -> Iterator[Any]:
    """What a relay has written to Redis, as a source; the heartbeat holds for minutes."""
    redis_server.flush()
    world = World()
    try:
        node = world.node()
        changes = plan_apply(parse_document(json.dumps(DOCUMENT)), None)
        node.service.commit(Writer(OPEN), "default", "", changes)
        with redis_server.client() as client:
            Copy(RelayNode(world, node, relay_key(node)).pump().branch, client, beat=100.0).update()
        yield RedisSource(redis_server.url)
    finally:
        world.close()


def test_copies_grow_old_where_what_is_read_tells_of_no_subjects(
    server: LocalServer, connect: Callable[..., Driven], source: Any, redis_server: Server
):
    store(server, "user", "sourced", {"plan": "free"})
    client = connect(source=source, environment="production")
    now = time.time()
    client._core.subjects._wall_clock = lambda: now
    assert client.run(lambda c: c.check("beta", user={"id": "sourced"})) is False
    # Asking has made the client open a stream that wants to be told, and Redis tells of nothing.
    wait_until(lambda: len(client.hellos) > 1)
    store(server, "user", "sourced", {"plan": "pro"})
    assert client.run(lambda c: c.check("beta", user={"id": "sourced"})) is False
    now += UNWATCHED_SECONDS
    assert client.run(lambda c: c.check("beta", user={"id": "sourced"})) is True
    # Nor do a stream that ends and those that cannot be opened say that a copy was true until then.
    store(server, "user", "sourced", {"plan": "free"})
    now += UNWATCHED_SECONDS
    redis_server.kill()
    try:
        wait_until(lambda: len(client.errors) > 2)
        assert client.run(lambda c: c.check("beta", user={"id": "sourced"})) is False
    finally:
        redis_server.start()


def test_an_older_version_never_takes_the_place_of_a_newer_one(redis_server: Server):
    redis_server.flush()
    with redis_server.client() as client:
        cache = RedisCache(client).bind("scope")
        names = [("user", "id", "u1")]

        def held() -> int | None:
            _, (content,) = cache.look_up([names]).blocking()  # type: ignore[misc]
            return None if content is None else Subject.FromString(content).version

        def put(version: int) -> None:
            generation, _ = cache.look_up([]).blocking()  # type: ignore[misc]
            cache.put([(Subject(id=b"i" * 16, kind="user", version=version), names)], generation).blocking()

        assert held() is None
        put(9)
        put(10)
        put(8)
        assert held() == 10
        cache.drop([b"i" * 16]).blocking()
        assert held() is None
        put(10)
        assert held() is None
        put(11)
        assert held() == 11
        cache.drop(None).blocking()
        assert held() is None
        put(11)
        assert held() == 11
        assert RedisCache(client).bind("another").look_up([names]).blocking() == ("0", [None])


def test_checks_go_on_without_redis(
    server: LocalServer, connect: Callable[..., Driven], home: Home, caplog: pytest.LogCaptureFixture
):
    kind: Any = library.Redis if home.kind == "sync" else library.asyncio.Redis
    away = kind.from_url("unix:///nowhere/socket")
    store(server, "user", "alone", {"plan": "pro"})
    client = connect(cache=RedisCache(away))
    found = details(client, "beta", user={"id": "alone"})
    assert (found.value, found.note) == (True, "")
    assert caplog.text.count("shared cache") == 1


def test_a_strange_call_raises_nothing(server: LocalServer, connect: Callable[..., Driven]):
    class Hostile(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            raise RuntimeError

        def __iter__(self) -> Any:
            raise RuntimeError

        def __len__(self) -> int:
            raise RuntimeError

    client = connect()
    for arguments in (
        {"user": None},
        {"user": 7},
        {"user": {}},
        {"user": {7: "x"}},
        {"user": {"id": 7}},
        {"user": {"id": "\ud800"}},
        {"user": Hostile()},
        {"context": 7},
        {"context": Hostile(), "user": {"id": "u1"}},
        {"plus": 7, "user": {"id": "u1"}},
        {"plus": {"x": "y", 3: 4}, "user": {"id": "u1"}},
        {"timeout": -1, "user": {"id": "strange"}},
        {"client": {"id": "x"}},
        {"a b": {"id": "x"}},
    ):
        assert client.run(lambda c, a=arguments: c.check("on", **a)) in (True, False), arguments
    assert client.run(lambda c: c.check(None, user={"id": "u1"})) is False


def test_a_client_that_nothing_was_asked_of_subjects_watches_none(server: LocalServer):
    with Client(server.url) as client:
        assert client["on"] is True
        assert not client._core.target.subjects
        assert not client._core.replica.joining


def test_after_the_client_was_closed_traits_may_be_out_of_date(
    server: LocalServer, connect: Callable[..., Driven]
):
    store(server, "user", "left", {"plan": "pro"})
    client = connect(subject_timeout=60.0)
    assert client.run(lambda c: c.check("beta", user={"id": "left"})) is True
    watching(client)
    client.run(lambda c: c.close())
    found = details(client, "beta", user={"id": "left"})
    assert found.value is True
    assert "traits may be out of date" in found.note


def test_on_a_new_event_loop_subjects_are_asked_for_again(server: LocalServer):
    store(server, "user", "looped", {"plan": "pro"})
    client = AsyncClient(server.url, backoff=(0.01, 0.05), subject_timeout=60.0)

    async def check_watched() -> bool:
        await client.start()
        found = await client.check("beta", user={"id": "looped"})
        await asyncio.to_thread(wait_until, lambda: client._core.subjects._watching)
        return found and await client.check("beta", user={"id": "looped"})

    async def check_and_close() -> bool:
        found = await client.check("beta", user={"id": "looped"})
        await client.close()
        return found

    assert asyncio.run(check_watched()) is True
    store(server, "user", "looped", {"plan": "free"})
    assert asyncio.run(check_and_close()) is False
