"""Subjects at a relay: what it passes on, and what it tells its own clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.message import Message

from rheo.v1 import config_service_pb2 as config
from rheo.v1 import evaluation_pb2
from rheo.v1 import event_service_pb2 as event
from rheostat.model.key import KeyKind
from rheostat.model.subject import SubjectPatch, SubjectReference
from rheostat.model.watch import SubjectsChanged
from rheostat.relay.serve import relay_app
from rheostat.service.access import OPEN
from tests.relay.node import RelayNode, relay_key
from tests.server.exchange import Asgi, asked
from tests.service.book import put
from tests.service.node import NOBODY, PROJECT, Node, Watch, World


class Upstreams:
    """Takes calls in the place of a server."""

    def __init__(self) -> None:
        self.urls = ("http://upstream",)
        self.calls: list[tuple[str, Message, str | None]] = []
        self.answers: dict[str, Message] = {}

    def prefer(self, url: str) -> None:
        assert url in self.urls

    def call(self, method: str, request: Message, timeout: float, *, authorization: str | None = None) -> Any:
        self.calls.append((method, request, authorization))
        return self.answers[method]


@pytest.fixture
def node(world: World) -> Node:
    made = world.node()
    made.commit(put("a", "int", 1))
    return made


@pytest.fixture
def relay(world: World, node: Node) -> RelayNode:
    made = RelayNode(world, node, relay_key(node))
    made.relay.upstreams = Upstreams()  # type: ignore[assignment]
    return made


def upsert(node: Node) -> None:
    patch = SubjectPatch(SubjectReference("company", {"id": "acme"}), {"at": node.world.clock.seconds})
    node.service.subjects.upsert(OPEN, PROJECT, "production", [patch])


def told(watch: Watch) -> list[tuple[int, bool]]:
    events = watch.session.step(watch.node.world.clock.monotonic()).events
    return [(len(each.ids), each.all) for each in events if isinstance(each, SubjectsChanged)]


def test_a_relay_asks_for_changes_of_subjects_and_passes_them_on(
    world: World, node: Node, relay: RelayNode
) -> None:
    relay.pump()
    (request,) = relay.lines["production"].opened
    assert request.subjects
    watch, other = relay.watch(subjects=True).opened(), relay.watch().opened()
    world.clock.seconds += 1.0
    upsert(node)
    relay.pump()
    assert told(watch) == [(1, False)]
    assert told(other) == []


def test_after_each_reconnect_any_subject_may_have_changed(
    world: World, node: Node, relay: RelayNode
) -> None:
    relay.pump()
    watch = relay.watch(subjects=True).opened()
    for _ in range(2):
        relay.cut()
        relay.pump()
        upsert(node)
        world.clock.seconds += 2.0
        assert told(watch) == []
        relay.cut(off=False)
        relay.pump()
        relay.relay.notices.post_due()
        assert told(watch) == [(0, True)]


def test_an_evaluation_that_names_subjects_is_passed_on_under_its_own_key(
    node: Node, relay: RelayNode
) -> None:
    _, secret, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    relay.pump()
    header = ("authorization", f"Bearer {secret}")
    upstreams: Any = relay.relay.upstreams
    application = Asgi(relay_app(relay.relay))
    subject = {"kind": "company", "keys": {"id": "acme"}}
    evaluation = evaluation_pb2.Evaluation(name="a", value_json="7")
    upstreams.answers = {
        "ConfigService/Evaluate": config.EvaluateResponse(evaluation=evaluation),
        "ConfigService/EvaluateAll": config.EvaluateAllResponse(evaluations=[evaluation]),
        "EventService/DeleteSubjects": event.DeleteSubjectsResponse(),
        "EventService/RecordEvents": event.RecordEventsResponse(accepted=1),
    }
    for method, request in (
        ("ConfigService/Evaluate", config.EvaluateRequest(name="a", subjects=[subject])),
        ("ConfigService/EvaluateAll", config.EvaluateAllRequest(subjects=[subject])),
        ("EventService/DeleteSubjects", event.DeleteSubjectsRequest(lookups=[{"reference": subject}])),
        ("EventService/RecordEvents", event.RecordEventsRequest(events=[{"idempotency_key": "k"}])),
    ):
        answer = asyncio.run(application(asked(f"rheo.v1.{method}", request, "proto", header)))
        assert answer.body == upstreams.answers[method].SerializeToString()
        assert upstreams.calls.pop() == (method, request, header[1])
    alone = config.EvaluateRequest(name="a")
    answer = asyncio.run(application(asked("rheo.v1.ConfigService/Evaluate", alone, "proto", header)))
    assert config.EvaluateResponse.FromString(answer.body).evaluation.value_json == "1"
    assert not upstreams.calls


def test_lists_of_subjects_are_asked_of_the_upstream(node: Node, relay: RelayNode) -> None:
    _, secret, _ = node.service.create_key(NOBODY, kind=KeyKind.SERVER, project=PROJECT)
    relay.pump()
    application = Asgi(relay_app(relay.relay))
    header = ("authorization", f"Bearer {secret}")
    request = asked("rheo.v1.EventService/ListSubjects", event.ListSubjectsRequest(), "proto", header)
    answer = asyncio.run(application(request))
    assert answer.reason == "ON_RELAY"
    assert "http://upstream" in answer.message
