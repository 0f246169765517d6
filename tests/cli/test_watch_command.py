"""`rheostat watch`: live lines, JSON lines, going on after a cut."""

from __future__ import annotations

import json
import signal

import pytest


@pytest.fixture
def watching(cli):
    """Starts `rheostat watch` and returns it once it holds the snapshot; ends all at the end."""
    started = []

    def start(*options, ready='"snapshot"'):
        process = cli.process("watch", *options)
        started.append(process)
        process.wait_for(ready, stream="stdout" if "--json" in options else "stderr")
        return process

    yield start
    for process in started:
        process.end()


def events(process):
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_a_change_is_printed_when_it_is_committed(cli, watching):
    process = watching(ready="watching ")
    revision = cli.json("set", "checkout.timeout", "9")["revision"]
    process.wait_for("value: 3.0 → 9.0")
    assert f"revision {revision}" in process.stdout
    assert f"project {cli.project}, environment production" in process.stderr


def test_json_is_one_object_a_line_with_before_and_after(cli, watching):
    process = watching("--json")
    revision = cli.json("set", "greeting", "hi")["revision"]
    process.wait_for('"change"')
    kinds = [event["event"] for event in events(process)]
    assert kinds == ["hello", "snapshot", "change"]
    change = events(process)[-1]
    assert (change["name"], change["revision"], change["action"]) == ("greeting", revision, "update")
    assert "value" not in change["before"] and change["after"]["value"] == "hi"


def test_interrupting_it_is_no_failure(watching):
    process = watching(ready="watching ")
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert "Traceback" not in process.stderr


def test_it_ends_by_itself_after_so_many_changes(cli, watching):
    process = watching("--json", "--count", "2")
    cli.run("set", "greeting", "a")
    cli.run("set", "greeting", "b")
    assert process.wait() == 0
    assert [e["after"]["value"] for e in events(process) if e["event"] == "change"] == ["a", "b"]


def test_it_watches_only_what_was_named(cli, watching):
    process = watching("greeting", "--prefix", "checkout.", "--json", "--count", "2")
    cli.run("set", "theme", "dark")
    cli.run("set", "greeting", "hi")
    cli.run("set", "checkout.timeout", "9")
    assert process.wait() == 0
    names = [event["name"] for event in events(process) if event["event"] == "change"]
    assert names == ["greeting", "checkout.timeout"]


def test_initial_prints_what_there_is(watching):
    process = watching("--json", "--initial", "--count", "7")
    assert process.wait() == 0
    created = [event for event in events(process) if event["event"] == "change"]
    assert {event["action"] for event in created} == {"create"}
    assert {event["name"] for event in created} >= {"checkout.timeout", "beta"}


def test_without_a_server_it_ends_with_its_own_code(cli):
    error = cli.json("watch", "--url", "http://127.0.0.1:1", code=3)["error"]
    assert error["reason"] == "UNREACHABLE"


def test_an_unknown_environment_is_refused(cli):
    assert "nowhere" in cli.run("watch", "-e", "nowhere", code=4).stderr


def test_it_goes_on_after_the_server_was_killed_and_misses_nothing(make_server, cli, document):
    server = make_server()
    cli.url = cli.env["RHEOSTAT_URL"] = server.url
    cli.apply(document)
    process = cli.process("watch", "--json")
    try:
        process.wait_for('"snapshot"')
        server.kill()
        process.wait_for('"disconnected"')
        server.start()
        revision = cli.json("set", "checkout.timeout", "9")["revision"]
        process.wait_for('"change"')
        seen = events(process)
        modes = [event["mode"] for event in seen if event["event"] == "hello"]
        assert modes[0] == "SNAPSHOT"
        assert modes[1] in ("DELTA", "UP_TO_DATE")
        changes = [event for event in seen if event["event"] == "change"]
        assert [(c["name"], c["revision"]) for c in changes] == [("checkout.timeout", revision)]
    finally:
        process.end()
