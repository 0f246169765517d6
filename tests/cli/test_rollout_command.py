"""`rheostat clients`, `rollout` and `publish`, and --wait on commands that write."""

from __future__ import annotations

import io
import json
import signal
import threading
import time

import pytest
from rich.console import Console

from rheo.v1 import config_service_pb2 as config
from rheo.v1.client_pb2 import ClientIdentity, ClientReport
from rheo.v1.config_service_connect import ConfigServiceClientSync
from rheostat import Client
from rheostat.cli import rollout
from rheostat.cli.option import Target
from rheostat.cli.output import Output
from rheostat.sdk.transport import sync_http_client


@pytest.fixture
def connect(cli):
    """Starts clients of the project's environment `production`; ends them after the test."""
    clients = []

    def start(name, **options):
        client = Client(cli.url, project=cli.project, environment="production", name=name, **options)
        clients.append(client)
        client.start()
        client.wait_ready(20)
        return client

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def report(cli):
    """Reports for clients that are not there, as a relay would."""
    import urllib3

    with urllib3.PoolManager() as pool:
        service = ConfigServiceClientSync(cli.url, http_client=sync_http_client(pool))

        def send(*names, revision=1, **fields):
            service.report_status(
                config.ReportStatusRequest(
                    project=cli.project,
                    environment="production",
                    reports=[
                        ClientReport(
                            client=ClientIdentity(id=f"id-{name}", name=name, sdk="test/1"),
                            generation=1,
                            revision=revision,
                            **fields,
                        )
                        for name in names
                    ],
                )
            )

        send.service = service
        yield send


def until_listed(cli, *names):
    """Wait until the store knows the reports of *names*, which a node writes within a second."""
    until = time.monotonic() + 20
    while True:
        found = cli.json("clients")["clients"]
        if {each["name"] for each in found if each["reported_at"]} >= set(names):
            return found
        assert time.monotonic() < until, found


def test_clients_are_listed_with_where_they_are(cli, connect, report):
    connect("checkout@web-7")
    report("old", "odd", diverged=True, error="the connection was cut")
    found = {each["name"]: each for each in until_listed(cli, "checkout@web-7", "old", "odd")}
    live, old = found["checkout@web-7"], found["old"]
    assert live["behind_by"] == 0
    assert live["sdk"].startswith("rheostat-python/")
    assert live["node"] and live["reported_at"] and not live["diverged"] and live["error"] is None
    assert old["behind_by"] > 0 and old["diverged"] and old["error"] == "the connection was cut"
    table = cli.run("clients")
    assert f"project {cli.project}, environment production, revision" in table.stderr
    assert {"id", "name", "sdk", "node", "revision", "behind", "lag", "reported"} <= set(
        table.stdout.splitlines()[0].split()
    )
    assert "diverged; the connection was cut" in table.stdout
    behind = cli.run("clients", "--behind").stdout
    assert "old" in behind and "web-7" not in behind


def test_no_clients_are_no_failure(cli):
    assert "no client is connected" in cli.run("clients").stderr
    assert "no client is behind" in cli.run("clients", "--behind").stderr
    assert cli.json("clients")["clients"] == []


def test_clients_come_in_pages(cli, report, monkeypatch):
    monkeypatch.setattr("rheostat.cli.connection._PAGE_SIZE", 2)
    names = [f"n{number}" for number in range(5)]
    report(*names)
    assert [each["name"] for each in until_listed(cli, *names)] == names


def test_a_client_cannot_write_on_the_terminal_what_it_likes(cli, report):
    report("\x1b[2Jgone", error="\x1b]0;title\x07")
    until_listed(cli, "\x1b[2Jgone")
    assert "\x1b" not in cli.run("clients").stdout
    assert "\x1b" not in cli.run("rollout").stdout


def test_waiting_ends_when_the_share_is_there(cli, connect, report):
    connect("one")
    connect("two")
    report("late")
    until_listed(cli, "one", "two", "late")
    done = cli.run("set", "checkout.timeout", "7", "--wait", "60%", "--timeout", "20s")
    assert "value: 3.0 → 7.0" in done.stdout
    assert "has reached 2 of 3 reporting clients (66.7 %)" in done.stdout
    assert "lag p50" in done.stdout
    answer = cli.json("unset", "checkout.timeout", "--wait", "60", "--timeout", "20")
    (found,) = answer["rollouts"]
    assert (found["environment"], found["revision"]) == ("production", answer["revision"])
    assert (found["reporting"], found["reached"], found["complete"]) == (3, 2, True)
    assert 0 <= found["lag_seconds"]["p50"] <= found["lag_seconds"]["max"] < 20


def test_a_share_that_is_not_reached_in_time_ends_with_the_names(cli, connect, report):
    connect("prompt")
    report("late-1", "late-2")
    until_listed(cli, "prompt", "late-1", "late-2")
    began = time.monotonic()
    done = cli.run("set", "greeting", "hi", "--wait", "99%", "--timeout", "1500ms", code=6)
    assert time.monotonic() - began >= 1.5
    assert "late-1" in done.stdout and "late-2" in done.stdout and "prompt" not in done.stdout
    assert "2 of 3 clients of production have not reached revision" in done.stderr
    assert "99% were to" in done.stderr
    assert cli.json("get", "greeting")["value"] == "hi", "what is written stays"
    result = cli.run("set", "greeting", "ho", "--wait", "99%", "--timeout", "1s", "--json", code=6)
    (found,) = json.loads(result.stdout)["rollouts"]
    assert {each["name"] for each in found["laggards"]} == {"late-1", "late-2"}
    assert json.loads(result.stderr)["error"]["reason"] == "CLIENTS_BEHIND"


def test_a_thousand_laggards_are_named_and_the_others_counted(cli, report):
    names = [f"n{number:04}" for number in range(1005)]
    report(*names)
    until_listed(cli, *names)
    cli.run("set", "greeting", "hi")
    done = cli.run("rollout", "--wait", "1%", "--timeout", "200ms", code=6)
    assert sum(name in done.stdout for name in names) == 1000
    assert "and 5 more" in done.stdout
    found = cli.json("rollout")
    assert (len(found["laggards"]), found["more_laggards"], found["complete"]) == (1000, 5, None)


def test_there_is_nobody_to_wait_for_where_no_client_reports(cli):
    done = cli.run("set", "greeting", "hi", "--wait", "100%", "--timeout", "60s")
    assert "0 of 0 reporting clients" in done.stdout
    assert "nobody to wait for" in done.stderr
    (found,) = cli.json("set", "greeting", "ho", "--wait", "100%")["rollouts"]
    assert (found["share"], found["complete"]) == (None, True)


def test_what_no_client_reads_is_not_waited_for(cli, report):
    report("late")
    until_listed(cli, "late")
    cli.run("set", "greeting", "hi")
    assert "nothing to wait for" in cli.run("set", "greeting", "hi", "--wait", "100%").stderr
    done = cli.run("env", "create", "staging", "--wait", "100%", "--timeout", "30s")
    assert "nothing to wait for" in done.stderr


def test_a_change_of_a_segment_is_waited_for_in_all_environments(cli, document, report):
    cli.run("env", "create", "staging")
    changed = document.replace('["u1", "u7"]', '["u1", "u8"]')
    done = cli.apply(changed, "--wait", "100%")
    assert "production: revision" in done.stdout and "staging: revision" in done.stdout


def test_a_revert_is_waited_for_too(cli, connect):
    connect("one")
    until_listed(cli, "one")
    revision = cli.json("set", "greeting", "hi")["revision"]
    done = cli.run("revert", str(revision), "--wait", "100%", "--timeout", "20s")
    assert "has reached 1 of 1 reporting clients (100 %)" in done.stdout


def test_a_rollout_can_be_looked_at_later(cli, report):
    report("late")
    until_listed(cli, "late")
    first = cli.json("set", "greeting", "a")["revision"]
    cli.run("set", "greeting", "b")
    report("late", revision=first)
    until = time.monotonic() + 20
    while (found := cli.json("rollout", str(first)))["reached"] != 1:
        assert time.monotonic() < until
    assert found["laggards"] == [] and found["complete"] is None
    assert cli.json("rollout")["reached"] == 0
    assert "error" in cli.run("rollout", "999999", code=1).stderr


def test_interrupting_the_wait_leaves_what_was_written(cli, report):
    report("late")
    until_listed(cli, "late")
    process = cli.process("set", "greeting", "stays", "--wait", "100%", "--timeout", "60s")
    process.wait_for("has reached 0 of 1", stream="stderr")
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "stays committed; look again with: rheostat rollout" in process.stderr
    assert "Traceback" not in process.stderr
    process.end()
    assert cli.json("get", "greeting")["value"] == "stays"


def test_a_terminal_gets_a_bar(cli, report):
    report("late")
    until_listed(cli, "late")
    cli.run("set", "greeting", "hi")
    output, shown = Output(), io.StringIO()
    output._consoles[True] = Console(file=shown, force_terminal=True, width=120)
    target = Target(url=cli.url, project=cli.project, patience=0.6)
    (found,), interrupted = rollout.follow(target, cli.project, ["production"], 0, 1.0, output)
    assert not interrupted and not found.complete
    assert "0/1, 1 wanted" in shown.getvalue()
    assert [each.name for each in found.laggards] == ["late"]


@pytest.mark.parametrize(
    "options",
    [
        ("--wait", "101%"),
        ("--wait", "much"),
        ("--wait", "99%", "--dry-run"),
        ("--wait", "99%", "--draft"),
        ("--wait", "99%", "--timeout", "soon"),
        ("--timeout", "0"),
        ("--timeout", "-1s"),
        ("--timeout", "2d"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_waited_for_is_refused_before_anything_is_written(cli, options):
    before = cli.revision()
    cli.run("set", "greeting", "no", *options, code=2)
    assert cli.revision() == before


def test_a_server_that_knows_no_rollouts_is_found_out_before_anything_is_written(cli, monkeypatch):
    from rheostat.errors import FailedPreconditionError

    def refuse(*_, **__):
        raise FailedPreconditionError("not yet", reason="NOT_SERVED")

    monkeypatch.setattr(rollout, "_ask", refuse)
    before = cli.revision()
    cli.run("set", "greeting", "no", "--wait", "99%", code=1)
    assert cli.revision() == before


# Publishing.


def test_a_document_is_published(cli, document, connect):
    connect("one")
    until_listed(cli, "one")
    text = document.replace("value: 3.0", "value: 8.5")
    done = cli.run("publish", "--file", "-", "--wait", "100%", "--timeout", "20s", input=text)
    assert "value: 3.0 → 8.5" in done.stdout
    assert "has reached 1 of 1 reporting clients (100 %)" in done.stdout
    assert cli.json("get", "checkout.timeout")["value"] == 8.5


def test_a_draft_is_published(cli, connect):
    connect("one")
    until_listed(cli, "one")
    draft = cli.json("set", "greeting", "later", "--draft", "-m", "why")["draft"]["id"]
    answer = cli.json("publish", draft, "--wait", "100%", "--timeout", "20s")
    assert answer["committed"] and answer["draft"]["state"] == "committed"
    assert answer["rollouts"][0]["reached"] == 1
    assert cli.json("get", "greeting")["value"] == "later"


def test_a_draft_is_published_at_its_time(cli):
    draft = cli.json("set", "greeting", "later", "--draft")["draft"]["id"]
    done = cli.run("publish", draft, "--at", "2h")
    assert f"draft {draft} is scheduled for" in done.stdout
    other = cli.json("set", "greeting", "never", "--draft")["draft"]["id"]
    answer = cli.json("publish", other, "--at", "2100-01-01T00:00:00Z")
    assert (answer["committed"], answer["draft"]["state"]) == (False, "scheduled")
    assert answer["draft"]["scheduled_at"] == "2100-01-01T00:00:00.000Z"
    assert "value" not in cli.json("get", "greeting")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("some-draft", "--file", "-"),
        ("some-draft", "--dry-run"),
        ("some-draft", "--force"),
        ("some-draft", "--at", "2h", "--wait", "99%"),
        ("some-draft", "--at", "when it suits"),
        ("--file", "-", "--at", "2h"),
        ("--file", "-", "--version", "3"),
    ],
    ids=" ".join,
)
def test_publishing_says_what_it_cannot_do(cli, arguments):
    cli.run("publish", *arguments, code=2, input="")


# The gate.


def test_a_value_that_a_client_could_not_decode_is_refused_with_its_name_unless_forced(cli, connect):
    from rheostat import Setting

    declared = threading.Event()
    client = connect(
        "strict@web-1",
        settings=[Setting("greeting", bool, default=False)],
        on_declaration=lambda _: declared.set(),
    )
    assert declared.wait(20)
    refused = cli.run("set", "greeting", "hi", code=1)
    assert "strict@web-1" in refused.stderr
    error = cli.json("set", "greeting", "hi", code=1)["error"]
    assert error["reason"] == "CLIENTS_WOULD_BREAK"
    assert json.loads(error["metadata"]["clients"]) == [client.client_id]
    forced = cli.run("set", "greeting", "hi", "--force")
    assert "strict@web-1" in forced.stderr, "it warns"
    assert cli.json("get", "greeting")["value"] == "hi"
