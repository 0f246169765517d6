"""Writers who wait for each other in PostgreSQL: locks, shared transactions, broken sessions, forks."""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.errors import StoreError, UnavailableError
from rheostat.model.change import ChangeSet
from rheostat.store import postgres as module
from rheostat.store.base import Record, Store, Transaction
from rheostat.store.postgres import PostgresStore
from tests.postgres import Template, execute
from tests.store.client_contract import LIFE, reported
from tests.store.contract import NOW, put

PATIENCE = 20.0
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "


@pytest.fixture
def url(postgres: Template) -> str:
    return postgres.store()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(url)
    yield store
    store.close()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold the writers' lock, as another process's writer does."""
    with psycopg.connect(url) as connection:
        connection.execute(module.WRITER_LOCK.encode())
        yield


def is_awaited(url: str) -> bool:
    return execute(url, f"{WAITING}(SELECT oid FROM pg_database WHERE datname = current_database())") >= [
        (1,)
    ]


class Sessions:
    """Counts the transactions that writers use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        original = module._Session.__init__

        def counted(session: module._Session, *arguments: object) -> None:
            self.begun += 1
            original(session, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(module._Session, "__init__", counted)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Sessions:
    return Sessions(monkeypatch)


def start_together(
    url: str, store: PostgresStore, works: list[Callable[[], object]], pool: ThreadPoolExecutor
) -> list[Future[object]]:
    """Start works in this order while another process has the lock, so that all but the first queue."""
    futures: list[Future[object]] = []
    with locked(url):
        for number, work in enumerate(works):
            futures.append(pool.submit(work))
            if number:
                eventually(lambda number=number: len(store._batches._queue) == number)
            else:
                eventually(lambda: is_awaited(url))
    return futures


def outcome(future: Future[object]) -> object:
    try:
        return future.result(PATIENCE)
    except Exception as exc:  # noqa: BLE001 - which one it is is what the test is about
        return type(exc)


def test_waits_for_another_process_and_gives_up_in_time(url: str) -> None:
    store = PostgresStore(url, timeout=0.1)
    with locked(url):
        for call in (lambda: put(store, "a"), lambda: store.put_record(Record("draft", "a", "{}"))):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert (caught.value.reason, caught.value.retry_after) == ("STORE_BUSY", 1.0)
        # Nobody else waits.
        assert store.revision() == 0
        store.put_clients([reported("a")])
    assert put(store, "a").revision == 1
    store.close()


def test_writers_who_share_a_transaction_that_breaks_all_fail_and_leave_nothing(
    url: str, store: PostgresStore
) -> None:
    def break_it(transaction: Transaction) -> ChangeSet:
        assert transaction.revision == 2
        execute(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return ChangeSet("shop", ())

    works: list[Callable[[], object]] = [
        lambda: put(store, "a").revision,
        lambda: put(store, "b").revision,
        lambda: store.commit(break_it),
        lambda: put(store, "c").revision,
    ]
    with ThreadPoolExecutor(len(works)) as pool:
        futures = start_together(url, store, works, pool)
        outcomes = [outcome(future) for future in futures]
    # It is noticed when all is sent, so that the last one shares it too.
    assert outcomes == [UnavailableError] * 4
    assert store.read_since(0) == ()
    assert put(store, "d").revision == 1


def test_only_the_commits_of_others_are_a_hint(url: str, store: PostgresStore) -> None:
    other = PostgresStore(url)
    listener, heard = store._listener, threading.Event()
    store.wait_hint(0)
    count = listener.start()
    own = listener._own

    def asked(session: int) -> bool:
        heard.set()
        return own(session)

    listener._own = asked
    put(store, "a")
    assert heard.wait(PATIENCE)
    put(other, "b")
    eventually(lambda: listener.start() != count)
    assert listener.start() == count + 1
    other.close()


def test_a_session_that_ends_in_a_write_is_no_harm(url: str, store: PostgresStore) -> None:
    put(store, "a")

    def write(transaction: Transaction) -> ChangeSet:
        execute(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return ChangeSet("shop", ())

    with pytest.raises(UnavailableError) as caught:
        store.commit(write)
    assert caught.value.reason == "STORE_AWAY"
    assert store.revision() == 1
    assert put(store, "b").revision == 2


def test_refuses_what_another_program_has_written_without_the_lock(url: str, store: PostgresStore) -> None:
    put(store, "a")
    execute(url, "UPDATE store SET revision = 0")
    with pytest.raises(StoreError, match="duplicate key"):
        put(store, "b")
    execute(url, "UPDATE store SET revision = 1")
    assert put(store, "b").revision == 2


def test_two_nodes_write_the_same_clients_at_once(url: str, store: PostgresStore) -> None:
    other = PostgresStore(url)
    ids = [f"c{number}" for number in range(200)]

    def report(node: Store, order: list[str], generation: int) -> None:
        for revision in range(5):
            node.put_clients([reported(key, revision, generation=generation) for key in order])
            node.end_clients(
                [("shop", "production", key) for key in order],
                "node-1",
                NOW + LIFE - datetime.timedelta(seconds=1),
            )

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(report, store, ids, 1)
        two = pool.submit(report, other, ids[::-1], 1)
        one.result(PATIENCE)
        two.result(PATIENCE)
    rows = store.clients("shop", "production", now=NOW)
    assert [row.id for row in rows] == sorted(ids)
    assert {row.revision for row in rows} == {4}
    other.close()


@settings(max_examples=10)
@given(keys=st.sets(st.text(alphabet="\x00\x01\x02aé\U0001f600", min_size=1, max_size=4), max_size=8))
def test_texts_with_characters_that_postgresql_lacks_keep_their_order(
    ordered: PostgresStore, keys: set[str]
) -> None:
    for found in ordered.records("k"):
        ordered.delete_record("k", found.key)
    for key in keys:
        ordered.put_record(Record("k", key, key))
    assert [(found.key, found.body) for found in ordered.records("k")] == [(k, k) for k in sorted(keys)]
    for prefix in keys:
        expected = sorted(key for key in keys if key.startswith(prefix))
        assert [found.key for found in ordered.records("k", prefix=prefix)] == expected


@pytest.fixture(scope="module")
def ordered(postgres: Template) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres.store())
    yield store
    store.close()


def forked(how: str, url: str) -> list[dict[str, object]]:
    script = Path(__file__).with_name("postgres_fork.py")
    run = subprocess.run(
        [sys.executable, "-W", "error", script, how, url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("how", ["hooks", "no-hooks"])
def test_parent_and_child_go_on_after_a_fork(url: str, how: str) -> None:
    assert forked(how, url) == [
        {"who": "child", "revision": 2, "hint": True},
        {"who": "parent", "child": 0, "revision": 3, "hint": True},
    ]


def test_a_fork_inside_a_write_does_not_harm_the_write(url: str) -> None:
    assert forked("in-a-write", url) == [{"child": "StoreError", "revision": 0}, {"revision": 2}]


def test_closing_lets_those_who_write_finish(url: str) -> None:
    store = PostgresStore(url)
    writing, closed = threading.Event(), threading.Event()

    def write(transaction: Transaction) -> ChangeSet:
        writing.set()
        assert closed.wait(PATIENCE)
        return ChangeSet("shop", ())

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(store.commit, write)
        assert writing.wait(PATIENCE)
        store.close()
        closed.set()
        written = future.result(PATIENCE)
    assert written is not None
    assert written.revision == 1
    eventually(
        lambda: (
            execute(
                url,
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            == [(0,)]
        )
    )
