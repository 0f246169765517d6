"""PostgreSQL killed under load: nothing acknowledged is lost, nothing is missed, nothing comes twice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rheostat.errors import UnavailableError
from rheostat.model.change import Change, ChangeSet
from rheostat.store.base import Transaction
from rheostat.store.postgres import PostgresStore
from tests.postgres import Server
from tests.store.contract import put, replayed, setting, texts

KILLS = int(os.environ.get("RHEOSTAT_POSTGRES_KILLS", "5"))
WRITERS = 4
PATIENCE = 60.0


@pytest.fixture
def server() -> Iterator[Server]:
    # As it is installed: with fsync, full_page_writes and synchronous_commit.
    server = Server()
    yield server
    server.close()


class Progress:
    """What has happened so far; wakes those who wait for more."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.acknowledged: dict[str, int] = {}
        self.seen: list[tuple[int, str]] = []
        self.failures: list[BaseException] = []
        self.interruptions = 0
        self.done = threading.Event()
        self.written = threading.Event()

    def add(self, change: Callable[[], object]) -> None:
        with self._condition:
            change()
            self._condition.notify_all()

    def wait(self, reached: Callable[[], bool]) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: bool(self.failures) or reached(), PATIENCE)
        assert not self.failures, self.failures


def write_for_ever(store: PostgresStore, writer: int, progress: Progress) -> None:
    number = 0
    while not progress.done.is_set():
        number += 1
        request = f"w{writer}.{number}"
        found: list[ChangeSet] = []

        def write(
            transaction: Transaction, request: str = request, found: list[ChangeSet] = found
        ) -> ChangeSet | None:
            first = transaction.find_request("k", request)
            if first is not None:
                found.append(first)
                return None
            revision = transaction.revision + 1
            name = f"s{revision % 7}"
            item = setting(name, revision, "x" * (revision * 7919 % 3000), "str")
            return ChangeSet(
                "shop",
                (Change("shop", "production", "setting", name, None, item),),
                message=request,
                actor="k",
                request_id=request,
            )

        while True:
            found.clear()
            try:
                written = store.commit(write)
            except UnavailableError:
                # It may have been written: asked again under the same id, as the service's callers do.
                progress.add(lambda: setattr(progress, "interruptions", progress.interruptions + 1))
                if progress.done.wait(0.02):
                    break
                continue
            acknowledged = found[0] if written is None else written
            progress.add(
                lambda request=request, revision=acknowledged.revision: progress.acknowledged.update(
                    {request: revision}
                )
            )
            break


def follow(store: PostgresStore, progress: Progress) -> None:
    position = 0
    while not (progress.written.is_set() and position >= max(progress.acknowledged.values())):
        try:
            store.wait_hint(0.5)
            for change_set in store.read_since(position):
                position = change_set.revision
                progress.add(lambda found=change_set: progress.seen.append((found.revision, found.message)))
        except UnavailableError:
            time.sleep(0.02)  # the server is away; how long does not matter


def test_loses_nothing_when_the_server_is_killed_under_four_writers_and_a_watcher(server: Server) -> None:
    server.execute("CREATE DATABASE store")
    url = server.url("store")
    first = PostgresStore(url)
    identity = first.identity()
    first.close()
    progress = Progress()

    def guarded(run: Callable[..., None], *arguments: object) -> None:
        try:
            run(*arguments, progress)
        except BaseException as exc:
            progress.add(lambda exc=exc: progress.failures.append(exc))
            raise

    stores = [PostgresStore(url) for _ in range(WRITERS + 1)]
    writers = [
        threading.Thread(target=guarded, args=(write_for_ever, store, number))
        for number, store in enumerate(stores[:WRITERS])
    ]
    follower = threading.Thread(target=guarded, args=(follow, stores[WRITERS]))
    for thread in (*writers, follower):
        thread.start()
    try:
        for kill in range(KILLS):
            count = len(progress.acknowledged) + 5 + kill * 13 % 40
            progress.wait(lambda count=count: len(progress.acknowledged) >= count)
            server.kill()
            server.start()
        count = len(progress.acknowledged) + 20
        progress.wait(lambda: len(progress.acknowledged) >= count)
    finally:
        progress.done.set()
        for thread in writers:
            thread.join(PATIENCE)
        progress.written.set()
        follower.join(PATIENCE)
        for store in stores:
            store.close()
    assert not progress.failures
    assert progress.interruptions >= 1
    store = PostgresStore(url)
    contents = store.load()
    history: list[ChangeSet] = []
    while found := store.read_since(len(history)):
        history.extend(found)
    assert [change_set.revision for change_set in history] == list(range(1, contents.revision + 1))
    assert texts(contents) == replayed(history)[0]
    written = {change_set.message: change_set.revision for change_set in history}
    assert len(written) == len(history), "a request was written twice"
    assert progress.acknowledged.items() <= written.items()
    assert (
        progress.seen
        == [(change_set.revision, change_set.message) for change_set in history][: len(progress.seen)]
    )
    assert len(progress.seen) >= max(progress.acknowledged.values())
    # To crash and to recover is to lose nothing.
    assert contents.identity == identity
    assert put(store, "after").revision == contents.revision + 1
    store.close()


def test_goes_on_after_a_restart_as_if_nothing_had_been(server: Server) -> None:
    server.execute("CREATE DATABASE store")
    store = PostgresStore(server.url("store"))
    put(store, "a")
    store.wait_hint(0)
    server.stop()
    with pytest.raises(UnavailableError) as caught:
        store.revision()
    assert caught.value.reason == "STORE_AWAY"
    with pytest.raises(UnavailableError):
        put(store, "b")
    server.start()
    assert store.revision() == 1
    server.stop()
    server.start()
    # The idle connection is broken, and nobody has noticed yet.
    assert put(store, "b").revision == 2
    deadline = time.monotonic() + PATIENCE
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = 'store'"
    while server.execute(listening) != [(1,)]:
        assert time.monotonic() < deadline
    store.close()
