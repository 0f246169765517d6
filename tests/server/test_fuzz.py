"""Fuzzing each RPC from its descriptor: whatever comes, the answer is one of the contract's, and nothing breaks.

``RHEOSTAT_FUZZ_SEED`` makes other inputs, ``RHEOSTAT_FUZZ_INPUTS`` more of them for each RPC.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo

from rheo.v1 import (
    admin_service_pb2,
    config_service_pb2,
    draft_service_pb2,
    event_service_pb2,
    webhook_service_pb2,
)
from rheo.v1.change_pb2 import Mutation
from rheo.v1.client_pb2 import ClientReport
from rheo.v1.declaration_pb2 import Declaration
from rheo.v1.subject_pb2 import SubjectOverride, SubjectReference
from rheostat.document import export_document, format_document, parse_document
from rheostat.document.apply import plan_apply
from rheostat.evaluation import Context, evaluate
from rheostat.example import PROJECT, document_text
from rheostat.model.change import SetValue
from rheostat.model.key import KeyKind
from rheostat.server import asgi_app, wsgi_app
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.watch import WatchOptions, WatchSession
from rheostat.wire.change import mutation_to_proto
from rheostat.wire.contract import SERVICES
from rheostat.wire.event import EventEncoder
from tests.server.exchange import Answered, Asgi, Asked, Wsgi
from tests.server.fuzz import Fuzzer
from tests.server.shop import fill, open_service

SEED = os.environ.get("RHEOSTAT_FUZZ_SEED", "1")
INPUTS = int(os.environ.get("RHEOSTAT_FUZZ_INPUTS", "500"))
INPUTS_OVER_WSGI = max(40, INPUTS // 10)
WRITES_OF_A_NODE = 100
"""Then a new store: one whose history only grows makes every check of it slower."""

METHODS = [method for service in SERVICES for method in service.methods]
WRITES = {
    "Commit", "Revert", "CreateKey", "RotateKey", "RevokeKey", "DeclareSettings", "PublishDraft",
    "CreateWebhook", "UpdateWebhook", "DeleteWebhook", "RotateWebhookSecret",
}  # fmt: skip
SUBJECT_WRITES = {"RecordEvents", "UpsertSubjects", "DeleteSubjects"}
"""These take no revision, and are told in the feed of subjects."""

CODES = {
    "ok", "permission_denied", "not_found", "already_exists", "aborted", "failed_precondition", "invalid_argument", "out_of_range",
    "resource_exhausted", "unavailable", "deadline_exceeded",
}  # fmt: skip
"""The codes of the contract that an open server has a reason to answer."""

STATUSES = {200, 400, 403, 404, 405, 409, 415, 429, 503, 504}

INTERNALS = re.compile(
    r'Traceback|File \\?"|site-packages|\.py\b|object at 0x|<class |rheo\.v1\.\w+_pb2|sqlite3?\.|sqlalchemy|\bSELECT\b(?! token_key)',
    re.IGNORECASE,
)

CONTEXTS = [
    Context({}),
    Context(
        {
            "region": "eu",
            "user": {"id": "u-1007", "plan": "plus", "email": "a@shop.example"},
            "cart.total": 300,
        }
    ),
    Context(
        {"region": 5, "user": None, "user.id": 1.5, "country": ["DE"], "app.version": "5.2.0", "x.y": "\0"}
    ),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the example, and a history of a few changes after it."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with open_service(path) as service:
        fill(service)
        for number in range(4):
            service.commit(Writer(OPEN), PROJECT, "staging", [SetValue("checkout.timeout", 4.0 + number)])
        hook = service.webhooks.create(Writer(OPEN), PROJECT, "https://hooks.example/in").webhook
        # Nothing is delivered beside what the inputs ask for, which would differ from run to run.
        service.webhooks.update(Writer(OPEN), PROJECT, hook.id, enabled=False)
        service.create_key(Writer(OPEN), kind=KeyKind.SERVER, project=PROJECT, environments=["production"])
        for number in range(3):
            value = SetValue("checkout.timeout", 10.0 + number)
            service.drafts.create(Writer(OPEN), PROJECT, "production", [value])
    return path


@pytest.fixture(scope="module")
def samples(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    """Messages that the server takes: the example as mutations, and requests that name what it holds."""
    mutations = [
        mutation_to_proto(mutation) for mutation in plan_apply(parse_document(document_text()), None)
    ]
    requests: list[Message] = [
        admin_service_pb2.CommitRequest(project=PROJECT, environment="staging", mutations=[mutation])
        for mutation in mutations
        if mutation.WhichOneof("kind") not in ("put_project", "put_environment")
    ]
    for name, value in {"checkout.timeout": 4.5, "payments.retry": 1.0}.items():
        mutation = Mutation()
        mutation.set_value.name, mutation.set_value.value.double_value = name, value
        requests.append(
            admin_service_pb2.CommitRequest(project=PROJECT, environment="production", mutations=[mutation])
        )
    for name in ("checkout.timeout", "payment.timeout", "search.engine", "app.theme"):
        request = config_service_pb2.EvaluateRequest(project=PROJECT, environment="production", name=name)
        request.context["region"].string_value = "eu"
        request.context["user"].map_value.entries["id"].string_value = "u-1007"
        requests.append(request)
        by_struct = config_service_pb2.EvaluateRequest(
            project=PROJECT, environment="staging", name=name, explain=True
        )
        by_struct.attributes.update(
            {"region": "eu", "user": {"id": "u-1007"}, "cart": {"total": 300, "items": [1, None]}}
        )
        requests += [
            by_struct,
            admin_service_pb2.GetSettingRequest(project=PROJECT, environment="production", name=name),
        ]
    for number, mutation in enumerate(each for each in mutations if each.HasField("put_setting")):
        setting = mutation.put_setting.setting
        # One that is there, in a higher version, and a new one.
        for name, version in ((setting.name, "9.0"), (f"declared-{number}", "")):
            declaration = Declaration(name=name, type=setting.type, version=version)
            declaration.default.CopyFrom(setting.default)
            requests.append(
                config_service_pb2.DeclareSettingsRequest(
                    project=PROJECT, environment="staging", declarations=[declaration]
                )
            )
    for id_, revision in (("a", 6), ("b", 3)):
        made = ClientReport(generation=1, revision=revision, error="x", settings_read=["checkout.timeout"])
        made.client.id, made.client.name, made.age.seconds = id_, "shop", 1
        of = {"project": PROJECT, "environment": "production"}
        requests += [
            config_service_pb2.ReportStatusRequest(**of, reports=[made]),
            admin_service_pb2.GetRolloutRequest(**of, revision=revision, ask=True),
            admin_service_pb2.ListClientsRequest(**of, page_size=revision),
        ]
    for segment in ("staff", "holdout"):
        requests.append(admin_service_pb2.GetSegmentRequest(project=PROJECT, name=segment))
    for revision in (3, 4, 5, 6):
        requests.append(admin_service_pb2.GetRevisionRequest(project=PROJECT, revision=revision))
        requests.append(admin_service_pb2.RevertRequest(project=PROJECT, to_revision=revision))
        requests.append(admin_service_pb2.RevertRequest(project=PROJECT, revision=revision))
    kind, role = admin_service_pb2.CreateKeyRequest.DESCRIPTOR.fields_by_name["kind"].enum_type, 4
    for number in kind.values_by_number:
        if number:
            requests.append(
                admin_service_pb2.CreateKeyRequest(
                    project=PROJECT, environment="production", kind=number, role=role if number == 4 else 0
                )
            )
    with open_service(shop) as service:
        for selector in service.head.state.keys:
            requests.append(admin_service_pb2.GetKeyRequest(project=PROJECT, selector=selector))
            requests.append(admin_service_pb2.RotateKeyRequest(project=PROJECT, selector=selector))
            requests.append(admin_service_pb2.RevokeKeyRequest(project=PROJECT, selector=selector))
        for view in service.drafts.list(OPEN, PROJECT)[0]:
            of = {"project": PROJECT, "id": view.draft.id}
            requests += [
                draft_service_pb2.GetDraftRequest(**of),
                draft_service_pb2.UpdateDraftRequest(
                    **of, version=1, mutations=map(mutation_to_proto, view.draft.mutations)
                ),
                draft_service_pb2.ApproveDraftRequest(**of, version=1),
                draft_service_pb2.PublishDraftRequest(**of),
                draft_service_pb2.CancelDraftRequest(**of),
            ]
        (hook,) = service.head.state.webhooks
    requests += [
        webhook_service_pb2.CreateWebhookRequest(
            project=PROJECT, url="https://other.example/", environments=["staging"]
        ),
        webhook_service_pb2.UpdateWebhookRequest(
            project=PROJECT, id=hook, url="https://new.example/", enabled=True
        ),
        webhook_service_pb2.UpdateWebhookRequest(
            project=PROJECT, id=hook, set_environments=True, description="chat"
        ),
        webhook_service_pb2.DeleteWebhookRequest(project=PROJECT, id=hook),
        webhook_service_pb2.RotateWebhookSecretRequest(project=PROJECT, id=hook, overlap={"seconds": 60}),
        webhook_service_pb2.GetWebhookRequest(project=PROJECT, id=hook),
        webhook_service_pb2.TestWebhookRequest(project=PROJECT, id=hook),
        webhook_service_pb2.ListDeliveriesRequest(project=PROJECT, id=hook),
        webhook_service_pb2.RedeliverRequest(project=PROJECT, id=hook, revision=5),
    ]
    subject = SubjectReference(kind="user", keys={"id": "u-1007"})
    lookup = event_service_pb2.SubjectLookup(reference=subject)
    of = {"project": PROJECT, "environment": "production"}
    override = SubjectOverride(setting="checkout.timeout", value={"double_value": 9.0})
    events = [
        event_service_pb2.Event(idempotency_key="e", subjects=[subject], track={"name": "order"}),
        event_service_pb2.Event(
            idempotency_key="x", exposure={"setting": "checkout.timeout", "variant": "slow", "revision": 3}
        ),
    ]
    requests += [
        event_service_pb2.GetSubjectsRequest(**of, lookups=[lookup]),
        event_service_pb2.DeleteSubjectsRequest(**of, lookups=[lookup]),
        event_service_pb2.UpsertSubjectsRequest(
            **of,
            subjects=[
                event_service_pb2.SubjectUpsert(
                    reference=subject, traits={"plan": {"string_value": "plus"}}, overrides=[override]
                )
            ],
        ),
        event_service_pb2.RecordEventsRequest(**of, events=events),
        event_service_pb2.ListExposuresRequest(**of, setting="checkout.timeout"),
        config_service_pb2.EvaluateRequest(**of, name="checkout.timeout", subjects=[subject], explain=True),
    ]
    return requests


class Node:
    """An open server over a copy of the shop, and the looks behind its answers."""

    def __init__(self, shop: Path, path: Path) -> None:
        self.path = path
        shutil.copy(shop, path)
        self.service = open_service(path).start()
        self.writes = 0
        self._exported = self.export()
        self._revision = self.service.head.revision
        self._fed = self.service.store.subject_feed_number()
        self._secrets = self._known_secrets()
        self._sessions = [self._watch(environment) for environment in ("staging", "production")]

    def close(self) -> None:
        self.service.close()

    def export(self) -> str:
        return format_document(export_document(self.service.head.state.projects[PROJECT]))

    def look_behind(self, answer: Answered, *, writing: bool, feeding: bool) -> None:
        """Check what *answer* says, and what the store has become."""
        self._check_answer(answer)
        revision = self.service.store.revision()
        assert revision == self.service.head.revision
        if writing and answer.code == "ok":
            assert revision <= self._revision + 1
            if revision > self._revision:
                self.writes += 1
                self._check_write()
        else:
            assert revision == self._revision
        self._revision = revision
        fed = self.service.store.subject_feed_number()
        assert fed >= self._fed if feeding and answer.code == "ok" else fed == self._fed
        self._fed = fed

    def look_at_all(self, *, writing: bool) -> None:
        """Check the whole state: that nothing has changed it, or that it can still be used by everybody."""
        if not writing:
            assert self.export() == self._exported
            return
        again = open_service(self.path)
        with again:
            assert again.head.state == self.service.head.state
            for (project, environment), view in again.head.views.items():
                session = self._watch(environment, again, project)
                for name in view.snapshot.settings:
                    for context in CONTEXTS:
                        evaluate(view.snapshot, name, context)
                assert session.position is not None
            parse_document(format_document(export_document(again.head.state.projects[PROJECT])))

    def _check_answer(self, answer: Answered) -> None:
        assert answer.status in STATUSES
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers.get("x-request-id", "")), answer.headers
        error = answer.error
        if error is None:
            assert not any(secret in answer.body for secret in self._secrets)
            return
        assert error["code"] in CODES, error
        assert error["message"]
        info = answer.detail(ErrorInfo)
        assert info is not None, error
        assert info.domain == "rheostat"
        assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", info.reason)
        text = json.dumps(error, ensure_ascii=False)
        assert not INTERNALS.search(text), text
        assert str(self.path.parent) not in text
        assert len(answer.body) < 64_000, error["message"][:2000]
        assert not answer.written

    def _check_write(self) -> None:
        for session in self._sessions:
            self._step(session, self.service)
        for project, state in self.service.head.state.projects.items():
            for environment, entry in state.environments.items():
                touched = [
                    s.name for s in entry.settings.values() if s.revision == self.service.head.revision
                ]
                if not touched:
                    continue
                snapshot = self.service.view(project, environment).snapshot
                for name in touched:
                    for context in CONTEXTS:
                        evaluate(snapshot, name, context)

    def _watch(
        self, environment: str, service: Service | None = None, project: str = PROJECT
    ) -> WatchSession:
        service = service or self.service
        session = service.watch(WatchOptions(project, environment))
        self._step(session, service)
        return session

    @staticmethod
    def _step(session: WatchSession, service: Service) -> None:
        encoder = EventEncoder(service.head.identity.token_key, lambda message: message)
        for event in session.step(0.0).events:
            for message in encoder.encode(event, session.whole):
                assert type(message).FromString(message.SerializeToString()) == message

    def _known_secrets(self) -> list[bytes]:
        token_key = self.service.head.identity.token_key
        return [token_key, token_key.hex().encode(), str(self.path.parent).encode()]


@pytest.fixture
def nodes(shop: Path, tmp_path: Path) -> Iterator[Iterator[Node]]:
    """Fresh nodes, each over a store of its own; all are closed afterwards."""
    made: list[Node] = []

    def make() -> Iterator[Node]:
        for number in itertools.count():
            made.append(Node(shop, tmp_path / f"{number}.db"))
            yield made[-1]

    yield make()
    for node in made:
        node.close()


def full_name(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}.{method.name}"


@pytest.mark.parametrize("method", METHODS, ids=full_name)
def test_no_input_breaks_the_asgi_application(
    method: MethodDescriptor, nodes: Iterator[Node], samples: list[Message]
) -> None:
    codes, writes = asyncio.run(
        fuzz(lambda service: Asgi(asgi_app(service, open=True)), method, nodes, samples, INPUTS)
    )

    # The inputs reach what they are about: neither all taken nor all refused.
    assert codes["invalid_argument"]
    assert codes["ok"]
    assert bool(writes) == (method.name in WRITES)


@pytest.mark.parametrize("method", METHODS, ids=full_name)
def test_no_input_breaks_the_wsgi_application(
    method: MethodDescriptor, nodes: Iterator[Node], samples: list[Message]
) -> None:
    def serve(service: Service) -> Callable[[Asked], Awaitable[Answered]]:
        application = Wsgi(wsgi_app(service, open=True))

        async def call(request: Asked) -> Answered:
            return application(request)

        return call

    asyncio.run(fuzz(serve, method, nodes, samples, INPUTS_OVER_WSGI))


async def fuzz(
    serve: Callable[[Service], Callable[[Asked], Awaitable[Answered]]],
    method: MethodDescriptor,
    nodes: Iterator[Node],
    samples: list[Message],
    count: int,
) -> tuple[collections.Counter[str], int]:
    """Send *count* requests and look behind each; return how often which code was answered, and the writes."""
    writing = method.name in WRITES
    codes: collections.Counter[str] = collections.Counter()
    fuzzer = Fuzzer(f"{SEED} {method.full_name}", samples)
    requests = enumerate(fuzzer.requests(method, count))
    writes = 0
    while part := list(itertools.islice(requests, WRITES_OF_A_NODE if writing else count)):
        node = next(nodes)
        call = serve(node.service)
        for number, request in part:
            try:
                answer = await call(request)
                node.look_behind(answer, writing=writing, feeding=method.name in SUBJECT_WRITES)
            except Exception as exc:
                exc.add_note(f"input {number} of {method.full_name}: {str(request)[:4_000]}")
                raise
            codes[answer.code] += 1
        node.look_at_all(writing=writing)
        writes += node.writes
    return codes, writes
