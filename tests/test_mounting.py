"""The examples, run as a reader runs them: mounted under a prefix in real servers, and watched from outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import Mutation, SetValue
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheo.v1.config_service_pb2 import EvaluateRequest
from rheo.v1.value_pb2 import Value
from rheo.v1.watch_pb2 import WatchRequest, WatchResponse
from rheostat.document import parse_document
from rheostat.document.apply import plan_apply
from rheostat.example import PROJECT, document_text
from rheostat.server import open_service
from rheostat.service import Writer
from rheostat.service.access import OPEN
from tests.e2e.process import wait_until
from tests.program import NODE, SCRIPTS, TYPESCRIPT, Program, free_port, install_typescript

EXAMPLES = Path(__file__).parent.parent / "examples"

DEADLINE_MS = 30_000


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"sqlite:{tmp_path / 'shop.db'}"
    with open_service(url) as service:
        service.commit(Writer(OPEN), PROJECT, "", plan_apply(parse_document(document_text()), None))
    return url


@pytest.fixture
def rheostat(store: str) -> Iterator[str]:
    """The URL of `rheostat serve` on the example."""
    port = free_port()
    with Program([SCRIPTS / "rheostat", "serve", "--store", store, "--port", str(port)]) as server:
        server.wait_for_port(port)
        yield f"http://127.0.0.1:{port}"


def commit(url: str, name: str, value: Value) -> int:
    with AdminServiceClientSync(url) as client:
        mutation = Mutation(set_value=SetValue(environment="production", name=name, value=value))
        return client.commit(
            CommitRequest(project=PROJECT, mutations=[mutation]), timeout_ms=DEADLINE_MS
        ).revision


def next_delta(events: Iterator[WatchResponse]) -> WatchResponse:
    return next(event for event in events if event.HasField("delta"))


MOUNTED = {
    "flask": ["flask", "--app", "flask_app", "run", "--port", "PORT"],
    "flask on gunicorn's threads": [
        "gunicorn", "--threads", "8", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "1", "flask_app:app",
    ],
    "django on waitress": [
        "waitress-serve", "--listen=127.0.0.1:PORT", "--send-bytes=1", "--asyncore-use-poll", "django_app:application",
    ],
    "django on gunicorn's gevent": [
        "gunicorn", "-k", "gevent", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "1", "django_app:application",
    ],
    "fastapi on uvicorn": [
        "uvicorn", "fastapi_app:app", "--port", "PORT", "--timeout-graceful-shutdown", "1",
    ],
    "fastapi on hypercorn": [
        "hypercorn", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "1", "fastapi_app:app",
    ],
    "fastapi on granian": [
        "granian", "--interface", "asgi", "--port", "PORT", "--workers-kill-timeout", "1", "fastapi_app:app",
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", MOUNTED.values(), ids=MOUNTED)
def test_serves_below_the_prefix_of_another_application(command: list[str], store: str) -> None:
    port = free_port()
    arguments = [str(SCRIPTS / command[0]), *(word.replace("PORT", str(port)) for word in command[1:])]
    with Program(arguments, cwd=EXAMPLES, env={"SHOP_STORE": store}) as program:
        program.wait_for_port(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert "3.0" in answer.read().decode()

        url = f"http://127.0.0.1:{port}/config"
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
            assert json.load(answer)["status"] == "ready"

        with ConfigServiceClientSync(url) as client:
            request = EvaluateRequest(project=PROJECT, environment="production", name="checkout.timeout")
            assert client.evaluate(request, timeout_ms=DEADLINE_MS).evaluation.value_json == "3.0"

            events = client.watch(
                WatchRequest(project=PROJECT, environment="production"), timeout_ms=DEADLINE_MS
            )
            assert next(events).hello.project == PROJECT
            assert any(event.HasField("snapshot_end") for event in events)

            revision = commit(url, "checkout.timeout", Value(double_value=3.5))
            delta = next_delta(events).delta
            assert delta.position.revision == revision
            assert [(item.key, item.setting.value.double_value) for item in delta.items] == [
                ("checkout.timeout", 3.5)
            ]

        # The process's own reads see the write as well.
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert "3.5" in answer.read().decode()


def test_read_py_reads_for_each_customer_and_again_after_a_change(rheostat: str) -> None:
    with Program([sys.executable, EXAMPLES / "read.py", rheostat]) as program:
        printed = program.wait_for("Ctrl-C ends")
        assert "a subscriber in Europe: 4.0 s, at most 100 articles, not by ()" in printed
        assert "somebody in Asia: 3.0 s, at most 50 articles, not by ()" in printed
        commit(rheostat, "checkout.timeout", Value(double_value=5.5))
        program.wait_for("checkout.timeout has changed")
        program.wait_for("somebody in Asia: 5.5 s")


def test_read_py_gets_the_servers_values_once_the_server_is_there(store: str) -> None:
    port = free_port()
    with Program([sys.executable, EXAMPLES / "read.py", f"http://127.0.0.1:{port}"]) as program:
        program.wait_for("a subscriber in Europe: 2.5 s")
        serve = [SCRIPTS / "rheostat", "serve", "--store", store, "--port", str(port)]
        with Program(serve) as server:
            server.wait_for_port(port)
            program.wait_for("a subscriber in Europe: 4.0 s", timeout=60)


def test_read_async_py_reads_one_revision_in_each_request(rheostat: str) -> None:
    with Program([sys.executable, EXAMPLES / "read_async.py", rheostat]) as program:
        printed = program.wait_for("Ctrl-C ends")
        assert re.search(r"^s-1 \(plus\): \w+ within 4.0 s$", printed, re.MULTILINE)
        commit(rheostat, "checkout.timeout", Value(double_value=5.5))
        program.wait_for("checkout.timeout has changed")
        program.wait_for("within 5.5 s")
        assert "Error" not in program.output


def test_flags_py_reads_flags_and_writes_exposures(rheostat: str, tmp_path: Path) -> None:
    with Program([sys.executable, EXAMPLES / "flags.py", rheostat], cwd=tmp_path) as program:
        printed = program.wait_for("Ctrl-C ends")
        assert "a subscriber in Europe: 4.0 s (TARGETING_MATCH), as a guest: True" in printed
        assert "somebody in Asia: 3.0 s (DEFAULT), as a guest: False" in printed
        commit(rheostat, "checkout.timeout", Value(double_value=5.5))
        program.wait_for("changed: checkout.timeout")
        program.wait_for("somebody in Asia: 5.5 s")
        wait_until((tmp_path / "exposures").exists)


READERS = {
    "flask": ["flask", "--app", "flask_client", "run", "--port", "PORT"],
    "flask on gunicorn's threads, preloaded": [
        "gunicorn", "--preload", "--threads", "4", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "1", "flask_client:app",
    ],
    "fastapi on uvicorn": ["uvicorn", "fastapi_client:app", "--port", "PORT"],
}  # fmt: skip


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_an_application_reads_the_server_in_the_context_of_each_request(
    command: list[str], rheostat: str
) -> None:
    port = free_port()

    def answers(plan: str, wanted: str) -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/", headers={"x-region": "eu", "x-plan": plan}
        )
        deadline = time.monotonic() + 30.0
        while True:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
            if wanted in text or time.monotonic() > deadline:
                return text

    arguments = [str(SCRIPTS / command[0]), *(word.replace("PORT", str(port)) for word in command[1:])]
    with Program(arguments, cwd=EXAMPLES, env={"RHEOSTAT_URL": rheostat}) as program:
        program.wait_for_port(port)
        assert "4.0" in answers("plus", "4.0")
        assert "3.0" in answers("free", "3.0")
        commit(rheostat, "checkout.timeout", Value(double_value=5.5))
        assert "5.5" in answers("free", "5.5")


def test_watch_py_prints_each_change(rheostat: str) -> None:
    with Program([sys.executable, EXAMPLES / "watch.py", rheostat]) as program:
        program.wait_for("setting search.engine has changed")
        revision = commit(rheostat, "search.page-size", Value(int_value=48))
        program.wait_for(f"{revision} setting search.page-size has changed")


def test_watch_async_py_resumes_after_a_restart_of_the_server(store: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = [SCRIPTS / "rheostat", "serve", "--store", store, "--port", str(port)]
    with Program([sys.executable, EXAMPLES / "watch_async.py", url]) as program:
        with Program(serve) as server:
            server.wait_for_port(port)
            program.wait_for("at revision")
            first = commit(url, "search.page-size", Value(int_value=48))
            program.wait_for(f"{first} search.page-size has changed")
        with Program(serve) as server:
            server.wait_for_port(port)
            second = commit(url, "search.page-size", Value(int_value=12))
            printed = program.wait_for(f"{second} search.page-size has changed", timeout=60)
    modes = re.findall(r"^connected: (\w+)", printed, re.MULTILINE)
    assert modes[0] == "WATCH_MODE_SNAPSHOT"
    assert modes[1] in ("WATCH_MODE_DELTA", "WATCH_MODE_UP_TO_DATE")
    assert "WATCH_MODE_SNAPSHOT" not in modes[1:]


def test_the_typescript_example_is_well_typed() -> None:
    install_typescript()
    done = subprocess.run(
        [NODE, "node_modules/typescript/bin/tsc"],
        cwd=TYPESCRIPT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_watch_ts_prints_each_change(rheostat: str) -> None:
    install_typescript()
    with Program([NODE, "watch.ts", rheostat], cwd=TYPESCRIPT) as program:
        program.wait_for("setting search.engine has changed")
        revision = commit(rheostat, "search.page-size", Value(int_value=48))
        program.wait_for(f"{revision} setting search.page-size has changed")


def test_evaluate_sh_evaluates_changes_and_reads_with_curl(rheostat: str) -> None:
    for _ in range(2):
        # The second time the commit is a replay, and answers the same.
        printed = subprocess.run(
            [EXAMPLES / "evaluate.sh", rheostat],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        evaluated, committed, read = printed.split("\n}\n")[:3]
        assert json.loads(evaluated + "}")["evaluation"]["ruleId"] == "eu-paying"
        assert json.loads(committed + "}")["revision"] == "3"
        assert json.loads(read + "}")["setting"]["value"] == {"doubleValue": 3.5}
