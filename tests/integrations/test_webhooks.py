"""Receivers of webhooks: what they take for the server's, and in which frameworks."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Signer

from rheostat.errors import InvalidArgumentError, WebhookVerificationError
from rheostat.integrations.webhooks import (
    WebhookChange,
    verify,
    verify_flask,
    verify_starlette,
)
from rheostat.model.change import PutSetting
from rheostat.model.webhook import make_webhook_secret
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.service.webhook import Attempt
from rheostat.store import open_store

SECRET = make_webhook_secret(b"s" * 32)
OTHER = make_webhook_secret(b"o" * 32)

MESSAGE = {
    "type": "change_set.committed",
    "timestamp": "2026-03-01T12:00:00Z",
    "data": {"project": "shop", "revision": 7},
}


def signed(content: Any = MESSAGE, secret: str = SECRET, *, age: float = 0.0) -> tuple[dict[str, str], bytes]:
    body = json.dumps(content)
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
    headers = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at.timestamp())),
        "Webhook-Signature": Signer(secret).sign("msg_1", at, body),
    }
    return headers, body.encode()


def test_what_the_server_sends_is_read() -> None:
    sent: list[tuple[dict[str, str], bytes]] = []

    class Line:
        def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
            sent.append((dict(headers), body))
            return Attempt(200)

    with Service(open_store("memory:"), webhook_sender=Line()) as service:
        made = service.webhooks.create(Writer(OPEN), "default", "https://hooks.example/")
        writer = Writer(OPEN, author="ada", message="a rate")
        committed = service.commit(
            writer, "default", "production", [PutSetting("rate", {"type": "int", "default": 0})]
        ).change_set
        service.webhooks.redeliver(made.webhook, committed.revision)
        service.webhooks.test(made.webhook)
    event, test = (verify(made.secret, headers, body) for headers, body in sent)
    assert event.changes == (WebhookChange("production", "setting", "rate", "created"),)
    assert (event.type, event.revision, event.generation) == ("change_set.committed", committed.revision, 1)
    assert (event.project, event.environments) == ("default", ("production",))
    assert (event.author, event.message, event.changes_omitted) == ("ada", "a rate", 0)
    assert event.timestamp == committed.created_at
    assert event.id == sent[0][0]["webhook-id"]
    assert event.content["actor"] == ""
    assert (test.type, test.revision, test.changes) == ("webhook.test", 0, ())


def test_one_of_several_secrets_is_enough_and_another_is_not() -> None:
    headers, body = signed()
    assert verify([OTHER, SECRET], headers, body).revision == 7
    with pytest.raises(WebhookVerificationError, match="no matching signature"):
        verify(OTHER, headers, body)
    both = {
        **headers,
        "Webhook-Signature": f"{signed(secret=OTHER)[0]['Webhook-Signature']} {headers['Webhook-Signature']}",
    }
    assert verify(SECRET, both, body).revision == verify(OTHER, both, body).revision == 7


@pytest.mark.parametrize("change", ["body", "id", "timestamp", "signature"])
def test_a_message_that_was_changed_on_its_way_is_refused(change: str) -> None:
    headers, body = signed()
    if change == "body":
        body = body.replace(b"7", b"8")
    elif change == "id":
        headers["Webhook-Id"] = "msg_2"
    elif change == "timestamp":
        headers["Webhook-Timestamp"] = str(int(headers["Webhook-Timestamp"]) + 1)
    else:
        headers["Webhook-Signature"] = "v1," + base64.b64encode(bytes(32)).decode()
    with pytest.raises(WebhookVerificationError) as caught:
        verify(SECRET, headers, body)
    assert SECRET not in str(caught.value)
    assert caught.value.reason == "WEBHOOK_VERIFICATION"


@pytest.mark.parametrize("age", [6 * 60, -6 * 60])
def test_a_message_that_is_repeated_later_or_dated_ahead_is_refused(age: float) -> None:
    with pytest.raises(WebhookVerificationError, match=r"too (old|new)"):
        verify(SECRET, *signed(age=age))
    assert verify(SECRET, *signed(age=4 * 60 if age > 0 else -4 * 60)).revision == 7


@pytest.mark.parametrize(
    "content",
    [[], "x", None, {}, {**MESSAGE, "data": []}, {**MESSAGE, "timestamp": "soon"}, {**MESSAGE, "type": 5},
     {**MESSAGE, "data": {"project": "shop", "changes": [{}]}}, {**MESSAGE, "data": {"project": "shop", "revision": "x"}},
     {**MESSAGE, "data": {"project": "shop", "revision": 1e400}}, {**MESSAGE, "data": {"project": "shop", "generation": float("nan")}},
     {**MESSAGE, "data": {"project": "shop", "changes": 5}}, {**MESSAGE, "timestamp": "2026-03-01T12:00:00"},
     {**MESSAGE, "timestamp": "0001-01-01T00:00:00+12:00"}],
)  # fmt: skip
def test_another_sender_s_message_under_the_same_secret_is_refused(content: Any) -> None:
    with pytest.raises(WebhookVerificationError, match="none of Rheostat"):
        verify(SECRET, *signed(content))


def test_the_time_of_a_message_is_aware_utc_wherever_it_was_written() -> None:
    event = verify(SECRET, *signed({**MESSAGE, "timestamp": "2026-03-01T12:00:00+05:00"}))
    assert event.timestamp.isoformat() == "2026-03-01T07:00:00+00:00"


FIELDS = [
    "type",
    "timestamp",
    "data",
    "project",
    "environments",
    "revision",
    "generation",
    "changes",
    "fields",
]

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(MESSAGE["timestamp"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=6)
    ),
    max_leaves=20,
)


@given(
    st.builds(
        lambda more: {**MESSAGE, "data": {"project": "shop", **more}},
        st.dictionaries(st.sampled_from(FIELDS), ANY_JSON),
    )
    | st.builds(lambda more: {**MESSAGE, **more}, st.dictionaries(st.sampled_from(FIELDS), ANY_JSON))
    | ANY_JSON
)
def test_whatever_is_signed_is_read_or_refused_in_one_way(content: Any) -> None:
    try:
        event = verify(SECRET, *signed(content))
    except WebhookVerificationError:
        return
    assert event.timestamp.utcoffset() == datetime.timedelta()
    assert isinstance(event.revision, int)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [(None, "NoneType"), (SECRET.encode(), "bytes"), (5, "int"), ([SECRET, None], "NoneType")],
)
def test_a_secret_that_is_no_text_is_told_what_to_pass(secret: Any, shown: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"is {shown}; pass the text whsec_"):
        verify(secret, *signed())


def test_a_newer_server_s_message_is_read() -> None:
    content = {**MESSAGE, "type": "draft.approved", "more": 1, "data": {"project": "shop", "draft": "d1"}}
    event = verify(SECRET, *signed(content))
    assert (event.type, event.revision, event.content["draft"]) == ("draft.approved", 0, "d1")


@pytest.mark.parametrize("secret", ["", "whsec_", "abc", "whsec_ä", "whsec_a", []])
def test_what_is_no_secret_is_the_receivers_own_mistake(secret: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        verify(secret, *signed())
    assert not isinstance(caught.value, WebhookVerificationError)


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "x"]),
        st.text() | st.sampled_from(["v1,", "v1,a", "v1,AAAA v1", "nan", "inf", "1e400", "-1"]),
    ),
    st.binary() | st.text(),
)
def test_whatever_comes_is_refused_in_one_way(headers: dict[str, str], body: bytes | str) -> None:
    with pytest.raises(WebhookVerificationError):
        verify(SECRET, headers, body)


@given(st.text(), st.text())
def test_a_strange_id_or_signature_beside_good_headers_is_refused_in_one_way(
    message_id: str, signature: str
) -> None:
    headers, body = signed()
    headers |= {"Webhook-Id": message_id, "Webhook-Signature": signature}
    with pytest.raises(WebhookVerificationError):
        verify(SECRET, headers, body)


# Frameworks.


def flask(headers: dict[str, str], body: bytes) -> tuple[int, str]:
    from flask import Flask, request

    app = Flask(__name__)

    @app.post("/hook")
    def hook() -> tuple[str, int]:
        try:
            return str(verify_flask(request, SECRET).revision), 200
        except WebhookVerificationError:
            return "", 401

    answer = app.test_client().post("/hook", data=body, headers=headers)
    return answer.status_code, answer.text


def django(headers: dict[str, str], body: bytes) -> tuple[int, str]:
    program = """
import json, sys
import django
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["*"])
django.setup()
from django.test import RequestFactory
from rheostat.errors import WebhookVerificationError
from rheostat.integrations.webhooks import verify_django
secret, headers, body = json.loads(sys.stdin.read())
request = RequestFactory().post("/hook", data=body.encode(), content_type="application/json", headers=headers)
try:
    print(200, verify_django(request, secret).revision)
except WebhookVerificationError:
    print(401)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([SECRET, headers, body.decode()]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    status, _, text = done.stdout.strip().partition(" ")
    return int(status), text


def fastapi(headers: dict[str, str], body: bytes) -> tuple[int, str]:
    from fastapi import FastAPI, Request, Response

    app = FastAPI()

    async def hook(request: Request) -> Response:
        try:
            return Response(str((await verify_starlette(request, SECRET)).revision))
        except WebhookVerificationError:
            return Response(status_code=401)

    app.add_route("/hook", hook, methods=["POST"])
    sent: list[Any] = []

    async def call() -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/hook",
            "raw_path": b"/hook",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        }
        parts = iter([body[:10], body[10:]])

        async def receive() -> dict[str, Any]:
            part = next(parts)
            return {"type": "http.request", "body": part, "more_body": part == body[:10]}

        async def send(event: Any) -> None:
            sent.append(event)

        await app(scope, receive, send)

    asyncio.run(call())
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize("framework", [flask, django, fastapi])
def test_a_framework_s_request_is_verified(
    framework: Callable[[dict[str, str], bytes], tuple[int, str]],
) -> None:
    headers, body = signed()
    headers["Content-Type"] = "application/json"
    assert framework(headers, body) == (200, "7")
    assert framework(headers, body + b" ")[0] == 401


def test_without_the_library_the_extra_is_named() -> None:
    program = """
import sys
sys.modules["standardwebhooks"] = None
try:
    import rheostat.integrations.webhooks
except ImportError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "rheostat[webhooks]" in done.stdout


def test_a_receiver_needs_nothing_of_a_server_or_client() -> None:
    program = "import sys, rheostat.integrations.webhooks; print([n for n in sys.modules if n in ('sqlalchemy', 'uvicorn', 'flask', 'django', 'rheostat.service')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
