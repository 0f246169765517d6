"""Who may call what: open mode, keys and their roles, origins of web pages, the rules of the first start."""

from __future__ import annotations

import asyncio
import binascii
import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from rheostat.errors import InvalidArgumentError
from rheostat.model.key import Key, KeyKind, Role
from rheostat.server import ServeConfig, asgi_app, wsgi_app
from rheostat.server.call import PERMISSIONS
from rheostat.server.serve import check_first_start
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from rheostat.wire.contract import SERVICES
from tests.server.exchange import WATCH, Answered, Asgi, Asked, Wsgi, asked, asked_by_get

METHODS = tuple(f"{service.full_name}/{method.name}" for service in SERVICES for method in service.methods)
PING = "rheo.v1.ConfigService/Ping"
COMMIT = "rheo.v1.AdminService/Commit"

Exchange = Callable[[Asked], Answered]
Mount = Callable[..., Exchange]


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(open_store("memory:")) as service:
        yield service


@pytest.fixture(params=["wsgi", "asgi"])
def mount(request: pytest.FixtureRequest, service: Service) -> Mount:
    """Make what sends a request to the application of one kind, from a peer."""

    def make(*, peer: str = "127.0.0.1", **options: Any) -> Exchange:
        if request.param == "wsgi":
            return Wsgi(wsgi_app(service, **options), peer)
        caller = Asgi(asgi_app(service, **options), peer)
        return lambda request: asyncio.run(caller(request))

    return make


def get(path: str, *headers: tuple[str, str]) -> Asked:
    encoded = tuple((name.encode(), value.encode()) for name, value in (("host", "localhost"), *headers))
    return Asked(path, headers=encoded, method="GET")


def with_host(request: Asked, *hosts: str) -> Asked:
    others = tuple(header for header in request.headers if header[0] != b"host")
    return replace(request, headers=(*((b"host", host.encode()) for host in hosts), *others))


# Open mode.


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"])
def test_open_mode_serves_this_machine(mount: Mount, peer: str):
    exchange = mount(open=True, peer=peer)
    assert exchange(asked(PING, b"")).status == 200
    assert exchange(get("/healthz")).status == 200


EVERYTHING = [
    asked(PING, b""),
    asked(COMMIT, b""),
    asked(WATCH, b""),
    get("/healthz"),
    get("/readyz"),
    get("/any"),
]


@pytest.mark.parametrize("request_", EVERYTHING, ids=lambda request: request.path)
@pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.5", "2001:db8::7", "::ffff:192.0.2.7", "elsewhere"])
def test_open_mode_refuses_other_machines_everything(mount: Mount, peer: str, request_: Asked):
    answer = mount(open=True, peer=peer)(request_)
    assert answer.status == 403
    assert b"another machine" in answer.body


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7420", "LOCALHOST", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:7420"]
)
def test_open_mode_serves_names_of_this_machine(mount: Mount, host: str):
    assert mount(open=True)(with_host(asked(PING, b""), host)).status == 200


@pytest.mark.parametrize("request_", EVERYTHING, ids=lambda request: request.path)
@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:7420", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("127.0.0.2", "0.0.0.0", "[::]", "[::1].evil.example", "[::ffff:127.0.0.1]", "2130706433"),
        *("localhost:80@evil.example", "localhost:evil", "localhost, evil.example", " localhost"),
    ],
)
def test_open_mode_refuses_a_name_that_was_rebound_to_this_machine(mount: Mount, host: str, request_: Asked):
    answer = mount(open=True)(with_host(request_, host))
    assert answer.status == 403
    assert b"Host" in answer.body


@pytest.mark.parametrize("hosts", [("evil.example", "localhost"), ("localhost", "evil.example")])
def test_open_mode_refuses_a_request_with_two_hosts(service: Service, hosts: tuple[str, ...]):
    # WSGI servers join or refuse such headers themselves.
    request = with_host(asked(PING, b""), *hosts)
    assert asyncio.run(Asgi(asgi_app(service, open=True))(request)).status == 403


def test_open_mode_refuses_a_request_without_a_host(mount: Mount):
    assert mount(open=True)(with_host(asked(PING, b""))).status == 403


@pytest.mark.parametrize(
    "name",
    [
        *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port"),
        *("X-Forwarded-Prefix", "X-Forwarded-Server", "X-Real-IP"),
    ],
)
def test_open_mode_refuses_what_came_through_a_proxy(mount: Mount, name: str):
    for request in (
        asked(PING, b"", "proto", (name.lower(), "127.0.0.1")),
        get("/healthz", (name.lower(), "")),
    ):
        answer = mount(open=True)(request)
        assert answer.status == 403
        assert b"proxy" in answer.body


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://evil.example", "null", "", "http://localhost:3000"),
        *("https://localhost", "http://127.0.0.1"),
    ],
)
def test_open_mode_refuses_web_pages_of_other_origins(mount: Mount, origin: str):
    for request in (asked(PING, b"", "json", ("origin", origin)), get("/readyz", ("origin", origin))):
        answer = mount(open=True)(request)
        assert answer.status == 403
        assert b"Origin" in answer.body
        assert "access-control-allow-origin" not in answer.headers


def test_open_mode_serves_its_own_web_pages(mount: Mount):
    assert mount(open=True)(asked(PING, b"", "proto", ("origin", "http://localhost"))).status == 200


def fetched(site: str, *headers: tuple[str, str]) -> list[Asked]:
    """A page's requests: a GET of a page carries no Origin, only Sec-Fetch-Site."""
    sent = (("sec-fetch-site", site), *headers)
    return [
        asked(PING, "{}", "json", *sent),
        replace(asked_by_get(PING, b"{}", "json"), headers=get("", *sent).headers),
        get("/healthz", *sent),
    ]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "none, cross-site"])
def test_open_mode_refuses_what_a_browser_says_comes_from_another_site(mount: Mount, site: str):
    for request in fetched(site):
        answer = mount(open=True)(request)
        assert answer.status == 403
        assert b"another site" in answer.body
        assert (answer.code, answer.reason) == ("permission_denied", "NOT_LOCAL")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_open_mode_serves_a_browser_on_its_own_pages(mount: Mount, site: str):
    for request in fetched(site)[::2]:
        assert mount(open=True)(request).status == 200


def test_open_mode_serves_an_allowed_origin_of_another_site(mount: Mount):
    for request in fetched("cross-site", ("origin", ORIGIN))[::2]:
        assert mount(open=True, allow_origins=[ORIGIN])(request).status == 200


@pytest.mark.parametrize("request_", EVERYTHING, ids=lambda request: request.path)
def test_open_mode_refuses_a_caller_without_an_address(mount: Mount, request_: Asked):
    # A unix socket behind a proxy: whoever reaches the proxy would be on this machine.
    answer = mount(open=True, peer="")(request_)
    assert answer.status == 403
    assert b"no address" in answer.body


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
)
def test_a_plain_form_never_reaches_an_rpc(mount: Mount, service: Service, content_type: str):
    request = asked(COMMIT, b'{"mutations": [{"putEnvironment": {"slug": "made-by-a-form"}}]}', "json")
    headers = ((b"host", b"localhost"), (b"content-type", content_type.encode()))
    assert mount(open=True)(replace(request, headers=headers)).status == 415
    assert list(service.head.state.projects["default"].environments) == ["production"]


# Keys.


@pytest.mark.parametrize("method", METHODS)
def test_without_open_or_keys_the_application_is_closed(mount: Mount, method: str):
    for codec in ("proto", "json"):
        answer = mount()(asked(method, b"" if codec == "proto" else "{}", codec))
        assert (answer.code, answer.reason) == ("unauthenticated", "MISSING_KEY")
    if method != WATCH:
        assert mount()(asked(method, b"")).status == 401


def test_health_needs_no_key(mount: Mount):
    exchange = mount(peer="192.0.2.7")
    assert exchange(get("/healthz", ("host", "config.example"))).status == 200
    assert exchange(get("/readyz", ("host", "config.example"))).status == 200


def every(*names: str) -> frozenset[str]:
    return frozenset(method for method in METHODS if method.rpartition("/")[2] in names)


EVALUATING = every("Ping", "Evaluate", "EvaluateAll")
PUBLIC = EVALUATING | every("RecordEvents")
SUBJECTS = every("UpsertSubjects", "GetSubjects", "DeleteSubjects", "ListSubjects")
SERVER = PUBLIC | SUBJECTS | every("Watch", "GetSnapshot", "ReportStatus", "DeclareSettings")
READS = every(
    *("GetProject", "ListProjects", "GetEnvironment", "ListEnvironments", "GetSetting", "ListSettings"),
    *("GetSegment", "ListSegments", "GetFeatures", "GetRevision", "ListRevisions", "ListClients", "Export"),
    *("GetRollout", "ListStaleSettings", "GetDraft", "ListDrafts"),
    *("ListSubjectChanges", "ListExposures", "ListEventCounts"),
)
VIEWER = EVALUATING | READS | every("Watch", "GetSnapshot")
EDITOR = (
    VIEWER | SUBJECTS | every("Commit", "Revert", "CreateDraft", "UpdateDraft", "PublishDraft", "CancelDraft")
)
APPROVER = EDITOR | every("ApproveDraft")

ALLOWED: Mapping[str, tuple[dict[str, Any], frozenset[str]]] = {
    "public": ({"kind": KeyKind.PUBLIC}, PUBLIC),
    "server": ({"kind": KeyKind.SERVER, "declare": False}, SERVER),
    "server that declares": ({"kind": KeyKind.SERVER}, SERVER),
    "relay": (
        {"kind": KeyKind.RELAY},
        every("Ping", "Watch", "GetSnapshot", "ReportStatus", "DeclareSettings"),
    ),
    "viewer": ({"kind": KeyKind.USER, "role": Role.VIEWER}, VIEWER),
    "editor": ({"kind": KeyKind.USER, "role": Role.EDITOR}, EDITOR),
    "approver": ({"kind": KeyKind.USER, "role": Role.APPROVER}, APPROVER),
    "admin": ({"kind": KeyKind.USER, "role": Role.ADMIN}, frozenset(METHODS)),
}


def make_key(service: Service, **options: Any) -> tuple[Key, str]:
    key, text, _ = service.create_key(Writer(OPEN), project="default", **options)
    return key, text


def bearer(text: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {text}")


@pytest.mark.parametrize("kind", ALLOWED)
def test_each_kind_of_key_may_call_these_methods_and_no_others(mount: Mount, service: Service, kind: str):
    options, allowed = ALLOWED[kind]
    _, text = make_key(service, **options)
    exchange = mount()
    refused = set()
    for method in METHODS:
        answer = exchange(asked(method, b"", "proto", bearer(text)))
        if answer.code == "permission_denied":
            assert answer.reason == "PERMISSION_DENIED"
            refused.add(method)
        else:
            assert answer.code != "unauthenticated"
    assert set(METHODS) - refused == allowed


def revoked(service: Service) -> str:
    key, text = make_key(service, kind=KeyKind.USER, role=Role.ADMIN)
    service.revoke_key(Writer(OPEN), key.selector)
    return text


def expired(service: Service) -> str:
    now = datetime.datetime.now(datetime.UTC)
    clock, service.clock = service.clock, lambda: now - datetime.timedelta(days=1)
    _, text = make_key(service, kind=KeyKind.USER, role=Role.ADMIN, expires_at=now)
    service.clock = clock
    return text


def of_another_kind(service: Service) -> str:
    """A public key whose text claims to be an admin's, with a matching checksum."""
    _, text = make_key(service, kind=KeyKind.PUBLIC)
    body = text.rpartition("_")[0].replace("rst_public_", "rst_user_")
    return f"{body}_{binascii.crc32(body.encode()):08x}"


def with_another_secret(service: Service) -> str:
    _, text = make_key(service, kind=KeyKind.USER, role=Role.ADMIN)
    body = text.rpartition("_")[0][:-64] + "0" * 64
    return f"{body}_{binascii.crc32(body.encode()):08x}"


def of_another_store(service: Service) -> str:
    with Service(open_store("memory:")) as other:
        return make_key(other, kind=KeyKind.USER, role=Role.ADMIN)[1]


def cut_short(service: Service) -> str:
    return make_key(service, kind=KeyKind.USER, role=Role.ADMIN)[1][:-1]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (revoked, "REVOKED_KEY"),
        (expired, "EXPIRED_KEY"),
        (of_another_kind, "BAD_KEY"),
        (with_another_secret, "BAD_KEY"),
        (of_another_store, "BAD_KEY"),
        (cut_short, "BAD_KEY"),
        (lambda service: "secret", "BAD_KEY"),
        (lambda service: "", "BAD_KEY"),
    ],
    ids=["revoked", "expired", "another kind", "another secret", "another store", "cut", "garbage", "empty"],
)
def test_a_bad_key_opens_nothing(mount: Mount, service: Service, make: Callable[[Service], str], reason: str):
    text = make(service)
    exchange = mount()
    for method in METHODS:
        answer = exchange(asked(method, b"", "proto", bearer(text)))
        assert (method, answer.code, answer.reason) == (method, "unauthenticated", reason)
        assert not text or text not in answer.message


def test_an_unknown_key_and_a_wrong_secret_are_told_alike(mount: Mount, service: Service):
    exchange = mount()
    texts = (with_another_secret(service), of_another_store(service))
    first, second = (exchange(asked(PING, b"", "proto", bearer(text))) for text in texts)
    assert first.message == second.message


@pytest.mark.parametrize("authorization", ["Basic dXNlcjpwYXNz", "rst_", "Bearer", "bearer  ", "Bearer a b"])
def test_another_form_of_authorization_opens_nothing(mount: Mount, authorization: str):
    answer = mount()(asked(PING, b"", "proto", ("authorization", authorization)))
    assert (answer.code, answer.reason) == ("unauthenticated", "BAD_KEY")


def test_the_scheme_of_the_authorization_is_read_in_any_case(mount: Mount, service: Service):
    _, text = make_key(service, kind=KeyKind.PUBLIC)
    assert mount()(asked(PING, b"", "proto", ("authorization", f"bEARER {text}"))).code == "ok"


def test_every_method_of_the_contract_has_a_permission():
    assert set(PERMISSIONS) == set(METHODS)


@pytest.mark.parametrize("open_", [True, False], ids=["open", "closed"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_without_a_permission_is_open_to_nobody(
    mount: Mount, service: Service, monkeypatch: pytest.MonkeyPatch, method: str, open_: bool
):
    _, text = make_key(service, kind=KeyKind.USER, role=Role.ADMIN)
    exchange = mount(open=open_)
    monkeypatch.delitem(PERMISSIONS, method)  # type: ignore[arg-type]
    answer = exchange(asked(method, b"", "proto", bearer(text)))
    assert answer.code == "permission_denied"
    assert "open to nobody" in answer.message


def test_a_call_without_a_key_is_refused_before_its_body_is_looked_at(mount: Mount):
    request = asked(COMMIT, b"\xff\xff not a message")
    assert mount()(request).code == "unauthenticated"
    assert mount()(replace(request, body=bytes(33 * 1024 * 1024))).code == "unauthenticated"


def test_keys_do_not_need_a_loopback_name_or_peer(mount: Mount, service: Service):
    _, text = make_key(service, kind=KeyKind.SERVER)
    request = with_host(
        asked(PING, b"", "proto", bearer(text), ("x-forwarded-for", "192.0.2.9")), "config.example"
    )
    assert mount(peer="192.0.2.7")(request).code == "ok"


# Web pages.

ORIGIN = "https://admin.example"


def preflight(origin: str) -> Asked:
    headers = (
        (b"host", b"localhost"),
        (b"origin", origin.encode()),
        (b"access-control-request-method", b"POST"),
        (b"access-control-request-headers", b"authorization,content-type,connect-protocol-version"),
    )
    return Asked(f"/{PING}", headers=headers, method="OPTIONS")


@pytest.mark.parametrize("open_", [True, False], ids=["open", "closed"])
def test_an_allowed_origin_may_call(mount: Mount, service: Service, open_: bool):
    _, text = make_key(service, kind=KeyKind.PUBLIC)
    exchange = mount(open=open_, allow_origins=[ORIGIN])
    asked_before = exchange(preflight(ORIGIN))
    assert asked_before.status == 204
    assert asked_before.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in asked_before.headers["access-control-allow-methods"]
    for name in ("authorization", "content-type", "connect-protocol-version", "connect-timeout-ms"):
        assert name in asked_before.headers["access-control-allow-headers"]

    answer = exchange(asked(PING, b"", "proto", bearer(text), ("origin", ORIGIN)))
    assert answer.code == "ok"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers["vary"]


def test_an_allowed_origin_may_read_errors_too(mount: Mount):
    answer = mount(allow_origins=[ORIGIN])(asked(PING, b"", "proto", ("origin", ORIGIN)))
    assert answer.code == "unauthenticated"
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://admin.example", f"{ORIGIN}.evil.example", "null"]
)
@pytest.mark.parametrize("allowed", [(), (ORIGIN,)], ids=["none allowed", "one allowed"])
def test_no_other_origin_may_read_an_answer(
    mount: Mount, service: Service, origin: str, allowed: tuple[str, ...]
):
    _, text = make_key(service, kind=KeyKind.PUBLIC)
    exchange = mount(allow_origins=allowed)
    for request in (preflight(origin), asked(PING, b"", "proto", bearer(text), ("origin", origin))):
        answer = exchange(request)
        assert "access-control-allow-origin" not in answer.headers
    assert exchange(preflight(origin)).status >= 400


# The first start.


def prepared(keys: str) -> Service:
    service = Service(open_store("memory:")).start()
    if keys != "none":
        key, _ = make_key(service, kind=KeyKind.SERVER)
        if keys == "revoked":
            service.revoke_key(Writer(OPEN), key.selector)
    return service


TLS = {"ssl_certfile": "certificate.pem", "ssl_keyfile": "key.pem"}


@pytest.mark.parametrize(
    ("host", "keys", "options", "decision"),
    [
        ("127.0.0.1", "none", {}, "open"),
        ("127.0.0.2", "none", {}, "open"),
        ("::1", "none", {}, "open"),
        ("localhost", "none", {}, "open"),
        ("127.0.0.1", "revoked", {}, "open"),
        ("127.0.0.1", "one", {}, "closed"),
        ("127.0.0.1", "one", {"open": True}, "open"),
        ("127.0.0.1", "none", {"open": False}, "closed"),
        ("0.0.0.0", "none", {}, "KEYS_NEEDED"),
        ("0.0.0.0", "none", TLS, "KEYS_NEEDED"),
        ("0.0.0.0", "none", {"insecure": True}, "KEYS_NEEDED"),
        ("0.0.0.0", "revoked", TLS, "KEYS_NEEDED"),
        ("::", "none", {}, "KEYS_NEEDED"),
        ("", "none", {}, "KEYS_NEEDED"),
        ("192.0.2.7", "none", {}, "KEYS_NEEDED"),
        ("localhost.example", "none", {}, "KEYS_NEEDED"),
        ("0.0.0.0", "one", {}, "TLS_NEEDED"),
        ("0.0.0.0", "one", {"insecure": True}, "closed"),
        ("0.0.0.0", "one", TLS, "closed"),
        ("0.0.0.0", "none", {"open": True}, "OPEN_NEEDS_LOOPBACK"),
        ("0.0.0.0", "one", {"open": True, **TLS}, "OPEN_NEEDS_LOOPBACK"),
        ("0.0.0.0", "one", {"open": True, "insecure": True}, "OPEN_NEEDS_LOOPBACK"),
    ],
)
def test_the_first_start_is_open_on_loopback_only(
    host: str, keys: str, options: dict[str, Any], decision: str, caplog: pytest.LogCaptureFixture
):
    config = ServeConfig(host=host, **options)
    with prepared(keys) as service, caplog.at_level(logging.WARNING):
        if decision.isupper():
            with pytest.raises(InvalidArgumentError) as caught:
                check_first_start(service, config)
            assert caught.value.reason == decision
        else:
            assert check_first_start(service, config) is (decision == "open")
    assert ("OPEN" in caplog.text) == (decision == "open"), "an open server says so loudly"
