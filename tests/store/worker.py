"""Processes that use a store, for the tests: one interpreter that forks a child for each job.

Forking is much faster than starting: a job begins in a few milliseconds. The worker itself opens no store.
Reads jobs and writes reports as JSON lines.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rheostat.errors import RheostatError
from rheostat.model.change import Change, ChangeSet
from rheostat.model.setting import Setting
from rheostat.model.subject import SubjectEvent, SubjectLimits, SubjectReference, Track
from rheostat.model.type import parse_type
from rheostat.store.base import Transaction
from rheostat.store.sqlite import SqliteStore

__all__ = ["BATCH", "RECORDED_AT", "Worker", "content", "events"]

BATCH = 20
"""Events that are recorded at once."""

RECORDED_AT = datetime.datetime(2026, 3, 1, 12, 30, tzinfo=datetime.UTC)


class Worker:
    """The test's end: starts jobs, reads their reports."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def start(self, job: str, **arguments: object) -> int:
        """Start *job* in a process of its own and return its id."""
        self._send({"job": job, **arguments})
        while "started" not in (report := self.report()):
            pass
        started: int = report["started"]
        return started

    def reap(self, pid: int) -> tuple[int, list[dict[str, Any]]]:
        """Wait for the end of a job; return its exit status and the reports that were not read yet."""
        self._send({"reap": pid})
        reports = []
        while "status" not in (report := self.report()):
            reports.append(report)
        return report["status"], reports

    def report(self) -> dict[str, Any]:
        """Return the next report of any job."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the worker has ended")
        decoded: dict[str, Any] = json.loads(line)
        return decoded

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()


def content(revision: int) -> str:
    """The text that a worker writes in *revision*: from a few bytes to several pages."""
    return f"r{revision}." + "x" * (revision * 7919 % 9000)


def events(number: int) -> list[SubjectEvent]:
    """What a program records in one go: each for a user and for one company."""
    company = SubjectReference("company", {"id": "c1"})
    return [
        SubjectEvent(
            f"key-{event}",
            RECORDED_AT,
            (SubjectReference("user", {"id": f"u{event % 7}"}), company),
            Track("login"),
        )
        for event in range(number * BATCH, (number + 1) * BATCH)
    ]


def _write(transaction: Transaction) -> ChangeSet:
    revision = transaction.revision + 1
    name = f"s{revision % 7}"
    item = Setting(id=name, name=name, type=parse_type("str"), default=content(revision), revision=revision)
    return ChangeSet(
        "shop", (Change("shop", "production", "setting", name, None, item),), message=content(revision)
    )


def _report(**report: object) -> None:
    # One write of less than a pipe's buffer is never mixed with another process's.
    os.write(1, json.dumps(report).encode() + b"\n")


def _commit_for_ever(path: str, interval: int, die_before_statement: int = 0) -> None:
    _die_before(die_before_statement)
    store = SqliteStore(path, checkpoint_interval=interval)
    while True:
        written = store.commit(_write)
        assert written is not None
        _report(acknowledged=written.revision)


def _record_for_ever(path: str, number: int, die_before_statement: int = 0) -> None:
    _die_before(die_before_statement)
    store = SqliteStore(path)
    while True:
        taken = store.record_events(
            "shop",
            "production",
            events(number),
            actor="k1",
            now=RECORDED_AT,
            limits=SubjectLimits(),
            draw_id=lambda: os.urandom(16),
        )
        assert not any(taken)
        _report(acknowledged=number)
        number += 1


def _die_before(statement: int) -> None:
    """Let this process be killed before it executes so many statements."""
    statements = 0

    def trace(_: str) -> None:
        nonlocal statements
        statements += 1
        if statements == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(trace)
        return connection

    if statement:
        sqlite3.connect = traced  # type: ignore[assignment]


def _commit_some(path: str, count: int, interval: int) -> None:
    store = SqliteStore(path, checkpoint_interval=interval, timeout=30)
    revisions = []
    for _ in range(count):
        written = store.commit(_write)
        assert written is not None
        revisions.append(written.revision)
    store.close()
    _report(pid=os.getpid(), revisions=revisions)


def _follow(path: str, until: int) -> None:
    store = SqliteStore(path)
    seen = 0
    _report(following=True)
    while seen < until:
        if store.wait_hint(10):
            for change_set in store.read_since(seen):
                seen = change_set.revision
                _report(seen=seen, message=change_set.message)
    store.close()


def _fill_the_disk(path: str) -> None:
    store = SqliteStore(path, checkpoint_interval=4)
    store.commit(_write)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = max(Path(f"{path}{suffix}").stat().st_size for suffix in ("", "-wal", "-shm"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (full + 20_000, unlimited[1]))
    acknowledged = 1
    errors: list[tuple[str, str]] = []
    while len(errors) < 3:
        try:
            written = store.commit(_write)
        except RheostatError as exc:
            errors.append((type(exc).__name__, exc.message))
        else:
            assert written is not None
            acknowledged = written.revision
            assert acknowledged < 1000
    read = store.load()
    in_history = [change_set.revision for change_set in store.read_since(0)]
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    written = store.commit(_write)
    assert written is not None
    store.close()
    _report(
        acknowledged=acknowledged,
        errors=errors,
        loaded=read.revision,
        history=in_history,
        after=written.revision,
    )


def _fork_with_an_open_store(path: str) -> None:
    store = SqliteStore(path)
    store.commit(_write)
    store.wait_hint(0)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.commit(_write)
            seen = store.wait_hint(0)
            _report(who="child", revision=store.revision(), hint=seen)
            store.close()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    seen = store.wait_hint(5)
    store.commit(_write)
    _report(who="parent", child=status, revision=store.revision(), hint=seen)
    store.close()


def _fork_without_hooks(path: str) -> None:
    import ctypes

    store = SqliteStore(path)
    store.commit(_write)
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        try:
            store.commit(_write)
            _report(child="committed")
        except RheostatError as exc:
            _report(child=type(exc).__name__, message=exc.message)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    store.commit(_write)
    _report(revision=store.revision())
    store.close()


def _fork_in_a_write(path: str) -> None:
    store = SqliteStore(path)

    def write(transaction: Transaction) -> ChangeSet:
        pid = os.fork()
        if pid == 0:
            try:
                store.revision()
                _report(child="read")
            except RheostatError as exc:
                _report(child=type(exc).__name__)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        return _write(transaction)

    store.commit(write)
    store.commit(_write)
    _report(revision=store.revision())
    store.close()


JOBS: dict[str, Callable[..., None]] = {
    "commit_for_ever": _commit_for_ever,
    "commit_some": _commit_some,
    "follow": _follow,
    "fill_the_disk": _fill_the_disk,
    "fork_with_an_open_store": _fork_with_an_open_store,
    "fork_without_hooks": _fork_without_hooks,
    "fork_in_a_write": _fork_in_a_write,
    "record_for_ever": _record_for_ever,
}


def spin(seconds: float) -> None:
    """Let so much time pass without giving up the processor."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def main() -> None:
    """Run jobs until the input ends."""
    children: set[int] = set()
    for line in sys.stdin:
        message = json.loads(line)
        if "reap" in message:
            _, status = os.waitpid(message["reap"], 0)
            children.discard(message["reap"])
            _report(status=os.waitstatus_to_exitcode(status))
            continue
        job = JOBS[message.pop("job")]
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                job(**message)
                status = 0
            except Exception as exc:  # noqa: BLE001 - reported to the test
                _report(failed=f"{type(exc).__name__}: {exc}")
            finally:
                os._exit(status)
        children.add(pid)
        _report(started=pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
