"""The known defects of the Connect runtime, on the servers' side: each covered, and each would come back.

They are listed, with what was measured, in docs/decisions. Those of the clients' side are tested with the
transports of `rheostat.sdk.transport`.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest, GetSettingRequest, ListRevisionsRequest
from rheo.v1.change_pb2 import Mutation, PutSetting, SetValue
from rheo.v1.config_service_connect import ConfigServiceClient, ConfigServiceClientSync
from rheo.v1.config_service_pb2 import PingRequest
from rheo.v1.setting_pb2 import Setting
from rheo.v1.value_pb2 import Value
from rheo.v1.watch_pb2 import Filter, WatchRequest, WatchResponse
from rheostat.errors import InvalidArgumentError, RevisionConflictError
from rheostat.wire.error import INTERNAL_MESSAGE, from_connect
from tests.e2e.process import PATIENCE, ROOT, ServerProgram
from tests.e2e.writing import SETTING, make_setting, put_setting, set_value
from tests.server.exchange import enveloped, envelopes

SERVERS = ("uvicorn", "gunicorn-gthread")
FAULTY = b'{"setting": "faulty"}'
"""Asks the tests' application for what fails in a way that nobody expects."""

SECRETS = ("hunter2", "/srv", "RuntimeError", "Traceback")


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProgram]:
    store = tmp_path_factory.mktemp("store") / "store.db"
    with ServerProgram(request.param, f"sqlite:{store}") as program:
        make_setting(program.url)
        yield program


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def ask(
    server: ServerProgram,
    method: str,
    body: bytes,
    connection: http.client.HTTPConnection | None = None,
    **headers: str,
) -> Answer:
    """Post *body* without a client's own cleverness; underscores in header names stand for hyphens."""
    own = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        started = time.monotonic()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        own.request("POST", f"/rheo.v1.{method}", body, {"content-type": "application/json", **named})
        response = own.getresponse()
        content = response.read()
        seconds = time.monotonic() - started
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content, seconds)
    finally:
        if connection is None:
            own.close()


# 1. The runtime raises an unexpected exception again after its answer, and tells its text to the caller.


def test_an_unexpected_error_is_internal_and_tells_nothing(server: ServerProgram):
    answer = ask(server, "AdminService/ListRevisions", FAULTY)
    assert answer.status == 500
    assert json.loads(answer.body)["code"] == "internal"
    assert json.loads(answer.body)["message"] == INTERNAL_MESSAGE
    assert answer.headers["x-request-id"]
    told = answer.body.decode() + str(answer.headers)
    details = [base64.b64decode(detail["value"] + "==") for detail in json.loads(answer.body)["details"]]
    for secret in SECRETS:
        assert secret not in told
        assert not any(secret.encode() in detail for detail in details)


def test_an_unexpected_error_of_a_stream_is_internal_and_tells_nothing(server: ServerProgram):
    stream = ConfigServiceClientSync(server.url).watch(
        WatchRequest(environment="production", filter=Filter(names=["faulty"]))
    )
    with pytest.raises(ConnectError) as caught:
        list(stream)
    assert caught.value.code is Code.INTERNAL
    assert caught.value.message == INTERNAL_MESSAGE
    assert not any(secret in str(caught.value.details) for secret in SECRETS)


def test_an_unexpected_error_leaves_the_connection_usable(server: ServerProgram):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.connect()
        connected = connection.sock
        for _ in range(20):
            assert ask(server, "AdminService/ListRevisions", FAULTY, connection).status == 500
            assert ask(server, "ConfigService/Ping", b"{}", connection).status == 200
            assert connection.sock is connected, "the server has closed the connection"
    finally:
        connection.close()


def test_300_pooled_calls_succeed_between_unexpected_errors(server: ServerProgram):
    admin, config = AdminServiceClientSync(server.url), ConfigServiceClientSync(server.url)
    succeeded = 0
    for _ in range(300):
        with pytest.raises(ConnectError) as caught:
            admin.list_revisions(ListRevisionsRequest(setting="faulty"))
        assert caught.value.code is Code.INTERNAL
        succeeded += config.ping(PingRequest()).revision > 0
    assert succeeded == 300


def test_the_log_has_the_unexpected_error_under_the_requests_id(server: ServerProgram):
    request_id = ask(server, "AdminService/ListRevisions", FAULTY).headers["x-request-id"]
    server.line_like(f"rheo.v1.AdminService/ListRevisions.*{request_id}")
    server.line_like("RuntimeError: cannot read /srv/secret")


# 3. Clients gzip what they send: a server without gzip refuses them all.


def test_a_default_clients_large_requests_are_taken(server: ServerProgram):
    name = "shop.texts"
    text = "the same again and again " * 2_000
    admin = AdminServiceClientSync(server.url)
    setting = Setting(name=name, type="str", default=Value(string_value=text))
    admin.commit(
        CommitRequest(environment="production", mutations=[Mutation(put_setting=PutSetting(setting=setting))])
    )
    stored = admin.get_setting(GetSettingRequest(environment="production", name=name)).setting
    assert stored.default.string_value == text


def test_compressed_requests_are_taken_and_answers_compressed_on_demand(server: ServerProgram):
    body = gzip.compress(json.dumps({"environment": "production"}).encode())
    answer = ask(server, "AdminService/ListSettings", body, content_encoding="gzip", accept_encoding="gzip")
    assert (answer.status, answer.headers["content-encoding"]) == (200, "gzip")
    assert SETTING in gzip.decompress(answer.body).decode()


def test_an_unknown_compression_is_the_callers_fault(server: ServerProgram):
    answer = ask(server, "ConfigService/Ping", b"\x0b\x02\x80{}\x03", content_encoding="br")
    assert json.loads(answer.body)["code"] in ("invalid_argument", "unimplemented")
    assert ask(server, "ConfigService/Ping", b"{}").status == 200


@pytest.mark.parametrize("method", ["ConfigService/Ping", "AdminService/Commit"])
def test_a_bomb_is_refused_before_it_is_unpacked(server: ServerProgram, method: str):
    bomb = gzip.compress(bytes(64 * 1024 * 1024), compresslevel=9)
    assert len(bomb) < 100_000
    answer = ask(server, method, bomb, content_encoding="gzip")
    assert answer.status == 429
    assert json.loads(answer.body)["code"] == "resource_exhausted"
    assert answer.seconds < 5.0


# 5. The WSGI side does not enforce deadlines.


def test_a_read_waits_for_a_revision_no_longer_than_its_deadline(server: ServerProgram):
    request = json.dumps({"environment": "production", "name": SETTING, "minRevision": 1_000_000}).encode()
    for method in ("AdminService/GetSetting", "ConfigService/Evaluate"):
        answer = ask(server, method, request, connect_timeout_ms="300")
        assert json.loads(answer.body)["code"] in ("unavailable", "deadline_exceeded")
        assert 0.25 < answer.seconds < 1.5


def test_a_deadline_that_has_passed_does_nothing(server: ServerProgram):
    before = ConfigServiceClientSync(server.url).ping(PingRequest()).revision
    body = json.dumps(
        {
            "environment": "production",
            "mutations": [{"setValue": {"name": SETTING, "value": {"intValue": "9"}}}],
        }
    ).encode()
    answer = ask(server, "AdminService/Commit", body, connect_timeout_ms="0")
    assert json.loads(answer.body)["code"] == "deadline_exceeded"
    assert ConfigServiceClientSync(server.url).ping(PingRequest()).revision == before


def watched(answer: Answer) -> tuple[list[WatchResponse], dict[str, Any]]:
    """Return the events of a stream of binary messages, and what it ended with."""
    events, ends = [], []
    for flags, content in envelopes(answer.body):
        if flags & 2:
            ends.append(json.loads(content))
        else:
            events.append(WatchResponse.FromString(content))
    assert len(ends) == 1
    return events, ends[0]


def test_a_watch_ends_with_its_deadline(server: ServerProgram):
    body = enveloped(WatchRequest(environment="production").SerializeToString())
    answer = ask(
        server,
        "ConfigService/Watch",
        body,
        content_type="application/connect+proto",
        connect_timeout_ms="500",
    )
    events, end = watched(answer)
    assert events[0].HasField("hello")
    assert events[-1].HasField("snapshot_end")
    assert end["error"]["code"] == "deadline_exceeded"
    assert 0.4 < answer.seconds < 1.5
    # Its thread is free again, and its place too.
    assert server.watchers == 0


def test_a_watch_waits_for_a_revision_no_longer_than_its_deadline(server: ServerProgram):
    body = enveloped(WatchRequest(environment="production", min_revision=1_000_000).SerializeToString())
    answer = ask(
        server,
        "ConfigService/Watch",
        body,
        content_type="application/connect+proto",
        connect_timeout_ms="300",
    )
    events, end = watched(answer)
    assert not events
    assert end["error"]["code"] in ("unavailable", "deadline_exceeded")
    assert answer.seconds < 1.5


# 6. The runtime packs only its own library's messages as details.


def test_a_client_reads_the_details_of_an_error(server: ServerProgram):
    admin = AdminServiceClientSync(server.url)
    bad = Mutation(set_value=SetValue(name="not a name", value=Value(int_value=1)))
    with pytest.raises(ConnectError) as caught:
        admin.commit(CommitRequest(environment="production", mutations=[put_setting("fine"), bad]))
    assert caught.value.code is Code.INVALID_ARGUMENT

    found = {detail.type_name: detail.message_bytes for detail in caught.value.details}
    info = ErrorInfo.FromString(found["google.rpc.ErrorInfo"])
    assert (info.domain, info.reason) == ("rheostat", "INVALID_FIELD")
    violations = BadRequest.FromString(found["google.rpc.BadRequest"]).field_violations
    assert [violation.field for violation in violations] == ["mutations[1].set_value.name"]
    assert violations[0].description

    error = from_connect(caught.value)
    assert isinstance(error, InvalidArgumentError)
    assert [violation.field for violation in error.violations] == ["mutations[1].set_value.name"]


def test_a_client_reads_details_of_the_contract_too(server: ServerProgram):
    set_value(server.url, 1)
    revision = set_value(server.url, 2)
    mutation = Mutation(set_value=SetValue(name=SETTING, value=Value(int_value=3)))
    with pytest.raises(ConnectError) as caught:
        AdminServiceClientSync(server.url).commit(
            CommitRequest(environment="production", mutations=[mutation], expected_revision=revision - 1)
        )
    error = from_connect(caught.value)
    assert isinstance(error, RevisionConflictError)
    assert [(item.key, item.revision) for item in error.conflicts] == [(SETTING, revision)]


def test_an_asynchronous_client_reads_them_as_well(server: ServerProgram):
    async def watch() -> None:
        async for _ in ConfigServiceClient(server.url).watch(WatchRequest(environment="nowhere")):
            pass

    with pytest.raises(ConnectError) as caught:
        asyncio.run(watch())
    assert caught.value.code is Code.PERMISSION_DENIED
    assert from_connect(caught.value).reason == "UNKNOWN_ENVIRONMENT"


# The process itself.

_SERVE = """
import gc
from rheostat.server import ServeConfig, open_service, serve

def ready(url):
    print(*gc.get_threshold(), gc.get_freeze_count(), flush=True)

serve(open_service("memory:"), ServeConfig(port=0), on_ready=ready)
"""


def test_serve_sets_the_collector_for_many_streams():
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            first, second, third, frozen = map(int, process.stdout.readline().split())
            # With the defaults, 10 000 streams cost a pause of a second and twice the processor time.
            assert first >= 100_000
            assert second >= 10
            assert third >= 100
            assert frozen > 10_000
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
