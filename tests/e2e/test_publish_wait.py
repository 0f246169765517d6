"""Rollouts that an operator waits for, with 200 real clients, some of which stand still."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.process import PATIENCE, ROOT, Program, ServerProgram, wait_until

FLEET: Final = {
    "a": ("async", 50),
    "b": ("async", 40),
    "c": ("async", 40),
    "d": ("async", 30),
    "e": ("sync", 20),
    "f": ("sync", 20),
}
"""By the first letter of the clients' names: what kind of clients, and how many."""

PAUSED: Final = ("c", "f")

DOCUMENT: Final = """\
environments: [production]
settings:
  checkout.timeout:
    type: float
    default: 2.5
    environments:
      production:
        value: {value}
"""


class Operator:
    """Runs commands about one server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *arguments: str, input: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "rheostat.cli", *arguments],
            cwd=ROOT,
            env={**os.environ, "RHEOSTAT_URL": self.url, "RHEOSTAT_ENVIRONMENT": "production"},
            input=input,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def publish(self, value: float, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("publish", "--file", "-", *options, input=DOCUMENT.format(value=value), code=code)

    def clients(self) -> list[Any]:
        found: list[Any] = json.loads(self.run("clients", "--json").stdout)["clients"]
        return found

    def reporting(self) -> list[Any]:
        return [client for client in self.clients() if client["reported_at"]]


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    server = ServerProgram("serve", f"sqlite:{tmp_path / 'store.db'}")
    try:
        found = Operator(server.url)
        found.publish(1.0)
        yield found
    finally:
        server.kill()


@pytest.fixture
def fleet(operator: Operator) -> Iterator[dict[str, Program]]:
    """Processes of clients, by the prefix of their names."""
    with contextlib.ExitStack() as stack:
        programs = {}
        for prefix, (kind, count) in FLEET.items():
            command = (sys.executable, "-m", "tests.e2e.fleet", kind, operator.url, prefix, str(count))
            programs[prefix] = Program(command)
            stack.callback(programs[prefix].kill)
        for program in programs.values():
            program.line_like("^ready$", 3 * PATIENCE)
        everybody = sum(count for _, count in FLEET.values())
        # Their first reports take a moment longer than their first state.
        wait_until(lambda: len(operator.reporting()) == everybody, 3 * PATIENCE)
        yield programs


@contextlib.contextmanager
def paused(fleet: dict[str, Program]) -> Iterator[set[str]]:
    """Let processes stand still inside the block; yields the names of their clients."""
    stopped = [fleet[prefix] for prefix in PAUSED]
    for program in stopped:
        os.kill(program.process.pid, signal.SIGSTOP)
    try:
        yield {f"{prefix}-{number}" for prefix in PAUSED for number in range(FLEET[prefix][1])}
    finally:
        for program in stopped:
            os.kill(program.process.pid, signal.SIGCONT)


def test_publishing_shows_how_far_it_gets_and_names_exactly_those_that_stand_still(
    operator: Operator, fleet: dict[str, Program]
) -> None:
    with paused(fleet) as still:
        operator.publish(2.0, "--wait", "70%", "--timeout", "60s")
        late = json.loads(operator.publish(3.0, "--wait", "99%", "--timeout", "10s", "--json", code=6).stdout)
        (rollout,) = late["rollouts"]
        behind = json.loads(operator.run("clients", "--behind", "--json").stdout)["clients"]
        told = operator.run("rollout", "--wait", "99%", "--timeout", "1s", code=6)
    assert late["committed"], "what is published stays published"
    assert (rollout["reporting"], rollout["reached"]) == (200, 140)
    assert rollout["complete"] is False
    assert {each["name"] for each in rollout["laggards"]} == still
    assert len(rollout["laggards"]) == len(still) == 60
    assert rollout["more_laggards"] == 0
    assert 0 <= rollout["lag_seconds"]["p50"] <= rollout["lag_seconds"]["p99"] < 20
    assert {each["name"] for each in behind} == still
    assert "140 of 200 reporting clients (70 %)" in told.stdout
    assert all(name in told.stdout for name in still)
    assert f"60 of 200 clients of production have not reached revision {late['revision']}" in told.stderr

    done = json.loads(operator.run("rollout", "--wait", "100%", "--timeout", "60s", "--json").stdout)
    assert (done["reporting"], done["reached"], done["share"]) == (200, 200, 1.0)
    assert done["complete"] is True
    assert done["laggards"] == []
    clients = operator.clients()
    assert len(clients) == 200
    assert all(each["behind_by"] == 0 for each in clients)
