"""`rheostat doctor`: what works, what does not, and what to do about it."""

from __future__ import annotations

import datetime
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from rheostat.cli import doctor
from rheostat.cli.connection import Connection
from rheostat.cli.doctor import examine_server
from rheostat.cli.option import Target
from rheostat.cli.root import root
from rheostat.errors import FailedPreconditionError
from rheostat.model.key import KeyKind, Role
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import health, migration, open_store
from rheostat.store.health import Finding, Verdict, examine_store
from rheostat.testing import LocalServer
from tests.cli.conftest import CLEAN, Server
from tests.postgres import Template, running_template
from tests.sdk.proxy import Proxy

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)

PLACE = ("--project", "default", "-e", "production")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer(heartbeat=0.2) as server:
        server.set("greeting", "hello")
        yield server


def run(*arguments: str, code: int = 0, **env: str) -> dict[str, dict[str, Any]]:
    """Return the findings by their checks."""
    result = CliRunner().invoke(root, ["doctor", *arguments, "--json"], env={**CLEAN, **env})
    assert result.exit_code == code, result.output
    answer = json.loads(result.stdout)
    assert answer["ok"] == (code == 0)
    return {check["check"]: check for check in answer["checks"]}


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["verdict"] for name, check in found.items()}


def findings(examined: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in examined}


# The server.


def test_all_is_well_with_a_server_that_works(local: LocalServer) -> None:
    found = run("--url", local.url)
    names = ("address", "tls", "server", "latency", "clock", "place", "key", "stream", "snapshot", "bookmark")
    assert {name: check["message"] for name, check in found.items() if check["verdict"] == "fail"} == {}
    assert tuple(found) == names
    assert {check["fix"] for check in found.values() if check["verdict"] == "ok"} == {""}
    assert f"generation 1, revision {local.revision}" in found["server"]["message"]
    assert found["place"]["message"] == "project default, environment production"
    everything = "watch, evaluate, view, edit, approve, administer"
    assert found["key"]["message"] == f"without a key, everybody may {everything}"
    assert "1 items at revision" in found["snapshot"]["message"]
    # Nothing was changed by asking.
    assert found["server"]["message"] == run("--url", local.url, "--quick")["server"]["message"]


def test_people_read_a_line_for_each_check_and_below_it_what_to_do(local: LocalServer) -> None:
    result = CliRunner().invoke(root, ["doctor", "--url", local.url, "--quick", "-e", "staging"], env=CLEAN)
    assert result.exit_code == 1
    assert "ok   stream" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok   address    127.0.0.1")
    assert lines[-2].startswith("fail place      ")
    assert "'staging'" in lines[-2]
    assert lines[-1] == f"{'':16}→ check --environment, and which environments the key is for"


@pytest.mark.parametrize(
    ("url", "check", "fix"),
    [("http://127.0.0.1:1", "server", "start the server"), ("http://no..name:80", "address", "check --url")],
)
def test_a_server_that_is_not_there_is_a_failure(url: str, check: str, fix: str) -> None:
    found = run("--url", url, code=1)
    assert verdicts(found)[check] == "fail"
    assert fix in found[check]["fix"]
    assert list(found)[-1] == check


def test_clocks_that_differ_are_worth_a_warning(local: LocalServer) -> None:
    def late() -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

    found = findings(examine_server(Target(local.url), wait_for_bookmark=False, now=late))
    assert found["clock"].verdict is Verdict.WARN
    assert "3600." in found["clock"].message
    assert "ahead of" in found["clock"].message
    assert found["clock"].fix


@pytest.mark.parametrize(
    ("after", "patience", "expected"),
    [
        ("key", "_HELLO_SECONDS", "no stream begins"),
        ("snapshot", "_BOOKMARK_SECONDS", "the stream came to nothing after its beginning"),
    ],
)
def test_a_stream_that_something_holds_back_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, after: str, patience: str, expected: str
) -> None:
    monkeypatch.setattr(doctor, patience, 0.3)
    with LocalServer(heartbeat=1.0) as server, Proxy(int(server.url.rpartition(":")[2])) as proxy:
        last = None
        for finding in examine_server(Target(proxy.url)):
            last = finding
            if finding.check == after:
                # What follows stays somewhere on the way.
                proxy.fail("half-open")
        assert last is not None
        assert (last.check, last.verdict) == ("stream", Verdict.FAIL)
        assert expected in last.message
        assert "proxy_buffering off" in last.fix


def test_keys_and_certificates_are_looked_at(
    make_server: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, secret = tmp_path / "certificate.pem", tmp_path / "secret.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-keyout", secret, "-out", certificate),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    server = make_server("--closed", "--ssl-certfile", str(certificate), "--ssl-keyfile", str(secret))
    with Service(open_store(server.store)) as service:
        keys = {
            name: service.create_key(Writer(OPEN), project="default", **options)[1]
            for name, options in {
                "service": {"kind": KeyKind.SERVER, "environments": ("production",)},
                "browser": {"kind": KeyKind.PUBLIC, "environments": ("production",)},
                "viewer": {"kind": KeyKind.USER, "role": Role.VIEWER},
            }.items()
        }

    def look(key: str, code: int = 0) -> dict[str, dict[str, Any]]:
        return run("--url", server.url, "--key", key, *PLACE, "--quick", code=code)

    assert "not trusted" in look(keys["service"], 1)["tls"]["message"]
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    found = look(keys["service"])
    assert (found["tls"]["verdict"], found["tls"]["fix"]) == ("warn", "renew it")
    assert "ends in 1 days" in found["tls"]["message"]
    assert found["key"]["message"] == "the key may watch, evaluate, and not view, edit, approve, administer"
    assert found["snapshot"]["verdict"] == "ok"
    found = look(keys["browser"])
    assert found["key"]["message"] == "the key may evaluate, and not watch, view, edit, approve, administer"
    assert found["stream"]["verdict"] == "warn"
    assert "not tried" in found["stream"]["message"]
    found = look(keys["viewer"])
    assert found["key"]["message"] == "the key may watch, evaluate, view, and not edit, approve, administer"
    found = look(keys["viewer"][:-4] + "AAAA", 1)
    assert "RHEOSTAT_KEY" in found["server"]["fix"]
    assert "set RHEOSTAT_KEY" in run("--url", server.url, *PLACE, code=1)["server"]["fix"]


def test_a_relay_is_known_as_one(local: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Connection.call

    def as_a_relay_answers(connection: Connection, rpc: Any, request: Any) -> Any:
        if type(rpc.__self__).__name__ in ("AdminServiceClientSync", "DraftServiceClientSync"):
            raise FailedPreconditionError(
                "a relay does not serve this",
                reason="ON_RELAY",
                metadata={"upstream": "https://config.example"},
            )
        return call(connection, rpc, request)

    monkeypatch.setattr(Connection, "call", as_a_relay_answers)
    found = run("--url", local.url, "--quick")
    assert found["place"]["message"] == "a relay, which serves programs; people ask https://config.example"
    assert found["key"]["message"] == "without a key, everybody may watch, evaluate"


# The store.


def test_a_store_is_looked_at_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_store(str(path)).close()
    found = run("--store", f"sqlite:{path}", "--no-server")
    assert verdicts(found) == dict.fromkeys(
        ("store", "generation", "file", "disk", "journal", "integrity", "sqlite"), "ok"
    )
    assert found["journal"]["message"] == "write-ahead logging"
    result = CliRunner().invoke(root, ["doctor", "--no-server"], env=CLEAN)
    assert result.exit_code == 2


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    store = open_store(str(path))
    store.raise_generation(1)
    store.close()
    path.chmod(0o644)
    monkeypatch.setattr(health, "_LITTLE_SPACE", 2**62)
    found = findings(examine_store(str(path), datetime.datetime.now(datetime.UTC)))
    assert found["file"].verdict is found["disk"].verdict is found["generation"].verdict is Verdict.WARN
    assert found["file"].fix == "chmod 600 store.db"
    assert "generation 2" in found["generation"].message
    assert "history was lost" in found["generation"].message
    # Old news are none, and intentions are no faults.
    assert findings(examine_store(str(path), NOW))["generation"].verdict is Verdict.OK
    assert CliRunner().invoke(root, ["restore", "--store", str(path)], env=CLEAN).exit_code == 0
    found = findings(examine_store(str(path), datetime.datetime.now(datetime.UTC)))
    assert found["generation"].verdict is Verdict.OK
    assert "a backup was put in place" in found["generation"].message
    with monkeypatch.context() as newer:
        newer.setattr(migration, "SCHEMA", "9999")
        (only,) = examine_store(str(path), NOW)
    assert (only.verdict, only.fix) == (Verdict.FAIL, "run `rheostat migrate`")
    (only,) = examine_store(str(tmp_path / "absent.db"), NOW)
    assert only.verdict is Verdict.FAIL
    assert not (tmp_path / "absent.db").exists()


def test_a_damaged_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_store(str(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
    content = bytearray(path.read_bytes())
    first = (pages["change_item"] - 1) * 4096
    content[first : first + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    found = findings(examine_store(str(path), NOW))
    assert found["integrity"].verdict is Verdict.FAIL
    assert found["integrity"].fix == "restore a backup"


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 6, 0), False),
    ],
)
def test_the_bug_of_some_versions_of_sqlite_is_told(version: tuple[int, ...], told: bool) -> None:
    found = health._library(version)
    assert found.verdict is Verdict.OK
    assert ("WAL-reset bug" in found.message) == told


@pytest.fixture(scope="module")
def postgres() -> Iterator[Template]:
    with running_template() as template:
        yield template


def test_a_database_is_looked_at(postgres: Template) -> None:
    url = postgres.empty()
    store = open_store(url)
    found = run("--store", url, "--no-server")
    assert verdicts(found) == dict.fromkeys(
        ("store", "generation", "database", "durability", "timeline", "listen"), "ok"
    )
    store.close()
    found = run("--store", f"{url}?options=-csynchronous_commit%3Doff", "--no-server")
    assert found["durability"]["verdict"] == "warn"
    moved = run("--store", postgres.copy(url), "--no-server")["timeline"]
    assert (moved["verdict"], moved["fix"]) == ("warn", "nothing: the next server begins a generation")
    away = run("--store", "postgresql://ada:s3cret@127.0.0.1:1/shop", "--no-server", code=1)["store"]
    assert "cannot be reached" in away["message"]
    assert "s3cret" not in away["message"]


def test_hints_that_are_not_heard_are_worth_a_warning(
    postgres: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_LISTEN_SECONDS", 0.1)
    # What is told in one database is not heard in another: as with a pooler between.
    with (
        psycopg.connect(postgres.empty(), autocommit=True) as listening,
        psycopg.connect(postgres.empty(), autocommit=True) as telling,
    ):
        found = health._listening(listening, telling)
    assert found.verdict is Verdict.WARN
    assert "session mode" in found.fix
