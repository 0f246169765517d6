"""OFREP, by calling the applications directly: evaluations, keys, tags, refusals, and the stream of changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from rheo.v1.watch_pb2 import WatchRequest
from rheostat.bridges.ofrep import entity_tag, refused
from rheostat.cli.root import root
from rheostat.errors import InvalidArgumentError, LimitExceededError, RheostatError, UnavailableError
from rheostat.evaluation import Context
from rheostat.model.key import KeyKind, Role
from rheostat.relay.serve import relay_app
from rheostat.server import OfrepOptions, asgi_app, wsgi_app
from rheostat.service import Limits, Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.subject import NOBODY
from rheostat.store import open_store
from tests.bridges.flags import (
    FLAGS,
    AsgiStream,
    WsgiStream,
    change,
    fill,
    get,
    make_key,
    post,
)
from tests.each import each
from tests.relay.node import RelayNode, relay_key
from tests.server.exchange import WATCH, Answered, Asgi, Asked, Wsgi
from tests.server.exchange import asked as called
from tests.service.book import put
from tests.service.node import World

Exchange = Callable[[Asked], Answered]
Mount = Callable[..., Exchange]
Listen = Callable[..., Any]

PLACE = "project=flags&environment=production"
EVENTS = f"/ofrep/v1/events?{PLACE}"
ORIGIN = "https://shop.example"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as service:
        fill(service)
        yield service


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def mount(kind: str, service: Service) -> Mount:
    """Make what sends a request to the application of one kind, which serves OFREP."""

    def make(*, peer: str = "127.0.0.1", served: Service = service, **options: Any) -> Exchange:
        options = {"ofrep": True, **options}
        if kind == "wsgi":
            return Wsgi(wsgi_app(served, **options), peer)
        caller = Asgi(asgi_app(served, **options), peer)
        return lambda request: asyncio.run(caller(request))

    return make


@pytest.fixture
def ask(mount: Mount) -> Callable[..., Answered]:
    """Ask the open application for one flag, or for all without a key."""
    exchange = mount(open=True)

    def ask_one(
        key: str | None = None, context: Any = None, *headers: tuple[str, str], query: str = PLACE
    ) -> Answered:
        path = FLAGS if key is None else f"{FLAGS}/{key}"
        return exchange(post(path, {} if context is None else {"context": context}, *headers, query=query))

    return ask_one


@pytest.fixture
def listen(kind: str, service: Service) -> Iterator[Listen]:
    """Open an event stream, which is closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_one(
            uri: str = EVENTS,
            *headers: tuple[str, str],
            app: Any = None,
            peer: str = "127.0.0.1",
            **options: Any,
        ) -> Any:
            options = {"open": True, "ofrep": True, **options}
            stream: Any
            if kind == "wsgi":
                stream = WsgiStream(app or wsgi_app(service, **options), get(uri, *headers), peer)
            else:
                stream = AsgiStream(app or asgi_app(service, **options), get(uri, *headers), peer)
            stack.callback(stream.close)
            return stream

        yield open_one


def content(answer: Answered) -> Any:
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)


def bearer(text: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {text}")


# One flag.


def test_answers_what_the_service_evaluates(ask: Callable[..., Answered], service: Service) -> None:
    for context in ({}, {"region": "eu"}, {"region": "us", "targetingKey": "u-1"}, {"region": ["eu"]}):
        for key in ("banner", "color", "limit", "ratio", "theme"):
            answer = ask(key, context)
            evaluation = service.evaluate(
                "flags", "production", key, Context(context, {"user.id": context.get("targetingKey")})
            )
            found = content(answer)
            assert answer.status == 200
            assert (found["key"], found["value"]) == (
                key,
                evaluation.value if key != "theme" else {"names": ["a", "b"], "radius": 8},
            )
            assert (found["reason"], found["variant"]) == (evaluation.reason.value, evaluation.variant or "")
            assert found["metadata"]["setting_revision"] == evaluation.setting_revision


def test_names_the_rule_that_has_decided(ask: Callable[..., Answered]) -> None:
    assert content(ask("banner", {"region": "eu"})) == {
        "key": "banner",
        "value": True,
        "reason": "TARGETING_MATCH",
        "variant": "",
        "metadata": {
            "setting_revision": 2,
            "version": "2",
            "flagSetId": "flags/production",
            "rule_id": "europe",
        },
    }


def test_keeps_ints_and_floats_apart(ask: Callable[..., Answered]) -> None:
    assert b'"value":2.0,' in ask("ratio").body
    assert b'"value":9007199254740993,' in ask("limit").body


def test_the_targeting_key_is_the_users_id_whatever_else_is_said_of_that(
    ask: Callable[..., Answered], service: Service
) -> None:
    def expected(user: str) -> Any:
        return service.evaluate("flags", "production", "color", Context({"user.id": user})).value

    users = [f"u-{number}" for number in range(20)]
    assert {expected(user) for user in users} == {"red", "blue"}
    for user in users:
        assert content(ask("color", {"targetingKey": user}))["value"] == expected(user)
        for said in ({"user.id": "u-0"}, {"user": {"id": "u-0"}}, {"user": {"plan": "pro"}}):
            answer = content(ask("color", {"targetingKey": user, **said}))
            assert answer["value"] == expected(user)
        assert content(ask("color", {"user": {"id": user}}))["value"] == expected(user)


def test_the_targeting_key_can_be_another_attribute(mount: Mount) -> None:
    exchange = mount(open=True, ofrep=OfrepOptions(targeting_key="region"))
    assert content(exchange(post(f"{FLAGS}/banner", {"context": {"targetingKey": "eu"}}, query=PLACE)))[
        "value"
    ]
    answer = content(exchange(post(f"{FLAGS}/color", {"context": {"targetingKey": "eu"}}, query=PLACE)))
    assert answer["reason"] == "DEFAULT"
    with pytest.raises(InvalidArgumentError, match="attribute"):
        OfrepOptions(targeting_key=" ")


def test_null_is_refused_and_a_list_is_not(ask: Callable[..., Answered]) -> None:
    answer = ask("nothing")
    assert answer.status == 400
    assert content(answer) == {
        "key": "nothing",
        "errorCode": "GENERAL",
        "errorDetails": "the value is null, which OFREP cannot carry",
    }
    assert content(ask("tags"))["value"] == ["a", "b"]


def test_notes_what_was_read(ask: Callable[..., Answered], service: Service) -> None:
    ask("ratio")
    ask()
    assert set(service.usage.reads("flags", "production").at) == {"ratio"}


# All flags.


def test_answers_all_flags_with_where_to_hear_of_changes(ask: Callable[..., Answered]) -> None:
    answer = ask(None, {"region": "eu", "targetingKey": "u-1"})
    found = content(answer)
    assert answer.status == 200
    assert [flag["key"] for flag in found["flags"]] == [
        "banner",
        "color",
        "limit",
        "nothing",
        "paid",
        "ratio",
        "tags",
        "theme",
    ]
    for flag in found["flags"]:
        assert flag == content(ask(flag["key"], {"region": "eu", "targetingKey": "u-1"}))
    assert found["metadata"] == {"flagSetId": "flags/production"}
    assert found["eventStreams"] == [
        {"type": "sse", "endpoint": {"requestUri": EVENTS}, "inactivityDelaySec": 120}
    ]


def test_event_streams_can_be_left_out(mount: Mount) -> None:
    exchange = mount(open=True, ofrep=OfrepOptions(event_streams=False))
    assert "eventStreams" not in content(exchange(post(FLAGS, query=PLACE)))


def test_an_answer_that_was_given_before_is_not_given_again(ask: Callable[..., Answered]) -> None:
    context = {"region": "eu", "plan": {"name": "pro"}}
    tag = ask(None, context).headers["etag"]
    for named in (tag, f"W/{tag}", f'"other", {tag}', tag.strip('"'), "*"):
        answer = ask(None, dict(reversed(context.items())), ("if-none-match", named))
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    assert ask(None, context, ("if-none-match", '"other"')).status == 200


def test_the_tag_covers_all_that_the_answer_depends_on(mount: Mount, service: Service) -> None:
    keys = [make_key(service)[1], make_key(service)[1], make_key(service, environments=("staging",))[1]]
    exchange = mount()

    def tag(key: str = keys[0], **context: Any) -> str:
        return exchange(post(FLAGS, {"context": context}, bearer(key))).headers["etag"]

    tags = [
        tag(), tag(region="eu"), tag(region=1), tag(region=1.0), tag(region=True), tag(targetingKey="u"),
        tag(keys[1]), tag(keys[2]),
    ]  # fmt: skip
    assert len(set(tags)) == len(tags)
    assert tag() == tags[0]
    change(service, "ratio", 3.0, "staging")
    assert tag() == tags[0]
    change(service, "ratio", 3.0)
    assert tag() not in tags
    change(service, "ratio", 2.0)
    assert tag() not in tags


def test_the_tag_is_of_one_history(service: Service) -> None:
    head, view = service.head, service.view("flags", "production")
    identities = [
        head.identity,
        replace(head.identity, nonce=bytes(8)),
        replace(head.identity, generation=2),
        replace(head.identity, store_id=bytes(16)),
    ]
    tags = {
        entity_tag(view, replace(head, identity=identity), NOBODY, Context({}), "") for identity in identities
    }
    assert len(tags) == len(identities)
    # Which nobody may see, not even in a digest.
    hidden = replace(head, identity=replace(head.identity, token_key=bytes(32)))
    assert entity_tag(view, hidden, NOBODY, Context({}), "") in tags


def test_an_answer_of_too_many_bytes_is_refused(mount: Mount) -> None:
    with Service(open_store("memory:"), limits=Limits(max_snapshot_bytes=4_000)) as small:
        fill(small)
        assert mount(open=True, served=small)(post(FLAGS, query=PLACE)).status == 200
    with Service(open_store("memory:")) as small:
        fill(small)
        small.limits = Limits(max_snapshot_bytes=200)
        answer = mount(open=True, served=small)(post(FLAGS, query=PLACE))
    assert (answer.status, content(answer)["errorCode"]) == (400, "GENERAL")
    assert "max_snapshot_bytes" in content(answer)["errorDetails"]


# Refusals.

DEEP = b'{"context":' + b'{"a":' * 40 + b"1" + b"}" * 41

REFUSED: list[tuple[bytes, str, str]] = [
    (b"", "PARSE_ERROR", "JSON"),
    (b"{", "PARSE_ERROR", "JSON"),
    (b"\xff", "PARSE_ERROR", "JSON"),
    (b"[" * 100_000, "PARSE_ERROR", "JSON"),
    (b'{"context":{"a":NaN}}', "PARSE_ERROR", "NaN"),
    (b'{"context":{"a":1,"a":2}}', "PARSE_ERROR", "twice"),
    (b'{"context":{"a":' + b"9" * 30 + b"}}", "PARSE_ERROR", "64 bits"),
    (b'{"context":{"a":' + b"9" * 5_000 + b"}}", "PARSE_ERROR", "JSON"),
    (b'{"context":{"a":"\\ud800"}}', "PARSE_ERROR", "surrogate"),
    (b"[]", "PARSE_ERROR", "object"),
    (b'"x"', "PARSE_ERROR", "object"),
    (b"null", "PARSE_ERROR", "object"),
    (DEEP, "PARSE_ERROR", "levels"),
    (b'{"context":[]}', "INVALID_CONTEXT", "object"),
    (b'{"context":"x"}', "INVALID_CONTEXT", "object"),
    (b'{"context":{"targetingKey":7}}', "INVALID_CONTEXT", "targetingKey"),
    (b'{"context":{"targetingKey":""}}', "TARGETING_KEY_MISSING", "targetingKey"),
    (b" " * (1024 * 1024 + 1), "GENERAL", "max_request_bytes"),
]


@each(("body", "code", "word"), REFUSED)
def test_a_bad_body_is_refused_in_the_protocols_words(
    mount: Mount, body: bytes, code: str, word: str
) -> None:
    exchange = mount(open=True)
    for path in (FLAGS, f"{FLAGS}/banner"):
        answer = exchange(post(path, body, query=PLACE))
        assert answer.status == 400
        found = content(answer)
        assert (found["errorCode"], found.get("key")) == (code, None if path == FLAGS else "banner")
        assert word in found["errorDetails"]
        assert answer.headers["x-request-id"]


@each("content_", [{}, {"context": None}, {"context": {}}, {"context": {"a": None}, "more": [1]}])
def test_a_context_is_not_needed(mount: Mount, content_: Any) -> None:
    assert mount(open=True)(post(f"{FLAGS}/banner", content_, query=PLACE)).status == 200


@each(
    "headers",
    [
        [("content-type", "text/plain")],
        [("content-type", "application/x-www-form-urlencoded")],
        [("content-type", "")],
        [("content-encoding", "gzip")],
    ],
)
def test_what_is_not_plain_json_is_refused(mount: Mount, headers: list[tuple[str, str]]) -> None:
    answer = mount(open=True)(post(f"{FLAGS}/banner", {}, *headers, query=PLACE))
    assert (answer.status, content(answer)["errorCode"]) == (400, "PARSE_ERROR")
    assert (
        mount(open=True)(
            post(f"{FLAGS}/banner", {}, ("content-type", "Application/JSON; charset=utf-8"), query=PLACE)
        ).status
        == 200
    )


@each("key", ["nope", "", "a/b", "../banner", "b%20anner", "é"])
def test_an_unknown_flag_is_not_found(mount: Mount, key: str) -> None:
    answer = mount(open=True)(post(f"{FLAGS}/{key}", {}, query=PLACE))
    assert answer.status == 404
    assert content(answer)["errorCode"] == "FLAG_NOT_FOUND"


def test_other_methods_are_refused(mount: Mount) -> None:
    exchange = mount(open=True)
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        answer = exchange(Asked(FLAGS, b"", ((b"host", b"localhost"),), method))
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    answer = exchange(post("/ofrep/v1/events", {}, query=PLACE))
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_is_not_there_unless_it_is_asked_for(mount: Mount) -> None:
    assert mount(open=True, ofrep=False)(post(f"{FLAGS}/banner", {}, query=PLACE)).status == 404
    assert mount(open=True)(post("/ofrep/v1/configuration", {}, query=PLACE)).status == 404


def test_an_unexpected_error_tells_nothing_of_itself(
    mount: Mount, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("cannot read /srv/secret with hunter2")

    exchange = mount(open=True)
    monkeypatch.setattr(service, "view", fail)
    for path, key in ((FLAGS, None), (f"{FLAGS}/banner", "banner")):
        answer = exchange(post(path, {}, query=PLACE))
        assert (answer.status, content(answer).get("key")) == (500, key)
        assert content(answer)["errorCode"] == "GENERAL"
        assert b"hunter2" not in answer.body and b"Traceback" not in answer.body


@each(
    ("error", "status", "retry"),
    [
        (LimitExceededError("too much", limit="l", retry_after=0.2), 429, "1"),
        (LimitExceededError("too much", limit="l", retry_after=2.5), 429, "3"),
        (LimitExceededError("too large", limit="l"), 400, None),
        (UnavailableError("draining", retry_after=7.0), 503, "7"),
        (RheostatError("anything"), 500, None),
    ],
)
def test_says_in_seconds_when_to_try_again(error: RheostatError, status: int, retry: str | None) -> None:
    reply = refused(error, "banner")
    assert (reply.status, dict(reply.headers).get("retry-after")) == (status, retry)
    assert json.loads(reply.body) == {"key": "banner", "errorCode": "GENERAL", "errorDetails": error.message}


# Keys and places.


def test_public_and_server_keys_and_people_may_evaluate(mount: Mount, service: Service) -> None:
    exchange = mount()
    for kind in (KeyKind.PUBLIC, KeyKind.SERVER):
        text = make_key(service, kind)[1]
        for header in (bearer(text), ("x-api-key", text)):
            assert exchange(post(f"{FLAGS}/banner", {}, header)).status == 200
            assert exchange(post(FLAGS, {}, header)).status == 200
    viewer = make_key(service, KeyKind.USER, role=Role.VIEWER)[1]
    assert exchange(post(f"{FLAGS}/banner", {}, bearer(viewer))).status == 200
    assert set(service.usage.keys_used_at("flags")) == set(service.head.state.keys)


def test_others_are_told_that_they_may_not(mount: Mount, service: Service) -> None:
    exchange = mount()
    relay = make_key(service, KeyKind.RELAY)[1]
    revoked, text = make_key(service)
    service.revoke_key(Writer(OPEN), revoked.selector)
    for path in (FLAGS, f"{FLAGS}/banner"):
        for headers in (
            (),
            (bearer("rst_server_x"),),
            (("x-api-key", text),),
            (("authorization", f"Basic {text}"),),
        ):
            answer = exchange(post(path, {}, *headers))
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert content(answer)["errorDetails"]
        assert exchange(post(path, {}, bearer(relay))).status == 403
    assert exchange(get(EVENTS, bearer(relay))).status == 403
    assert exchange(get(EVENTS)).status == 401


def test_a_key_without_permission_is_refused_before_the_body_is_read(mount: Mount) -> None:
    assert mount()(post(FLAGS, b" " * 2**21)).status == 401


def test_a_place_is_named_where_the_key_has_several(mount: Mount, service: Service) -> None:
    both = bearer(make_key(service, environments=("production", "staging"))[1])
    one = bearer(make_key(service)[1])
    exchange = mount()
    change(service, "ratio", 3.0, "staging")
    answer = exchange(post(f"{FLAGS}/ratio", {}, both))
    assert (answer.status, content(answer)["errorCode"]) == (400, "GENERAL")
    for word in ("production, staging", "?environment=", "x-rheostat-environment"):
        assert word in content(answer)["errorDetails"]
    staging = ("x-rheostat-environment", "staging")
    for asked in (
        post(f"{FLAGS}/ratio", {}, both, staging),
        post(f"{FLAGS}/ratio", {}, both, query="environment=staging"),
        post(
            f"{FLAGS}/ratio", {}, both, ("x-rheostat-environment", "production"), query="environment=staging"
        ),
        post(f"{FLAGS}/ratio", {}, both, staging, ("x-rheostat-project", "flags")),
    ):
        assert content(exchange(asked))["value"] == 3.0
    for asked in (
        post(f"{FLAGS}/ratio", {}, one, staging),
        post(f"{FLAGS}/ratio", {}, both, query="project=default"),
        post(f"{FLAGS}/ratio", {}, both, query="environment=elsewhere"),
    ):
        assert exchange(asked).status == 403


# Open mode, and web pages.


def test_open_mode_is_for_this_machine_only(mount: Mount) -> None:
    assert mount(open=True, peer="192.0.2.7")(post(FLAGS, {}, query=PLACE)).status == 403
    exchange = mount(open=True)
    for header in (("host", "evil.example"), ("origin", "https://evil.example"), ("x-forwarded-for", "::1")):
        assert exchange(post(FLAGS, {}, header, query=PLACE)).status == 403
        assert exchange(get(EVENTS, header)).status == 403


def test_pages_of_allowed_origins_may_ask_and_read(mount: Mount, listen: Listen, service: Service) -> None:
    text = make_key(service, KeyKind.PUBLIC)[1]
    exchange = mount(allow_origins=[ORIGIN])
    before = exchange(Asked(FLAGS, b"", ((b"host", b"localhost"), (b"origin", ORIGIN.encode())), "OPTIONS"))
    assert before.status == 204
    for name in ("authorization", "content-type", "if-none-match", "x-api-key"):
        assert name in before.headers["access-control-allow-headers"]
    for header in (bearer(text), bearer("rst_public_wrong")):
        answer = exchange(post(FLAGS, {}, header, ("origin", ORIGIN)))
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "etag" in answer.headers["access-control-expose-headers"]
    for origin in (ORIGIN, "https://evil.example"):
        stream = listen(EVENTS, bearer(text), ("origin", origin), open=False, allow_origins=[ORIGIN])
        assert stream.headers.get("access-control-allow-origin") == (ORIGIN if origin == ORIGIN else None)
    other = exchange(post(FLAGS, {}, bearer(text), ("origin", "https://evil.example")))
    assert "access-control-allow-origin" not in other.headers


def test_calls_are_counted(ask: Callable[..., Answered], service: Service) -> None:
    ask("banner")
    ask("nope")
    ask()
    ask(None, "x")
    calls = service.metrics.counted("calls")
    assert calls["ofrep.v1/EvaluateFlag", "ok"] == 1
    assert calls["ofrep.v1/EvaluateFlag", "not_found"] == 1
    assert calls["ofrep.v1/EvaluateFlags", "ok"] == 1
    assert calls["ofrep.v1/EvaluateFlags", "invalid_argument"] == 1
    assert service.metrics.counted("errors") == {("SETTING_NOT_FOUND",): 1, ("INVALID_CONTEXT",): 1}


# The event stream.


def told(text: str | None) -> list[tuple[str, Any]]:
    """Return the id and content of each event in a text."""
    events = []
    for block in (text or "").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "data" in fields:
            events.append((fields["id"], json.loads(fields["data"])))
    return events


def test_a_listener_is_told_to_fetch_at_the_beginning_and_after_each_change(
    listen: Listen, service: Service
) -> None:
    stream = listen()
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
    assert "no-store" in stream.headers["cache-control"]
    begun = stream.next()
    assert begun.startswith("retry: ")
    ((first, data),) = told(begun)
    assert data == {"type": "refetchEvaluation", "etag": first}
    # Another environment's is none.
    change(service, "ratio", 3.0, "staging")
    change(service, "ratio", 4.0)
    ((second, data),) = told(stream.next())
    assert data == {"type": "refetchEvaluation", "etag": second}
    assert second != first
    assert service.admission.open == 1
    stream.close()
    assert service.admission.open == 0
    assert service.metrics.counted("calls")["ofrep.v1/Events", "ok"] == 1


def test_a_listener_that_comes_back_is_told_what_it_has_missed(listen: Listen, service: Service) -> None:
    stream = listen()
    ((last, _),) = told(stream.next())
    stream.close()
    again = listen(EVENTS, ("last-event-id", last))
    assert told(again.next()) == []
    again.close()
    change(service, "ratio", 4.0)
    assert len(told(listen(EVENTS, ("last-event-id", last)).next())) == 1
    # What no event had for its id is as none.
    for unknown in ("x", "é", last[:-4] + "AAAA", last + "A"):
        assert len(told(listen(EVENTS, ("last-event-id", unknown)).next())) == 1


def test_a_silent_stream_says_that_it_is_alive(kind: str, listen: Listen) -> None:
    with Service(open_store("memory:"), heartbeat=0.02) as service:
        fill(service)
        options = {"open": True, "ofrep": True}
        stream = listen(app=(wsgi_app if kind == "wsgi" else asgi_app)(service, **options))
        assert told(stream.next())
        assert stream.next() == ":\n\n"
        assert stream.next() == ":\n\n"
        stream.close()


def test_a_draining_node_ends_streams_and_says_when_to_come_back(listen: Listen, service: Service) -> None:
    stream = listen()
    stream.next()
    service.drain()
    assert stream.next().startswith("retry: ")
    assert stream.next() is None
    refusal = listen()
    assert (refusal.status, int(refusal.headers["retry-after"]) > 0) == (503, True)


def test_the_address_is_enough_until_the_key_is_revoked(
    listen: Listen, mount: Mount, service: Service
) -> None:
    key, text = make_key(service, KeyKind.PUBLIC)
    exchange = mount(open=False)
    ((stream_of,), again) = (
        content(exchange(post(FLAGS, {}, bearer(text))))["eventStreams"] for _ in range(2)
    )
    assert [stream_of] == again
    uri = stream_of["endpoint"]["requestUri"]
    assert text.split("_")[3] not in uri
    stream = listen(uri, open=False)
    assert stream.status == 200 and told(stream.next())
    for wrong in (
        uri.replace("production", "staging"),
        uri.replace("proof=", "proof=A"),
        uri.replace(key.selector, "nobody"),
        uri.partition("&proof")[0],
        uri.replace("project=flags", "project=default"),
    ):
        assert exchange(get(wrong)).status == 401
    # It opens nothing else.
    assert exchange(post(f"{FLAGS}/banner", {}, query=uri.partition("?")[2])).status == 401
    service.revoke_key(Writer(OPEN), key.selector)
    while stream.next() is not None:
        pass
    assert exchange(get(uri)).status == 401


def test_no_more_streams_are_opened_than_allowed(kind: str, listen: Listen) -> None:
    limits = Limits(max_streams=8) if kind == "asgi" else Limits()
    with Service(open_store("memory:"), limits=limits) as service:
        fill(service)
        app = (
            asgi_app(service, open=True, ofrep=True)
            if kind == "asgi"
            else wsgi_app(service, open=True, ofrep=True, max_streams=8)
        )
        streams = [listen(app=app) for _ in range(3)]
        assert [stream.status for stream in streams] == [200, 200, 503]
        assert streams[2].headers["retry-after"] == "5"
        for stream in streams:
            stream.close()
        assert listen(app=app).status == 200


def test_event_streams_leave_room_for_watches_and_one_visitor_for_others(kind: str, listen: Listen) -> None:
    limits = Limits(max_streams=32) if kind == "asgi" else Limits()
    with Service(open_store("memory:"), limits=limits) as service:
        fill(service)
        app: Any = (
            asgi_app(service, ofrep=True) if kind == "asgi" else wsgi_app(service, ofrep=True, max_streams=32)
        )

        def exchange(request: Asked) -> Answered:
            return Wsgi(app)(request) if kind == "wsgi" else asyncio.run(Asgi(app)(request))

        keys = [make_key(service, each)[1] for each in (KeyKind.PUBLIC, KeyKind.SERVER)]
        answer = content(exchange(post(FLAGS, {}, bearer(keys[0]))))
        uri = answer["eventStreams"][0]["endpoint"]["requestUri"]
        visitors = [
            (peer, listen(uri, app=app, peer=peer)) for peer in ("10.0.0.1", "10.0.0.2") for _ in range(3)
        ]
        assert [stream.status for _, stream in visitors] == [200, 200, 503, 200, 200, 503]
        # A public key is in the page, too.
        assert listen(EVENTS, bearer(keys[0]), app=app, peer="10.0.0.1").status == 503
        # One address may be that of a proxy before many programs, which show their keys.
        own = [listen(EVENTS, bearer(keys[1]), app=app, peer="10.0.0.1") for _ in range(5)]
        assert [stream.status for stream in own] == [200, 200, 200, 200, 503]
        assert service.admission.open == 8
        watch = exchange(called(WATCH, WatchRequest(), "proto", bearer(keys[1])))
        assert watch.error is None and watch.events()
        for stream in (*own, *(stream for _, stream in visitors)):
            stream.close()
        assert listen(uri, app=app).status == 200


def test_a_node_that_is_behind_an_event_reads_before_it_answers(kind: str, world: World) -> None:
    first, second = world.node(), world.node()
    first.commit(put("a", default=1))
    app: Any = (wsgi_app if kind == "wsgi" else asgi_app)(first.service, open=True, ofrep=True)
    stream = (WsgiStream if kind == "wsgi" else AsgiStream)(app, get("/ofrep/v1/events"))
    ((tag, _),) = told(stream.next())
    stream.close()
    assert second.service.head.revision < first.service.head.revision

    caller: Any = (
        Wsgi(wsgi_app(second.service, open=True, ofrep=True))
        if kind == "wsgi"
        else Asgi(asgi_app(second.service, open=True, ofrep=True))
    )
    asked = post(FLAGS, {}, query=f"flagConfigEtag={tag}")
    answer = caller(asked) if kind == "wsgi" else asyncio.run(caller(asked))
    assert [flag["key"] for flag in content(answer)["flags"]] == ["a"]
    assert second.service.head.revision == first.service.head.revision


@each("tag", ["x", "", "%22abc%22", "A" * 89, "é"])
def test_a_tag_that_no_event_had_is_passed_over(ask: Callable[..., Answered], tag: str) -> None:
    assert ask(None, {}, query=f"{PLACE}&flagConfigEtag={tag}&flagConfigLastModified=1").status == 200


# The command line, mounting, and relays.


@each(
    ("options", "word"),
    [
        (["--ofrep-targeting-key", "account.id"], "needs --ofrep"),
        (["--ofrep", "--ofrep-targeting-key", "account id"], "targeting_key"),
    ],
)
def test_the_command_refuses_a_targeting_key_that_means_nothing(options: list[str], word: str) -> None:
    answer = CliRunner().invoke(root, ["serve", "--store", "memory:", "--port", "0", *options])
    assert answer.exit_code != 0
    assert word in answer.output
    assert "Traceback" not in answer.output


def test_serves_below_a_prefix(kind: str, service: Service) -> None:
    text = make_key(service)[1]
    caller: Any
    if kind == "wsgi":
        from flask import Flask
        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        caller = Wsgi(
            DispatcherMiddleware(Flask("site").wsgi_app, {"/config": wsgi_app(service, ofrep=True)})
        )
    else:
        from starlette.applications import Starlette
        from starlette.routing import Mount as Route

        asgi = Asgi(Starlette(routes=[Route("/config", app=asgi_app(service, ofrep=True))]))

        def caller(asked: Asked) -> Answered:
            return asyncio.run(asgi(asked))

    assert content(caller(post(f"/config{FLAGS}/banner", {"context": {"region": "eu"}}, bearer(text))))[
        "value"
    ]
    (stream,) = content(caller(post(f"/config{FLAGS}", {}, bearer(text))))["eventStreams"]
    assert stream["endpoint"]["requestUri"].startswith("/config/ofrep/v1/events?")
    assert caller(post(f"{FLAGS}/banner", {}, bearer(text))).status == 404


def test_names_the_stream_below_the_prefix_that_a_dispatcher_has_taken(service: Service) -> None:
    # As docs/guide/mounting.md does in a project of Django.
    text = make_key(service)[1]
    exchange = Wsgi(wsgi_app(service, ofrep=True), environ={"SCRIPT_NAME": "/a b/config"})
    (stream,) = content(exchange(post(FLAGS, {}, bearer(text))))["eventStreams"]
    assert stream["endpoint"]["requestUri"].startswith("/a%20b/config/ofrep/v1/events?")


def test_a_relay_answers_as_its_node_does(world: World) -> None:
    node = world.node()
    node.commit(put("a", default=1), put("b", "str", "x"))
    _, text, _ = node.service.create_key(
        Writer(OPEN), kind=KeyKind.PUBLIC, project="default", environments=["production"]
    )
    relay = RelayNode(world, node, relay_key(node))
    relay.pump()
    here, there = asgi_app(node.service, ofrep=True), relay_app(relay.relay, ofrep=True)

    def both(asked: Asked) -> list[Answered]:
        return [asyncio.run(Asgi(app)(asked)) for app in (here, there)]

    for asked in (
        post(f"{FLAGS}/a", {}, bearer(text)),
        post(f"{FLAGS}/c", {}, bearer(text)),
        post(FLAGS, {}, bearer(text)),
    ):
        one, other = both(asked)
        assert (one.status, one.body, one.headers.get("etag")) == (
            other.status,
            other.body,
            other.headers.get("etag"),
        )
    uri = content(one)["eventStreams"][0]["endpoint"]["requestUri"]
    stream = AsgiStream(there, get(uri))
    ((tag, _),) = told(stream.next())
    node.commit(put("a", default=2))
    relay.pump()
    assert len(told(stream.next())) == 1
    stream.close()
    # The relay continues what the node has told.
    stream = AsgiStream(here, get(uri, ("last-event-id", tag)))
    assert len(told(stream.next())) == 1
    stream.close()


def test_a_relay_is_without_it_unless_asked(world: World) -> None:
    node = world.node()
    node.commit(put("a"))
    relay = RelayNode(world, node, relay_key(node))
    relay.pump()
    assert asyncio.run(Asgi(relay_app(relay.relay))(post(FLAGS, {}))).status == 404
