"""Stored subjects through OFREP: the attributes of a context name them, and so the scenarios go as everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.model.key import KeyKind
from rheostat.model.subject import Subject, SubjectOverride, SubjectPatch, SubjectReference
from rheostat.model.value import freeze
from rheostat.relay.serve import relay_app
from rheostat.server import asgi_app, wsgi_app
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.bridges.flags import FLAGS, fill, make_key, post
from tests.each import each
from tests.relay.node import RelayNode, relay_key
from tests.server.exchange import Answered, Asgi, Wsgi
from tests.service.book import put
from tests.service.node import World
from tests.service.test_subject_scenario import CASES, Scenario, Wall

NOT_SAYABLE = {
    "lookup: a key is an attribute where no trait has its name": "what names a subject is an attribute of the call, which wins",
    "merge: of two subjects of a kind the first one counts": "a context names one of a kind",
    "membership: nobody becomes a member of what is not stored": "a kind of which nobody is stored is no kind",
}
"""What a protocol without a place for subjects cannot say, and why."""


def named(check: dict[str, Any]) -> dict[str, Any]:
    """The context of a check, in which the keys of its subjects are attributes."""
    names = {
        f"{reference['kind']}.{name}": text
        for reference in check["subjects"]
        for name, text in reference["keys"].items()
    }
    return {**names, **check["context"]}


class OfrepScenario(Scenario):
    """As a node's, but that values are asked for by OFREP."""

    def __init__(self, service: Service, clock: Wall) -> None:
        super().__init__(service, clock)
        self.exchange = Wsgi(wsgi_app(service, open=True, ofrep=True))

    def check(self, check: dict[str, Any]) -> None:
        context = {"context": named(check)}
        answer = json.loads(self.exchange(post(f"{FLAGS}/{check['setting']}", context)).body)
        assert reported(answer) == check["expected"], check
        assert answer in json.loads(self.exchange(post(FLAGS, context)).body)["flags"]


def reported(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer in the form of the scenarios."""
    if "errorCode" in answer:
        return {"reason": "ERROR", "errorCode": answer["errorCode"], "note": False}
    metadata = answer["metadata"]
    found = {"value": answer["value"], "reason": answer["reason"], "note": "note" in metadata}
    if answer["variant"]:
        found["variant"] = answer["variant"]
    if "rule_id" in metadata:
        found["ruleId"] = metadata["rule_id"]
    return found


@each("case", [case for case in CASES if case["name"] not in NOT_SAYABLE])
def test_a_scenario_of_subjects(case: dict[str, Any]) -> None:
    clock = Wall(case["clock"])
    document = {"project": "default", "environments": ["production"], "settings": case["settings"]}
    with Service(open_store("memory:", clock=clock), clock=clock, background=False) as service:
        service.commit(Writer(OPEN), "default", "", plan_apply(parse_document(json.dumps(document)), None))
        scenario = OfrepScenario(service, clock)
        for step in case["steps"]:
            scenario.play(step)


def test_the_cases_that_cannot_be_said_are_still_there() -> None:
    assert set(NOT_SAYABLE) < {case["name"] for case in CASES}


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as service:
        fill(service)
        yield service


def upsert(service: Service, key: str, **traits: object) -> None:
    frozen = {name: freeze(value) for name, value in traits.items()}
    (stored,) = service.subjects.upsert(
        OPEN, "flags", "production", [SubjectPatch(SubjectReference("user", {"id": key}), frozen)]
    )
    assert isinstance(stored, Subject)


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_the_targeting_key_names_a_subject(kind: str, service: Service) -> None:
    server = make_key(service)[1]
    public = make_key(service, KeyKind.PUBLIC)[1]
    naming = make_key(service, KeyKind.PUBLIC, subjects=True)[1]
    asgi, wsgi = Asgi(asgi_app(service, ofrep=True)), Wsgi(wsgi_app(service, ofrep=True))

    def ask(text: str, context: dict[str, Any], path: str = FLAGS) -> Answered:
        request = post(path, {"context": context}, ("x-api-key", text))
        return wsgi(request) if kind == "wsgi" else asyncio.run(asgi(request))

    def paid(text: str, **context: Any) -> bool:
        return json.loads(ask(text, context, f"{FLAGS}/paid").body)["value"]

    assert not paid(server, targetingKey="u-1")
    tag = ask(server, {"targetingKey": "u-1"}).headers["etag"]
    upsert(service, "u-1", plan="pro")
    for text in (server, naming):
        assert paid(text, targetingKey="u-1")
        assert paid(text, targetingKey="u-1", user={"id": "u-2"})
        assert paid(text, user={"id": "u-1"})
        # What the call says comes first.
        assert not paid(text, targetingKey="u-1", user={"plan": "free"})
    # Anybody can make the context of a page.
    assert not paid(public, targetingKey="u-1")
    assert ask(server, {"targetingKey": "u-1"}).headers["etag"] != tag


def test_an_override_of_a_subject_comes_before_the_rules(service: Service) -> None:
    reference = SubjectReference("user", {"id": "u-1"})
    patch = SubjectPatch(reference, overrides=[SubjectOverride("ratio", 7.5)])
    service.subjects.upsert(OPEN, "flags", "production", [patch])
    text = make_key(service)[1]
    exchange = Wsgi(wsgi_app(service, ofrep=True))
    answer = json.loads(
        exchange(post(f"{FLAGS}/ratio", {"context": {"targetingKey": "u-1"}}, ("x-api-key", text))).body
    )
    assert (answer["value"], answer["variant"], answer["reason"]) == (7.5, "override", "TARGETING_MATCH")


def test_a_relay_says_that_it_answers_without_subjects(world: World) -> None:
    node = world.node()
    node.commit(put("a"))
    text = node.service.create_key(
        Writer(OPEN), kind=KeyKind.SERVER, project="default", environments=["production"]
    )[1]
    relay = RelayNode(world, node, relay_key(node))
    relay.pump()
    exchange = Asgi(relay_app(relay.relay, ofrep=True))
    for path in (FLAGS, f"{FLAGS}/a"):
        answer = asyncio.run(exchange(post(path, {"context": {"targetingKey": "u-1"}}, ("x-api-key", text))))
        (found,) = json.loads(answer.body).get("flags", [json.loads(answer.body)])
        assert "relay" in found["metadata"]["note"]
