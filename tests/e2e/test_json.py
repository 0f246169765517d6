"""What people type: `curl` on the JSON form, and Connect's GET form, against both kinds of server."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import Mutation, PutRule, PutSetting
from rheo.v1.condition_pb2 import OPERATOR_EQUALS, Comparison, Condition, Operand
from rheo.v1.setting_pb2 import Rule, Setting
from rheo.v1.value_pb2 import Value
from tests.e2e.process import PATIENCE, ServerProgram

NAME = "checkout.timeout"
CONFIG = "/rheo.v1.ConfigService"
ADMIN = "/rheo.v1.AdminService"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


Ask = Callable[..., Answer]


def _by_curl(url: str, body: Any = None) -> Answer:
    command = ["curl", "--silent", "--show-error", "--include", "--max-time", str(PATIENCE), "--noproxy", "*"]
    if body is not None:
        command += ["--json", json.dumps(body)]
    printed = subprocess.run([*command, url], check=True, capture_output=True, timeout=2 * PATIENCE).stdout
    head, _, content = printed.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split()[1]), headers, json.loads(content))


def _by_library(url: str, body: Any = None) -> Answer:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        if body is None:
            connection.request("GET", target)
        else:
            headers = {"content-type": "application/json", "accept": "application/json"}
            connection.request("POST", target, json.dumps(body), headers)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, json.loads(response.read()))
    finally:
        connection.close()


@pytest.fixture(params=["curl", "library"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask in the two ways: by curl as people do, and by the same bytes where there is no curl."""
    if request.param == "library":
        return _by_library
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed; the same requests are made by the standard library")
    return _by_curl


@pytest.fixture(params=["serve", "gunicorn-gthread"])
def url(request: pytest.FixtureRequest, shared_server: Callable[[str], ServerProgram]) -> str:
    server = shared_server(request.param)
    in_eu = Condition(
        comparison=Comparison(
            left=Operand(attribute="region"),
            op=OPERATOR_EQUALS,
            right=Operand(literal=Value(string_value="eu")),
        )
    )
    setting = Setting(name=NAME, type="float", default=Value(double_value=2.5))
    rule = Rule(id="in-eu", condition=in_eu, value=Value(double_value=4.0))
    AdminServiceClientSync(server.url).commit(
        CommitRequest(
            environment="production",
            mutations=[
                Mutation(put_setting=PutSetting(setting=setting)),
                Mutation(put_rule=PutRule(setting=NAME, rule=rule)),
            ],
        )
    )
    return server.url


def get_form(path: str, message: Mapping[str, Any]) -> str:
    return f"{path}?connect=v1&encoding=json&message={quote(json.dumps(message))}"


def assert_private(answer: Answer) -> None:
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("region", "value", "reason"), [("eu", "4.0", "TARGETING_MATCH"), ("us", "2.5", "DEFAULT")]
)
def test_a_post_of_json_evaluates_a_setting(ask: Ask, url: str, region: str, value: str, reason: str):
    request = {"environment": "production", "name": NAME, "attributes": {"region": region}}
    answer = ask(f"{url}{CONFIG}/Evaluate", request)
    assert answer.status == 200
    evaluation = answer.body["evaluation"]
    assert evaluation["valueJson"] == value
    assert evaluation["value"] == {"doubleValue": float(value)}
    assert evaluation["reason"] == f"EVALUATION_REASON_{reason}"
    assert_private(answer)


def test_an_error_of_a_post_is_json_with_its_reason_and_the_request_id(ask: Ask, url: str):
    answer = ask(f"{url}{CONFIG}/Evaluate", {"environment": "production", "name": "no.such.setting"})
    assert answer.status == 404
    assert answer.body["code"] == "not_found"
    assert "no.such.setting" in answer.body["message"]
    detail = next(d["value"] for d in answer.body["details"] if d["type"] == "google.rpc.ErrorInfo")
    info = ErrorInfo.FromString(base64.b64decode(detail + "=="))
    assert (info.domain, info.reason) == ("rheostat", "SETTING_NOT_FOUND")
    assert_private(answer)


def test_a_get_answers_ping(ask: Ask, url: str):
    answer = ask(url + get_form(f"{CONFIG}/Ping", {}))
    assert answer.status == 200
    assert int(answer.body["revision"]) > 0
    assert_private(answer)


def test_a_get_answers_a_snapshot(ask: Ask, url: str):
    answer = ask(url + get_form(f"{CONFIG}/GetSnapshot", {"environment": "production"}))
    assert answer.status == 200
    assert NAME in [item["key"] for item in answer.body["items"]]
    assert answer.body["position"]["token"]
    assert_private(answer)


def test_a_get_answers_a_setting(ask: Ask, url: str):
    answer = ask(url + get_form(f"{ADMIN}/GetSetting", {"environment": "production", "name": NAME}))
    assert answer.status == 200
    assert answer.body["setting"]["default"] == {"doubleValue": 2.5}
    assert_private(answer)


@pytest.mark.parametrize("path", [f"{CONFIG}/Evaluate", f"{ADMIN}/Commit"])
def test_what_writes_or_names_people_is_refused_by_get(url: str, path: str):
    parts = urlsplit(url + get_form(path, {"environment": "production", "name": NAME}))
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        assert connection.getresponse().status == 405
    finally:
        connection.close()
