"""Reports, clients and rollouts over the wire: who may say what, and what becomes of it on both kinds of server."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rheo.v1.admin_service_pb2 import (
    CommitRequest,
    CommitResponse,
    GetRevisionRequest,
    GetRevisionResponse,
    GetRolloutRequest,
    GetRolloutResponse,
    ListClientsRequest,
    ListClientsResponse,
    RevertRequest,
)
from rheo.v1.change_pb2 import Mutation
from rheo.v1.client_pb2 import ClientIdentity, ClientReport
from rheo.v1.config_service_pb2 import (
    DeclareSettingsRequest,
    DeclareSettingsResponse,
    ReportStatusRequest,
    ReportStatusResponse,
)
from rheo.v1.declaration_pb2 import (
    DECLARATION_OUTCOME_DENIED,
    DECLARATION_OUTCOME_INVALID,
    DECLARATION_OUTCOME_REJECTED,
    DECLARATION_OUTCOME_UPGRADED,
    Declaration,
)
from rheo.v1.value_pb2 import Value
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.errors import InvalidArgumentError, LimitExceededError
from rheostat.model.change import PutSetting, SetValue
from rheostat.model.key import Key, KeyKind, Role
from rheostat.model.watch import Bookmark
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.call import Call
from rheostat.server.handler import Handlers
from rheostat.service import Limits, Service, Writer
from rheostat.service.access import OPEN, Principal
from rheostat.store import open_store
from tests.server.exchange import Answered, Asgi, Asked, Wsgi, asked

CONFIG, ADMIN = "rheo.v1.ConfigService/", "rheo.v1.AdminService/"

Exchange = Callable[[Asked], Answered]

PATIENCE = 60.0


@pytest.fixture(params=["memory", "sqlite"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    url = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'store.db'}"
    with Service(open_store(url), node="here") as made:
        made.commit(
            Writer(OPEN), "default", "production", [PutSetting("any", {"type": "Json", "default": 1})]
        )
        yield made


@pytest.fixture(params=["asgi", "wsgi"])
def exchange(request: pytest.FixtureRequest, service: Service) -> Exchange:
    if request.param == "wsgi":
        return Wsgi(wsgi_app(service, open=True))
    application = Asgi(asgi_app(service, open=True))
    return lambda request: asyncio.run(application(request))


def ask(exchange: Exchange, method: str, request: Any, answer: Any) -> Any:
    answered = exchange(asked(method, request))
    assert answered.code == "ok", answered.message
    return answer.FromString(answered.body)


def principal(kind: KeyKind, role: Role | None = None) -> Principal:
    return Principal(Key("0" * 16, kind, bytes(32), project="default", role=role))


def report(service: Service, who: Principal, *reports: ClientReport) -> ReportStatusResponse:
    method = f"{CONFIG}ReportStatus"
    answer = Handlers(service).handle(
        "report_status", ReportStatusRequest(reports=reports), Call(who, "r", method)
    )
    assert isinstance(answer, ReportStatusResponse)
    return answer


def declaration(type_: str, default: int | str, name: str = "any", version: str = "1.0") -> Declaration:
    value = Value(int_value=default) if isinstance(default, int) else Value(string_value=default)
    return Declaration(name=name, type=type_, default=value, version=version)


def set_value(value: Value, **fields: Any) -> CommitRequest:
    return CommitRequest(mutations=[Mutation(set_value={"name": "any", "value": value})], **fields)


def test_a_client_reports_and_is_counted_listed_and_named_when_it_lags(service: Service, exchange: Exchange):
    identity = ClientIdentity(id="c1", sdk="rheostat-go/2", name="shop@web-1")
    reached = ClientReport(
        client=identity,
        generation=1,
        revision=service.head.revision,
        node="here",
        error="lost a stream",
        age=Duration(seconds=0),
    )
    ask(exchange, f"{CONFIG}ReportStatus", ReportStatusRequest(reports=[reached]), ReportStatusResponse)
    late = ClientReport(client=ClientIdentity(id="c2"), generation=1, revision=1, diverged=True)
    ask(exchange, f"{CONFIG}ReportStatus", ReportStatusRequest(reports=[late]), ReportStatusResponse)
    service.fleet.roster.flush()

    rollout = ask(exchange, f"{ADMIN}GetRollout", GetRolloutRequest(), GetRolloutResponse)
    assert (rollout.revision, rollout.generation) == (service.head.revision, 1)
    assert (rollout.reporting, rollout.reached, rollout.diverged, rollout.silent) == (2, 1, 1, 0)
    assert rollout.lag_p50 == rollout.lag_p99 == rollout.lag_max
    assert datetime.timedelta() <= rollout.lag_max.ToTimedelta() < datetime.timedelta(seconds=PATIENCE)
    assert rollout.HasField("committed_at")
    assert [client.client.id for client in rollout.laggards] == ["c2"]

    first = ask(exchange, f"{ADMIN}ListClients", ListClientsRequest(page_size=1), ListClientsResponse)
    assert first.clients[0].client == identity
    assert (first.clients[0].error, first.clients[0].node) == ("lost a stream", "here")
    assert first.clients[0].lag == rollout.lag_max
    assert first.clients[0].HasField("reported_at")
    request = ListClientsRequest(page_size=1, page_token=first.next_page_token)
    second = ask(exchange, f"{ADMIN}ListClients", request, ListClientsResponse)
    assert [client.client.id for client in second.clients] == ["c2"]
    assert not second.next_page_token
    answered = exchange(asked(f"{ADMIN}GetRollout", GetRolloutRequest(revision=1_000)))
    assert (answered.code, answered.reason) == ("not_found", "REVISION_NOT_FOUND")


def test_only_a_relay_reports_for_others_and_says_when(service: Service):
    long_ago = Timestamp()
    long_ago.FromDatetime(service.clock() - datetime.timedelta(seconds=90))
    reports = [ClientReport(client=ClientIdentity(id=id_), reported_at=long_ago) for id_ in ("a", "", "b")]
    for kind in (KeyKind.SERVER, KeyKind.USER):
        who = principal(kind, Role.ADMIN if kind is KeyKind.USER else None)
        with pytest.raises(InvalidArgumentError, match="only a relay") as caught:
            report(service, who, *reports)
        assert caught.value.violations[0].field == "reports"
        with pytest.raises(InvalidArgumentError) as caught:
            report(service, who, reports[1])
        assert caught.value.violations[0].field == "reports[0].client.id"
        report(service, who, reports[0])
        service.fleet.roster.flush()
        (own,) = service.fleet.clients("default", "production", after="", limit=9)
        assert own.reported_at is not None
        assert own.reported_at > long_ago.ToDatetime(tzinfo=datetime.UTC)
    # What one of its clients says is no reason to refuse the others.
    reports.append(ClientReport(client=ClientIdentity(id="c"), reported_at=Timestamp(seconds=2**62)))
    reports.append(ClientReport(client=ClientIdentity(id="d"), declared_types_hash=b"short"))
    answer = report(service, principal(KeyKind.RELAY), *reports)
    assert list(answer.declare_again) == ["d"]
    service.fleet.roster.flush()
    seen = {client.id: client for client in service.fleet.clients("default", "production", after="", limit=9)}
    assert list(seen) == ["a", "b", "c", "d"]
    assert seen["b"].reported_at == long_ago.ToDatetime(tzinfo=datetime.UTC)


def test_settings_that_are_read_are_noted(service: Service):
    made = ClientReport(client=ClientIdentity(id="a"), settings_read=["any", "unknown"])
    report(service, principal(KeyKind.SERVER), made)
    assert list(service.usage.reads("default", "production").at) == ["any"]


def test_declaring_answers_a_hash_that_names_all_declared_types(service: Service, exchange: Exchange):
    method = f"{CONFIG}DeclareSettings"
    identity = ClientIdentity(id="c", name="shop")

    def declare(*declarations: Declaration, **fields: Any) -> DeclareSettingsResponse:
        request = DeclareSettingsRequest(declarations=declarations, client=identity, **fields)
        answer = ask(exchange, method, request, DeclareSettingsResponse)
        assert isinstance(answer, DeclareSettingsResponse)
        return answer

    unreadable = Declaration(name="b", type="none")
    whole = declare(declaration("Json", 1), unreadable, declaration("int", 1, "c"))
    assert whole.results[1].outcome == DECLARATION_OUTCOME_INVALID
    first = declare(declaration("Json", 1))
    assert first.declared_types_hash not in (b"", whole.declared_types_hash)
    rest = declare(declaration("int", 1, "c"), declared_types_hash=first.declared_types_hash)
    assert rest.declared_types_hash == whole.declared_types_hash
    assert declare(declaration("Json", 1), declared_types_hash=bytes(32)).declared_types_hash == b""
    made = ClientReport(client=identity, declared_types_hash=whole.declared_types_hash)
    assert not report(service, OPEN, made).declare_again


def test_what_is_denied_or_unfit_is_known_to_the_gate_all_the_same(service: Service, exchange: Exchange):
    key = Key("1" * 16, KeyKind.SERVER, bytes(32), project="default", declare=False)
    request = DeclareSettingsRequest(
        declarations=[declaration("int", 1, version="2.0")], client=ClientIdentity(id="old", name="shop")
    )
    call = Call(Principal(key), "r", f"{CONFIG}DeclareSettings")
    answer = Handlers(service).handle("declare_settings", request, call)
    assert answer.results[0].outcome == DECLARATION_OUTCOME_DENIED

    breaking = Value(string_value="x")
    for dry_run in (True, False):
        answered = exchange(asked(f"{ADMIN}Commit", set_value(breaking, dry_run=dry_run)))
        assert (answered.code, answered.reason) == ("failed_precondition", "CLIENTS_WOULD_BREAK")
        assert "shop (old)" in answered.message
    ask(exchange, f"{ADMIN}Commit", set_value(Value(int_value=2)), CommitResponse)
    forced = ask(exchange, f"{ADMIN}Commit", set_value(breaking, force=True), CommitResponse)
    assert [warning.code for warning in forced.warnings] == ["CLIENTS_WOULD_BREAK"]
    audited = ask(
        exchange, f"{ADMIN}GetRevision", GetRevisionRequest(revision=forced.revision), GetRevisionResponse
    )
    assert list(audited.change_set.forced_clients) == ["old"]
    # Back to a value that fits, and from there on to the other one again.
    ask(exchange, f"{ADMIN}Revert", RevertRequest(revision=forced.revision), CommitResponse)
    back = RevertRequest(revision=forced.revision + 1)
    assert exchange(asked(f"{ADMIN}Revert", back)).reason == "CLIENTS_WOULD_BREAK"
    back.force = True
    ask(exchange, f"{ADMIN}Revert", back, CommitResponse)


def test_an_upgrade_that_would_break_others_is_rejected_with_their_ids(service: Service, exchange: Exchange):
    def declare(id_: str, made: Declaration) -> Any:
        request = DeclareSettingsRequest(declarations=[made], client=ClientIdentity(id=id_))
        return ask(exchange, f"{CONFIG}DeclareSettings", request, DeclareSettingsResponse).results[0]

    declare("old", declaration("int", 1, "new"))
    rejected = declare("new", declaration("str", "x", "new", "2.0"))
    assert rejected.outcome == DECLARATION_OUTCOME_REJECTED
    assert list(rejected.blocking_clients) == ["old"]
    assert rejected.stored_version == "1.0"
    service.store.end_clients([("default", "production", "old")], "here", service.clock())
    assert declare("new", declaration("str", "x", "new", "2.0")).outcome == DECLARATION_OUTCOME_UPGRADED


def watching(service: Service, who: Principal, **fields: Any) -> Any:
    request = WatchRequest(project="default", environment="production", **fields)
    return Handlers(service).watching(request, Call(who, "r", f"{CONFIG}Watch"))


def test_the_streams_of_programs_are_clients_and_those_of_people_and_relays_are_not(service: Service):
    client = ClientIdentity(id="c")
    with ExitStack() as stack:
        stack.enter_context(watching(service, principal(KeyKind.USER, Role.ADMIN), client=client))
        stack.enter_context(watching(service, principal(KeyKind.RELAY), client=client))
        stack.enter_context(watching(service, OPEN, client=client, via=["relay"]))
        stack.enter_context(watching(service, OPEN))
        service.fleet.roster.flush()
        assert service.fleet.clients("default", "production", after="", limit=9) == []
        stack.enter_context(watching(service, principal(KeyKind.SERVER), client=client))
        stack.enter_context(watching(service, OPEN, client=ClientIdentity(id="d")))
        service.fleet.roster.flush()
        seen = service.fleet.clients("default", "production", after="", limit=9)
        assert [(row.id, row.node, row.reported_at) for row in seen] == [
            ("c", "here", None),
            ("d", "here", None),
        ]
        answer = Handlers(service).handle(
            "get_rollout", GetRolloutRequest(), Call(OPEN, "r", f"{ADMIN}GetRollout")
        )
        assert (answer.reporting, answer.silent) == (0, 2)


def test_the_clients_of_another_process_are_asked_at_once(tmp_path: Path):
    """Two nodes on one file, each with its own tail, as two processes have."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    with Service(open_store(url)) as asker, Service(open_store(url)) as other:
        writer = Writer(OPEN)
        asker.commit(writer, "default", "production", [PutSetting("a", {"type": "int", "default": 0})])
        other.catch_up()
        took: list[float] = []
        opened, asking = threading.Event(), threading.Event()

        def watch() -> None:
            with watching(other, OPEN) as session:
                while True:
                    bell = other.hub.bell
                    step = session.step(other.monotonic())
                    opened.set()
                    marks = [event for event in step.events if isinstance(event, Bookmark)]
                    if any(mark.report_within is not None for mark in marks):
                        took.append(time.monotonic())
                        asking.set()
                        return
                    other.hub.wait(bell, min(PATIENCE, step.wake_at - other.monotonic()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert opened.wait(PATIENCE)
        asked_at = time.monotonic()
        asker.fleet.rollout("default", "production", revision=0, ask=True, max_laggards=0)
        assert asking.wait(PATIENCE)
        watcher.join(PATIENCE)
        assert took[0] - asked_at < 1.0
        # Its own clients' reports are written more often from then on, and read by all nodes.
        report(other, OPEN, ClientReport(client=ClientIdentity(id="c"), generation=1, revision=2))
        deadline = time.monotonic() + PATIENCE
        pause = threading.Event()
        while (
            asker.fleet.rollout("default", "production", revision=2, ask=True, max_laggards=0).count.reached
            != 1
        ):
            assert time.monotonic() < deadline
            pause.wait(0.01)
        other.commit(writer, "default", "production", [SetValue("a", 1)])


def test_reports_and_questions_of_a_key_are_counted_in_each_second_and_not_those_of_others() -> None:
    limits = Limits(max_reports_per_second=10, max_asks_per_second=2)
    with Service(open_store("memory:"), limits=limits) as service:
        handlers = Handlers(service)
        # Its clock is the wall's: a second may end in between, and not in each of a few attempts.
        relay, other = (
            Principal(Key(digit * 16, KeyKind.RELAY, bytes(32), project="default")) for digit in "01"
        )
        method = f"{CONFIG}ReportStatus"
        reports = [ClientReport(client=ClientIdentity(id=f"c{number}")) for number in range(6)]

        def tell(who: Principal, *each: ClientReport) -> None:
            handlers.handle("report_status", ReportStatusRequest(reports=each), Call(who, "r", method))

        def wait_for(who: Principal, *, ask: bool = True) -> None:
            call = Call(who, "r", f"{ADMIN}GetRollout")
            handlers.handle("get_rollout", GetRolloutRequest(ask=ask), call)

        with pytest.raises(LimitExceededError) as caught:
            for _ in range(50):
                tell(relay, *reports)
        assert caught.value.limit == "max_reports_per_second"
        assert caught.value.retry_after is not None
        assert 0 <= caught.value.retry_after <= 1
        tell(other, *reports)
        with pytest.raises(LimitExceededError) as caught:
            for _ in range(50):
                wait_for(relay)
        assert caught.value.limit == "max_asks_per_second"
        wait_for(other)
        for _ in range(5):
            wait_for(relay, ask=False)
        # More at once than in a second would never be taken otherwise.
        third = Principal(Key("2" * 16, KeyKind.RELAY, bytes(32), project="default"))
        tell(third, *reports, *reports)
