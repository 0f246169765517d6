"""`rheostat demo`: the first command of the README."""

from __future__ import annotations

import json

import pytest

from rheostat.cli import demo as module


def test_it_shows_changes_arriving_within_a_second_and_ends_by_itself(empty):
    process = empty.process("demo")
    assert process.wait(240.0) == 0
    assert "checkout.timeout" in process.stdout
    assert "% of its units get something else" in process.stdout
    assert process.stdout.count("in the watcher") == 4
    assert "a program with the SDK reads checkout.timeout = 3.0," in process.stdout
    assert process.stdout.count("the program reads checkout.timeout = 4.5,") == 4
    assert "\x1b" not in process.stdout
    process.end()


def test_its_json_has_the_milliseconds_of_each_step(empty):
    process = empty.process("demo", "--json")
    assert process.wait(240.0) == 0
    answer = json.loads(process.stdout)
    arrivals = [step["arrived_ms"] for step in answer["steps"]]
    assert len(arrivals) == 4
    # One, since a busy machine may hold up any of them.
    assert 0 < min(arrivals) < 1000
    assert answer["settings"] >= 40
    steps = answer["steps"]
    assert [step["timeout"] for step in steps] == [4.5] * 4
    # A rollout from an eighth to a quarter, then to a half, and back.
    users = [step["new_flow_users"] for step in steps]
    assert users[0] < users[1] < users[2]
    assert users[3] == users[1]
    assert abs(users[2] - 490) < 50
    process.end()


def test_kept_it_leaves_the_server_running_until_it_is_interrupted(empty):
    import signal

    process = empty.process("demo", "--keep")
    try:
        process.wait_for("RHEOSTAT_URL=", stream="stderr")
        url = process.stdout.split("a server at ")[1].split(",")[0]
        assert empty.json("list", "--url", url, "--project", "shop", "-e", "production")["settings"]
        process.popen.send_signal(signal.SIGINT)
        assert process.wait() == 0
    finally:
        process.end()


def test_a_change_that_does_not_arrive_fails_it(empty, monkeypatch):
    monkeypatch.setattr(module, "_ARRIVAL_SECONDS", 0.0)
    assert "did not reach the watcher" in empty.run("demo", code=1).stderr


def test_a_server_that_does_not_start_is_explained(empty, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    assert "did not start" in empty.run("demo", code=1).stderr


def test_a_missing_extra_is_named(empty, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert "rheostat[server]" in empty.run("demo", code=1).stderr


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """Without a terminal's pauses, whatever runs the tests."""
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.0)
