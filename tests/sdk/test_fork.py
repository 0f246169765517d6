"""Clients in forked processes: real programs, real servers."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rheostat.model import change as model
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store
from tests.e2e.process import PATIENCE, Program, ServerProgram, wait_until
from tests.e2e.writing import SETTING, commit_by, make_setting, set_value

LAST = -1
VALUES = (1, 2, 3, LAST)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """A server whose watchers can be counted."""
    store = tmp_path_factory.mktemp("forked") / "store.db"
    with ServerProgram("uvicorn", f"sqlite:{store}", heartbeat="0.5") as server:
        make_setting(server.url)
        yield server


@pytest.fixture
def server(served: ServerProgram) -> ServerProgram:
    set_value(served.url, 0)
    wait_until(lambda: served.watchers == 0)
    return served


@pytest.fixture
def run(server: ServerProgram) -> Iterator[Callable[[str], Program]]:
    """Start a scenario of `tests.sdk.programs.forked`; warnings of what nobody closed are errors in it."""
    with contextlib.ExitStack() as stack:

        def run_one(scenario: str) -> Program:
            # The storm is about speed.
            mode = [] if scenario == "storm" else ["-X", "dev"]
            command = [sys.executable, *mode, "-m", "tests.sdk.programs.forked", scenario, server.url]
            return stack.enter_context(Program(command))

        yield run_one


class Told:
    """What the processes of a program have said so far."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.lines: list[str] = []

    def until(self, *patterns: str) -> list[re.Match[str]]:
        """Read until each pattern was in some line, in whatever order; returns the first matches."""
        while True:
            found = [self.first(pattern) for pattern in patterns]
            if all(found):
                return [match for match in found if match is not None]
            self.lines.append(self.program.line()[1])

    def first(self, pattern: str) -> re.Match[str] | None:
        return next((match for line in self.lines if (match := re.search(pattern, line))), None)

    def rest(self) -> None:
        """Read to the end, which has to be a good one, and soon."""
        assert self.program.wait() == 0, self.program.rest()
        self.lines.extend(self.program.rest())
        strange = [line for line in self.lines if re.search(r"Traceback|Error|Warning|^log ", line)]
        assert not strange, "\n".join(self.lines)


def values_reach(server: ServerProgram, told: Told, *who: str) -> None:
    """Write values, each of which every process of the program has to see before the next is written."""
    told.until(*(f"^{each} follows" for each in who))
    for value in VALUES:
        set_value(server.url, value)
        told.until(*(f"^{each} value {value} read {value}$" for each in who))
    for each in who:
        seen = [line.split()[2] for line in told.lines if line.startswith(f"{each} value")]
        # One that had not begun to watch may be told of the value that it missed.
        assert [value for value in seen if value != "0"] == [str(value) for value in VALUES]


def ends_soon(told: Told, who: str = "child") -> None:
    """The child's interpreter ended within a second of its last statement, and well."""
    ended, left = told.until(rf"^{who} ends (\S+)", rf"^{who} exit 0 (\S+)")
    # Under development mode, on a machine that is busy.
    assert float(left[1]) - float(ended[1]) < 3


def parent_is_undisturbed(told: Told) -> None:
    assert told.first(r"^parent streams 1 statuses \['live'\] errors \[\]$"), "\n".join(told.lines)


PLAIN = (
    "plain",
    "given_id",
    "given_pool",
    "pool_factory",
    "multiprocess",
    "asynchronous",
    "asynchronous_thread",
)


@pytest.mark.parametrize("scenario", [*PLAIN, "gevent_early", "gevent_late"])
def test_values_keep_arriving_in_a_forked_child_and_its_parent_is_undisturbed(
    server: ServerProgram, run: Callable[[str], Program], scenario: str
) -> None:
    told = Told(run(scenario))
    told.until("^parent follows", "^child follows")
    wait_until(lambda: server.watchers == 2)
    values_reach(server, told, "parent", "child")
    if scenario == "multiprocess":
        told.until("^child exit 0")
    else:
        ends_soon(told)
    if scenario == "gevent_late":
        # It warns of modules that were imported before it patched them.
        told.program.wait()
        told.lines = [*told.lines, *told.program.rest()]
    else:
        told.rest()
    parent_is_undisturbed(told)
    # Neither process took up what the other had: one snapshot, and a child that went on from the parent's position.
    parent, child = told.until(r"^parent follows (\d+) (\S+)", r"^child follows (\d+) (\S+)")
    modes = {
        pid: [line.split()[2] for line in told.lines if line.startswith(f"stream {pid} ")]
        for pid in (parent[1], child[1])
    }
    assert modes == {parent[1]: ["1"], child[1]: ["3"]}, "a snapshot, and up to date"
    if scenario == "given_id":
        assert parent[2] == child[2] == "checkout-7"
    else:
        assert parent[2] != child[2]
    if scenario == "given_pool":
        assert told.first("^child pool True True 3 True$"), "another pool of the same options"
    if scenario == "pool_factory":
        made = [line.split()[1] for line in told.lines if line.startswith("factory")]
        assert made == [parent[1], child[1]]


def test_a_client_that_had_not_started_starts_in_each_process(
    server: ServerProgram, run: Callable[[str], Program]
) -> None:
    told = Told(run("unstarted"))
    told.until("^parent value 0", "^child value 0")
    values_reach(server, told, "parent", "child")
    ends_soon(told)
    told.rest()
    parent_is_undisturbed(told)
    parent, child = told.until(r"^parent follows \d+ (\S+)", r"^child follows \d+ (\S+)")
    assert parent[1] != child[1], "each process has a client.id of its own"


def test_a_child_uses_the_pool_that_it_has_made_itself(
    server: ServerProgram, run: Callable[[str], Program]
) -> None:
    told = Told(run("own_pool_of_child"))
    values_reach(server, told, "child")
    ends_soon(told)
    told.rest()
    assert told.first("^child pool True$")


def test_a_closed_client_stays_closed_in_a_child(run: Callable[[str], Program]) -> None:
    told = Told(run("closed"))
    ends_soon(told)
    told.rest()
    assert told.first("^child reads True closed 1$"), "it reads the last state, and has no thread"


def test_values_reach_the_child_of_a_child(server: ServerProgram, run: Callable[[str], Program]) -> None:
    told = Told(run("twice"))
    values_reach(server, told, "parent", "child", "grandchild")
    ends_soon(told, "grandchild")
    ends_soon(told)
    told.rest()


def test_values_reach_a_spawned_process(server: ServerProgram, run: Callable[[str], Program]) -> None:
    told = Told(run("spawn"))
    values_reach(server, told, "parent", "child")
    told.until("^child exit 0")
    told.rest()


def test_an_async_child_without_a_session_of_its_own_serves_the_last_state_and_says_so_once(
    run: Callable[[str], Program],
) -> None:
    told = Told(run("asynchronous_pool"))
    told.until("^child exit 0")
    assert told.program.wait() == 0
    told.lines += told.program.rest()
    assert [line for line in told.lines if line.startswith("child reads")] == ["child reads 0"] * 3
    assert told.first("^child start FailedPreconditionError$")
    warnings = [line for line in told.lines if line.startswith("log")]
    assert len(warnings) == 1 and "http_client_factory" in warnings[0]


def test_workers_that_replace_dead_ones_see_every_value(
    server: ServerProgram, run: Callable[[str], Program]
) -> None:
    program = run("prefork")
    with Service(open_store(server.store)) as service:
        value = 0

        def ended() -> bool:
            nonlocal value
            value += 1
            commit_by(service, value)
            return program.process.poll() is not None

        wait_until(ended, 60)
    told = Told(program)
    told.rest()
    assert len([line for line in told.lines if re.search(r"^worker \d+ done", line)]) == 12
    assert [line.split()[2] for line in told.lines if line.startswith("exit")] == ["0"] * 12
    ids = {line.split()[2] for line in told.lines if re.search(r"^worker \d+ \S+-\S+", line)}
    assert len(ids) == 12, "each worker has a client.id of its own"
    parent_is_undisturbed(told)


def test_no_child_of_fifty_meets_a_held_lock_or_half_a_change(
    server: ServerProgram, run: Callable[[str], Program]
) -> None:
    program = run("storm")
    told = Told(program)
    told.until("^stream")
    with Service(open_store(server.store)) as service:
        value = 0

        def ended() -> bool:
            # About a hundred changes a second.
            nonlocal value
            value += 1
            commit_by(service, value)
            return program.process.poll() is not None

        wait_until(ended, 200)
    told.rest()
    assert [line.split()[1] for line in told.lines if line.startswith("exit")] == ["0"] * 50
    parent_is_undisturbed(told)


def test_callbacks_that_were_waiting_at_the_fork_are_called_once_in_each_process(
    server: ServerProgram, run: Callable[[str], Program]
) -> None:
    told = Told(run("queued"))
    told.until("^ready")
    set_value(server.url, 1)
    told.until("^entered")
    set_value(server.url, 2)
    told.until("^child told 2", "^parent told 2")
    set_value(server.url, LAST)
    told.rest()
    for who in ("parent", "child"):
        seen = [line.split()[2] for line in told.lines if line.startswith(f"{who} told")]
        assert seen == ["1", "2", str(LAST)]


def test_a_view_frozen_by_a_thread_of_the_parent_is_not_frozen_in_the_child(
    server: ServerProgram, run: Callable[[str], Program]
) -> None:
    told = Told(run("frozen"))
    told.until("^parent frozen 0")
    for value in VALUES:
        set_value(server.url, value)
        told.until(f"^child value {value} read {value}$")
    told.rest()
    assert told.first(r"^child rest \[\]$"), "changes end with the child's client"
    assert told.first(f"^parent thawed {LAST}$")


@pytest.mark.parametrize("scenario", ["tls", "asynchronous_tls"])
def test_the_end_of_a_child_says_no_goodbye_on_the_tls_connection_of_its_parent(
    tmp_path: Path, scenario: str
) -> None:
    key, certificate, store = (
        tmp_path / "key.pem",
        tmp_path / "certificate.pem",
        f"sqlite:{tmp_path}/store.db",
    )
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-keyout", key, "-out", certificate),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    served = [
        *(sys.executable, "-m", "uvicorn", "tests.e2e.app:asgi", "--host", "127.0.0.1", "--port", "0"),
        *("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate)),
    ]
    settings = {"RHEOSTAT_TEST_STORE": store, "RHEOSTAT_TEST_HEARTBEAT": "0.5"}
    with Program(served, settings) as server, Service(open_store(store)) as service:
        url = server.line_like(r"https://127\.0\.0\.1:\d+")[0]
        setting = model.PutSetting(SETTING, {"type": "int", "default": 0})
        service.commit(Writer(OPEN), "default", "production", [setting])
        command = [sys.executable, "-X", "dev", "-m", "tests.sdk.programs.forked", scenario, url]
        with Program(command, {"RHEOSTAT_TEST_CA": str(certificate)}) as program:
            told = Told(program)
            told.until("^parent follows", "^child follows")
            for value in VALUES:
                commit_by(service, value)
                told.until(f"^parent value {value} ", f"^child value {value} ")
            ends_soon(told)
            told.rest()
            parent_is_undisturbed(told)


WORKERS = ("sync", "gthread", "gevent")


class Site(Program):
    """The web application on gunicorn, with two workers."""

    def __init__(self, server: ServerProgram, kind: str, *, preload: bool, started: bool) -> None:
        options = ["--preload"] if preload else []
        if kind == "gthread":
            options += ["--threads", "4"]
        super().__init__(
            [
                *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "2"),
                *("--worker-class", kind, "--graceful-timeout", "2", *options),
                "tests.sdk.programs.web:application",
            ],
            {"RHEOSTAT_URL": server.url, "RHEOSTAT_TEST_START": str(int(started))},
        )
        try:
            self.port = int(self.line_like(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        except BaseException:
            self.kill()
            raise

    def ask(self) -> tuple[str, ...]:
        """Ask one of the workers for its process, client id, value, status, and the values that it was told of."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            return tuple(connection.getresponse().read().decode().split())
        finally:
            connection.close()

    def until_both_read(self, value: int) -> dict[str, tuple[str, ...]]:
        """Ask until two workers read *value* and, but for 0, were told of it; returns their answers by process."""
        found: dict[str, tuple[str, ...]] = {}

        def both() -> bool:
            answer = self.ask()
            if answer[2] == str(value) and (not value or answer[4].endswith(f"{value}]")):
                found[answer[0]] = answer
            return len(found) == 2

        wait_until(both)
        return found


@pytest.mark.parametrize("kind", WORKERS)
@pytest.mark.parametrize(
    ("preload", "started"),
    [(False, True), (True, False), (True, True)],
    ids=["plain", "preload", "preload-started"],
)
def test_values_keep_arriving_in_the_workers_of_gunicorn(
    server: ServerProgram, kind: str, *, preload: bool, started: bool
) -> None:
    with Site(server, kind, preload=preload, started=started) as site:
        first = site.until_both_read(0)
        assert len({answer[1] for answer in first.values()}) == 2, "each worker has a client.id of its own"
        parent = preload and started
        wait_until(lambda: server.watchers == 2 + parent)
        for value in (1, 2, 3):
            set_value(server.url, value)
            answers = site.until_both_read(value)
            assert answers.keys() == first.keys(), "the same workers"
        for process, answer in answers.items():
            assert answer[1] == first[process][1]
            assert answer[3] == "live"
            assert answer[4].endswith("1,2,3]"), "each change once, in order"
        # The parent's stream is still there.
        assert server.watchers == 2 + parent
        site.terminate()
        assert site.wait() == 0
        printed = "\n".join([*site.output, *site.rest()])
        assert "Traceback" not in printed and "has ended" not in printed, printed
    wait_until(lambda: server.watchers == 0)
