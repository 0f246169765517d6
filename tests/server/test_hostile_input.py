"""Hostile input by hand: each RPC answers it with the right code, the field at fault, and nothing else."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import config_service_pb2 as config
from rheo.v1 import draft_service_pb2 as draft
from rheo.v1 import event_service_pb2 as event
from rheo.v1 import key_pb2
from rheo.v1 import webhook_service_pb2 as webhook
from rheo.v1.change_pb2 import Mutation, RevisionConflict
from rheo.v1.condition_pb2 import Condition
from rheo.v1.subject_pb2 import SubjectReference
from rheo.v1.value_pb2 import Value
from rheo.v1.watch_pb2 import WatchRequest
from rheostat.errors import StoreError
from rheostat.server import asgi_app, wsgi_app
from rheostat.server.call import LARGE as OF_CHANGE_SETS
from rheostat.service import Limits, Service
from rheostat.wire.contract import SERVICES
from rheostat.wire.error import INTERNAL_MESSAGE
from tests.each import each
from tests.server.exchange import WATCH, Answered, Asgi, Asked, Wsgi, asked, asked_by_get, enveloped
from tests.server.shop import fill, open_service

Call = Callable[[Asked], Answered]

MIB = 1024 * 1024

METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}
CONFIG, ADMIN, EVENT = "rheo.v1.ConfigService/", "rheo.v1.AdminService/", "rheo.v1.EventService/"
DRAFT, WEBHOOK = "rheo.v1.DraftService/", "rheo.v1.WebhookService/"
SUBJECT = SubjectReference(kind="user", keys={"id": "u1"})
PLACE = {"project": "shop", "environment": "production"}
MUTATION = Mutation(set_value={"name": "checkout.timeout", "value": {"double_value": 4.0}})

REQUESTS: dict[str, Message] = {
    f"{CONFIG}Watch": WatchRequest(**PLACE),
    f"{CONFIG}GetSnapshot": config.GetSnapshotRequest(**PLACE),
    f"{CONFIG}Evaluate": config.EvaluateRequest(**PLACE, name="checkout.timeout"),
    f"{CONFIG}EvaluateAll": config.EvaluateAllRequest(**PLACE),
    f"{CONFIG}DeclareSettings": config.DeclareSettingsRequest(**PLACE),
    f"{CONFIG}ReportStatus": config.ReportStatusRequest(**PLACE, reports=[{"client": {"id": "c1"}}]),
    f"{CONFIG}Ping": config.PingRequest(),
    f"{ADMIN}Commit": admin.CommitRequest(**PLACE),
    f"{ADMIN}Revert": admin.RevertRequest(**PLACE, to_revision=1_000_000),
    f"{ADMIN}Export": admin.ExportRequest(project="shop"),
    f"{ADMIN}CreateKey": admin.CreateKeyRequest(**PLACE, kind=key_pb2.KEY_KIND_SERVER),
    f"{ADMIN}RevokeKey": admin.RevokeKeyRequest(project="shop", selector="nobody"),
    f"{ADMIN}GetProject": admin.GetProjectRequest(project="shop"),
    f"{ADMIN}ListProjects": admin.ListProjectsRequest(),
    f"{ADMIN}GetEnvironment": admin.GetEnvironmentRequest(**PLACE),
    f"{ADMIN}ListEnvironments": admin.ListEnvironmentsRequest(project="shop"),
    f"{ADMIN}GetSetting": admin.GetSettingRequest(**PLACE, name="checkout.timeout"),
    f"{ADMIN}ListSettings": admin.ListSettingsRequest(**PLACE),
    f"{ADMIN}GetSegment": admin.GetSegmentRequest(project="shop", name="staff"),
    f"{ADMIN}ListSegments": admin.ListSegmentsRequest(project="shop"),
    f"{ADMIN}GetFeatures": admin.GetFeaturesRequest(project="shop"),
    f"{ADMIN}GetRevision": admin.GetRevisionRequest(project="shop", revision=2),
    f"{ADMIN}ListRevisions": admin.ListRevisionsRequest(project="shop"),
    f"{ADMIN}GetKey": admin.GetKeyRequest(project="shop", selector="nobody"),
    f"{ADMIN}ListKeys": admin.ListKeysRequest(project="shop"),
    f"{ADMIN}ListClients": admin.ListClientsRequest(**PLACE),
    f"{ADMIN}RotateKey": admin.RotateKeyRequest(project="shop", selector="nobody"),
    f"{ADMIN}GetRollout": admin.GetRolloutRequest(**PLACE),
    f"{ADMIN}ListStaleSettings": admin.ListStaleSettingsRequest(**PLACE),
    f"{DRAFT}CreateDraft": draft.CreateDraftRequest(**PLACE, mutations=[MUTATION]),
    f"{DRAFT}UpdateDraft": draft.UpdateDraftRequest(project="shop", id="none", mutations=[MUTATION]),
    f"{DRAFT}GetDraft": draft.GetDraftRequest(project="shop", id="none"),
    f"{DRAFT}ListDrafts": draft.ListDraftsRequest(project="shop"),
    f"{DRAFT}ApproveDraft": draft.ApproveDraftRequest(project="shop", id="none", version=1),
    f"{DRAFT}PublishDraft": draft.PublishDraftRequest(project="shop", id="none"),
    f"{DRAFT}CancelDraft": draft.CancelDraftRequest(project="shop", id="none"),
    f"{WEBHOOK}CreateWebhook": webhook.CreateWebhookRequest(project="shop", url="https://hooks.invalid/"),
    f"{WEBHOOK}UpdateWebhook": webhook.UpdateWebhookRequest(project="shop", id="none"),
    f"{WEBHOOK}DeleteWebhook": webhook.DeleteWebhookRequest(project="shop", id="none"),
    f"{WEBHOOK}RotateWebhookSecret": webhook.RotateWebhookSecretRequest(project="shop", id="none"),
    f"{WEBHOOK}GetWebhook": webhook.GetWebhookRequest(project="shop", id="none"),
    f"{WEBHOOK}ListWebhooks": webhook.ListWebhooksRequest(project="shop"),
    f"{WEBHOOK}TestWebhook": webhook.TestWebhookRequest(project="shop", id="none"),
    f"{WEBHOOK}ListDeliveries": webhook.ListDeliveriesRequest(project="shop", id="none"),
    f"{WEBHOOK}Redeliver": webhook.RedeliverRequest(project="shop", id="none", revision=2),
    f"{EVENT}RecordEvents": event.RecordEventsRequest(**PLACE, events=[{}]),
    f"{EVENT}UpsertSubjects": event.UpsertSubjectsRequest(**PLACE, subjects=[{"reference": SUBJECT}]),
    f"{EVENT}GetSubjects": event.GetSubjectsRequest(**PLACE, lookups=[{"reference": SUBJECT}]),
    f"{EVENT}DeleteSubjects": event.DeleteSubjectsRequest(**PLACE, lookups=[{"reference": SUBJECT}]),
    f"{EVENT}ListSubjects": event.ListSubjectsRequest(**PLACE),
    f"{EVENT}ListSubjectChanges": event.ListSubjectChangesRequest(**PLACE),
    f"{EVENT}ListExposures": event.ListExposuresRequest(**PLACE),
    f"{EVENT}ListEventCounts": event.ListEventCountsRequest(**PLACE),
}
"""A request of each method that nothing is wrong with."""

OF_ONE_WEBHOOK = (
    "UpdateWebhook",
    "DeleteWebhook",
    "RotateWebhookSecret",
    "GetWebhook",
    "TestWebhook",
    "ListDeliveries",
)

REQUIRED = {
    f"{CONFIG}Evaluate": "name",
    f"{CONFIG}ReportStatus": "reports",
    f"{ADMIN}Revert": "target",
    f"{ADMIN}CreateKey": "kind",
    f"{ADMIN}RevokeKey": "selector",
    f"{ADMIN}GetSetting": "name",
    f"{ADMIN}GetSegment": "name",
    f"{ADMIN}GetRevision": "revision",
    f"{ADMIN}GetKey": "selector",
    f"{ADMIN}RotateKey": "selector",
    f"{DRAFT}CreateDraft": "mutations",
    f"{DRAFT}UpdateDraft": "id mutations",
    f"{DRAFT}GetDraft": "id",
    f"{DRAFT}ApproveDraft": "id version",
    f"{DRAFT}PublishDraft": "id",
    f"{DRAFT}CancelDraft": "id",
    f"{WEBHOOK}CreateWebhook": "url",
    **{f"{WEBHOOK}{name}": "id" for name in OF_ONE_WEBHOOK},
    f"{WEBHOOK}Redeliver": "id revision",
    f"{EVENT}RecordEvents": "events",
    f"{EVENT}UpsertSubjects": "subjects",
    f"{EVENT}GetSubjects": "lookups",
    f"{EVENT}DeleteSubjects": "lookups",
}
"""What a request of the method cannot be without: fields, apart by spaces."""

NEED_ENVIRONMENT = [
    *(f"{CONFIG}{name}" for name in ("Watch", "GetSnapshot", "Evaluate", "EvaluateAll")),
    *(f"{ADMIN}{name}" for name in ("GetEnvironment", "GetSetting", "ListSettings")),
    *(name for name in METHODS if name.startswith(EVENT)),
]

MAKES = (f"{ADMIN}CreateKey", f"{WEBHOOK}CreateWebhook")
"""Methods whose good request makes something."""

MOUNTS = ("asgi", "wsgi")

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda name: name.removeprefix("rheo.v1."))


def having(field: str) -> Any:
    """Parametrise with the methods whose request has the field."""
    names = [name for name, method in METHODS.items() if field in method.input_type.fields_by_name]
    return pytest.mark.parametrize("method", names, ids=lambda name: name.removeprefix("rheo.v1."))


def mount(kind: str, service: Service) -> Call:
    if kind == "wsgi":
        return Wsgi(wsgi_app(service, open=True))
    application = Asgi(asgi_app(service, open=True))
    return lambda request: asyncio.run(application(request))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "shop.db"


@pytest.fixture(scope="module")
def service(path: Path) -> Iterator[Service]:
    with open_service(path) as made:
        fill(made)
        yield made


@pytest.fixture(params=MOUNTS)
def call(request: pytest.FixtureRequest, service: Service) -> Iterator[Call]:
    """Calls the shop, and checks that it is the same afterwards."""
    revision = service.store.revision()
    yield mount(request.param, service)
    assert service.store.revision() == revision


def changed(method: str, **fields: Any) -> Message:
    request = type(REQUESTS[method])()
    request.CopyFrom(REQUESTS[method])
    request.MergeFrom(type(request)(**fields))
    return request


def assert_refused(answer: Answered, code: str, reason: str, *fields: str) -> None:
    assert (answer.code, answer.reason, *answer.fields) == (code, reason, *fields), answer.error
    assert answer.detail(ErrorInfo).domain == "rheostat"
    assert answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "private, no-store"


# Each RPC.


def test_the_requests_that_are_spoilt_below_are_good() -> None:
    assert REQUESTS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", [name for name in METHODS if name not in MAKES])
@each("codec", ["proto", "json"])
def test_a_good_request_is_refused_for_nothing_that_is_wrong_with_it(
    call: Call, method: str, codec: str
) -> None:
    answer = call(asked(method, REQUESTS[method], codec))
    assert answer.code in ("ok", "not_found")


@each_method
def test_an_empty_request_is_told_what_it_lacks(call: Call, method: str) -> None:
    for answer in (call(asked(method, b"")), call(asked(method, b"{}", "json"))):
        if method in REQUIRED:
            required = REQUIRED[method].split()
            assert_refused(answer, "invalid_argument", "INVALID_FIELD", *required)
            assert answer.message.startswith(f"{required[0]}: ")
        else:
            assert answer.code == "ok"


@each_method
@each("body", [b"", b" ", b"null", b"[]", b"1", b'"x"'])
def test_json_that_is_no_object_is_malformed(call: Call, method: str, body: bytes) -> None:
    assert_refused(call(asked(method, body, "json")), "invalid_argument", "MALFORMED_REQUEST", "")


@each_method
@each(
    "body", [b"\xff", b"\x0a", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", b"\x0b", b"\x07", b"\x0a" + b"\xff" * 11]
)
def test_bytes_that_are_no_message_are_malformed(call: Call, method: str, body: bytes) -> None:
    answer = call(asked(method, body))
    first = METHODS[method].input_type.fields_by_number.get(1)
    if body == b"\x0a\x02\xff\xfe" and (first is None or first.type != first.TYPE_STRING):
        # To this request it is a field that it does not know.
        assert answer.code == "ok"
        return
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST")
    assert "in the content type that it names" in answer.message


@each_method
def test_an_unknown_field_of_json_is_named(call: Call, method: str) -> None:
    answer = call(asked(method, b'{"environmnet": "production"}', "json"))
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST", "environmnet")
    assert answer.message == "environmnet: is no field of the request"


@each_method
def test_a_newer_client_s_unknown_field_in_bytes_is_no_mistake(call: Call, method: str) -> None:
    if method in MAKES:
        pytest.skip("makes something")
    unknown = b"\xfa\x3f\x03abc"
    answer = call(asked(method, REQUESTS[method].SerializeToString() + unknown))
    assert answer.reason not in ("MALFORMED_REQUEST", "INVALID_FIELD")


@each_method
@each(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/xml", "application/"]
)
def test_another_content_type_is_refused_naming_the_right_ones(
    call: Call, method: str, content_type: str
) -> None:
    request = asked(method, REQUESTS[method])
    headers = ((b"host", b"localhost"), (b"content-type", content_type.encode()))
    answer = call(Asked(request.path, request.body, headers))
    assert answer.status == 415
    kind = "application/connect+" if method == WATCH else "application/"
    assert answer.headers["accept-post"] == f"{kind}proto, {kind}json"
    assert_refused(answer, "invalid_argument", "UNSUPPORTED_MEDIA_TYPE")


@each_method
@each("http_method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_another_http_method_is_refused_naming_the_right_ones(
    call: Call, method: str, http_method: str
) -> None:
    reads = METHODS[method].GetOptions().idempotency_level == 1
    if reads and http_method == "GET":
        answer = call(asked_by_get(method, REQUESTS[method].SerializeToString(), "proto"))
        assert answer.code in ("ok", "not_found", "failed_precondition")
        return
    request = asked(method, REQUESTS[method])
    answer = call(Asked(request.path, request.body, request.headers, http_method))
    assert answer.status == 405
    assert answer.headers["allow"] == ("GET, POST" if reads else "POST")
    assert_refused(answer, "invalid_argument", "HTTP_METHOD_NOT_ALLOWED")


@pytest.mark.parametrize("service_name", [CONFIG, ADMIN, EVENT])
@pytest.mark.parametrize("name", ["Nothing", "", "commit", "Commit/", "../AdminService/Commit", "\0"])
def test_an_unknown_method_is_not_found(call: Call, service_name: str, name: str) -> None:
    answer = call(asked(f"{service_name}{name}", b""))
    assert answer.status == 404
    assert_refused(answer, "not_found", "METHOD_NOT_FOUND")


@each_method
def test_a_request_beyond_the_limit_of_its_method_is_refused_by_the_limit_s_name(
    call: Call, method: str
) -> None:
    commits = method in OF_CHANGE_SETS
    limit, size = ("max_commit_bytes", 32 * MIB) if commits else ("max_request_bytes", MIB)
    # An unknown field of the right length, so that only its size is wrong.
    large = (
        b"\xfa\x3f" + b"\x80\x80\x80\x10" + bytes(32 * MIB)
        if commits
        else b"\xfa\x3f\x80\x80\x40" + bytes(MIB)
    )
    for request in (asked(method, large), compressed(method, large)):
        answer = call(request)
        assert_refused(answer, "resource_exhausted", "LIMIT_EXCEEDED")
        assert answer.detail(ErrorInfo).metadata == {"limit": limit}
        assert str(size) in answer.message


def compressed(method: str, content: bytes) -> Asked:
    packed = gzip.compress(content, mtime=0)
    if method == WATCH:
        request = asked(method, b"", "proto", ("connect-content-encoding", "gzip"))
        return Asked(request.path, enveloped(packed, 1), request.headers)
    return asked(method, packed, "proto", ("content-encoding", "gzip"))


def test_only_commit_takes_more_than_a_mebibyte(call: Call) -> None:
    unknown = b"\xfa\x3f\x80\x80\x40" + bytes(MIB)
    assert call(asked(f"{ADMIN}Commit", unknown)).code == "ok"


@each_method
@each("encoding", ["br", "gzip, gzip", "x" * 300])
def test_an_unknown_compression_is_malformed(call: Call, method: str, encoding: str) -> None:
    header = "connect-content-encoding" if method == WATCH else "content-encoding"
    answer = call(asked(method, b"", "proto", (header, encoding)))
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST")
    assert "compression other than gzip" in answer.message


@each_method
def test_what_is_not_gzip_although_it_says_so_is_malformed(call: Call, method: str) -> None:
    for content in (b"not gzip", gzip.compress(b"{}", mtime=0)[:-9]):
        request = compressed(method, b"")
        body = enveloped(content, 1) if method == WATCH else content
        answer = call(Asked(request.path, body, request.headers))
        assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST")


@each_method
@each(
    ("name", "value"),
    [("connect-timeout-ms", "soon"), ("connect-timeout-ms", "-1"), ("connect-timeout-ms", "9" * 11), ("connect-protocol-version", "2")],
)  # fmt: skip
def test_a_header_of_the_protocol_that_cannot_be_read_is_named(
    call: Call, method: str, name: str, value: str
) -> None:
    answer = call(asked(method, REQUESTS[method], "proto", (name, value)))
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST")
    assert name in answer.message


@each_method
def test_a_header_that_is_not_text_is_malformed(call: Call, method: str) -> None:
    answer = call(asked(method, REQUESTS[method], "proto", ("x-anything", "\xff\xfe")))
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST")


@each_method
def test_grpc_is_refused_where_the_server_sends_no_trailers(call: Call, method: str) -> None:
    request = asked(method, b"")
    headers = ((b"host", b"localhost"), (b"content-type", b"application/grpc+proto"))
    answer = call(Asked(request.path, enveloped(b""), headers))
    assert answer.status == 415
    assert_refused(answer, "invalid_argument", "UNSUPPORTED_MEDIA_TYPE")
    assert "gRPC-Web" in answer.message


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"encoding=proto",
        b"message=%21%21%21&base64=1&encoding=proto",
        b"message=A&base64=1&encoding=proto",
        b"message={&encoding=json",
        b"message=%ff&encoding=json",
        b"message=e30&base64=1&encoding=json&compression=br",
        b"message=e30&base64=1&encoding=json&compression=gzip",
        b"\xff",
    ],
)
def test_a_get_with_a_bad_query_is_refused(call: Call, query: bytes) -> None:
    answer = call(Asked(f"/{ADMIN}GetProject", b"", ((b"host", b"localhost"),), "GET", query))
    assert answer.code == "invalid_argument"
    assert answer.reason in ("MALFORMED_REQUEST", "UNSUPPORTED_MEDIA_TYPE")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0", b"\0\0\0\0\x05ab", b"\x80\0\0\0\0", enveloped(b"") * 2, b"\0\xff\xff\xff\xff"]
)
def test_a_watch_takes_exactly_one_whole_message(call: Call, body: bytes) -> None:
    answer = call(Asked(f"/{WATCH}", body, asked(WATCH, b"").headers))
    assert answer.code in ("invalid_argument", "resource_exhausted")
    assert answer.reason in ("MALFORMED_REQUEST", "LIMIT_EXCEEDED")


# Fields that many RPCs have.


@having("project")
def test_a_project_that_does_not_exist_is_denied(call: Call, method: str) -> None:
    answer = call(asked(method, changed(method, project="nowhere")))
    assert_refused(answer, "permission_denied", "UNKNOWN_PROJECT")
    assert "'nowhere'" in answer.message


@having("environment")
def test_an_environment_that_does_not_exist_is_denied(call: Call, method: str) -> None:
    answer = call(asked(method, changed(method, project="shop", environment="nowhere")))
    assert_refused(answer, "permission_denied", "UNKNOWN_ENVIRONMENT")
    assert "'nowhere'" in answer.message


@having("project")
@each("slug", ["Shop", "-", "a" * 64, "a b", "../shop", "shop\0", "shop\n", "shöp", "' OR 1=1 --"])
def test_what_is_no_slug_is_invalid(call: Call, method: str, slug: str) -> None:
    for field in ("project", "environment"):
        if field in METHODS[method].input_type.fields_by_name:
            assert_refused(
                call(asked(method, changed(method, **{field: slug}))),
                "invalid_argument",
                "INVALID_FIELD",
                field,
            )


@pytest.mark.parametrize("method", NEED_ENVIRONMENT)
def test_an_environment_that_is_not_named_is_refused_naming_the_choices(call: Call, method: str) -> None:
    request = changed(method)
    request.ClearField("environment")
    answer = call(asked(method, request))
    assert_refused(answer, "invalid_argument", "ENVIRONMENT_REQUIRED", "environment")
    for choice in ("development", "staging", "production"):
        assert choice in answer.message


@having("page_size")
def test_a_page_of_more_than_a_thousand_is_invalid(call: Call, method: str) -> None:
    for size in (1_001, 2**32 - 1):
        answer = call(asked(method, changed(method, page_size=size)))
        assert_refused(answer, "invalid_argument", "INVALID_FIELD", "page_size")
    # Not found: the deliveries are those of a webhook.
    assert call(asked(method, changed(method, page_size=1_000))).code in ("ok", "not_found")


@having("page_token")
@each("token", ["x", "!!!", "cA", "é", "cP__", "AAAA", "\0", "c" * 1_025, "cP________________", "' OR 1=1"])
def test_a_page_token_that_the_method_has_not_made_is_invalid(call: Call, method: str, token: str) -> None:
    answer = call(asked(method, changed(method, page_token=token)))
    reason = "INVALID_FIELD" if len(token) > 1_000 else "INVALID_ARGUMENT"
    assert_refused(answer, "invalid_argument", reason, "page_token")


@having("min_revision")
def test_a_revision_that_does_not_come_is_behind(call: Call, method: str) -> None:
    for revision in (1_000_000, 2**64 - 1):
        answer = call(asked(method, changed(method, min_revision=revision)))
        assert_refused(answer, "unavailable", "BEHIND")
        assert str(revision) in answer.message


@pytest.mark.parametrize(
    ("method", "field"),
    [
        (f"{CONFIG}Evaluate", "name"),
        (f"{ADMIN}GetSetting", "name"),
        (f"{ADMIN}GetSegment", "name"),
        (f"{ADMIN}GetKey", "selector"),
        (f"{ADMIN}RevokeKey", "selector"),
        *((f"{WEBHOOK}{name}", "id") for name in OF_ONE_WEBHOOK),
    ],
)
@each("name", ["nothing", "' OR 1=1 --", "../../etc/passwd", "a\0b", "{0.__class__}", "%s%n", "🦊", "\u202e"])
def test_an_unknown_name_is_not_found(call: Call, method: str, field: str, name: str) -> None:
    answer = call(asked(method, changed(method, **{field: name})))
    if answer.code == "invalid_argument":
        assert_refused(answer, "invalid_argument", "INVALID_FIELD", field)
    else:
        assert answer.code == "not_found"
        assert repr(name) in answer.message


@pytest.mark.parametrize("revision", [1_000_000, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_revision_that_does_not_exist_is_not_found(call: Call, revision: int) -> None:
    for request in (
        admin.GetRevisionRequest(project="shop", revision=revision),
        admin.RevertRequest(project="shop", revision=revision),
        admin.RevertRequest(project="shop", to_revision=revision),
    ):
        name = type(request).__name__.removesuffix("Request")
        assert_refused(call(asked(f"{ADMIN}{name}", request)), "not_found", "REVISION_NOT_FOUND")


# Watch.


@pytest.mark.parametrize("token", [b"x", b"\0" * 72, b"\xff" * 1_024, b"' OR 1=1 --"])
def test_a_resume_token_that_the_store_has_not_made_counts_as_none(call: Call, token: bytes) -> None:
    hello = call(asked(WATCH, changed(WATCH, resume=token))).events()[0].hello
    assert (hello.mode, hello.reason) == (1, 2)
    assert not call(asked(f"{CONFIG}GetSnapshot", changed(f"{CONFIG}GetSnapshot", resume=token))).error


def test_a_resume_token_beyond_its_length_is_invalid(call: Call) -> None:
    answer = call(asked(WATCH, changed(WATCH, resume=bytes(1_025))))
    assert_refused(answer, "invalid_argument", "INVALID_FIELD", "resume")


def test_a_stream_that_comes_back_to_its_node_is_refused(call: Call) -> None:
    answer = call(asked(WATCH, changed(WATCH, via=["relay-1", "node"])))
    assert_refused(answer, "failed_precondition", "WATCH_LOOP")


def test_a_chain_of_more_than_four_relays_is_invalid(call: Call) -> None:
    answer = call(asked(WATCH, changed(WATCH, via=[f"relay-{i}" for i in range(5)])))
    assert_refused(answer, "invalid_argument", "INVALID_FIELD", "via")


# Values and contexts.


def value_cases() -> Iterator[tuple[Value, str]]:
    yield Value(double_value=float("nan")), "not a finite number"
    yield Value(double_value=float("inf")), "not a finite number"
    yield Value(double_value=-float("inf")), "not a finite number"
    yield Value(), "has no kind"
    yield Value(list_value={"values": [Value()]}), "has no kind"
    yield nested(31), "nests more than 30 levels"


def nested(levels: int) -> Value:
    return functools.reduce(
        lambda inner, _: Value(list_value={"values": [inner]}), range(levels), Value(int_value=1)
    )


@pytest.mark.parametrize(("value", "why"), list(value_cases()))
def test_what_is_no_value_is_refused_naming_its_field(call: Call, value: Value, why: str) -> None:
    answer = call(asked(f"{CONFIG}Evaluate", changed(f"{CONFIG}Evaluate", context={"user": value})))
    assert_refused(answer, "invalid_argument", "TYPE_MISMATCH", "context['user']")
    assert why in answer.message

    mutation = Mutation()
    mutation.set_value.name = "limits.upload-bytes"
    mutation.set_value.value.CopyFrom(value)
    answer = call(asked(f"{ADMIN}Commit", changed(f"{ADMIN}Commit", mutations=[mutation])))
    assert_refused(answer, "invalid_argument", "TYPE_MISMATCH", "mutations[0].set_value.value")
    assert why in answer.message


JSON_CASES = {
    '{"name": 1}': "name",
    '{"name": ["a"]}': "name",
    '{"minRevision": -1}': "minRevision",
    '{"minRevision": 18446744073709551616}': "minRevision",
    '{"context": {"a": {"intValue": "9223372036854775808"}}}': "context.intValue",
    '{"context": {"a": {"intValue": -9223372036854775809}}}': "context.intValue",
    '{"context": {"a": {"intValue": 1.5}}}': "context[a].intValue",
    '{"context": {"a": {"stringValue": "\\ud800"}}}': "context[a].stringValue",
    '{"context": {"a": {"boolValue": true, "intValue": 1}}}': "context[a]",
    '{"context": {"a": {"nmae": 1}}}': "context[a].nmae",
    '{"attributes": 5}': "attributes",
    '{"name": "a", "name": "b"}': "name",
    '{"context": {"a": {"intValue": 1}, "a": {"intValue": 2}}}': "a",
    '{"name": "a"': "",
    '{"name": "a"} x': "",
    "{'name': 'a'}": "",
    '{"a":' * 5_000: "",
    '{"minRevision": ' + "9" * 5_000 + "}": "",
}


@pytest.mark.parametrize(("text", "field"), JSON_CASES.items(), ids=[text[:40] for text in JSON_CASES])
def test_json_that_does_not_fit_is_refused_naming_its_field(call: Call, text: str, field: str) -> None:
    answer = call(asked(f"{CONFIG}Evaluate", text, "json"))
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST", field)
    assert len(answer.message) < 300
    assert "rheo.v1" not in answer.message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_struct_holds_finite_numbers_only(call: Call, number: str) -> None:
    place = '"project": "shop", "environment": "production", "name": "checkout.timeout"'
    answer = call(
        asked(f"{CONFIG}Evaluate", f'{{{place}, "attributes": {{"cart": {{"total": {number}}}}}}}', "json")
    )
    assert (answer.code, answer.fields) == ("invalid_argument", ["attributes"]), answer.error


@pytest.mark.parametrize("levels", [31, 60, 150, 400])
def test_attributes_that_nest_too_deep_are_invalid(call: Call, levels: int) -> None:
    deep = '{"a":' * levels + "1" + "}" * levels
    place = '"project": "shop", "environment": "production", "name": "checkout.timeout"'
    answer = call(asked(f"{CONFIG}Evaluate", f'{{{place}, "attributes": {{"a": {deep}}}}}', "json"))
    assert answer.code == "invalid_argument"
    assert "nest" in answer.message or answer.reason == "MALFORMED_REQUEST"


def test_context_and_attributes_together_are_invalid(call: Call) -> None:
    request = changed(f"{CONFIG}Evaluate", context={"a": Value(int_value=1)}, attributes={"a": 1})
    answer = call(asked(f"{CONFIG}Evaluate", request))
    assert_refused(answer, "invalid_argument", "INVALID_FIELD", "")
    assert "context and attributes cannot both be given" in answer.message


@pytest.mark.parametrize(
    "text", ["9999-99-99T00:00:00Z", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "soon", "5"]
)
def test_an_expiry_that_is_no_instant_is_invalid(call: Call, text: str) -> None:
    body = json.dumps(
        {"project": "shop", "environment": "production", "kind": "KEY_KIND_SERVER", "expiresAt": text}
    )
    answer = call(asked(f"{ADMIN}CreateKey", body, "json"))
    assert_refused(answer, "invalid_argument", "MALFORMED_REQUEST", "expiresAt")


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (0, -1), (0, 2**31 - 1)])
def test_an_expiry_outside_the_calendar_is_invalid(call: Call, seconds: int, nanos: int) -> None:
    request = changed(f"{ADMIN}CreateKey", expires_at={"seconds": seconds, "nanos": nanos})
    answer = call(asked(f"{ADMIN}CreateKey", request))
    assert_refused(answer, "invalid_argument", "INVALID_ARGUMENT", "expires_at")


def test_thousands_of_mistakes_get_a_short_answer(call: Call) -> None:
    answer = call(asked(f"{CONFIG}EvaluateAll", changed(f"{CONFIG}EvaluateAll", names=[""] * 1_000)))
    assert_refused(answer, "invalid_argument", "INVALID_FIELD", *(f"names[{i}]" for i in range(100)))
    assert "and 999 more" in answer.message

    answer = call(asked(f"{CONFIG}EvaluateAll", changed(f"{CONFIG}EvaluateAll", names=[""] * 10_000)))
    assert_refused(answer, "invalid_argument", "INVALID_FIELD", "names[0]")


@pytest.mark.parametrize(
    ("method", "field"),
    [(f"{CONFIG}Evaluate", "subjects"), (f"{CONFIG}EvaluateAll", "names"), (f"{ADMIN}Commit", "mutations")],
)
def test_half_a_million_mistakes_are_refused_at_once(call: Call, method: str, field: str) -> None:
    number = METHODS[method].input_type.fields_by_name[field].number
    started = time.process_time()
    answer = call(asked(method, bytes([number << 3 | 2, 0]) * 520_000))
    assert_refused(answer, "invalid_argument", "INVALID_FIELD", field)
    # Looking at each of them took a minute.
    assert time.process_time() - started < 10


# Mutations.

SETTING = {"setting": "checkout.timeout"}


def deep_condition(levels: int) -> Condition:
    whole = inner = Condition()
    for _ in range(levels - 1):
        inner = inner.negation.condition
    inner.segment.name = "staff"
    return whole


def matching(pattern: str) -> Condition:
    return Condition(
        comparison={
            "left": {"attribute": "user.email"}, "op": "OPERATOR_MATCHES", "right": {"literal": Value(string_value=pattern)}
        }
    )  # fmt: skip


def put_rule(condition: Condition, setting: str = "checkout.timeout") -> Mutation:
    rule = {"condition": condition, "value": Value(double_value=1.0)}
    return Mutation(put_rule={"setting": setting, "rule": rule})


def put_setting(name: str, **fields: Any) -> Mutation:
    return Mutation(put_setting={"setting": {"name": name, **fields}})


LARGE = "x" * (256 * 1024)

MUTATIONS: dict[str, tuple[Mutation, str, str, str]] = {
    "no kind": (Mutation(), "invalid_argument", "INVALID_FIELD", "mutations[0].kind"),
    "setting unknown": (
        Mutation(unset_value={"name": "nothing"}), "not_found", "SETTING_NOT_FOUND", "",
    ),
    "rule unknown": (
        Mutation(delete_rule={**SETTING, "rule_id": "nothing"}), "not_found", "RULE_NOT_FOUND", "",
    ),
    "segment unknown": (Mutation(delete_segment={"name": "nothing"}), "not_found", "SEGMENT_NOT_FOUND", ""),
    "environment unknown": (
        Mutation(unset_value={"name": "checkout.timeout", "environment": "nowhere"}), "permission_denied", "UNKNOWN_ENVIRONMENT", "",
    ),
    "another project": (
        Mutation(put_project={"project": {"name": "another"}}), "invalid_argument", "INVALID_ARGUMENT", "mutations[0].put_project.project.name",
    ),
    "a name with a path in it": (
        put_setting("../../etc/passwd", type="int", default=Value(int_value=1)), "invalid_argument", "INVALID_FIELD", "mutations[0].put_setting.setting.name",
    ),
    "a name that is taken": (
        Mutation(rename_setting={"name": "search.engine", "new_name": "checkout.timeout"}), "already_exists", "ALREADY_EXISTS", "",
    ),
    "no type": (
        put_setting("new", default=Value(int_value=1)), "invalid_argument", "INVALID_SETTING", "mutations[0].put_setting.setting.type",
    ),
    "a type that is none": (
        put_setting("new", type="__import__('os')", default=Value(int_value=1)), "invalid_argument", "INVALID_TYPE", "mutations[0].put_setting.setting.type",
    ),
    "a type that nests without end": (
        put_setting("new", type="Sequence<" * 5_000, default=Value(int_value=1)), "invalid_argument", "INVALID_TYPE", "mutations[0].put_setting.setting.type",
    ),
    "a schema that refers to a file": (
        put_setting("new", type='Json[{"$ref":"file:///etc/passwd"}]', default=Value(int_value=1)),
        "invalid_argument", "INVALID_TYPE", "mutations[0].put_setting.setting.type",
    ),
    "a value of another type": (
        Mutation(set_value={"name": "checkout.timeout", "value": Value(string_value="4")}), "invalid_argument", "TYPE_MISMATCH", "mutations[0].set_value.value",
    ),
    "a large value": (
        put_setting("new", type="str", default=Value(string_value=LARGE)), "resource_exhausted", "LIMIT_EXCEEDED", "max_value_bytes",
    ),
    "a large item": (
        put_setting(
            "new", type="str", default=Value(string_value=LARGE[:-10]), value=Value(string_value=LARGE[:-10]), off=Value(string_value=LARGE[:-10])
        ),
        "resource_exhausted", "LIMIT_EXCEEDED", "max_item_bytes",
    ),
    "a private key": (
        put_setting("new", type="str", default=Value(string_value="-----BEGIN RSA PRIVATE KEY-----")),
        "invalid_argument", "LOOKS_LIKE_CREDENTIAL", "mutations[0].put_setting.setting.default",
    ),
    "a field that cannot be put": (
        Mutation(put_setting={"setting": {"name": "checkout.timeout"}, "update_mask": {"paths": ["rules"]}}),
        "invalid_argument", "INVALID_ARGUMENT", "mutations[0].put_setting.update_mask.paths[0]",
    ),
    "a field of Python": (
        Mutation(put_setting={"setting": {"name": "checkout.timeout"}, "update_mask": {"paths": ["__class__"]}}),
        "invalid_argument", "INVALID_ARGUMENT", "mutations[0].put_setting.update_mask.paths[0]",
    ),
    "a condition of no kind": (
        put_rule(Condition()), "invalid_argument", "INVALID_FIELD", "mutations[0].put_rule.rule.condition.kind",
    ),
    "a segment that does not exist": (
        put_rule(Condition(segment={"name": "nothing"})), "invalid_argument", "UNKNOWN_SEGMENT", "mutations[0]",
    ),
    "a reference to itself": (
        put_rule(
            Condition(comparison={"left": {"setting": "checkout.timeout"}, "op": "OPERATOR_EXISTS"})
        ),
        "failed_precondition", "CYCLE", "",
    ),
    "33 levels": (
        put_rule(deep_condition(33)), "invalid_argument", "INVALID_CONDITION", "mutations[0].put_rule.rule.condition",
    ),
    "a look-ahead, which RE2 refuses": (
        put_rule(matching("(?=a)b")), "invalid_argument", "INVALID_CONDITION", "mutations[0].put_rule.rule.condition.comparison.right",
    ),
    "a back-reference, which RE2 refuses": (
        put_rule(matching(r"(a)\1")), "invalid_argument", "INVALID_CONDITION", "mutations[0].put_rule.rule.condition.comparison.right",
    ),
    "a repetition without bounds": (
        put_rule(matching("((a{1000}){1000}){1000}")), "invalid_argument", "INVALID_CONDITION", "mutations[0].put_rule.rule.condition.comparison.right",
    ),
    "weights that are not 100 %": (
        Mutation(put_rule={**SETTING, "rule": {"distribution": {"unit": "user.id", "variants": [{"name": "a", "weight": 5, "value": Value(double_value=1)}]}}}),
        "invalid_argument", "INVALID_SETTING", "mutations[0].put_rule.rule.distribution.variants",
    ),
    "features twice": (
        Mutation(set_features={"features": ["a", "a"]}), "invalid_argument", "INVALID_FIELD", "mutations[0].set_features.features",
    ),
    "features on which an order rests left out": (
        Mutation(set_features={}), "invalid_argument", "NOT_SPECIFIC", "mutations[0]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("mutation", "code", "reason", "place"), MUTATIONS.values(), ids=MUTATIONS)
def test_a_mutation_is_refused_with_the_right_code_and_field(
    call: Call, mutation: Mutation, code: str, reason: str, place: str
) -> None:
    answer = call(asked(f"{ADMIN}Commit", changed(f"{ADMIN}Commit", mutations=[mutation])))
    if reason == "LIMIT_EXCEEDED":
        assert_refused(answer, code, reason)
        assert answer.detail(ErrorInfo).metadata["limit"] == place
    else:
        assert_refused(answer, code, reason, *([place] if place else []))
    assert len(answer.body) < 4_000
    assert LARGE[:100] not in answer.message


@pytest.mark.parametrize("levels", [33, 40, 60, 200, 5_000])
def test_a_condition_beyond_what_can_be_read_is_malformed_or_too_deep(call: Call, levels: int) -> None:
    deep = '{"negation": {"condition": ' * levels + '{"segment": {"name": "staff"}}' + "}}" * levels
    rule = f'{{"value": {{"doubleValue": 1}}, "condition": {deep}}}'
    mutations = f'[{{"putRule": {{"setting": "checkout.timeout", "rule": {rule}}}}}]'
    body = f'{{"project": "shop", "environment": "production", "mutations": {mutations}}}'
    answer = call(asked(f"{ADMIN}Commit", body, "json"))
    assert answer.code == "invalid_argument"
    assert answer.reason in ("MALFORMED_REQUEST", "INVALID_FIELD", "INVALID_CONDITION")


@pytest.fixture(params=MOUNTS)
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Call]:
    """Calls a node of the test's own, with low limits."""
    limits = Limits(max_rules=3, max_settings=2, max_segments=2, max_mutations=5, max_snapshot_bytes=100_000)
    with open_service(tmp_path / "own.db", limits=limits) as service:
        call = mount(request.param, service)
        assert call(commit(put_setting("timeout", type="float", default=Value(double_value=1)))).code == "ok"
        yield call


def commit(*mutations: Mutation, **fields: Any) -> Asked:
    return asked(f"{ADMIN}Commit", admin.CommitRequest(mutations=mutations, **fields))


def set_timeout(value: float) -> Mutation:
    return Mutation(set_value={"name": "timeout", "value": Value(double_value=value)})


def test_a_request_id_with_another_payload_already_exists(own: Call) -> None:
    assert own(commit(set_timeout(2), request_id="once")).code == "ok"
    assert own(commit(set_timeout(2), request_id="once")).code == "ok"
    assert_refused(own(commit(set_timeout(3), request_id="once")), "already_exists", "REQUEST_ID_REUSED")


def test_a_setting_that_changed_meanwhile_is_a_conflict(own: Call) -> None:
    assert own(commit(set_timeout(2), expected_revision=2)).code == "ok"
    answer = own(commit(set_timeout(3), expected_revision=2))
    assert_refused(answer, "aborted", "REVISION_CONFLICT")
    conflict = answer.detail(RevisionConflict)
    assert [(item.kind, item.key, item.revision) for item in conflict.items] == [("setting", "timeout", 3)]


@pytest.mark.parametrize(
    ("limit", "mutations"),
    [
        ("max_rules", [put_rule(Condition(segment={"name": "s"}), "timeout")] * 4),
        ("max_settings", [put_setting(name, type="int", default=Value(int_value=1)) for name in "ab"]),
        (
            "max_segments",
            [Mutation(put_segment={"segment": {"name": n, "condition": matching("a")}}) for n in "abc"],
        ),
        ("max_mutations", [set_timeout(number) for number in range(6)]),
        ("max_snapshot_bytes", [put_setting("a", type="str", default=Value(string_value="x" * 100_000))]),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_commit_beyond_a_limit_is_refused_by_the_limit_s_name(
    own: Call, limit: str, mutations: list[Mutation]
) -> None:
    answer = own(commit(*mutations))
    assert_refused(answer, "resource_exhausted", "LIMIT_EXCEEDED")
    assert answer.detail(ErrorInfo).metadata["limit"] == limit


def test_one_large_setting_named_often_makes_no_huge_answer(own: Call) -> None:
    assert own(commit(put_setting("a", type="str", default=Value(string_value="x" * 50_000)))).code == "ok"
    answer = own(asked(f"{CONFIG}EvaluateAll", config.EvaluateAllRequest(names=["a"] * 10_000)))
    assert_refused(answer, "resource_exhausted", "LIMIT_EXCEEDED")
    assert answer.detail(ErrorInfo).metadata["limit"] == "max_snapshot_bytes"


CATASTROPHIC = ["(a+)+$", "(a|a)*$", "(a*)*b", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$"]


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_a_pattern_takes_linear_time_whatever_it_is(own: Call, pattern: str) -> None:
    assert own(commit(put_rule(matching(pattern), "timeout"))).code == "ok"
    text = Value(string_value="a" * 500_000 + "!")
    user = Value(map_value={"entries": {"email": text}})
    started = time.process_time()
    request = config.EvaluateRequest(name="timeout", context={"user": user})
    assert own(asked(f"{CONFIG}Evaluate", request)).code == "ok"
    # A backtracking matcher would not end within the age of the universe.
    assert time.process_time() - started < 10


# What is unexpected.

SECRET = "hunter2 of /srv/rheostat.db"


class Failing:
    """A store whose reads and writes fail once it is told to."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def called(*args: Any, **kwargs: Any) -> Any:
            # The tail, in its own thread, goes on as it would.
            if (
                self.failure is not None
                and threading.current_thread().name != "rheostat-tail"
                and name != "close"
            ):
                raise self.failure
            return method(*args, **kwargs)

        return called


FAILURES: dict[str, Exception] = {
    "RuntimeError": RuntimeError(SECRET),
    "KeyError": KeyError(SECRET),
    "OSError": OSError(5, SECRET, "/srv/rheostat.db"),
    "TimeoutError": TimeoutError(SECRET),
    "StopIteration": StopIteration(SECRET),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    "RecursionError": RecursionError(SECRET),
    "MemoryError": MemoryError(SECRET),
    "StoreError": StoreError(SECRET),
}

READING_THE_STORE = {
    f"{ADMIN}Commit": admin.CommitRequest(mutations=[set_timeout(2)]),
    f"{ADMIN}Revert": admin.RevertRequest(to_revision=1),
    f"{ADMIN}CreateKey": admin.CreateKeyRequest(kind=key_pb2.KEY_KIND_SERVER),
    f"{ADMIN}RevokeKey": admin.RevokeKeyRequest(selector="nobody"),
    f"{ADMIN}GetRevision": admin.GetRevisionRequest(revision=1),
    f"{ADMIN}ListRevisions": admin.ListRevisionsRequest(),
    f"{ADMIN}GetSetting": admin.GetSettingRequest(name="timeout", min_revision=100),
    f"{CONFIG}Evaluate": config.EvaluateRequest(name="timeout", min_revision=100),
    f"{CONFIG}GetSnapshot": config.GetSnapshotRequest(min_revision=100),
    WATCH: WatchRequest(min_revision=100),
}


@pytest.mark.parametrize("kind", MOUNTS)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_an_unexpected_error_tells_nothing_and_the_log_has_it(
    kind: str, failure: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_service(tmp_path / "own.db", wrap=Failing) as service:
        store: Any = service.store
        call = mount(kind, service)
        assert call(commit(put_setting("timeout", type="float", default=Value(double_value=1)))).code == "ok"
        for method, request in READING_THE_STORE.items():
            for codec in ("proto", "json"):
                caplog.clear()
                store.failure = failure
                with caplog.at_level(logging.ERROR, "rheostat"):
                    answer = call(asked(method, request, codec))
                store.failure = None

                assert (answer.code, answer.message) == ("internal", INTERNAL_MESSAGE), method
                assert answer.status == (200 if method == WATCH else 500)
                assert answer.reason == ("STORE" if isinstance(failure, StoreError) else "INTERNAL")
                for word in ("hunter2", "/srv", "Traceback"):
                    assert word not in str(answer)
                # The thread that writes down who is connected may meet the failure at the same time.
                (record,) = (each for each in caplog.records if each.name == "rheostat.server")
                assert answer.headers["x-request-id"] in record.getMessage()
                assert method in record.getMessage()
                assert record.exc_info
                # A coroutine cannot carry a StopIteration.
                logged = record.exc_info[1]
                assert type(failure) in (type(logged), type(logged.__cause__))

        assert call(commit(set_timeout(3))).code == "ok"


@pytest.mark.parametrize("kind", MOUNTS)
def test_a_store_that_cannot_be_read_at_the_start_tells_nothing(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service(tmp_path / "own.db", wrap=Failing)
    store: Any = service.store
    store.failure = RuntimeError(SECRET)
    call = mount(kind, service)
    with caplog.at_level(logging.ERROR, "rheostat"):
        answers = [
            call(asked(method, request))
            for method, request in {**READING_THE_STORE, f"{CONFIG}Ping": config.PingRequest()}.items()
        ]
        ready = call(Asked("/readyz", method="GET", headers=((b"host", b"localhost"),)))
    assert {(answer.code, answer.message) for answer in answers} == {("internal", INTERNAL_MESSAGE)}
    assert ready.status == 503
    for answer in (*answers, ready):
        assert "hunter2" not in str(answer)
    store.failure = None
    assert call(asked(f"{CONFIG}Ping", b"")).code == "ok"
    service.close()
