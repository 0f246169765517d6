"""A relay's application: what it answers itself, passes on and refuses, and what it says of itself."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from rheo.v1.config_service_pb2 import (
    DeclareSettingsRequest,
    DeclareSettingsResponse,
    EvaluateRequest,
    GetSnapshotRequest,
    PingRequest,
    ReportStatusRequest,
)
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.errors import BehindError, NotFoundError
from rheostat.model.change import SetValue
from rheostat.model.key import KeyKind, Role
from rheostat.relay.handling import FORWARDED_AT_ONCE, RelayHandlers
from rheostat.relay.serve import relay_app
from rheostat.server import asgi_app
from rheostat.server.call import Call
from rheostat.service.access import authenticate
from rheostat.wire.contract import SERVICES
from tests.relay.node import RelayNode, relay_key
from tests.server.exchange import WATCH, Answered, Asgi, Asked, asked
from tests.service.book import put
from tests.service.node import NOBODY, PROJECT, Node, World

METHODS = {f"{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
CONFIG = "rheo.v1.ConfigService"


class Upstreams:
    """Takes calls in the place of a server."""

    def __init__(self) -> None:
        self.urls = ("http://upstream",)
        self.calls: list[tuple[str, Message, str | None]] = []
        self.answer: Message | Exception = DeclareSettingsResponse(revision=77)

    def prefer(self, url: str) -> None:
        assert url in self.urls

    def call(self, method: str, request: Message, timeout: float, *, authorization: str | None = None) -> Any:
        self.calls.append((method, request, authorization))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.commit(put("a"), put("b"))
    return made


@pytest.fixture
def relay(world: World, node: Node) -> RelayNode:
    made = RelayNode(world, node, relay_key(node))
    made.relay.upstreams = Upstreams()  # type: ignore[assignment]
    return made


def key(node: Node, kind: KeyKind = KeyKind.SERVER, **options: Any) -> tuple[tuple[str, str], str]:
    made, text, _ = node.service.create_key(NOBODY, kind=kind, project=PROJECT, **options)
    return ("authorization", f"Bearer {text}"), made.selector


def exchange(application: Any, request: Asked) -> Answered:
    return asyncio.run(Asgi(application)(request))


def readiness(relay: RelayNode) -> tuple[int, dict[str, Any]]:
    answer = exchange(relay_app(relay.relay), Asked("/readyz", method="GET"))
    return answer.status, json.loads(answer.body)


def test_a_relay_answers_programs_as_its_node_does(node: Node, relay: RelayNode) -> None:
    header, _ = key(node)
    relay.pump()
    here, there = relay_app(relay.relay), asgi_app(node.service)
    for method, request, codec in (
        ("Evaluate", EvaluateRequest(name="a", min_revision=node.revision), "json"),
        ("GetSnapshot", GetSnapshotRequest(), "json"),
        ("Watch", WatchRequest(), "proto"),
    ):
        answers = [
            exchange(application, asked(f"{CONFIG}/{method}", request, codec, header))
            for application in (here, there)
        ]
        if method == "Watch":
            kinds = [[event.WhichOneof("event") for event in answer.events()] for answer in answers]
            assert kinds[0] == kinds[1] and kinds[0][-1] == "snapshot_end"
            assert answers[0].events()[1:] == answers[1].events()[1:]
            assert (answers[0].events()[0].hello.hops, answers[1].events()[0].hello.hops) == (1, 0)
        else:
            assert answers[0].status == 200
            assert json.loads(answers[0].body) == json.loads(answers[1].body)


RECORDS = {
    f"rheo.v1.EventService/{name}"
    for name in ("ListSubjects", "ListSubjectChanges", "ListExposures", "ListEventCounts")
}
"""What operators ask their nodes."""


def test_each_method_is_answered_or_passed_on_or_refused(node: Node, relay: RelayNode) -> None:
    header, _ = key(node, KeyKind.USER, role=Role.ADMIN)
    relay.pump()
    application = relay_app(relay.relay)
    refused: set[str] = set()
    for name, method in METHODS.items():
        if name == WATCH:
            continue
        request = GetMessageClass(method.input_type)()
        answer = exchange(application, asked(name, request, "json", header))
        assert answer.code not in ("internal", "unknown", "unimplemented"), (name, answer.message)
        if answer.reason == "ON_RELAY":
            assert "http://upstream" in answer.message
            refused.add(name)
        else:
            assert name.startswith((CONFIG, "rheo.v1.EventService")), name
    services = {"rheo.v1.AdminService", "rheo.v1.DraftService", "rheo.v1.WebhookService"}
    assert {name.split("/")[0] for name in refused - RECORDS} == services
    assert refused >= RECORDS


def test_what_programs_declare_is_passed_on_under_their_own_key(node: Node, relay: RelayNode) -> None:
    header, _ = key(node)
    relay.pump()
    upstreams: Any = relay.relay.upstreams
    request = DeclareSettingsRequest(request_id="r1")
    request.declarations.add(name="declared.there", type="int")
    application = relay_app(relay.relay)
    answer = exchange(application, asked(f"{CONFIG}/DeclareSettings", request, "json", header))
    assert json.loads(answer.body)["revision"] == "77"
    assert upstreams.calls == [("ConfigService/DeclareSettings", request, header[1])]
    upstreams.answer = NotFoundError("no such thing", reason="SETTING_NOT_FOUND")
    answer = exchange(application, asked(f"{CONFIG}/DeclareSettings", request, "json", header))
    assert (answer.code, answer.reason, answer.message) == ("not_found", "SETTING_NOT_FOUND", "no such thing")
    relay.cut()
    relay.pump()
    answer = exchange(application, asked(f"{CONFIG}/DeclareSettings", request, "json", header))
    assert (answer.code, answer.reason) == ("unavailable", "UPSTREAM_AWAY")
    assert len(upstreams.calls) == 2, "nothing is waited for that does not answer"


@pytest.mark.parametrize("kind", [KeyKind.SERVER, KeyKind.USER, KeyKind.RELAY], ids=lambda kind: kind.name)
def test_only_relays_are_believed_what_their_streams_have_passed_through(
    world: World, node: Node, relay: RelayNode, kind: KeyKind
) -> None:
    header, _ = key(node, kind, **({"role": Role.VIEWER} if kind is KeyKind.USER else {}))
    relay.pump()
    principal = authenticate(relay.relay.head.state, header[1], world.clock.now())
    call = Call(principal, "r1", WATCH)
    with RelayHandlers(relay.relay).watching(WatchRequest(via=["another-upstream"]), call):
        told = relay.relay.via
    assert told == (relay.relay.node, *(["another-upstream"] if kind is KeyKind.RELAY else []))
    assert relay.relay.via == (relay.relay.node,)


def test_an_upstream_that_does_not_answer_keeps_no_watch_from_opening(node: Node, relay: RelayNode) -> None:
    header, _ = key(node)
    relay.pump()
    answered = threading.Event()
    upstreams: Any = relay.relay.upstreams
    answer = upstreams.call

    def hung(*arguments: Any, **options: Any) -> Any:
        answered.wait(60.0)
        return answer(*arguments, **options)

    upstreams.call = hung
    call = Asgi(relay_app(relay.relay))
    declare = asked(f"{CONFIG}/DeclareSettings", DeclareSettingsRequest(request_id="r1"), "json", header)

    async def run() -> tuple[list[Answered], Answered, list[Answered]]:
        # More than the application has threads.
        pending = {asyncio.ensure_future(call(declare)) for _ in range(48)}
        refused: list[Answered] = []
        try:
            while len(pending) > FORWARDED_AT_ONCE:
                done, pending = await asyncio.wait(pending, timeout=30.0, return_when=asyncio.FIRST_COMPLETED)
                assert done, "calls that cannot be passed on are not refused"
                refused += [each.result() for each in done]
            opened = await asyncio.wait_for(call(asked(WATCH, WatchRequest(), "proto", header)), 30.0)
        finally:
            answered.set()
        return refused, opened, [await each for each in (*pending, call(declare))]

    refused, opened, passed_on = asyncio.run(run())
    assert opened.events()[-1].WhichOneof("event") == "snapshot_end"
    told = {(each.code, each.reason, each.retry_seconds) for each in refused}
    assert told == {("unavailable", "UPSTREAM_AWAY", 1.0)}
    assert {each.status for each in passed_on} == {200}


def test_a_revision_is_waited_for_once(world: World, node: Node, relay: RelayNode) -> None:
    header, _ = key(node)
    relay.pump()
    principal = authenticate(relay.relay.head.state, header[1], world.clock.now())
    began = world.clock.seconds
    waits: list[float] = []

    def wait(bell: int, timeout: float) -> None:
        waits.append(timeout)
        world.clock.seconds += timeout

    relay.branch.hub.wait = wait  # type: ignore[method-assign]
    for waited_for in (0.0, 1.0, 3.0):
        world.clock.seconds = began + waited_for
        call = Call(principal, "r1", f"{CONFIG}/Evaluate", waited=waited_for > 0, began=began)
        request = EvaluateRequest(name="a", min_revision=node.revision + 1)
        with pytest.raises(BehindError):
            RelayHandlers(relay.relay).handle("evaluate", request, call)
    assert waits == [3.0, 2.0], "another environment may have been there a moment before"


def test_reports_are_taken_from_programs_of_their_own_and_kept_for_the_next_second(
    node: Node, relay: RelayNode
) -> None:
    header, _ = key(node)
    relay.pump()
    application = relay_app(relay.relay)
    request = ReportStatusRequest()
    request.reports.add(revision=node.revision).client.id = "c1"
    answer = exchange(application, asked(f"{CONFIG}/ReportStatus", request, "json", header))
    assert answer.status == 200
    request.reports.add().client.id = "c2"
    answer = exchange(application, asked(f"{CONFIG}/ReportStatus", request, "json", header))
    assert answer.reason == "INVALID_FIELD", "only relays speak for others"
    (batch,) = relay.relay.fleet.reports.batches()
    assert [report.client.id for report in batch.reports] == ["c1"]


def test_a_relay_without_a_state_tells_everybody_to_come_back(node: Node, relay: RelayNode) -> None:
    header, _ = key(node)
    answer = exchange(relay_app(relay.relay), asked(f"{CONFIG}/Ping", PingRequest(), "json", header))
    assert (answer.code, answer.reason) == ("unavailable", "RELAY_EMPTY")
    status, told = readiness(relay)
    assert (status, told["status"]) == (503, "unavailable")


def test_a_relay_is_ready_while_it_is_cut_off_and_says_for_how_long(
    world: World, node: Node, relay: RelayNode
) -> None:
    relay.pump()
    assert readiness(relay)[1].items() >= {"environments": 1, "connected": 1}.items()
    relay.cut()
    relay.pump()
    world.clock.seconds += 90.0
    status, told = readiness(relay)
    assert (status, told["status"], told["stale_seconds"]) == (200, "ready", 90.0)
    assert (told["environments"], told["connected"], told["problem"]) == (1, 0, "UNAVAILABLE")
    relay.relay.drain()
    assert readiness(relay)[0] == 503


def test_readiness_tells_who_has_no_key_no_names(world: World) -> None:
    node = world.node(node="node-7")
    node.add_environment("staging")
    relay = RelayNode(world, node, relay_key(node)).pump()
    for problem, told in (
        ("", None),
        ("RELAY_OUTDATED", "RELAY_OUTDATED"),
        ("production at node-7", "UNKNOWN"),
    ):
        relay.branch.problem = problem
        answer = exchange(relay_app(relay.relay), Asked("/readyz", method="GET"))
        assert json.loads(answer.body).get("problem") == told
        for name in (b"node-7", b"default", b"production", b"upstream", relay.relay.node.encode()):
            assert name not in answer.body


def test_the_metrics_of_a_relay_say_how_old_its_state_is(world: World, node: Node, relay: RelayNode) -> None:
    header, _ = key(node)
    relay.pump()
    relay.cut()
    world.clock.seconds += 42.0
    headers = (tuple(part.encode() for part in header),)
    request = Asked("/metrics", method="GET", headers=headers)  # type: ignore[arg-type]
    answer = exchange(relay_app(relay.relay), request)
    assert answer.status == 200
    assert b"\nrheostat_relay_stale_seconds 42.0\n" in answer.body
    assert b"redis" not in answer.body
    relay.relay.copied_at = world.clock.monotonic() - 7.0
    answer = exchange(relay_app(relay.relay), request)
    assert b"\nrheostat_relay_redis_seconds 7.0\n" in answer.body


def test_a_revoked_key_opens_nothing_any_more(node: Node, relay: RelayNode) -> None:
    header, selector = key(node)
    relay.pump()
    application = relay_app(relay.relay)
    request = asked(f"{CONFIG}/Evaluate", EvaluateRequest(name="a"), "json", header)
    assert exchange(application, request).status == 200
    node.service.revoke_key(NOBODY, selector)
    node.commit(SetValue("a", 60))
    relay.pump()
    assert exchange(application, request).code == "unauthenticated"
