"""Subjects and events over the wire: what each kind of key may, pages, and notices on both applications' streams."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rheo.v1.watch_pb2 import WatchRequest, WatchResponse
from rheostat.errors import LimitExceededError
from rheostat.language import parse_condition
from rheostat.model.change import PutRule, PutSetting
from rheostat.model.key import KeyKind, Role
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.subject import Subject, SubjectPatch, SubjectReference
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.stream import Stream
from rheostat.server.throttle import Throttle
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.limit import Limits
from rheostat.service.watch import Step, WatchSession
from rheostat.store import open_store
from tests.server.exchange import WATCH, Answered, Asgi, Wsgi, asked, envelopes

CONFIG, EVENT = "rheo.v1.ConfigService", "rheo.v1.EventService"
PATIENCE = 60.0
ACME = {"kind": "company", "keys": {"id": "acme"}}


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as started:
        rule = Rule("pro", ValueOutcome(2), parse_condition('company.plan == "pro"'))
        started.commit(
            Writer(OPEN),
            "default",
            "production",
            [PutSetting("n", {"type": "int", "default": 1}), PutRule("n", rule)],
        )
        yield started


def key(service: Service, kind: KeyKind, **options: Any) -> str:
    return service.create_key(Writer(OPEN), kind=kind, project="default", **options)[1]


Call = Callable[..., Answered]


@pytest.fixture(params=["asgi", "wsgi"])
def call(request: pytest.FixtureRequest, service: Service) -> Call:
    """Calls a method with a request in JSON, and a key."""
    application: Any = Wsgi(wsgi_app(service))
    if request.param == "asgi":
        asgi = Asgi(asgi_app(service))
        application = lambda request: asyncio.run(asgi(request))  # noqa: E731 - as the other one is called

    def made(method: str, content: dict[str, Any], secret: str) -> Answered:
        return application(asked(method, json.dumps(content), "json", ("authorization", f"Bearer {secret}")))

    return made


def test_a_batch_is_taken_but_for_what_is_wrong_with_it(service: Service, call: Call) -> None:
    server = key(service, KeyKind.SERVER)
    entries = [
        {"reference": ACME, "traits": {"plan": {"stringValue": "pro"}}},
        {"reference": {"kind": "bad kind", "keys": {"id": "x"}}},
        {"reference": {"kind": "client", "keys": {"id": "x"}}},
        {"reference": {"kind": "user"}},
        {"reference": ACME, "traits": {"a.b": {"boolValue": True}}},
        {"reference": ACME, "monthDay": 32},
        {"reference": ACME, "overrides": [{"setting": "n", "value": {}}]},
        {"reference": {"kind": "user", "keys": {"id": "u1"}}, "memberOf": [ACME]},
    ]
    answer = json.loads(call(f"{EVENT}/UpsertSubjects", {"subjects": entries}, server).body)
    assert [entry.get("index", 0) for entry in answer["rejected"]] == [1, 2, 3, 4, 5, 6]
    assert all(entry["reason"] and entry["message"] for entry in answer["rejected"])
    assert [subject["kind"] for subject in answer["subjects"]] == ["company", "user"]
    id_ = answer["subjects"][0]["id"]
    asking = {"lookups": [{"reference": ACME}, {"id": id_, "ifVersion": answer["subjects"][0]["version"]}]}
    results = json.loads(call(f"{EVENT}/GetSubjects", asking, server).body)["results"]
    assert [result["outcome"] for result in results] == ["SUBJECT_OUTCOME_FOUND", "SUBJECT_OUTCOME_UNCHANGED"]
    assert "subject" not in results[1]


def test_a_small_request_gets_no_huge_answer(
    service: Service, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = key(service, KeyKind.SERVER)
    large = {"reference": ACME, "traits": {"text": {"stringValue": "x" * 4_000}}}
    assert call(f"{EVENT}/UpsertSubjects", {"subjects": [large]}, server).status == 200
    monkeypatch.setattr(service, "limits", Limits(max_answer_bytes=10_000))
    lookups = [{"reference": ACME}] * 3
    answer = call(f"{EVENT}/GetSubjects", {"lookups": lookups[:2]}, server)
    assert len(json.loads(answer.body)["results"]) == 2
    refused = call(f"{EVENT}/GetSubjects", {"lookups": lookups}, server)
    assert (refused.code, refused.reason) == ("resource_exhausted", "LIMIT_EXCEEDED")
    assert b"max_answer_bytes" in refused.body
    entries = [{"reference": ACME, "traits": {"n": {"intValue": str(number)}}} for number in range(4)]
    entries.insert(1, {"reference": {"kind": "user"}})
    answer = json.loads(call(f"{EVENT}/UpsertSubjects", {"subjects": entries}, server).body)
    assert [subject["traits"]["n"] for subject in answer["subjects"]] == [
        {"intValue": str(number)} for number in range(2)
    ]
    assert [entry["index"] for entry in answer["rejected"]] == [1]
    (stored,) = service.subjects.get("default", "production", [SubjectReference("company", {"id": "acme"})])
    assert isinstance(stored, Subject)
    assert stored.traits["n"] == 3, "what is left out was taken as well"
    monkeypatch.setattr(service, "limits", Limits(max_answer_bytes=1_000))
    answer = json.loads(call(f"{EVENT}/UpsertSubjects", {"subjects": entries[:1]}, server).body)
    assert len(answer["subjects"]) == 1, "the first one is always answered"


@pytest.mark.parametrize("method", ["GetSubjects", "DeleteSubjects"])
def test_a_version_is_compared_with_that_of_a_subject_named_by_its_id_only(
    service: Service, call: Call, method: str
) -> None:
    server = key(service, KeyKind.SERVER)
    answer = call(f"{EVENT}/UpsertSubjects", {"subjects": [{"reference": ACME}]}, server)
    (subject,) = json.loads(answer.body)["subjects"]
    lookups = [{"id": subject["id"]}, {"reference": ACME, "ifVersion": subject["version"]}]
    refused = call(f"{EVENT}/{method}", {"lookups": lookups}, server)
    assert (refused.code, refused.reason) == ("invalid_argument", "INVALID_FIELD")
    assert b"lookups[1].if_version" in refused.body
    stale = {"id": subject["id"], "ifVersion": str(int(subject["version"]) + 1)}
    (result,) = json.loads(call(f"{EVENT}/{method}", {"lookups": [stale]}, server).body)["results"]
    expected = {"GetSubjects": "FOUND", "DeleteSubjects": "UNCHANGED"}[method]
    assert result["outcome"] == f"SUBJECT_OUTCOME_{expected}"


def test_each_event_of_a_public_key_counts_as_a_write(
    service: Service, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def count(_: Throttle, actor: str, times: int = 1) -> None:
        counted.append(times)
        if sum(counted) > 5:
            raise LimitExceededError("too many", limit="max_writes_per_second", retry_after=1.0)

    monkeypatch.setattr(Throttle, "count", count)
    events = [{"idempotencyKey": f"{number}", "exposure": {"setting": "n"}} for number in range(4)]
    server, public = key(service, KeyKind.SERVER), key(service, KeyKind.PUBLIC)
    assert call(f"{EVENT}/RecordEvents", {"events": events}, server).status == 200
    assert counted == [1]
    counted.clear()
    assert call(f"{EVENT}/RecordEvents", {"events": events}, public).status == 200
    assert counted == [1, 4]
    refused = call(f"{EVENT}/RecordEvents", {"events": events[:1]}, public)
    assert (refused.status, refused.code, refused.retry_seconds) == (429, "resource_exhausted", 1.0)


def test_a_public_key_names_subjects_only_when_it_may(service: Service, call: Call) -> None:
    server = key(service, KeyKind.SERVER)
    entry = {"reference": ACME, "traits": {"plan": {"stringValue": "pro"}}}
    assert call(f"{EVENT}/UpsertSubjects", {"subjects": [entry]}, server).status == 200
    request = {"name": "n", "subjects": [ACME], "explain": True}
    refused = call(f"{CONFIG}/Evaluate", request, key(service, KeyKind.PUBLIC))
    assert (refused.code, refused.reason) == ("permission_denied", "SUBJECTS_NOT_ALLOWED")
    answer = call(f"{CONFIG}/Evaluate", request, key(service, KeyKind.PUBLIC, subjects=True))
    evaluation = json.loads(answer.body)["evaluation"]
    assert evaluation["valueJson"] == "2"
    assert "explanation" not in evaluation


def test_only_who_sees_subjects_has_an_evaluation_with_them_explained(service: Service, call: Call) -> None:
    editor, viewer = (key(service, KeyKind.USER, role=role) for role in (Role.EDITOR, Role.VIEWER))
    entry = {"reference": ACME, "traits": {"plan": {"stringValue": "pro"}}}
    assert call(f"{EVENT}/UpsertSubjects", {"subjects": [entry]}, editor).status == 200
    request = {"name": "n", "subjects": [ACME], "explain": True}
    shown = call(f"{CONFIG}/Evaluate", request, editor).body
    assert b"explanation" in shown
    shown = call(f"{CONFIG}/Evaluate", request, viewer).body
    assert json.loads(shown)["evaluation"]["valueJson"] == "2"
    assert b"explanation" not in shown and b"plan" not in shown
    assert b"explanation" in call(f"{CONFIG}/Evaluate", {"name": "n", "explain": True}, viewer).body


def test_lists_are_answered_in_pages(service: Service, call: Call) -> None:
    admin = key(service, KeyKind.USER, role=Role.ADMIN)
    entries = [{"reference": {"kind": "user", "keys": {"id": f"u{number}"}}} for number in range(5)]
    assert call(f"{EVENT}/UpsertSubjects", {"subjects": entries}, admin).status == 200
    events = [
        {"idempotencyKey": f"{kind}{name}", kind: content}
        for name in "abcde"
        for kind, content in (("track", {"name": name}), ("exposure", {"setting": name, "variant": "on"}))
    ]
    assert call(f"{EVENT}/RecordEvents", {"events": events}, admin).status == 200
    for method, field, tell in (
        ("ListSubjects", "subjects", lambda each: each["keys"]["id"]),
        ("ListSubjectChanges", "changes", lambda each: each["id"]),
        ("ListExposures", "exposures", lambda each: each["setting"]),
        ("ListEventCounts", "events", lambda each: each["event"]),
    ):
        found: list[str] = []
        token = ""
        sizes = []
        while True:
            page = json.loads(call(f"{EVENT}/{method}", {"pageSize": 2, "pageToken": token}, admin).body)
            found += map(tell, page[field])
            sizes.append(len(page[field]))
            token = page.get("nextPageToken", "")
            if not token:
                break
        assert sizes == [2, 2, 1], method
        assert len(set(found)) == 5
        bad = call(f"{EVENT}/{method}", {"pageToken": "cHg"}, admin)
        assert bad.code == "invalid_argument" or method == "ListEventCounts"


# Streams.


def upsert(service: Service) -> bytes:
    patch = SubjectPatch(SubjectReference("company", {"id": "acme"}), {"plan": "pro"})
    (made,) = service.subjects.upsert(OPEN, "default", "production", [patch])
    assert isinstance(made, Subject)
    return made.id


def frames(body: bytes) -> list[WatchResponse]:
    return [WatchResponse.FromString(content) for flags, content in envelopes(body) if not flags & 2]


@pytest.mark.parametrize("kind", [KeyKind.SERVER, KeyKind.USER])
def test_an_asgi_stream_is_told_and_wakes_nobody_else(
    service: Service, kind: KeyKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A viewer's stream is one of the others: it may not read subjects."""
    options = {"role": Role.VIEWER} if kind is KeyKind.USER else {}
    secret = key(service, kind, **options)
    steps: list[WatchSession] = []
    step = WatchSession.step

    def counted(session: WatchSession, now: float) -> Step:
        steps.append(session)
        return step(session, now)

    monkeypatch.setattr(WatchSession, "step", counted)
    parked = asyncio.Event()
    waits: list[Stream] = []
    wait = Stream.wait

    async def waited(stream: Stream, bell: int, timeout: float) -> None:
        waits.append(stream)
        if len(set(waits)) == 2:
            parked.set()
        await wait(stream, bell, timeout)

    monkeypatch.setattr(Stream, "wait", waited)
    application = asgi_app(service)

    async def watch(subjects: bool, opened: asyncio.Event, told: asyncio.Event, left: asyncio.Event) -> bytes:
        request = asked(
            WATCH, WatchRequest(subjects=subjects), "proto", ("authorization", f"Bearer {secret}")
        )
        bodies = iter([request.body])
        got = bytearray()

        async def receive() -> dict[str, Any]:
            for body in bodies:
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            got.extend(message.get("body", b""))
            kinds = {frame.WhichOneof("event") for frame in frames(bytes(got))}
            if "snapshot_end" in kinds:
                opened.set()
            if "subjects_changed" in kinds:
                told.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": list(request.headers),
            "extensions": {},
            "client": ("127.0.0.1", 5),
            "server": ("127.0.0.1", 80),
        }
        with contextlib.suppress(asyncio.CancelledError):
            await application(scope, receive, send)
        return bytes(got)

    async def scenario() -> None:
        left = asyncio.Event()
        events = [(asyncio.Event(), asyncio.Event()) for _ in range(2)]
        tasks = [
            asyncio.create_task(watch(asks, *pair, left))
            for asks, pair in zip((True, False), events, strict=True)
        ]
        for opened, _ in events:
            await opened.wait()
        await parked.wait()
        steps.clear()
        made = await asyncio.to_thread(upsert, service)
        if kind is KeyKind.SERVER:
            await events[0][1].wait()
            assert {session.told for session in steps} == {True}
        else:
            # Whoever was woken by it would have its turn by now.
            for _ in range(5):
                await asyncio.sleep(0)
            assert not steps
        left.set()
        bodies = await asyncio.gather(*tasks)
        changed = [
            frame.subjects_changed for frame in frames(bodies[0]) if frame.HasField("subjects_changed")
        ]
        assert [list(each.ids) for each in changed] == ([[made]] if kind is KeyKind.SERVER else [])
        assert not any(frame.HasField("subjects_changed") for frame in frames(bodies[1]))

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_wsgi_stream_is_told(service: Service) -> None:
    secret = key(service, KeyKind.SERVER)
    request = asked(WATCH, WatchRequest(subjects=True), "proto", ("authorization", f"Bearer {secret}"))
    application = wsgi_app(service)
    got = bytearray()
    opened, told = threading.Event(), threading.Event()

    def run() -> None:
        chunks = Wsgi(functools.partial(_tapped, application, got, opened, told))(request)
        del chunks

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert opened.wait(PATIENCE)
    made = upsert(service)
    assert told.wait(PATIENCE)
    thread.join(PATIENCE)
    assert [list(frame.subjects_changed.ids) for frame in frames(bytes(got))][-1] == [made]


def _tapped(
    application: Any, got: bytearray, opened: threading.Event, told: threading.Event, environ: Any, start: Any
) -> Iterator[bytes]:
    """Take the stream's bytes away from who would leave at the end of the snapshot, up to a notice."""
    chunks = application(environ, start)
    try:
        for chunk in chunks:
            got.extend(chunk)
            kinds = {frame.WhichOneof("event") for frame in frames(bytes(got))}
            if "snapshot_end" in kinds:
                opened.set()
            if "subjects_changed" in kinds:
                told.set()
                return
            yield b""
    finally:
        chunks.close()
