"""The whole matrix: every method of every service, with every kind of key, in every place."""

from __future__ import annotations

import asyncio
import datetime
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from rheo.v1.change_pb2 import Mutation as MutationMessage
from rheo.v1.key_pb2 import KEY_KIND_SERVER
from rheo.v1.subject_pb2 import SubjectReference
from rheostat.language import parse_condition
from rheostat.model.change import (
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    SetValue,
)
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.rule import Rule, ValueOutcome
from rheostat.model.setting import Segment
from rheostat.server import asgi_app, wsgi_app
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from rheostat.wire.contract import SERVICES
from tests.server.exchange import Answered, Asgi, Wsgi, asked
from tests.service.node import Clock

METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method for service in SERVICES for method in service.methods
}

WHO = {
    "p": "public",
    "s": "server",
    "r": "relay",
    "v": "viewer",
    "e": "editor",
    "a": "approver",
    "A": "admin",
}

TABLE: dict[str, str] = {
    "ConfigService/Watch": "srveaA",
    "ConfigService/GetSnapshot": "srveaA",
    "ConfigService/Evaluate": "psveaA",
    "ConfigService/EvaluateAll": "psveaA",
    "ConfigService/DeclareSettings": "srA",
    "ConfigService/ReportStatus": "srA",
    "ConfigService/Ping": "psrveaA",
    "AdminService/Commit": "eaA",
    "AdminService/Revert": "eaA",
    "AdminService/Export": "veaA",
    "AdminService/CreateKey": "A",
    "AdminService/RotateKey": "A",
    "AdminService/RevokeKey": "A",
    "AdminService/GetProject": "veaA",
    "AdminService/ListProjects": "veaA",
    "AdminService/GetEnvironment": "veaA",
    "AdminService/ListEnvironments": "veaA",
    "AdminService/GetSetting": "veaA",
    "AdminService/ListSettings": "veaA",
    "AdminService/GetSegment": "veaA",
    "AdminService/ListSegments": "veaA",
    "AdminService/GetFeatures": "veaA",
    "AdminService/GetRevision": "veaA",
    "AdminService/ListRevisions": "veaA",
    "AdminService/GetKey": "A",
    "AdminService/ListKeys": "A",
    "AdminService/ListClients": "veaA",
    "AdminService/GetRollout": "veaA",
    "AdminService/ListStaleSettings": "veaA",
    "DraftService/CreateDraft": "eaA",
    "DraftService/UpdateDraft": "eaA",
    "DraftService/GetDraft": "veaA",
    "DraftService/ListDrafts": "veaA",
    "DraftService/ApproveDraft": "aA",
    "DraftService/PublishDraft": "eaA",
    "DraftService/CancelDraft": "eaA",
    "WebhookService/CreateWebhook": "A",
    "WebhookService/UpdateWebhook": "A",
    "WebhookService/DeleteWebhook": "A",
    "WebhookService/RotateWebhookSecret": "A",
    "WebhookService/GetWebhook": "A",
    "WebhookService/ListWebhooks": "A",
    "WebhookService/TestWebhook": "A",
    "WebhookService/ListDeliveries": "A",
    "WebhookService/Redeliver": "A",
    "EventService/RecordEvents": "psA",
    "EventService/UpsertSubjects": "seaA",
    "EventService/GetSubjects": "seaA",
    "EventService/DeleteSubjects": "seaA",
    "EventService/ListSubjects": "seaA",
    "EventService/ListSubjectChanges": "veaA",
    "EventService/ListExposures": "veaA",
    "EventService/ListEventCounts": "veaA",
}
"""Who may call each method, by the letters of `WHO`; nobody else may, and nobody a method without a row."""

HOUR = datetime.timedelta(hours=1)
WITHOUT_PLACE = {"ConfigService/Ping", "AdminService/ListProjects"}
"""Methods whose requests name no project and no environment."""

MUTATION = MutationMessage(set_value={"name": "n", "value": {"int_value": 7}})
SUBJECT = SubjectReference(kind="user", keys={"id": "u1"})

SAMPLES: dict[str, dict[str, Any]] = {
    "ConfigService/Evaluate": {"name": "n"},
    "ConfigService/ReportStatus": {"reports": [{"client": {"id": "c1"}}]},
    "AdminService/Revert": {"to_revision": 1_000_000},
    "AdminService/CreateKey": {"kind": KEY_KIND_SERVER},
    "AdminService/RotateKey": {"selector": "nobody"},
    "AdminService/RevokeKey": {"selector": "nobody"},
    "AdminService/GetSetting": {"name": "n"},
    "AdminService/GetSegment": {"name": "beta"},
    "AdminService/GetRevision": {"revision": 2},
    "AdminService/GetKey": {"selector": "nobody"},
    "DraftService/CreateDraft": {"mutations": [MUTATION]},
    "DraftService/UpdateDraft": {"id": "none", "mutations": [MUTATION]},
    "DraftService/GetDraft": {"id": "none"},
    "DraftService/ApproveDraft": {"id": "none", "version": 1},
    "DraftService/PublishDraft": {"id": "none"},
    "DraftService/CancelDraft": {"id": "none"},
    "WebhookService/CreateWebhook": {"url": "https://hooks.invalid/"},
    "WebhookService/UpdateWebhook": {"id": "none"},
    "WebhookService/DeleteWebhook": {"id": "none"},
    "WebhookService/RotateWebhookSecret": {"id": "none"},
    "WebhookService/GetWebhook": {"id": "none"},
    "WebhookService/TestWebhook": {"id": "none"},
    "WebhookService/ListDeliveries": {"id": "none"},
    "WebhookService/Redeliver": {"id": "none", "revision": 2},
    "EventService/RecordEvents": {"events": [{}]},
    "EventService/UpsertSubjects": {"subjects": [{"reference": SUBJECT}]},
    "EventService/GetSubjects": {"lookups": [{"reference": SUBJECT}]},
    "EventService/DeleteSubjects": {"lookups": [{"reference": SUBJECT}]},
}
"""What a request holds beside its place, so that nothing is wrong with it."""

OWN, OTHER, FOREIGN = ("shop", "production"), ("shop", "staging"), ("bank", "production")
PLACES = {"own environment": OWN, "other environment": OTHER, "other project": FOREIGN}

MARKS = ("mark-author", "mark-message", "mark-request", "mark-description")
ELSEWHERE = ("mark-staging", "mark-bank")


@dataclass(frozen=True)
class Holder:
    """A kind of key.

    Attributes:
        who: Its letter in `TABLE`; empty when it opens nothing at all.
        places: Where it reaches.
        options: Of the key.
    """

    who: str
    places: tuple[tuple[str, str], ...] = (OWN,)
    options: dict[str, Any] = field(default_factory=dict)


def _holders() -> dict[str, Holder]:
    bound: dict[str, Any] = {"environments": ("production",)}
    holders = {
        "public": Holder("p", options={"kind": KeyKind.PUBLIC, **bound}),
        "public with subjects": Holder("p", options={"kind": KeyKind.PUBLIC, "subjects": True, **bound}),
        "server": Holder("s", options={"kind": KeyKind.SERVER, "declare": False, **bound}),
        "server that declares": Holder("s", options={"kind": KeyKind.SERVER, "declare": True, **bound}),
        "relay": Holder("r", options={"kind": KeyKind.RELAY, **bound}),
    }
    for letter in "veaA":
        options: dict[str, Any] = {"kind": KeyKind.USER, "role": Role(WHO[letter])}
        holders[f"bound {WHO[letter]}"] = Holder(letter, options={**options, **bound})
        holders[WHO[letter]] = Holder(letter, (OWN, OTHER), options)
        holders[f"{WHO[letter]} of another project"] = Holder(
            letter, (FOREIGN,), {**options, "project": "bank"}
        )
        holders[f"store-wide {WHO[letter]}"] = Holder(
            letter, (OWN, OTHER, FOREIGN), {**options, "project": ""}
        )
    admin = {"kind": KeyKind.USER, "role": Role.ADMIN, "project": ""}
    return holders | {
        "nobody": Holder(""),
        "revoked": Holder("", options=admin),
        "expired": Holder("", options=admin),
        "of another store": Holder("", options=admin),
    }


HOLDERS = _holders()


@dataclass
class World:
    """A store with three environments of two projects, and a key of each kind."""

    service: Service
    clock: Clock
    keys: dict[str, tuple[Key, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("shop", PutProject("shop"), PutEnvironment("production"), PutEnvironment("staging"))
        self.commit("bank", PutProject("bank"), PutEnvironment("production"))
        beta = PutSegment(Segment("beta", parse_condition('user.id in ["u1"]')))
        self.commit("shop", beta)
        for project, environment in (OWN, OTHER, FOREIGN):
            definition = {"type": "int", "default": 0}
            mark = {OWN: "mark-here", OTHER: "mark-staging", FOREIGN: "mark-bank"}[project, environment]
            self.commit(
                project,
                PutSetting("n", definition, environment),
                PutSetting("text", {"type": "str", "default": mark}, environment),
                SetValue("n", 1, environment),
                PutRule(
                    "n",
                    Rule("r", ValueOutcome(2), parse_condition('region == "eu"')),
                    environment=environment,
                ),
            )
        for name, holder in HOLDERS.items():
            if holder.options:
                self.keys[name] = self.key(name, **holder.options)
        self.service.revoke_key(self.writer(), self.keys["revoked"][0].selector)
        self.clock.seconds += 2 * HOUR.total_seconds()

    def writer(self) -> Writer:
        return Writer(OPEN, "mark-author", "mark-message", f"mark-request-{self.service.head.revision}")

    def commit(self, project: str, *mutations: Mutation) -> None:
        self.service.commit(self.writer(), project, "", mutations)

    def key(self, name: str, **options: Any) -> tuple[Key, str]:
        if name == "expired":
            options["expires_at"] = self.service.clock() + HOUR
        given = {"project": "shop", "description": f"mark-description {name}", **options}
        if name == "of another store":
            with Service(open_store("memory:")) as other:
                key, text, _ = other.create_key(Writer(OPEN), **given)
                return key, text
        key, text, _ = self.service.create_key(self.writer(), **given)
        return key, text


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    clock = Clock()
    with Service(open_store("memory:"), clock=clock.now) as service:
        yield World(service, clock)


Call = Callable[[str, str, tuple[str, str]], Answered]


@pytest.fixture(scope="module")
def calls(world: World) -> dict[str, Call]:
    """Call a method with a key in a place, by the kind of application."""
    application = Asgi(asgi_app(world.service))
    exchanges: dict[str, Callable[..., Answered]] = {
        "asgi": lambda request: asyncio.run(application(request)),
        "wsgi": Wsgi(wsgi_app(world.service)),
    }

    def call(exchange: Callable[..., Answered], method: str, holder: str, place: tuple[str, str]) -> Answered:
        headers = []
        if holder in world.keys:
            headers.append(("authorization", f"Bearer {world.keys[holder][1]}"))
        return exchange(asked(f"rheo.v1.{method}", request_of(method, place), "json", *headers))

    return {name: functools.partial(call, exchange) for name, exchange in exchanges.items()}


def request_of(method: str, place: tuple[str, str]) -> Message:
    message = GetMessageClass(METHODS[method].input_type)(**SAMPLES.get(method, {}))
    if method not in WITHOUT_PLACE:
        message.project, message.environment = place  # type: ignore[attr-defined]
    return message


def expected(method: str, holder: Holder, place: tuple[str, str]) -> tuple[str, str]:
    """Return the code and the reason that a refusal has; two empty texts for what is not refused."""
    if not holder.who:
        return "unauthenticated", ""
    if holder.who not in TABLE[method]:
        return "permission_denied", "PERMISSION_DENIED"
    if method in WITHOUT_PLACE or place in holder.places:
        return "", ""
    known = any(project == place[0] for project, _ in holder.places)
    return "permission_denied", "UNKNOWN_ENVIRONMENT" if known else "UNKNOWN_PROJECT"


def check(answer: Answered, method: str, name: str, place: tuple[str, str]) -> None:
    code, reason = expected(method, HOLDERS[name], place)
    cell = (method, name, place)
    if not code:
        assert answer.code not in ("permission_denied", "unauthenticated"), (cell, answer.message)
        assert answer.code not in ("internal", "unknown", "unimplemented"), (cell, answer.message)
    else:
        assert (answer.code, reason or answer.reason) == (code, answer.reason), (cell, answer.message)


def test_each_method_of_the_contract_has_a_row_and_nothing_else_has() -> None:
    assert TABLE.keys() == METHODS.keys()
    assert SAMPLES.keys() < METHODS.keys()
    for name, method in METHODS.items():
        fields = method.input_type.fields_by_name
        assert ("project" in fields, "environment" in fields) == (name not in WITHOUT_PLACE,) * 2


def test_each_kind_of_key_and_each_role_is_in_the_matrix() -> None:
    options = [holder.options for holder in HOLDERS.values() if holder.who]
    assert {option["kind"] for option in options} == set(KeyKind)
    assert {option.get("role") for option in options} == {*Role, None}
    assert set("".join(TABLE.values())) == WHO.keys() == {holder.who for holder in HOLDERS.values()} - {""}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HOLDERS)
def test_each_method_answers_each_key_in_each_place_as_the_table_says(
    calls: dict[str, Call], name: str, place: str
) -> None:
    for method in METHODS:
        check(calls["asgi"](method, name, PLACES[place]), method, name, PLACES[place])


@pytest.mark.parametrize("name", HOLDERS)
def test_the_other_application_answers_the_same(calls: dict[str, Call], name: str) -> None:
    places = list(PLACES.values())
    for number, method in enumerate(METHODS):
        place = places[number % len(places)]
        check(calls["wsgi"](method, name, place), method, name, place)


def test_keys_of_programs_reach_nothing_that_is_administered() -> None:
    for method, who in TABLE.items():
        if not method.startswith(("ConfigService/", "EventService/")):
            assert not set(who) & set("psr"), method


@pytest.mark.parametrize("name", [name for name, holder in HOLDERS.items() if holder.who in tuple("psr")])
@pytest.mark.parametrize("place", PLACES)
def test_no_answer_to_a_program_tells_of_authors_messages_keys_or_other_environments(
    calls: dict[str, Call], world: World, name: str, place: str
) -> None:
    own = world.keys[name][0].selector
    hidden = [*MARKS, *ELSEWHERE, *(key.selector for key, _ in world.keys.values() if key.selector != own)]
    # A relay checks keys itself: those of programs and people who may call for its environment.
    relayed = HOLDERS[name].who == "r" and place == "own environment"
    known = {
        key.selector
        for other, (key, _) in world.keys.items()
        if relayed and (OWN in HOLDERS[other].places) and other != "of another store"
    }
    shown = b""
    for method in METHODS:
        answer = calls["asgi"](method, name, PLACES[place])
        content = answer.body + repr(answer.headers).encode()
        told = known if method == "ConfigService/Watch" else set()
        for mark in hidden:
            assert mark in told or mark.encode() not in content, (method, mark)
        shown += content
    assert (b"mark-here" in shown) is (place == "own environment"), "the marks would be seen"
    if HOLDERS[name].who == "p":
        assert b"region" not in shown, "the condition of a rule"
        assert b"u1" not in shown, "the condition of a segment"
